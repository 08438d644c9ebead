"""Translate Kraken's spot streams."""

from .adapter import Kraken, adapter, book_checksum

__all__ = ["Kraken", "adapter", "book_checksum"]
