"""Translate Upbit's streams, and those of a venue that speaks as it does."""

from .adapter import Upbit, adapter

__all__ = ["Upbit", "adapter"]
