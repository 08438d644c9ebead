"""Translate MEXC's spot (protobuf) and futures (JSON) streams."""

from .adapter import Mexc, adapter

__all__ = ["Mexc", "adapter"]
