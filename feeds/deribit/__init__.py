"""Translate Deribit's streams, and those of venues that speak as it does."""

from .adapter import Deribit, adapter

__all__ = ["Deribit", "adapter"]
