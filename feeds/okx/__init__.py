"""Translate OKX streams."""

from .adapter import Okx, adapter

__all__ = ["Okx", "adapter"]
