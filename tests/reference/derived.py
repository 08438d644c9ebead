"""Candles and tops of books computed directly from the rows of one instrument, with Decimal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal
from typing import Any

import numpy as np

from ingestor.derived.settings import DerivedSettings
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.row_values import Origin
from ingestor.model.rows import ABSENT, Cause, Flag, Kind, Side

Rows = np.ndarray[Any, Any]
KEPT_NS = 60 * 10**9  # how long after its end a candle may still change
_EXACT = Context(prec=200)
NEVER = 2**64


@dataclass
class RowsOf:
    """Collects the rows of one class, and gives them by the key of their instrument."""

    row_class: RowClass
    parts: list[TickBatch] = field(default_factory=list)

    def add(self, batches: Iterable[TickBatch]) -> None:
        self.parts += [batch for batch in batches if batch.row_class is self.row_class]

    def by_key(self) -> dict[str, tuple[Rows, tuple[int, int]]]:
        """Return rows and exponents by key; each instrument has one revision here."""
        found: dict[str, list[Rows]] = {}
        exponents: dict[str, tuple[int, int]] = {}
        for batch in self.parts:
            for number in np.unique(batch.rows["instrument"]).tolist():
                one = batch.instruments[number]
                own = one.price_exponent, one.size_exponent
                assert exponents.setdefault(one.key, own) == own
                rows = batch.rows[batch.rows["instrument"] == number]
                found.setdefault(one.key, []).append(rows)
        return {key: (np.concatenate(rows), exponents[key]) for key, rows in found.items()}


@dataclass(frozen=True)
class DirectCandle:
    """What a candle is to hold."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    buy_volume: Decimal | None
    turnover: Decimal | None
    trades: int
    is_partial: bool


def direct_candles(
    trades: Rows,
    exponents: tuple[int, int],
    interval_ns: int,
    wait_ns: int,
    until_ns: int,
    *,
    in_time_alone: bool = False,
) -> dict[int, DirectCandle]:
    """Compute candles by their start.

    Args:
        trades: of one instrument, in order, with GAP rows.
        exponents: of its prices and sizes.
        interval_ns: the length of a candle.
        wait_ns: how long after its end it is closed.
        until_ns: those that are closed by then.
        in_time_alone: leave out trades that came after a candle was closed.
    """
    holes: list[list[int]] = [[-NEVER, NEVER]]
    newest = -NEVER
    members: dict[int, list[Any]] = {}
    for row in trades:
        ts_event, ts_recv = int(row["ts_event"]), int(row["ts_recv"])
        if row["kind"] == Kind.GAP:
            if row["side"] != Cause.UNFILLED and holes[-1][1] != NEVER:
                holes.append([newest, NEVER])
            continue
        if row["flags"] & Flag.BLOCK:
            continue
        if not row["flags"] & Flag.BACKFILL:
            if holes[-1][1] == NEVER:  # what was marked stays marked, whatever comes next
                holes[-1][1] = max(holes[-1][0], ts_event)
            newest = max(newest, ts_event)
        start = ts_event // interval_ns * interval_ns
        due = start + interval_ns + wait_ns
        if ts_recv < due + (0 if in_time_alone else KEPT_NS) and due <= until_ns:
            members.setdefault(start, []).append(row)
    return {
        start: _candle(
            rows,
            exponents,
            is_partial=any(
                start + interval_ns > after and start <= until for after, until in holes
            ),
        )
        for start, rows in members.items()
    }


def _candle(rows: list[Any], exponents: tuple[int, int], *, is_partial: bool) -> DirectCandle:
    ordered = sorted(rows, key=lambda row: int(row["ts_event"]))
    prices = [decimal(row["price"], exponents[0]) for row in ordered]
    sizes = [decimal(row["size"], exponents[1]) for row in ordered]
    sides = [int(row["side"]) for row in ordered]
    buys = [size for size, side in zip(sizes, sides, strict=True) if side == Side.BID]
    worth = (_EXACT.multiply(*pair) for pair in zip(prices, sizes, strict=True))
    return DirectCandle(
        *(prices[0], max(prices), min(prices), prices[-1]),
        _sum(sizes),
        None if Side.NONE in sides else _sum(buys),
        _sum(worth),
        len(rows),
        is_partial,
    )


def _sum(numbers: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for number in numbers:
        total = _EXACT.add(total, number)
    return total


def decimal(number: Any, exponent: int) -> Decimal:
    return Decimal(int(number)).scaleb(-exponent, _EXACT)


def candle_of(row: Any, exponents: tuple[int, int]) -> DirectCandle:
    """Return what a published row holds, in the same terms."""
    price, size = exponents

    def optional(name: str, exponent: int) -> Decimal | None:
        return None if row[name] == ABSENT else decimal(row[name], exponent)

    volume, turnover = optional("volume", size), optional("turnover", int(row["exponent"]))
    assert volume is not None
    return DirectCandle(
        decimal(row["open"], price),
        decimal(row["high"], price),
        decimal(row["low"], price),
        decimal(row["close"], price),
        volume,
        optional("buy_volume", size),
        turnover,
        int(row["trades"]),
        bool(row["flags"] & Flag.PARTIAL),
    )


Levels = list[tuple[Decimal, Decimal]]


def direct_tops(
    levels: Rows, exponents: tuple[int, int], depth: int, interval_ns: int, until_ns: int
) -> Iterator[tuple[int, Levels, Levels]]:
    """Yield time, bids and asks of each top up to a time.

    Args:
        levels: of one instrument, in order, with GAP and RESET rows.
        exponents: of its prices and sizes.
        depth: levels a side.
        interval_ns: between two tops.
        until_ns: of the last one.
    """
    book: dict[int, dict[Decimal, Decimal]] = {Side.BID: {}, Side.ASK: {}}
    is_valid = False
    arrived = np.maximum.accumulate(levels["ts_recv"]).tolist()
    columns = [levels[name].tolist() for name in ("kind", "side", "price", "size")]
    rows = [*zip(arrived, *columns, strict=True)]
    at, due = 0, (arrived[0] // interval_ns + 1) * interval_ns
    while due <= until_ns:
        while at < len(rows) and rows[at][0] < due:
            _, kind, side, price, size = rows[at]
            at += 1
            if kind in {Kind.GAP, Kind.RESET}:
                is_valid = kind == Kind.RESET
                book = {Side.BID: {}, Side.ASK: {}}
            elif is_valid:
                key = decimal(price, exponents[0])
                book[side][key] = decimal(size, exponents[1])
                if not size:
                    del book[side][key]
        if is_valid:
            bids = sorted(book[Side.BID].items(), reverse=True)[:depth]
            yield due, bids, sorted(book[Side.ASK].items())[:depth]
        elif at < len(rows):
            due = max(due, rows[at][0] // interval_ns * interval_ns)
        else:
            return
        due += interval_ns


def tops_of(rows: Rows, exponents: tuple[int, int]) -> dict[int, tuple[Levels, Levels]]:
    """Return the published tops of one instrument in the same terms, by their times."""
    found: dict[int, tuple[Levels, Levels]] = {}
    for row in rows:
        if row["kind"] == Kind.GAP:
            continue
        sides = found.setdefault(int(row["ts_recv"]), ([], []))
        if row["kind"] != Kind.RESET:
            level = decimal(row["price"], exponents[0]), decimal(row["size"], exponents[1])
            sides[int(row["side"]) - 1].append(level)
    return found


class DerivedCheck:
    """Compares all derived rows of a run with what its trades and book rows give."""

    def __init__(
        self,
        settings: DerivedSettings,
        worth: Callable[[str], Decimal | None] = lambda _key: Decimal(1),
    ) -> None:
        """Args:
        settings: those of every instrument.
        worth: what price times size is multiplied with, by key; None: there is no turnover.
        """
        self._worth = worth
        classes = (RowClass.TRADE, RowClass.LEVEL, RowClass.CANDLE, *settings.top_classes)
        self._rows = {row_class: RowsOf(row_class) for row_class in classes}
        self._settings = settings
        self.last: dict[str, dict[Any, Any]] = {}

    def add(self, batches: Iterable[TickBatch]) -> None:
        batches = [*batches]
        for rows in self._rows.values():
            rows.add(batches)

    def candles(self) -> int:
        """Compare candles; return how many there are."""
        compared = 0
        published = self._rows[RowClass.CANDLE].by_key()
        for key, (trades, exponents) in self._rows[RowClass.TRADE].by_key().items():
            own = published[key][0] if key in published else np.zeros(0, RowClass.CANDLE.dtype)
            own = own[(own["kind"] == RowClass.CANDLE.id) & (own["origin"] == Origin.TRADES)]
            assert set(own["interval_ns"].tolist()) <= {*self._settings.candle_intervals_ns}
            for interval_ns in self._settings.candle_intervals_ns:
                compared += self._candles(key, trades, exponents, own, interval_ns)
        return compared

    def _candles(
        self, key: str, trades: Rows, exponents: tuple[int, int], own: Rows, interval_ns: int
    ) -> int:
        wait_ns, end_ns = self._settings.candle_wait_ns, int(trades["ts_recv"].max())
        expected = direct_candles(trades, exponents, interval_ns, wait_ns, NEVER)
        of_interval = own[own["interval_ns"] == interval_ns]
        last = {int(row["start_ns"]): candle_of(row, exponents) for row in of_interval}
        self.last.setdefault(key, {}).update(
            {(interval_ns, start): candle for start, candle in last.items()}
        )
        worth = self._worth(key)
        for start, candle in last.items():
            assert worth is not None or candle.turnover is None
            turnover = expected[start].turnover
            assert turnover is not None
            turnover = None if worth is None else _EXACT.multiply(turnover, worth)
            assert candle == replace(expected[start], turnover=turnover)
        due = {start for start in expected if start + interval_ns + wait_ns < end_ns}
        assert due <= last.keys()
        return len(last)

    def tops(self) -> int:
        """Compare tops of books; return how many there are."""
        compared = 0
        settings = self._settings
        levels_of = self._rows[RowClass.LEVEL].by_key()
        for row_class in settings.top_classes:
            published = self._rows[row_class].by_key()
            assert published.keys() <= levels_of.keys()
            for key, (levels, exponents) in levels_of.items():
                own = published[key][0] if key in published else np.zeros(0, row_class.dtype)
                found = tops_of(own, exponents)
                end_ns = max([int(levels["ts_recv"].max()), *found])
                direct = direct_tops(
                    levels, exponents, settings.top_levels, settings.top_interval_ns, end_ns
                )
                expected = {at: (bids, asks) for at, bids, asks in direct}
                assert found == {at: expected[at] for at in found}
                assert {at for at in expected if at < int(levels["ts_recv"].max())} <= found.keys()
                compared += len(found)
        return compared
