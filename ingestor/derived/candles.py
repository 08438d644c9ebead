"""Makes candles of the rows of the channel `trades`.

Pure. What a candle holds depends on the rows alone, never on when they are looked at: a trade
belongs to the candle of its venue time, and is late if it was received when the candle was closed,
which is a fixed time after its end. A late trade has its candle published again. A GAP marks every
candle that may lack trades as PARTIAL, and stands among the candles too, since an interval without
any trade has none.

A batch costs a sort and a few sums for each interval. Only instruments with a GAP, a late trade, or
a hole that no trade has ended yet are looked at row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.derived.candle import KEPT_NS, Candle, CandleStream, Trades, gap_row, turnover_of
from ingestor.derived.settings import DerivedSettings
from ingestor.model.decimals import INT64_MAX
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import CANDLE, Cause, Flag, Kind, Rows, Side

_BLOCK: Final = int(Flag.BLOCK)
_BACKFILL: Final = int(Flag.BACKFILL)

SettingsOf = Callable[[int], DerivedSettings]


class Candles:
    """The candles of one loop."""

    def __init__(self, table: InstrumentTable, settings_of: SettingsOf) -> None:
        """Create the candles.

        Args:
            table: the instruments, may grow.
            settings_of: instrument number -> what is derived for it.
        """
        self._table = table
        self._settings_of = settings_of
        self._streams: dict[int, CandleStream] = {}
        self._wait_ns = np.zeros(0, np.int64)  # by instrument; -1 = no candles
        self._odd: set[int] = set()  # instruments with a hole that no trade has ended
        self._due: list[int] = []  # a heap
        self._due_candles: dict[int, list[tuple[CandleStream, Candle]]] = {}
        self._now_ns = 0
        self._out = bytearray()
        self._changed: dict[Candle, tuple[CandleStream, int]] = {}  # closed, and when they changed
        self._too_late: dict[tuple[int, int], list[int]] = {}

    def take(self, trades: Rows, now_ns: int) -> Rows:
        """Take the trades of one flush; return the candles that are published.

        Args:
            trades: rows in order of arrival, with GAP rows.
            now_ns: all that was received before is in them, or in those taken before.
        """
        if len(trades):
            self._fit()
            wanted = self._wait_ns[trades["instrument"]] >= 0
            if wanted.any():
                self._add(trades if wanted.all() else trades[wanted])
        self._now_ns = max(self._now_ns, now_ns)
        while self._due and self._due[0] <= self._now_ns:
            due_ns = heappop(self._due)
            for stream, candle in self._due_candles.pop(due_ns):
                self._close(stream, candle)
        self._show_changed()
        return self._published() if self._out else _NOTHING

    def configure(self, settings_of: SettingsOf) -> None:
        """Follow other settings, as `DerivedRows.configure` says."""
        self._settings_of = settings_of
        self._wait_ns = self._wait_ns[:0]
        self._fit()
        for number, stream in list(self._streams.items()):
            settings = settings_of(number)
            own = settings.candle_intervals_ns, settings.candle_wait_ns
            if own != (stream.intervals_ns, stream.wait_ns):
                self._forget(stream)
                self._odd.discard(number)
                del self._streams[number]

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self._fit()
        for old, new in numbers.items():
            stream = self._streams.get(old)
            if stream is None:
                continue
            before, after = self._table[old], self._table[new]
            finer = (
                after.price_exponent - before.price_exponent,
                after.size_exponent - before.size_exponent,
            )
            self._streams[new] = stream
            del self._streams[old]
            stream.number, stream.turnover = new, turnover_of(after)
            self._odd = {new if number == old else number for number in self._odd}
            if min(finer) < 0:  # nothing can be written in coarser units
                self._forget(stream)
            else:
                for candle in stream.all():
                    candle.trades.scale(10 ** finer[0], 10 ** finer[1])

    def _forget(self, stream: CandleStream) -> None:
        """Begin anew: what there is can't go on."""
        for candle in stream.all():
            candle.is_closed = True  # it is not published when it is due
        stream.candles.clear()
        stream.open_hole()
        self._odd.add(stream.number)

    def _fit(self) -> None:
        known = len(self._wait_ns)
        if known == len(self._table):
            return
        found = [self._settings_of(number) for number in range(known, len(self._table))]
        fresh = [spec.candle_wait_ns if spec.candle_intervals_ns else -1 for spec in found]
        self._wait_ns = np.concatenate([self._wait_ns, np.array(fresh, np.int64)])

    def _stream(self, number: int) -> CandleStream:
        found = self._streams.get(number)
        if found is None:
            settings = self._settings_of(number)
            found = self._streams[number] = CandleStream(
                number,
                settings.candle_intervals_ns,
                settings.candle_wait_ns,
                turnover_of(self._table[number]),
            )
            self._odd.add(number)
        return found

    def _add(self, rows: Rows) -> None:
        instruments = rows["instrument"]
        of_each = np.unique(instruments).tolist()
        for number in of_each:
            self._stream(number)
        odd = self._odd.intersection(of_each)
        is_late = rows["ts_recv"] - rows["ts_event"] >= self._wait_ns[instruments]
        is_odd = is_late | (rows["kind"] != Kind.TRADE) | (rows["flags"] & _BACKFILL != 0)
        if is_odd.any():
            odd.update(np.unique(instruments[is_odd]).tolist())
        if odd:
            one_by_one = np.isin(instruments, list(odd))
            self._walk(rows[one_by_one])
            rows = rows[~one_by_one]
        rows = rows[(rows["flags"] & _BLOCK) == 0]  # negotiated: no price of the market
        if len(rows):
            self._sum(rows)

    def _sum(self, rows: Rows) -> None:
        """Take plain trades that are not late, all at once."""
        rows = rows[np.lexsort((rows["ts_event"], rows["instrument"]))]
        numbers = rows["instrument"]
        ends = np.append(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1, len(rows))
        sets: dict[tuple[int, ...], list[NDArray[Any]]] = {}
        for start, end in pairwise([0, *ends.tolist()]):
            stream = self._streams[int(numbers[start])]
            stream.newest_ns = max(stream.newest_ns, int(rows["ts_event"][end - 1]))
            sets.setdefault(stream.intervals_ns, []).append(rows[start:end])
        for intervals_ns, parts in sets.items():
            columns = _Columns(rows if len(sets) == 1 else np.concatenate(parts))
            for interval_ns in intervals_ns:
                for number, start_ns, ts_recv, trades in columns.sums(interval_ns):
                    stream = self._streams[number]
                    self._merge(stream, interval_ns, start_ns, trades, ts_recv)

    def _merge(
        self, stream: CandleStream, interval_ns: int, start_ns: int, trades: Trades, ts_recv: int
    ) -> None:
        """Add trades to their candle.

        Args:
            stream: whose they are.
            interval_ns: of the candle.
            start_ns: of the candle.
            trades: the trades.
            ts_recv: ns, when the last of them was received.
        """
        candle = stream.find(interval_ns, start_ns)
        if candle is None:
            candle = stream.begin(interval_ns, start_ns, trades, ts_recv)
            if candle.due_ns <= max(ts_recv, self._now_ns):
                candle.is_closed = True
                self._changed[candle] = (stream, ts_recv)
            else:
                if candle.due_ns not in self._due_candles:
                    heappush(self._due, candle.due_ns)
                self._due_candles.setdefault(candle.due_ns, []).append((stream, candle))
            return
        if candle.is_closed:
            self._change(stream, candle, ts_recv)
        candle.trades.add(trades)

    def _change(self, stream: CandleStream, candle: Candle, ts_recv: int) -> None:
        """Have a closed candle published again; what arrives at one time is one change."""
        before = self._changed.get(candle)
        if before is not None and before[1] != ts_recv:
            self._out += stream.row(candle, before[1])
        self._changed[candle] = (stream, ts_recv)

    def _show_changed(self) -> None:
        """Write what changed before now: more may come that was received now."""
        for candle, (stream, ts_recv) in list(self._changed.items()):
            if ts_recv < self._now_ns:
                self._out += stream.row(candle, ts_recv)
                del self._changed[candle]
        for (number, ts_recv), (first, last) in list(self._too_late.items()):
            if ts_recv < self._now_ns:
                self._out += gap_row(number, ts_recv, Cause.LATE, first, last)
                del self._too_late[number, ts_recv]

    def _published(self) -> Rows:
        """Return the rows of before now, in an order that doesn't depend on the flushes."""
        rows = np.frombuffer(self._out, CANDLE)
        keys = ("start_ns", "interval_ns", "kind", "instrument", "ts_recv")
        rows = rows[np.lexsort([rows[name] for name in keys])]
        end = int(rows["ts_recv"].searchsorted(self._now_ns))
        self._out = bytearray(rows[end:].tobytes())
        return rows[:end]

    def _close(self, stream: CandleStream, candle: Candle) -> None:
        if not candle.is_closed:
            candle.is_closed = True
            self._out += stream.row(candle, candle.due_ns)

    def _close_until(self, stream: CandleStream, ts_recv: int) -> None:
        """Close an instrument's candles that are due before something that was received then."""
        due = [
            candle for candle in stream.all() if not candle.is_closed and candle.due_ns <= ts_recv
        ]
        for candle in sorted(due, key=lambda one: (one.due_ns, one.interval_ns)):
            self._close(stream, candle)

    def _walk(self, rows: Rows) -> None:
        """Take rows one by one."""
        names = ("instrument", "kind", "flags", "ts_event", "ts_recv", "price", "size", "side")
        columns = [rows[name].tolist() for name in (*names, "sequence")]
        for index, values in enumerate(zip(*columns, strict=True)):
            number, kind, flags, ts_event, ts_recv, price, size, side, sequence = values
            stream = self._streams[number]
            self._close_until(stream, ts_recv)
            if kind != Kind.TRADE:
                self._hole(stream, rows[index : index + 1])
            elif not flags & _BLOCK:
                if not flags & _BACKFILL:
                    stream.close_hole(ts_event)
                    self._odd.discard(number)
                    stream.newest_ns = max(stream.newest_ns, ts_event)
                if not self._put(stream, ts_recv, ts_event, price, size, side):
                    span = self._too_late.setdefault((number, ts_recv), [sequence, sequence])
                    span[:] = min(span[0], sequence), max(span[1], sequence)

    def _put(
        self, stream: CandleStream, ts_recv: int, ts_event: int, price: int, size: int, side: int
    ) -> bool:
        """Add one trade to its candles; return False if it is too late for one of them.

        Args:
            stream: whose trade it is.
            ts_recv: when it was received, ns.
            ts_event: the venue's time, ns.
            price: in the instrument's unit.
            size: in the instrument's unit.
            side: a `Side`.
        """
        is_in_all = True
        for interval_ns in stream.intervals_ns:
            start_ns = ts_event - ts_event % interval_ns
            if ts_recv >= start_ns + interval_ns + stream.wait_ns + KEPT_NS:
                is_in_all = False
            else:
                trades = Trades.of_one(ts_event, price, size, side)
                self._merge(stream, interval_ns, start_ns, trades, ts_recv)
        return is_in_all

    def _hole(self, stream: CandleStream, gap: Rows) -> None:
        """Trades were lost: mark the candles that may lack them, and say so among the candles."""
        mark = gap.view(RowClass.TRADE.control)[0]
        ts_recv, cause = int(mark["ts_recv"]), Cause(int(mark["cause"]))
        if cause is not Cause.UNFILLED:  # a GAP before it was about the same trades
            stream.open_hole()
            self._odd.add(stream.number)
            for candle in stream.all():
                if candle.end_ns > stream.newest_ns and not candle.is_partial:
                    if candle.is_closed:
                        self._change(stream, candle, ts_recv)
                    candle.is_partial = True
        first, last = int(mark["first"]), int(mark["last"])
        self._out += gap_row(stream.number, ts_recv, cause, first, last)


class _Columns:
    """Trades in order of instrument and venue time, as columns."""

    def __init__(self, rows: Rows) -> None:
        self.numbers = rows["instrument"]
        self.ts_event = np.ascontiguousarray(rows["ts_event"])
        self.ts_recv = np.ascontiguousarray(rows["ts_recv"])
        self.prices: Any = np.ascontiguousarray(rows["price"])
        sizes: Any = np.ascontiguousarray(rows["size"])
        prices_of_value: Any = self.prices
        most = int(sizes.max()) * len(rows)
        if most * int(self.prices.max()) > INT64_MAX:  # Python's integers have no end
            prices_of_value = self.prices.astype(object)
        if most > INT64_MAX:
            sizes = sizes.astype(object)
        self.sizes: Any = sizes
        self.buys: Any = sizes * (rows["side"] == Side.BID)
        self.unknown = (rows["side"] == Side.NONE).astype(np.int64)
        self.values: Any = prices_of_value * sizes

    def sums(self, interval_ns: int) -> Iterator[tuple[int, int, int, Trades]]:
        """Yield instrument, start, latest time of receipt and sum of each candle's trades."""
        starts = self.ts_event - self.ts_event % interval_ns
        numbers = self.numbers
        is_new = (numbers[1:] != numbers[:-1]) | (starts[1:] != starts[:-1])
        firsts = np.concatenate(([0], np.flatnonzero(is_new) + 1))
        ends = np.append(firsts[1:], len(starts))
        lasts = ends - 1
        columns = (
            self.prices[firsts],
            self.ts_event[firsts],
            np.maximum.reduceat(self.prices, firsts),
            np.minimum.reduceat(self.prices, firsts),
            self.prices[lasts],
            self.ts_event[lasts],
            np.add.reduceat(self.sizes, firsts),
            np.add.reduceat(self.buys, firsts),
            np.add.reduceat(self.unknown, firsts),
            np.add.reduceat(self.values, firsts),
            ends - firsts,
        )
        found = zip(*[column.tolist() for column in columns], strict=True)
        received = np.maximum.reduceat(self.ts_recv, firsts).tolist()
        heads = zip(numbers[firsts].tolist(), starts[firsts].tolist(), received, strict=True)
        for head, values in zip(heads, found, strict=True):
            yield *head, Trades(*values)


_NOTHING: Final = np.empty(0, CANDLE)
