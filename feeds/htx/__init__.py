"""Translate HTX's spot, linear and inverse streams."""

from .adapter import Htx, adapter

__all__ = ["Htx", "adapter"]
