"""Serve a recording as the exchange that it was recorded from."""
