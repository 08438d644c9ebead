"""Translate Binance spot and futures streams."""

from feeds.binance.adapter import Binance, adapter

__all__ = ["Binance", "adapter"]
