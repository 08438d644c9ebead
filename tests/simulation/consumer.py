"""A consumer that believes every row until a GAP, and compares each with what the venue knows.

It is written without the project's own consumer: what both would get wrong would not be seen.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from ingestor.model.batch import InstrumentLike, TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Kind, Rows, Side
from tests.simulation.market import ASK, BID, DECIMALS, Market, fingerprint
from tests.simulation.venue import Venue

_LAST: Final = int(Flag.LAST)
_SNAPSHOT: Final = int(Flag.SNAPSHOT)


class _Book:
    """The book of one instrument, as its rows tell it."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.is_valid = False
        self.number = 0
        self.total = 0
        self._levels: dict[tuple[int, int], int] = {}
        self._is_whole = True  # the last row ended an event

    def gap(self) -> None:
        self.is_valid = False

    def reset(self) -> None:
        self._levels.clear()
        self.total = 0
        self.is_valid = True

    def level(self, side: int, price: int, size: int, number: int, flags: int) -> bool:
        """Take a row; return False if the book is not the venue's after it."""
        if not self.is_valid:
            return True
        before = self._levels.pop((side, price), 0)
        self.total += fingerprint(side, price, size) - fingerprint(side, price, before)
        if size:
            self._levels[side, price] = size
        if flags & _LAST:
            self.number = number
            return self.market.has_been(number, self.total)
        return True


def _of_each(batch: TickBatch) -> Iterator[tuple[InstrumentLike, Rows]]:
    """Yield the rows of each instrument, in order; those of two revisions as they alternate."""
    by_key: dict[str, list[int]] = {}
    for number in dict.fromkeys(batch.rows["instrument"].tolist()):
        by_key.setdefault(batch.instruments[number].key, []).append(number)
    for numbers in by_key.values():
        rows = batch.rows[np.isin(batch.rows["instrument"], numbers)]
        for run in np.split(rows, np.flatnonzero(np.diff(rows["instrument"])) + 1):
            yield batch.instruments[int(run["instrument"][0])], run


class Consumer:
    """Reads what the broker has. gaps: declared ones, by (symbol, row class, cause)."""

    def __init__(
        self, venue: Venue, wrong: Callable[[str], None], conflates: Callable[[], bool]
    ) -> None:
        """Args:
        venue: what is true.
        wrong: called with what contradicts it, and with each hole that is not declared.
        conflates: whether quotes may have given way to later ones.
        """
        self._conflates = conflates
        self._venue = venue
        self._wrong = wrong
        self._books: dict[str, _Book] = {}
        self._trades: dict[str, int] = {}  # the last one; absent = anything may follow
        self._quotes: dict[str, int] = {}
        self.gaps: Counter[tuple[str, RowClass, Cause]] = Counter()
        self.rows: Counter[Kind] = Counter()
        self._hash = hashlib.sha256()
        self._last_times: dict[tuple[str, RowClass], int] = {}

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def is_up_to_date(self, market: Market) -> bool:
        """Whether the book is the venue's own."""
        book = self._books.get(market.symbol)
        return book is not None and book.is_valid and market.is_now(book.number, book.total)

    def take(self, batch: TickBatch) -> None:
        """Take rows in the order of the log."""
        self._hash.update(batch.rows.tobytes())
        for one, rows in _of_each(batch):
            market = self._venue.markets[one.key.rpartition(":")[2]]
            self._check_times(market.symbol, batch.row_class, rows)
            units = (10 ** (DECIMALS - one.price_exponent), 10 ** (DECIMALS - one.size_exponent))
            match batch.row_class:
                case RowClass.LEVEL:
                    self._take_levels(market, rows, *units)
                case RowClass.TRADE:
                    self._take_trades(market, rows, *units)
                case RowClass.QUOTE:
                    self._take_quotes(market, rows, *units)

    def _check_times(self, symbol: str, row_class: RowClass, rows: Rows) -> None:
        """Times of receipt never go back within a session, whatever is done to the clock."""
        times = [self._last_times.get((symbol, row_class), 0), *rows["ts_recv"].tolist()]
        if times != sorted(times):
            self._wrong(f"times of receipt of {symbol} {row_class.name} go back")
        self._last_times[symbol, row_class] = times[-1]

    def _mark(self, market: Market, row_class: RowClass, kind: int, side: int) -> bool:
        """Count a row; return whether it declares a hole."""
        self.rows[Kind(kind)] += 1
        if kind == Kind.GAP:
            self.gaps[market.symbol, row_class, Cause(side)] += 1
        return kind == Kind.GAP

    def _take_levels(self, market: Market, rows: Rows, price_unit: int, size_unit: int) -> None:
        book = self._books.setdefault(market.symbol, _Book(market))
        fields = ("kind", "side", "price", "size", "sequence", "flags")
        for kind, side, price, size, number, flags in zip(
            *(rows[name].tolist() for name in fields), strict=True
        ):
            if self._mark(market, RowClass.LEVEL, kind, side):
                book.gap()
            elif kind == Kind.RESET:
                book.reset()
            else:
                level_side = BID if side == Side.BID else ASK
                size *= size_unit
                if not book.level(level_side, price * price_unit, size, number, flags):
                    self._wrong(f"the book of {market.symbol} differs as of update {number}")
                    book.gap()

    def _take_trades(self, market: Market, rows: Rows, price_unit: int, size_unit: int) -> None:
        fields = ("kind", "side", "price", "size", "sequence")
        for kind, side, price, size, number in zip(
            *(rows[name].tolist() for name in fields), strict=True
        ):
            if self._mark(market, RowClass.TRADE, kind, side):
                self._trades.pop(market.symbol, None)
                continue
            taker = BID if side == Side.BID else ASK
            if market.trades.get(number) != (price * price_unit, size * size_unit, taker):
                self._wrong(f"trade {number} of {market.symbol} is not the venue's")
            before = self._trades.get(market.symbol)
            if before is not None and number != before + 1:
                self._wrong(f"{market.symbol}: trade {number} follows {before} without a GAP")
            self._trades[market.symbol] = number

    def _take_quotes(self, market: Market, rows: Rows, price_unit: int, size_unit: int) -> None:
        fields = ("kind", "side", "sequence", "bid_price", "bid_size", "ask_price", "ask_size")
        for kind, side, number, bid, bid_size, ask, ask_size in zip(
            *(rows[name].tolist() for name in fields), strict=True
        ):
            if self._mark(market, RowClass.QUOTE, kind, side):
                self._quotes.pop(market.symbol, None)
                continue
            quote = bid * price_unit, bid_size * size_unit, ask * price_unit, ask_size * size_unit
            if not market.has_quoted(number, quote):
                self._wrong(f"quote {number} of {market.symbol} is not the venue's")
            before = self._quotes.get(market.symbol)
            if before is not None and number:
                skipped = market.skipped_quotes(before, number)
                if number <= before or (skipped and not self._conflates()):
                    self._wrong(f"{market.symbol}: quote {number} follows {before} without a GAP")
            self._quotes[market.symbol] = number
