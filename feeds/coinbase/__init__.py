"""Translate Coinbase spot streams."""

from .adapter import Coinbase, adapter

__all__ = ["Coinbase", "adapter"]
