"""Connections to venues: opened, kept alive, watched, repaired."""
