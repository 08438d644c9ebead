"""Describe, one module a venue, how the emulator speaks as that venue."""
