"""Collects keys whose values changed, for a writer that takes them at its own speed."""

from __future__ import annotations

from collections.abc import Iterable


class Changes:
    """Keys that are due, in the order in which they changed first; bounded by how many there are.

    replaced: changes of keys that were due already, so that only the last one is written.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self.replaced = 0
        self._keys: dict[str, None] = dict.fromkeys(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str) -> None:
        """Note a change."""
        if key in self._keys:
            self.replaced += 1
        else:
            self._keys[key] = None

    def take(self, most: int) -> list[str]:
        """Remove and return the keys that have waited longest."""
        found = [key for key, _ in zip(self._keys, range(most), strict=False)]
        for key in found:
            del self._keys[key]
        return found
