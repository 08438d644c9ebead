"""Translate Gate's spot, linear and inverse streams."""

from .adapter import Gate, adapter

__all__ = ["Gate", "adapter"]
