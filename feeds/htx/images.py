"""Books that HTX sends whole again and again: `depth.step0`, and spot's `mbp.refresh.20`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import msgspec

from ingestor.adapter import (
    MILLISECOND,
    BookOffer,
    BookRule,
    ColumnBuffer,
    Continuity,
    Flag,
    Milliseconds,
    Sequential,
    SnapshotSource,
)

_TOPICS: Final = {150: "depth.step0", 20: "mbp.refresh.20"}  # by depth
TOPICS: Final = frozenset(_TOPICS.values())
_FLAGS: Final = int(Flag.SNAPSHOT | Flag.PARTIAL)


class _Image(msgspec.Struct, rename="camel", gc=False):
    bids: list[tuple[Any, Any]] = []
    asks: list[tuple[Any, Any]] = []
    ts: Milliseconds | None = None
    version: Sequential = 0
    seq_num: Sequential = 0


_parse: Final = msgspec.json.Decoder(_Image, float_hook=str).decode


def offer(rule: BookRule, depth: int, speed_ms: int, url: str = "") -> BookOffer:
    """Return what a market offers besides its increments.

    Args:
        rule: The rule of its books.
        depth: Levels a side.
        speed_ms: Time between two images.
        url: Address of the stream, "" for the market's own.
    """
    of_images = replace(
        rule,
        continuity=Continuity.NONE,
        snapshot=SnapshotSource.SOCKET,
        depth_max=depth,
        images_only=True,
    )
    return BookOffer(depth, speed_ms, of_images, is_plain=True, url=url)


def topic(chosen: BookOffer) -> str | None:
    """Return the topic of a form of books, None for increments."""
    is_image = chosen.rule is not None and chosen.rule.images_only
    return _TOPICS[chosen.depth] if is_image else None


def append(number: int, tick: msgspec.Raw, ts: Any, ts_recv: int, out: ColumnBuffer) -> None:
    """Append an image.

    Args:
        number: Number of the instrument.
        tick: The image, JSON.
        ts: The message's time, for images that have none.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    image = _parse(tick)
    time = msgspec.convert(ts, Milliseconds) if image.ts is None else image.ts
    last = image.version or image.seq_num
    sides = image.bids, image.asks
    time_ns = time * MILLISECOND
    out.add_book_update(
        number, time_ns, ts_recv, *sides, first=last, last=last, flags=_FLAGS, are_pairs=True
    )
