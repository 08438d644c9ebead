"""Recordings through the live path again."""
