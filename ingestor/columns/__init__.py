"""Collect decoded fields by column and seal them into exact numpy rows."""
