"""Translate KuCoin's spot and futures streams."""

from .adapter import Kucoin, adapter

__all__ = ["Kucoin", "adapter"]
