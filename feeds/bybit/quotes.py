"""Quotes, and what each connection knows of them.

What a quote means depends on the one before on its connection: it may repeat or change it. So
nothing is known but what is sure to become a row: a quote with a number that would be refused when
the columns are sealed is refused before that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal, NamedTuple, Protocol, cast

import msgspec

from ingestor.adapter import (
    BadNumber,
    ColumnBuffer,
    Control,
    Filtered,
    Milliseconds,
    Rows,
    Sequential,
    format_decimal,
    milliseconds_ns,
    parse_decimal,
    parse_levels,
    set_column,
)

UNCHANGED: Final = Filtered("unchanged quote", duplicate=True)

_EMPTY: Final = b"[]"
_NOTHING: Final = b'[["0","0"]]'  # an empty side of a quote
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_SHAPE: Final = re.compile(rb'\[\["(0+)(?:\.(0*))?","(0+)(?:\.(0*))?"\]\]')
_SHAPES_MAX: Final = 256  # of one instrument
_DIGITS_MAX: Final = 18  # so many fit int64, whatever they are
_PRICE_AT: Final = 3  # where a side that is not empty has its price


class _Levels(msgspec.Struct, gc=False):
    s: str  # symbol
    u: Sequential  # number of the update
    b: msgspec.Raw
    a: msgspec.Raw


class _Quote(msgspec.Struct, gc=False):
    type: Literal["snapshot", "delta"]
    cts: Milliseconds
    data: _Levels


_parse_quote: Final = msgspec.json.Decoder(_Quote).decode


class Best(NamedTuple):
    """The best level of each side: JSON, an array of one pair of plain decimals, or of none."""

    number: int  # of the update
    bids: bytes
    asks: bytes


@dataclass(slots=True)
class Quotes:
    """What a connection knows. best: the last quote of each symbol. shapes: by instrument, what
    sides of quotes look like that are sure to fit it, with zeros for their digits."""

    best: dict[str, Best] = field(default_factory=dict)
    shapes: dict[int, set[bytes]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # of books of one level, by symbol

    def is_repeated(self, payload: bytes) -> bool:
        """Say whether a book of one level has the number of the one before; note its number."""
        data = _parse_quote(payload).data
        if self.numbers.get(data.s) == data.u:
            return True
        self.numbers[data.s] = data.u
        return False

    def read(self, quote: _Quote, instrument: int, out: ColumnBuffer) -> Best:
        """Return what a quote leads to. Raises BadNumber, LookupError for a change of a quote that
        is not known, and ValueError for what is no side of a quote."""
        data = quote.data
        bids, asks = bytes(data.b), bytes(data.a)
        if quote.type == "delta":
            before = self.best[data.s]
            bids, asks = _changed(before.bids, bids), _changed(before.asks, asks)
        shapes = self.shapes.get(instrument, ())
        if bids.translate(_ZEROS) not in shapes or bids.startswith(b'[["0'):
            bids = self._checked(bids, instrument, out)
        if asks.translate(_ZEROS) not in shapes or asks.startswith(b'[["0'):
            asks = self._checked(asks, instrument, out)
        return Best(data.u, bids, asks)

    def _checked(self, side: bytes, instrument: int, out: ColumnBuffer) -> bytes:
        """Return a side whose numbers fit the instrument, as plain decimals."""
        if side == _EMPTY:
            return side
        shape = side.translate(_ZEROS)
        is_price = side[_PRICE_AT : side.find(b'"', _PRICE_AT)].strip(b"0.")
        if is_price and shape in self.shapes.get(instrument, ()):
            return side
        exponents = out.exponents(instrument)
        matched = _SHAPE.fullmatch(shape)
        if is_price and matched is not None and _is_sure(matched, exponents):
            shapes = self.shapes.setdefault(instrument, set())
            if len(shapes) < _SHAPES_MAX:
                shapes.add(shape)
            return side
        return _converted(side, exponents)


def _is_sure(matched: re.Match[bytes], exponents: tuple[int, int] | None) -> bool:
    """Whether any digits of this shape are numbers that fit."""
    parts = [part or b"" for part in matched.groups()]
    if exponents is None:
        return True
    return all(
        len(decimals) <= exponent and len(whole) + exponent <= _DIGITS_MAX
        for whole, decimals, exponent in zip(parts[0::2], parts[1::2], exponents, strict=True)
    )


def _converted(side: bytes, exponents: tuple[int, int] | None) -> bytes:
    """Return a side of any form as plain decimals, number by number. Raises as `Quotes.read`."""
    levels = parse_levels(side)
    if not levels:
        return _EMPTY
    [[price, size]] = levels
    texts = []
    try:
        for number, exponent in zip((price, size), exponents or (None, None), strict=True):
            texts.append(_plain(number, exponent))
    except ValueError as failure:
        raise BadNumber("bybit", str(failure)) from None
    if not texts[0].strip("0.") and texts[1].strip("0."):
        raise BadNumber("bybit", f"{price!r:.60} is no price")
    return f'[["{texts[0]}","{texts[1]}"]]'.encode()


def _plain(number: object, exponent: int | None) -> str:
    """Return a number as plain decimal text. Raises ValueError for one that doesn't fit."""
    text = number if isinstance(number, str) else str(number)
    decimals = len(text.partition(".")[2]) if exponent is None else exponent
    if parse_decimal(number, decimals) < 0:
        raise ValueError(f"{text[:40]!r} is negative")
    if text.replace(".", "", 1).isdecimal():
        return text
    return format_decimal(parse_decimal(number, decimals), decimals)


def _changed(side: bytes, changes: bytes) -> bytes:
    """Apply the changes of one side of a book of one level; size 0 removes it."""
    best = parse_levels(side)
    for level in parse_levels(changes):
        price, size = level
        if str(size).strip("0."):
            best = [level]
        elif best and best[0][0] == price:
            best = []
    return msgspec.json.encode(best)


def _read_quotes(events: list[tuple[int, Best]], rows: Rows) -> Sequence[Sequence[str]]:
    rows["ts_event"] = milliseconds_ns([time for time, _ in events])
    set_column(rows, "sequence", [best.number for _, best in events])
    sides = chain.from_iterable([(best.bids, best.asks) for _, best in events])
    joined = b",".join([_NOTHING if side == _EMPTY else side for side in sides])
    texts = joined.translate(None, b'[]"').decode("ascii").split(",")
    return texts[0::4], texts[1::4], texts[2::4], texts[3::4]


def append_quote(
    payload: bytes, known: Quotes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> Control | None:
    """Append one quote, unless it says what is known. known: of the frame's connection."""
    quote = _parse_quote(payload)
    symbol = quote.data.s
    instrument = symbols[symbol]
    best = known.read(quote, instrument, out)
    if best == known.best.get(symbol):
        return UNCHANGED
    out.add_quote(_read_quotes, (quote.cts, best), instrument, ts_recv)
    known.best[symbol] = best
    return None


class _Connection(Protocol):
    """What a frame's source has."""

    @property
    def adapter(self) -> _Knowing: ...


class _Knowing(Protocol):
    quotes: Quotes


def append_many_quotes(
    payloads: Sequence[bytes],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> int:
    """Append many quotes; return how many frames say what is known.

    It comes last of what is decoded together: connections know what they said from here on.
    """
    quotes = list(map(_parse_quote, payloads))
    sources = cast("list[_Connection]", out.sources)
    events: list[tuple[int, Best]] = []
    rows: list[tuple[int, int, int]] = []  # instrument, ts_recv, frame
    before: list[tuple[dict[str, Best], str, Best | None]] = []
    try:
        for quote, received, frame in zip(quotes, ts_recv, frames, strict=True):
            symbol = quote.data.s
            instrument = symbols[symbol]
            known = sources[frame].adapter.quotes
            best = known.read(quote, instrument, out)
            last = known.best.get(symbol)
            if best != last:
                before.append((known.best, symbol, last))
                known.best[symbol] = best
                events.append((quote.cts, best))
                rows.append((instrument, received, frame))
    except Exception:
        for of_connection, symbol, last in reversed(before):
            if last is None:
                del of_connection[symbol]
            else:
                of_connection[symbol] = last
        raise
    if events:
        out.add_quotes(_read_quotes, events, *zip(*rows, strict=True))
    return len(quotes) - len(events)
