"""Simulate venues, serve recordings as venues, and run a development broker."""
