"""Candles, and books that HTX sends whole: `depth.step0`, and spot's `mbp.refresh.20`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Protocol

import msgspec

from ingestor.adapter import (
    MILLISECOND,
    SECOND,
    BookOffer,
    BookRule,
    ColumnBuffer,
    Continuity,
    Flag,
    Milliseconds,
    Sequential,
    SnapshotSource,
    add_candle,
    span_ns,
    time_ns,
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


class _Candle(msgspec.Struct, gc=False):
    id: int  # the start, s
    open: Any
    high: Any
    low: Any
    close: Any
    amount: Any  # in base
    vol: Any = None  # in quote
    count: Sequential | None = None


_parse_candle: Final = msgspec.json.Decoder(_Candle, float_hook=str).decode


class _Timed(Protocol):
    """A message: its time, ms, and its content."""

    ts: Any
    tick: msgspec.Raw


def append_candle(
    number: int, topic: str, message: _Timed, ts_recv: int, out: ColumnBuffer
) -> None:
    """Append a candle.

    Args:
        number: Number of the instrument.
        topic: Such as kline.1min.
        message: Its time, and the candle as JSON.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    candle = _parse_candle(message.tick)
    add_candle(
        out,
        number,
        ts_recv,
        start_ns=time_ns(candle.id, SECOND),
        interval_ns=span_ns(topic.partition(".")[2]),
        prices=(candle.open, candle.high, candle.low, candle.close),
        volume=candle.amount,
        turnover=candle.vol,
        trades=candle.count,
        ts_event=time_ns(message.ts),
    )


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
