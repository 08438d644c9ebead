"""Translate Crypto.com's spot and derivatives streams."""

from .adapter import CryptoCom, adapter

__all__ = ["CryptoCom", "adapter"]
