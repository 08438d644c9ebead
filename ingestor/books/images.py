"""What an image of a book says that the one before didn't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ingestor.books.book import Book, Update
from ingestor.model.book_side import BookSide
from ingestor.model.rows import Flag

_ALL = 1 << 62  # levels
_IMAGE = int(Flag.SNAPSHOT | Flag.PARTIAL)


def difference(book: Book, image: Update) -> Update:
    """Return the update that makes the image of what a book holds: levels that are new or have
    another size, and those that are gone, with size 0."""
    bid_keys, bid_sizes = _changed(book.bids, image.bid_keys, image.bid_sizes)
    ask_keys, ask_sizes = _changed(book.asks, image.ask_keys, image.ask_sizes)
    return replace(
        image,
        flags=image.flags & ~_IMAGE,
        bid_keys=bid_keys,
        bid_sizes=bid_sizes,
        ask_keys=ask_keys,
        ask_sizes=ask_sizes,
        at=-1,
    )


def _changed(
    side: BookSide, keys: Sequence[int], sizes: Sequence[int]
) -> tuple[list[int], list[int]]:
    old_keys, old_sizes = side.arrays(_ALL)
    old = dict(zip(old_keys.tolist(), old_sizes.tolist(), strict=True))
    new = {key: size for key, size in zip(keys, sizes, strict=True) if size}
    changes = {key: size for key, size in new.items() if old.get(key) != size}
    changes.update((key, 0) for key in old if key not in new)
    return list(changes), list(changes.values())
