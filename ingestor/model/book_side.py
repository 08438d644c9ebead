"""One side of an order book: sizes by price, the best of them at hand.

A level is addressed by its *key*: the price for bids, minus the price for asks, so that on both
sides the best level has the greatest key and one piece of code serves both.

Nearly every question is about the best few levels. So the levels at and above a boundary, 16 to
192 of them, are in a dict, `top_levels`, small enough to be searched for its maximum when the best
level goes. Deeper levels are two sorted arrays, 16 bytes a level where a dict of integers takes
100, and a dict of what changed since these were made. Nothing is kept sorted level by level.
Measured on the deltas of benchmarks/cases/books.py: 140 ns a level against 220 ns with the best
keys in a sorted list beside a dict of all, which in turn was faster than all keys sorted. A book of
1,000 levels a side takes 130 KiB at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

TOP_LEVELS: Final = 64  # levels in `top_levels` after it was made anew
TOP_LEVELS_MIN: Final = 16
TOP_LEVELS_MAX: Final = 192
WHOLE_MAX: Final = 1_024  # a side with a limit up to this is all in `top_levels`
CHANGES_MIN: Final = 320  # deep levels that change before the arrays are made anew; a quarter of
NOTHING: Final = -(2**64)  # the arrays where that is more. NOTHING is a key below every other.

Array = NDArray[np.int64]
_EMPTY: Final[Array] = np.empty(0, np.int64)


class BookSide:
    """One side.

    `best`: its greatest key, NOTHING when empty. `top_levels`: {key: size}, the best levels.

    is_over: it holds more levels than its limit, and `cut` is due. (A limit beyond WHOLE_MAX may be
    exceeded by as many levels as change between two lookings.)
    """

    __slots__ = (
        "_boundary",
        "_changes",
        "_changes_max",
        "_deep_keys",
        "_deep_sizes",
        "_is_whole",
        "_limit",
        "_top_max",
        "_top_min",
        "best",
        "is_over",
        "top_levels",
        "trimmed",
    )
    best: int

    def __init__(self, limit: int = 2**63) -> None:
        """limit: levels that it should hold."""
        self._limit = limit
        self._is_whole = limit <= WHOLE_MAX
        self._top_max = limit if self._is_whole else TOP_LEVELS_MAX
        self.replace((), ())

    def __len__(self) -> int:
        self._merge()
        return len(self.top_levels) + len(self._deep_keys)

    def apply(self, levels: Iterable[tuple[int, int]], top: int) -> None:
        """Set levels (key, size) one after the other; size 0 removes one that may exist or not.

        top: the greatest key of them.
        """
        top_levels, changes, boundary = self.top_levels, self._changes, self._boundary
        for key, size in levels:
            if key < boundary:
                changes[key] = size
            elif size:
                top_levels[key] = size
            elif key in top_levels:
                del top_levels[key]
        if top >= self.best:
            self.best = top if top in top_levels else max(top_levels, default=NOTHING)
        if (
            not self._top_min <= len(top_levels) <= self._top_max
            or len(changes) > self._changes_max
        ):
            self._balance()

    def replace(self, keys: Sequence[int], sizes: Sequence[int]) -> None:
        """Forget everything, then set these levels."""
        levels = {key: size for key, size in zip(keys, sizes, strict=True) if size}
        self.trimmed = False  # cut for want of room: the venue's book is deeper
        self.is_over = len(levels) > self._limit
        self._deep_keys = self._deep_sizes = _EMPTY
        self._changes: dict[int, int] = {}
        self._changes_max = CHANGES_MIN
        if len(levels) <= self._top_max or self._is_whole:
            self.top_levels = levels
            self.best = max(levels, default=NOTHING)
            self._set_boundary(NOTHING)
        else:
            self.top_levels = {}
            self._deep_keys, self._deep_sizes = _arrays(levels)
            self._refill()

    def levels(self) -> tuple[Array, Array]:
        """Return all keys in ascending order, and their sizes."""
        keys, sizes = self.arrays(len(self))
        return keys[::-1], sizes[::-1]

    def load(self, keys: Array, sizes: Array) -> None:
        """Forget everything, then hold these levels: keys in ascending order, no size of 0."""
        self.trimmed = False
        self.is_over = len(keys) > self._limit
        self._changes = {}
        self._deep_keys = self._deep_sizes = _EMPTY
        if len(keys) <= self._top_max or self._is_whole:
            self._changes_max = CHANGES_MIN
            self.top_levels = dict(zip(keys.tolist(), sizes.tolist(), strict=True))
            self.best = int(keys[-1]) if len(keys) else NOTHING
            self._set_boundary(NOTHING)
        else:
            self._changes_max = max(CHANGES_MIN, len(keys) // 4)
            self.top_levels = {}
            self._deep_keys, self._deep_sizes = keys.copy(), sizes.copy()
            self._refill()

    def clear(self) -> None:
        self.replace((), ())

    def cut(self) -> list[int]:
        """Remove the levels beyond the limit, the worst ones; return their keys."""
        self.is_over = False
        excess = len(self) - self._limit
        if excess <= 0:
            return []
        if not len(self._deep_keys):
            removed = sorted(self.top_levels)[:excess]
            for key in removed:
                del self.top_levels[key]
        else:
            removed = self._deep_keys[:excess].tolist()
            self._deep_keys = self._deep_keys[excess:].copy()
            self._deep_sizes = self._deep_sizes[excess:].copy()
        return removed

    def is_short(self) -> bool:
        """Return True if the side was cut and has lost half of its levels since.

        Deeper levels are missing soon.

        (Changes of deep levels count when they are merged.)
        """
        return self.trimmed and 2 * (len(self.top_levels) + len(self._deep_keys)) < self._limit

    def first(self) -> tuple[int, int]:
        """Return (key, size) of the best level; (0, 0) when the side is empty."""
        return (self.best, self.top_levels[self.best]) if self.top_levels else (0, 0)

    def top(self, depth: int) -> list[tuple[int, int]]:
        """Return [(key, size), ...] of the best `depth` levels, best first.

        Fast up to TOP_LEVELS_MIN.
        """
        if depth > len(self.top_levels) and self._boundary != NOTHING:
            keys, sizes = self.arrays(depth)
            return list(zip(keys.tolist(), sizes.tolist(), strict=True))
        return sorted(self.top_levels.items(), reverse=True)[:depth]

    def arrays(self, depth: int) -> tuple[Array, Array]:
        """Return keys and sizes of the best `depth` levels, best first: int64 arrays."""
        keys, sizes = _arrays(self.top_levels)
        if depth > len(keys) and self._boundary != NOTHING:
            self._merge()
            keys = np.concatenate([self._deep_keys, keys])
            sizes = np.concatenate([self._deep_sizes, sizes])
        return keys[: -depth - 1 : -1], sizes[: -depth - 1 : -1]

    def _balance(self) -> None:
        """Something is too long or too short: restore it. Runs once in some hundred changes."""
        top_levels = self.top_levels
        if len(top_levels) > self._top_max:
            if self._is_whole:
                self.is_over = True
                return
            keys = sorted(top_levels)
            for key in keys[:-TOP_LEVELS]:
                self._changes[key] = top_levels.pop(key)
            self._set_boundary(keys[-TOP_LEVELS])
            self.top_levels = dict(top_levels)  # a dict that shrinks keeps its size
        elif len(top_levels) < self._top_min:
            self._refill()
        if len(self._changes) > self._changes_max:
            self._merge()
            self.is_over = len(top_levels) + len(self._deep_keys) > self._limit

    def _refill(self) -> None:
        """Take the best of the deep levels into `top_levels`."""
        self._merge()
        count = TOP_LEVELS - len(self.top_levels)
        keys, sizes = self._deep_keys[-count:].tolist(), self._deep_sizes[-count:].tolist()
        self.top_levels.update(zip(keys, sizes, strict=True))
        self._deep_keys = self._deep_keys[:-count].copy()
        self._deep_sizes = self._deep_sizes[:-count].copy()
        self._set_boundary(keys[0] if len(self._deep_keys) else NOTHING)
        self.best = max(self.top_levels, default=NOTHING)

    def _set_boundary(self, boundary: int) -> None:
        """Let `top_levels` hold the levels at and above the boundary, the arrays the others."""
        self._boundary = boundary
        self._top_min = 0 if boundary == NOTHING else TOP_LEVELS_MIN

    def _merge(self) -> None:
        """Bring the changes of deep levels into the arrays."""
        if not self._changes:
            return
        keys, sizes = _arrays(self._changes)
        if len(self._deep_keys):
            at = self._deep_keys.searchsorted(keys)
            known = self._deep_keys.take(at, mode="clip") == keys
            stays = np.ones(len(self._deep_keys), np.bool_)
            stays[at[known]] = False
            keys = np.concatenate([self._deep_keys[stays], keys])
            sizes = np.concatenate([self._deep_sizes[stays], sizes])
        keys, sizes = keys[sizes != 0], sizes[sizes != 0]
        order = keys.argsort(kind="stable")
        self._deep_keys, self._deep_sizes = keys[order], sizes[order]
        self._changes = {}
        self._changes_max = max(CHANGES_MIN, len(keys) // 4)


def _arrays(levels: dict[int, int]) -> tuple[Array, Array]:
    """Return keys, ascending, and their sizes."""
    keys = np.fromiter(levels, np.int64, len(levels))
    sizes = np.fromiter(levels.values(), np.int64, len(levels))
    order = keys.argsort()
    return keys[order], sizes[order]


class ChecksumBookSide(BookSide):
    """A side of few levels that knows the checksum text of the best of them.

    A level's text is made once and kept until the level changes, in the order of the levels until
    one is added.
    """

    __slots__ = ("_depth", "_is_sorted", "_sign", "_text_of", "_texts", "known_crc", "known_text")
    known_crc: int | None  # for `text_checksum`, until a level changes
    known_text: bytes | None

    def __init__(
        self, limit: int, sign: int, depth: int, text_of: Callable[[int, int], str]
    ) -> None:
        """sign: 1 for bids, -1 for asks. depth: levels that the checksum covers, at most.

        text_of: (price, size) as scaled integers -> ASCII text.
        """
        assert limit <= WHOLE_MAX
        self._sign = sign
        self._depth = depth
        self._text_of = text_of
        super().__init__(limit)

    def apply(self, levels: Iterable[tuple[int, int]], top: int) -> None:
        top_levels, texts, sign, text_of = self.top_levels, self._texts, self._sign, self._text_of
        for key, size in levels:
            if size:
                if key not in top_levels:
                    self._is_sorted = False
                top_levels[key] = size
                texts[key] = text_of(sign * key, size)
            elif key in top_levels:
                del top_levels[key], texts[key]
        if top >= self.best:
            self.best = top if top in top_levels else max(top_levels, default=NOTHING)
        self.is_over = len(top_levels) > self._limit
        self.known_text = self.known_crc = None

    def replace(self, keys: Sequence[int], sizes: Sequence[int]) -> None:
        super().replace(keys, sizes)
        sign, text_of = self._sign, self._text_of
        self._texts = {key: text_of(sign * key, size) for key, size in self.top_levels.items()}
        self._is_sorted = False
        self.known_text = self.known_crc = None

    def cut(self) -> list[int]:
        removed = super().cut()
        for key in removed:
            del self._texts[key]
        self.known_text = self.known_crc = None
        return removed

    def text(self) -> bytes:
        """Return the texts of the best levels, best first, joined."""
        if not self._is_sorted:
            self._texts = dict(sorted(self._texts.items(), reverse=True))
            self._is_sorted = True
        texts: Iterable[str] = self._texts.values()
        if len(self._texts) > self._depth:
            texts = islice(texts, self._depth)
        return "".join(texts).encode()


def text_checksum(bids: ChecksumBookSide, asks: ChecksumBookSide) -> int:
    """Return the CRC32 of asks and bids; a side that did not change is not read again."""
    crc = asks.known_crc
    if crc is None:
        crc = asks.known_crc = crc32(asks.text())
    text = bids.known_text
    if text is None:
        text = bids.known_text = bids.text()
    return crc32(text, crc)
