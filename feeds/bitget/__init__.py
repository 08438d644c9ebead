"""Translate Bitget's spot and futures streams."""

from .adapter import Bitget, adapter

__all__ = ["Bitget", "adapter"]
