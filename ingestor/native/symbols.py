"""The hash table of symbols that C looks into."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Final

import numpy as np

from ingestor.native.layouts import SYMBOL, CShapes, address

_SLOTS_MIN: Final = 64

Entry = tuple[bytes, int, tuple[int, int]]  # text, number, exponents of price and size


class SymbolTable:
    """Texts and what they stand for, by open addressing.

    slots: SYMBOL[n]; names: uint8, the texts one after the other.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._hash = library.native_hash
        self.set(())

    def set(self, entries: Iterable[Entry]) -> None:
        """Hold these entries, and no others."""
        known = list(entries)
        slots = _SLOTS_MIN
        while slots < 2 * len(known) + 2:
            slots *= 2
        self.slots = np.zeros(slots, SYMBOL)
        texts = bytearray(b"\0")
        for text, number, exponents in known:
            hashed = self._hash(text, len(text))
            slot = hashed & (slots - 1)
            while self.slots[slot]["length"]:
                slot = (slot + 1) & (slots - 1)
            self.slots[slot] = (hashed, len(texts), len(text), number, exponents, (0, 0))
            texts += text
        self.names = np.frombuffer(bytes(texts), np.uint8)

    def show(self, shapes: CShapes) -> None:
        """Let C see the table. It must be shown again once it was set."""
        shapes.symbols, shapes.symbols_mask = address(self.slots), len(self.slots) - 1
        shapes.names = address(self.names)
