"""Measure one aspect of the program each."""
