"""Translate Bybit v5 spot and derivatives streams."""

from .adapter import Bybit, adapter

__all__ = ["Bybit", "adapter"]
