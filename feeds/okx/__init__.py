"""Translate OKX v5 spot, swap and futures streams."""

from .adapter import Okx, adapter

__all__ = ["Okx", "adapter"]
