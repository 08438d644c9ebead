"""Check the levels of a book's side: pairs of a price and a size, as lists or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

DIGITS: Final = b"0123456789."
_LEVEL_TYPES: Final = {list, tuple}
_PAIR: Final = {2}
_PAIR_SKELETON: Final = b'["",""],'


def check_pairs(levels: Sequence[Sequence[object]]) -> None:
    """Raise ValueError for what is no list of pairs."""
    if type(levels) not in _LEVEL_TYPES or not {*map(type, levels)} <= _LEVEL_TYPES:
        raise ValueError("a price level, or a side of a book, is no list")
    if not {*map(len, levels)} <= _PAIR:
        raise ValueError("a price level that is no pair of price and size")


def pairs_in(side: bytes) -> int:
    """Return how many pairs a JSON array has; -1 for what is no array of pairs of plain decimals.
    (Whether each is a number, and which, is seen when sealing.)"""
    skeleton = side.translate(None, DIGITS)
    pairs = len(skeleton) // len(_PAIR_SKELETON)
    is_array = skeleton == skeleton_of(pairs) and (pairs > 0 or side == b"[]")  # [5] has no pairs
    return pairs if is_array else -1


@lru_cache(maxsize=1_024)
def skeleton_of(pairs: int) -> bytes:
    """Return what an array of so many pairs is without its digits and points."""
    return b"[" + b",".join([_PAIR_SKELETON[:-1]] * pairs) + b"]"
