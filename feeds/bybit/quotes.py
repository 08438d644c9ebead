"""Quotes, and what each connection knows of them.

What a quote means depends on the one before on its connection: it may repeat or change it. So
nothing is known but what is sure to become a row: a quote with a number that would be refused when
the columns are sealed is refused before that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, cast

import msgspec

from ingestor.adapter import (
    BadNumber,
    ColumnBuffer,
    Control,
    Filtered,
    Lines,
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
_BREAKS: Final = bytes.maketrans(b",", b"\n")
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_SHAPE: Final = re.compile(rb'\[\["(0+)(?:\.(0*))?","(0+)(?:\.(0*))?"\]\]')
_SHAPES_MAX: Final = 1_024  # of instruments with the same exponents
_DIGITS_MAX: Final = 18  # so many fit int64, whatever they are
_ZERO_BEGINS: Final = b'[["0'  # as a side does whose price may be 0
_ZERO_PRICE: Final = re.compile(rb'\[\["[0.]*"')


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


class Best(msgspec.Struct, gc=False):
    """Hold the result of a quote: the best level of each side, JSON, an array of one pair of plain
    decimals, or of none.
    """

    cts: int  # ms
    number: int  # of the update
    bids: bytes
    asks: bytes

    def repeats(self, before: Best) -> bool:
        """Return True if the quote says what was known, whenever it was sent."""
        return (
            self.number == before.number and self.bids == before.bids and self.asks == before.asks
        )


@dataclass(slots=True)
class Quotes:
    """Hold what a connection knows. best: the last quote of each symbol. shapes: by instrument,
    forms
    of sides that are sure to fit it, with zeros for their digits; instruments whose numbers have
    the
    same exponents share them.
    """

    best: dict[str, Best] = field(default_factory=dict)
    shapes: dict[int, set[bytes]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # of books of one level, by symbol
    _shared: dict[tuple[int, int] | None, set[bytes]] = field(default_factory=dict)

    def shapes_of(self, instrument: int, out: ColumnBuffer) -> set[bytes]:
        """Return `shapes` of an instrument."""
        known = self.shapes.get(instrument)
        if known is None:
            known = self._shared.setdefault(out.exponents(instrument), set())
            self.shapes[instrument] = known
        return known

    def is_repeated(self, payload: bytes) -> bool:
        """Say whether a book of one level has the number of the one before; note its number."""
        data = _parse_quote(payload).data
        if self.numbers.get(data.s) == data.u:
            return True
        self.numbers[data.s] = data.u
        return False

    def read(self, quote: _Quote, instrument: int, out: ColumnBuffer) -> Best:
        """Return what a quote leads to.

        Args:
            quote: The parsed quote.
            instrument: Number of the instrument.
            out: Takes the rows.

        Raises:
            BadNumber: A number is not one.
            LookupError: It changes a quote that is not known.
            ValueError: A side is none of a quote.
        """
        data = quote.data
        bids, asks = bytes(data.b), bytes(data.a)
        if quote.type == "delta":
            before = self.best[data.s]
            bids, asks = _changed(before.bids, bids), _changed(before.asks, asks)
        shapes = self.shapes_of(instrument, out)
        if bids.translate(_ZEROS) not in shapes or _has_zero_price(bids):
            bids = self._checked(bids, instrument, out)
        if asks.translate(_ZEROS) not in shapes or _has_zero_price(asks):
            asks = self._checked(asks, instrument, out)
        return Best(quote.cts, data.u, bids, asks)

    def _checked(self, side: bytes, instrument: int, out: ColumnBuffer) -> bytes:
        """Return a side whose numbers fit the instrument, as plain decimals."""
        if side == _EMPTY:
            return side
        shape = side.translate(_ZEROS)
        exponents = out.exponents(instrument)
        matched = None if _has_zero_price(side) else _SHAPE.fullmatch(shape)
        if matched is not None and _is_sure(matched, exponents):
            shapes = self.shapes_of(instrument, out)
            if len(shapes) < _SHAPES_MAX:
                shapes.add(shape)
            return side
        return _converted(side, exponents)


def _has_zero_price(sides: bytes) -> bool:
    """Return True if one of some sides, joined, has a price of 0."""
    return _ZERO_BEGINS in sides and _ZERO_PRICE.search(sides) is not None


def _is_sure(matched: re.Match[bytes], exponents: tuple[int, int] | None) -> bool:
    """Return True if any digits of this shape are numbers that fit."""
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


def _read_quotes(quotes: list[Best], rows: Rows) -> Lines:
    rows["ts_event"] = milliseconds_ns([quote.cts for quote in quotes])
    set_column(rows, "sequence", [quote.number for quote in quotes])
    sides = [side for quote in quotes for side in (quote.bids, quote.asks)]
    if _EMPTY in sides:
        sides = [_NOTHING if side == _EMPTY else side for side in sides]
    return Lines(b",".join(sides).translate(_BREAKS, b'[]"'), 4 * len(quotes))


def append_quote(
    payload: bytes, known: Quotes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> Control | None:
    """Append one quote, unless it says what is known.

    Args:
        payload: The frame's bytes.
        known: Quotes of the frame's connection.
        symbols: Numbers of the instruments by symbol.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    quote = _parse_quote(payload)
    symbol = quote.data.s
    instrument = symbols[symbol]
    best = known.read(quote, instrument, out)
    last = known.best.get(symbol)
    if last is not None and best.repeats(last):
        return UNCHANGED
    out.add_quote(_read_quotes, best, instrument, ts_recv)
    known.best[symbol] = best
    return None


class _Connection(Protocol):
    """Hold the state of a frame's source."""

    @property
    def adapter(self) -> _Knowing: ...


class _Knowing(Protocol):
    quotes: Quotes


# A quote, its instrument, time of receipt and frame; and what was known before: where, of which
# symbol, and what.
_COLUMNS: Final = 4
_News = tuple[Best, int, int, int, dict[str, Best], str, Best | None]


def append_many_quotes(
    payloads: Sequence[bytes],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> int:
    """Append many quotes; return how many frames say what is known.

    It comes last of what is decoded together: connections know what they said from here on.

    Args:
        payloads: n frames.
        symbols: Numbers of the instruments by symbol.
        ts_recv: n times of receipt in ns.
        frames: n frame numbers.
        out: Takes the rows.
    """
    quotes = list(map(_parse_quote, payloads))
    sides, shapes, is_sure = _sides(quotes)
    sources = cast("list[_Connection]", out.sources)
    news: list[_News] = []
    connection: _Connection | None = None
    try:
        for quote, received, frame, bids, asks, bids_shape, asks_shape in zip(
            *(quotes, ts_recv, frames, sides[0::2], sides[1::2], shapes[0::2], shapes[1::2]),
            strict=True,
        ):
            if sources[frame] is not connection:
                connection = sources[frame]
                known = connection.adapter.quotes
                of_connection, shapes_of = known.best, known.shapes.get
            data = quote.data
            symbol = data.s
            instrument = symbols[symbol]
            sure = shapes_of(instrument) or known.shapes_of(instrument, out)
            if is_sure and bids_shape in sure and asks_shape in sure and quote.type == "snapshot":
                best = Best(quote.cts, data.u, bids, asks)
            else:
                best = known.read(quote, instrument, out)
            last = of_connection.get(symbol)
            if last is None or not best.repeats(last):
                of_connection[symbol] = best
                news.append((best, instrument, received, frame, of_connection, symbol, last))
    except Exception:
        for *_, of_connection, symbol, last in reversed(news):
            if last is None:
                del of_connection[symbol]
            else:
                of_connection[symbol] = last
        raise
    if news:
        out.add_quotes(_read_quotes, *list(zip(*news, strict=True))[:_COLUMNS])
    return len(quotes) - len(news)


def _sides(quotes: Sequence[_Quote]) -> tuple[list[bytes], list[bytes], bool]:
    """Return the sides of quotes, bids and asks in turns; what they look like, as `Quotes.shapes`
    has it; and whether none has a price of 0."""
    raw = [side for quote in quotes for side in (quote.data.b, quote.data.a)]
    joined = b"\n".join(raw)  # joins what are no bytes yet, too
    sides = joined.split(b"\n")
    if len(sides) == len(raw):
        return sides, joined.translate(_ZEROS).split(b"\n"), not _has_zero_price(joined)
    sides = list(map(bytes, raw))  # there are line breaks in JSON
    return sides, [side.translate(_ZEROS) for side in sides], False
