"""Fetch REST answers and instrument lists from venues within their limits."""
