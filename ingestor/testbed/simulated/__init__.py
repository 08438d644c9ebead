"""Simulate a venue with its markets, streams and faults."""
