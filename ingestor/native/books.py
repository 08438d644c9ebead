"""Hold the levels of books in arrays, and let the compiled library apply plain updates to them."""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.rows import Rows
from ingestor.native.layouts import BOOK, UpdateResult, address

ROOM_MIN: Final = 256  # levels a side
_BOOKS_MIN: Final = 64

Levels = tuple[NDArray[np.int64], NDArray[np.int64]]  # keys in ascending order, their sizes


class LentBooks:
    """The books that are in the library's hands, by the numbers of their instruments."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._run = library.native_books
        self._books = np.zeros(_BOOKS_MIN, BOOK)
        self._arrays: dict[int, tuple[Levels, Levels]] = {}

    def lend(
        self,
        number: int,
        bids: Levels,
        asks: Levels,
        *,
        last: int,
        rule: int,
        limit: int,
        most: int,
    ) -> None:
        """Take a book.

        Args:
            number: of its instrument.
            bids: its levels.
            asks: its levels.
            last: the number of its newest update.
            rule: how an update says that it is the next one, as in `src/books.h`.
            limit: levels of a side beyond which Python decides.
            most: levels of a side to make room for, at most.
        """
        if number >= len(self._books):
            more = max(len(self._books), number + 1 - len(self._books))
            self._books = np.concatenate([self._books, np.zeros(more, BOOK)])
        book = self._books[number]
        sides = [_with_room(levels, most) for levels in (bids, asks)]
        for side, (keys, sizes), (before, _) in zip(
            book["sides"], sides, (bids, asks), strict=True
        ):
            side["keys"], side["sizes"] = address(keys), address(sizes)
            side["used"], side["room"] = len(before), len(keys)
        book["last"], book["limit"], book["rule"] = last, limit, rule
        book["is_lent"] = 1
        self._arrays[number] = (sides[0], sides[1])

    def give_back(self, number: int) -> tuple[Levels, Levels]:
        """Return the levels of a book: bids, asks. It is not held any more."""
        book = self._books[number]
        bids, asks = (
            (keys[:used], sizes[:used])
            for (keys, sizes), used in zip(
                self._arrays.pop(number), book["sides"]["used"].tolist(), strict=True
            )
        )
        book["is_lent"] = 0
        return bids, asks

    def last(self, numbers: NDArray[np.int64]) -> list[int]:
        """Return the numbers of books' newest updates. numbers: of their instruments."""
        lasts: list[int] = self._books["last"][numbers].tolist()
        return lasts

    def take(
        self,
        updates: Rows,
        prices: NDArray[np.int64],
        sizes: NDArray[np.int64],
        part: tuple[int, int, int],
    ) -> NDArray[np.uint8]:
        """Apply plain updates.

        Args:
            updates: UPDATE[n]; all instruments have a number below that of the highest book known.
            prices: of all their levels, bids before asks.
            sizes: of the same.
            part: the first update to take, the end, and where the levels of the first one begin.

        Returns:
            uint8[n], for each update of the part what became of it, as in `UpdateResult`.
        """
        done = np.full(len(updates), UpdateResult.LEFT, np.uint8)
        arrays = [np.ascontiguousarray(update) for update in (updates, prices, sizes)]
        self._run(address(self._books), *map(address, arrays), address(done), *part)
        return done

    def fit(self, count: int) -> None:
        """Know so many instruments."""
        if count > len(self._books):
            grown = max(count, 2 * len(self._books))
            self._books = np.concatenate([self._books, np.zeros(grown - len(self._books), BOOK)])


def _with_room(levels: Levels, most: int) -> Levels:
    """Return copies with room for as many levels again, as far as there may be more."""
    used = len(levels[0])
    room = max(used, min(max(2 * used, ROOM_MIN), most))
    copies = []
    for level in levels:
        array = np.empty(room, np.int64)
        array[:used] = level
        copies.append(array)
    return copies[0], copies[1]
