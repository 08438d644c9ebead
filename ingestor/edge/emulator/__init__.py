"""Recordings played as the exchanges themselves."""
