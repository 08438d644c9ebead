"""Translate Binance spot and futures streams."""

from .adapter import Binance, adapter

__all__ = ["Binance", "adapter"]
