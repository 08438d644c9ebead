"""Find how an image of a book differs from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ingestor.books.book import Book, Update
from ingestor.books.flush import Flush
from ingestor.books.verification import prove
from ingestor.model.book_side import BookSide
from ingestor.model.rows import Cause, Flag

_ALL: Final = 1 << 62  # levels
_IMAGE: Final = int(Flag.SNAPSHOT | Flag.PARTIAL)


def take_image(flush: Flush, book: Book, image: Update, memory: int) -> tuple[Cause | None, Update]:
    """Put an image in the place of a valid book, and publish what differs from it.

    Args:
        flush: takes the rows.
        book: the book.
        image: the whole book, as it is now.
        memory: as in `prove`.

    Returns:
        What is wrong with the image, if anything: then nothing was published. The update that was.
    """
    shown = difference(book, image)
    book.bids.replace(image.bid_keys, image.bid_sizes)
    book.asks.replace(image.ask_keys, image.ask_sizes)
    book.begin(image.flags)
    cause = prove(book, image.last, image.flags, image.checksum, memory)
    if cause is not None:
        return cause, image
    book.partial = bool(image.flags & Flag.PARTIAL)
    removals = shown.bid_sizes.count(0) + shown.ask_sizes.count(0)
    flush.leave_out(image)
    flush.filtered += image.levels - (shown.levels - removals)
    flush.added += [book.instrument] * removals
    book.counters.added += removals
    flush.publish(image.at, book.instrument, shown)
    return None, shown


def difference(book: Book, image: Update) -> Update:
    """Return the update that makes the image of what a book holds: levels that are new or have
    another size, and those that are gone, with size 0.
    """
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
