"""Finds lost trades by their numbers, and puts those that are fetched later in their place.

Pure. Where a venue numbers an instrument's trades without a hole, a jump is a GAP with the missing
range. Where numbers only ascend, a hole that something else declared has its range as soon as the
next trade comes. A range is open until each of its trades came, late or as a BACKFILL row, or until
somebody gives it up, which is a GAP of its own. Rows are taken in the order in which they came, so
that what becomes of them doesn't depend on where the flushes fell.

A batch costs one look at the steps between its numbers, with the compiled library where there is
one; only instruments that have another step than 1 are looked at row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.adapter import LostTrades, TradeNumbers
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import Cause, Flag, Kind, Rows
from ingestor.native import PYTHON_WAY, TradeFollower, native

RANGES_MAX: Final = 256  # open at a time, of one instrument; the oldest is forgotten beyond
RENUMBERED: Final = 10_000_000  # a jump this far is another numbering, not so many trades
_BACKFILL: Final = int(Flag.BACKFILL)
_CODES: Final = {one: code for code, one in enumerate(TradeNumbers)}
_ASCENDING: Final = _CODES[TradeNumbers.ASCENDING]
_SPANS: Final = _CODES[TradeNumbers.SPANS]


@dataclass(frozen=True, slots=True)
class Lost:
    """Trades that an instrument lost. instrument: its number."""

    instrument: int
    trades: LostTrades


_Mark = tuple[int, Rows]  # rows before it, the GAP


class TradeGaps:
    """Follow each instrument's trade numbers.

    lost, filled, unfilled: numbers by (venue, market): declared missing, come since, given up.
    """

    def __init__(
        self, table: InstrumentTable, numbers_of: Callable[[int], TradeNumbers] | None
    ) -> None:
        """numbers_of: instrument number -> what its market's trade numbers say; None: nothing."""
        self.lost: Counter[tuple[str, str]] = Counter()
        self.filled: Counter[tuple[str, str]] = Counter()
        self.unfilled: Counter[tuple[str, str]] = Counter()
        self._table = table
        self._numbers_of = numbers_of
        self._codes = np.zeros(0, np.uint8)  # _CODES, by instrument
        self._last = np.zeros(0, np.int64)  # the highest number, by instrument; 0 = none
        self._last_ns = np.zeros(0, np.int64)  # and its venue time
        self._unsure: set[int] = set()  # instruments with a hole since their last trade
        library = native().library
        self._follower = TradeFollower(library) if library is not None else None
        self._ways = np.zeros(0, np.uint8)  # for the follower: _CODES, or PYTHON_WAY if unsure
        self._open: dict[int, list[LostTrades]] = {}
        self._found: list[Lost] = []
        self._given_up: list[Rows] = []

    @property
    def is_waiting(self) -> bool:
        """Return True if the next `take` has marks to insert."""
        return bool(self._given_up)

    def take(self, trades: Rows) -> tuple[Rows, NDArray[np.uint32]]:
        """Take the trades of one flush, with their GAP marks.

        Returns what is published of them, and the instrument of each fetched trade that nobody
        misses.
        """
        self._fit()
        given_up, self._given_up = self._given_up, []
        plain = 0 if self._follower is None else self._follower.take(trades)
        if plain == len(trades):
            return _inserted(trades, [(0, hole) for hole in given_up]), _NOBODY
        left, unwanted = self._take(trades[plain:])
        if plain or given_up:
            left = np.concatenate([*given_up, trades[:plain], left])
        return left, unwanted

    def _take(self, trades: Rows) -> tuple[Rows, NDArray[np.uint32]]:
        if not (trades["flags"] & _BACKFILL).any():
            return _inserted(trades, self._look(trades)), _NOBODY
        parts, unwanted = [], []
        is_fetched = (trades["flags"] & _BACKFILL) != 0
        edges = np.flatnonzero(np.diff(is_fetched)) + 1
        for start, end in pairwise([0, *edges.tolist(), len(trades)]):
            part = trades[start:end]
            if is_fetched[start]:
                wanted = self._fill(part)
                parts.append(part[wanted])
                unwanted.append(part["instrument"][~wanted])
            else:
                parts.append(_inserted(part, self._look(part)))
        return np.concatenate(parts), np.concatenate(unwanted)

    def found(self) -> list[Lost]:
        """Return the ranges that were opened since the last call."""
        found, self._found = self._found, []
        return found

    def left(self, lost: Lost) -> list[Lost]:
        """Return what is still missing of a range."""
        wanted = lost.trades
        return [
            Lost(lost.instrument, hole)
            for hole in self._open.get(lost.instrument, ())
            if hole.first >= wanted.first and hole.last <= wanted.last
        ]

    def give_up(self, lost: Lost, ts_recv: int) -> None:
        """Declare that what is still missing of a range will not come. ts_recv: ns."""
        for hole in self.left(lost):
            trades = hole.trades
            self._open[hole.instrument].remove(trades)
            self.unfilled[self._market(hole.instrument)] += trades.count
            self._given_up.append(_gap(hole.instrument, ts_recv, Cause.UNFILLED, trades))

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Let new revisions of instruments go on where the old ones were. numbers: old -> new."""
        self._fit()
        for old, new in numbers.items():
            self._last[new], self._last_ns[new] = self._last[old], self._last_ns[old]
            if old in self._open:
                self._open[new] = self._open.pop(old)
            if old in self._unsure:
                self._trust(old)
                self._doubt(new)

    def _look(self, rows: Rows) -> list[_Mark]:
        """Find what is missing among rows that came on sockets."""
        codes = self._codes[rows["instrument"]]
        at = np.flatnonzero(codes)
        if not len(at):
            return []
        instruments = rows["instrument"][at]
        at = at[np.argsort(instruments, kind="stable")]
        instruments, codes = rows["instrument"][at], codes[at]
        numbers = rows["sequence"][at].astype(np.int64)
        spans = self._spans(rows, at, codes)
        ends = np.flatnonzero(np.append(instruments[1:] != instruments[:-1], True))
        starts = np.concatenate(([0], ends[:-1] + 1))
        before = np.concatenate(([0], numbers[:-1]))
        before[starts] = self._last[instruments[starts]]
        is_odd = (numbers != before + spans + 1) & (codes != _ASCENDING)
        is_odd |= rows["kind"][at] != Kind.TRADE
        odd = {*instruments[is_odd].tolist(), *self._unsure.intersection(instruments.tolist())}
        if not odd:
            each = instruments[starts]
            highest = np.maximum.reduceat(numbers, starts)
            self._last[each] = np.maximum(self._last[each], highest)
            self._last_ns[each] = rows["ts_event"][at[ends]]
            return []
        marks: list[_Mark] = []
        for start, end in zip(starts.tolist(), (ends + 1).tolist(), strict=True):
            instrument = int(instruments[start])
            if instrument in odd:
                marks += self._walk(instrument, rows, at[start:end], spans[start:end])
            else:
                self._last[instrument] = max(self._last[instrument], numbers[start:end].max())
                self._last_ns[instrument] = rows["ts_event"][at[end - 1]]
        return sorted(marks, key=lambda mark: mark[0])

    def _spans(
        self, rows: Rows, at: NDArray[np.intp], codes: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """Take out of the rows how many numbers below its own each stands for."""
        spans = np.zeros(len(at), np.int64)
        joins = codes == _SPANS
        if joins.any():
            spans[joins] = rows["trade_id_high"][at[joins]].astype(np.int64)
            rows["trade_id_high"][at[joins]] = 0
        return spans

    def _walk(
        self, instrument: int, rows: Rows, at: NDArray[np.intp], spans: NDArray[np.int64]
    ) -> list[_Mark]:
        """Look at an instrument's rows one by one. at: their indices; spans: as `_spans` gives."""
        last, last_ns = int(self._last[instrument]), int(self._last_ns[instrument])
        is_consecutive = self._codes[instrument] != _ASCENDING
        marks: list[_Mark] = []
        fields = ("kind", "sequence", "ts_event", "ts_recv")
        columns = [rows[name][at].tolist() for name in fields]
        for index, span, kind, number, ts_event, ts_recv in zip(
            at.tolist(), spans.tolist(), *columns, strict=True
        ):
            if kind != Kind.TRADE:
                self._doubt(instrument)
                continue
            if number <= last:
                self._came(instrument, number, span, ts_event)
                continue
            first = number - span
            if last and first > last + 1 and (is_consecutive or instrument in self._unsure):
                lost = LostTrades(last + 1, first - 1, last_ns, ts_event)
                if lost.count > RENUMBERED:
                    lost = LostTrades(0, 0, last_ns, ts_event)  # nobody can say what is missing
                else:
                    self._miss(instrument, lost)
                marks.append((index, _gap(instrument, ts_recv, Cause.SEQUENCE, lost)))
            self._trust(instrument)
            last, last_ns = number, ts_event
        self._last[instrument], self._last_ns[instrument] = last, last_ns
        return marks

    def _doubt(self, instrument: int) -> None:
        self._unsure.add(instrument)
        self._ways[instrument] = PYTHON_WAY

    def _trust(self, instrument: int) -> None:
        if instrument in self._unsure:
            self._unsure.remove(instrument)
            self._ways[instrument] = self._codes[instrument]

    def _miss(self, instrument: int, lost: LostTrades) -> None:
        self.lost[self._market(instrument)] += lost.count
        self._found.append(Lost(instrument, lost))
        open_ranges = self._open.setdefault(instrument, [])
        open_ranges.append(lost)
        del open_ranges[:-RANGES_MAX]

    def _came(self, instrument: int, number: int, span: int, ts_event: int) -> bool:
        """Take the numbers of a row out of the ranges that miss them; return whether any did."""
        found = self._cut(instrument, (number - span, number), (ts_event, ts_event))
        if found:
            self.filled[self._market(instrument)] += found
        return found > 0

    def _cut(self, instrument: int, numbers: tuple[int, int], times_ns: tuple[int, int]) -> int:
        """Take numbers out of the open ranges of an instrument; return how many were missing.

        numbers: the first and the last. times_ns: the venue's times of their trades.
        """
        open_ranges = self._open.get(instrument)
        if not open_ranges:
            return 0
        (first, last), (first_ns, last_ns) = numbers, times_ns
        found, left = 0, []
        for open_range in open_ranges:
            if open_range.last < first or open_range.first > last:
                left.append(open_range)
                continue
            below = LostTrades(open_range.first, first - 1, open_range.after_ns, first_ns)
            above = LostTrades(last + 1, open_range.last, last_ns, open_range.before_ns)
            parts = [part for part in (below, above) if part.count > 0]
            found += open_range.count - sum(part.count for part in parts)
            left += parts
        open_ranges[:] = left
        return found

    def _fill(self, rows: Rows) -> NDArray[np.bool_]:
        """Take fetched rows; return which of them were missing."""
        wanted = np.zeros(len(rows), np.bool_)
        for instrument in np.unique(rows["instrument"]).tolist():
            at = np.flatnonzero(rows["instrument"] == instrument)
            spans = self._spans(rows, at, self._codes[rows["instrument"][at]])
            columns = [rows[name][at].tolist() for name in ("sequence", "ts_event")]
            if self._codes[instrument] == _ASCENDING:
                wanted[at] = self._cover(instrument, *columns)
            else:
                wanted[at] = [
                    self._came(instrument, number, span, ts_event)
                    for number, ts_event, span in zip(*columns, spans.tolist(), strict=True)
                ]
        return wanted

    def _cover(self, instrument: int, numbers: list[int], times_ns: list[int]) -> list[bool]:
        """Take an answer, which holds every trade between its first and its last; return which of
        them were missing.
        """
        open_ranges = self._open.get(instrument, [])
        wanted = [
            any(open_range.first <= number <= open_range.last for open_range in open_ranges)
            for number in numbers
        ]
        (least, least_ns), *_ = ordered = sorted(zip(numbers, times_ns, strict=True))
        most, most_ns = ordered[-1]
        self._cut(instrument, (least, most), (least_ns, most_ns))
        self.filled[self._market(instrument)] += sum(wanted)
        return wanted

    def _market(self, instrument: int) -> tuple[str, str]:
        one = self._table[instrument]
        return one.venue, one.market

    def _fit(self) -> None:
        known = len(self._codes)
        missing = len(self._table) - known
        if missing <= 0:
            return
        of = self._numbers_of
        fresh = [
            _CODES[of(number)] if of is not None else 0 for number in range(known, len(self._table))
        ]
        self._codes = np.concatenate([self._codes, np.array(fresh, np.uint8)])
        self._ways = np.concatenate([self._ways, np.array(fresh, np.uint8)])
        self._last = np.concatenate([self._last, np.zeros(missing, np.int64)])
        self._last_ns = np.concatenate([self._last_ns, np.zeros(missing, np.int64)])
        if self._follower is not None:
            self._follower.use(self._ways, self._last, self._last_ns)


_NOBODY: Final = np.empty(0, np.uint32)


def _gap(instrument: int, ts_recv: int, cause: Cause, lost: LostTrades) -> Rows:
    return control_row(
        RowClass.TRADE,
        Kind.GAP,
        instrument,
        ts_recv,
        cause=cause,
        first=lost.first,
        last=lost.last,
    )


def _inserted(rows: Rows, marks: Iterable[_Mark]) -> Rows:
    marks = list(marks)
    if not marks:
        return rows
    return np.insert(rows, [at for at, _ in marks], np.concatenate([gap for _, gap in marks]))
