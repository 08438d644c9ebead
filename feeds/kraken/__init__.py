"""Translate Kraken spot streams."""

from .adapter import BOOK_DEPTH, Kraken, adapter, book_checksum, level_digits

__all__ = ["BOOK_DEPTH", "Kraken", "adapter", "book_checksum", "level_digits"]
