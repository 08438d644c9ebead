"""Holds the candles of one instrument while they may change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from ingestor.model.decimals import INT64_MAX, exponent_of, parse_decimal
from ingestor.model.instruments import Instrument, SizeUnit
from ingestor.model.row_classes import OWN_EXPONENT_MAX, RowClass, control_row
from ingestor.model.row_values import CandleState, Origin
from ingestor.model.rows import ABSENT, CANDLE, Cause, Flag, Kind, Side

KEPT_NS: Final = 60_000_000_000  # how long a closed candle may still change
HOLES_MAX: Final = 16  # remembered of one instrument
BEFORE_ALL: Final = -(2**63)

_ROW: Final = Struct("<qqQIHBBqqqqqqqqqqqIHH")
assert _ROW.size == CANDLE.itemsize
_FLAGS: Final = int(Flag.LAST | Flag.NO_VENUE_TIME)


@dataclass(frozen=True, slots=True)
class Turnover:
    """Say how the turnover follows from the sum of price times size: times factor, in units of
    10^-exponent.
    """

    factor: int
    exponent: int


def turnover_of(one: Instrument) -> Turnover | None:
    """Return how an instrument's turnover is computed; None where that needs a division."""
    if one.settlement not in {"", one.quote} or one.size_unit is SizeUnit.QUOTE:
        return None
    exponent = one.price_exponent + one.size_exponent
    if one.size_unit is SizeUnit.BASE:
        return Turnover(1, exponent)
    decimals = exponent_of(one.multiplier)
    return Turnover(parse_decimal(one.multiplier, decimals), exponent + decimals)


@dataclass(slots=True)
class Trades:
    """Sum up some trades of one candle: the first and the last by the venue's time, extremes, and
    exact sums.

    unknown: trades of which nobody says who took liquidity. value: the sum of price times size.
    """

    open: int
    open_ns: int
    high: int
    low: int
    close: int
    close_ns: int
    volume: int
    buy_volume: int
    unknown: int
    value: int
    count: int

    @classmethod
    def of_one(cls, ts_event: int, price: int, size: int, side: int) -> Trades:
        """Return the sum of one trade.

        Args:
            ts_event: its time, ns since the epoch.
            price: in units of the instrument's price exponent.
            size: in units of its size exponent.
            side: the aggressor's.
        """
        buys = size if side == Side.BID else 0
        is_unknown = side == Side.NONE
        return cls(
            *(price, ts_event, price, price, price, ts_event),
            *(size, buys, int(is_unknown), price * size, 1),
        )

    def add(self, later: Trades) -> None:
        """Add trades that arrived later."""
        if later.open_ns < self.open_ns:
            self.open, self.open_ns = later.open, later.open_ns
        if later.close_ns >= self.close_ns:
            self.close, self.close_ns = later.close, later.close_ns
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.volume += later.volume
        self.buy_volume += later.buy_volume
        self.unknown += later.unknown
        self.value += later.value
        self.count += later.count

    def scale(self, price: int, size: int) -> None:
        """Follow finer units. price, size: what a number in the old unit is in the new one."""
        self.open, self.high = self.open * price, self.high * price
        self.low, self.close = self.low * price, self.close * price
        self.volume, self.buy_volume = self.volume * size, self.buy_volume * size
        self.value *= price * size


@dataclass(slots=True, eq=False)
class Candle:
    """One candle with trades. due_ns: when it closes, by the time of receipt."""

    start_ns: int
    interval_ns: int
    due_ns: int
    trades: Trades
    is_partial: bool
    is_closed: bool = False

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.interval_ns


@dataclass(slots=True)
class CandleStream:
    """The candles of one instrument.

    newest_ns: the latest venue time of a trade. holes: venue times between which trades may be
    missing, from (exclusive) and to (inclusive); to is None until the next trade comes.
    """

    number: int
    intervals_ns: tuple[int, ...]
    wait_ns: int
    turnover: Turnover | None
    newest_ns: int = BEFORE_ALL
    holes: list[tuple[int, int | None]] = field(default_factory=lambda: [(BEFORE_ALL, None)])
    candles: dict[int, dict[int, Candle]] = field(default_factory=dict)

    @property
    def has_open_hole(self) -> bool:
        return bool(self.holes) and self.holes[-1][1] is None

    def open_hole(self) -> None:
        """Trades after the newest one may be missing."""
        if not self.has_open_hole:
            self.holes.append((self.newest_ns, None))
            del self.holes[:-HOLES_MAX]

    def close_hole(self, ts_event: int) -> None:
        """A trade came: what is missing is before it."""
        if self.has_open_hole:
            after_ns = self.holes[-1][0]
            self.holes[-1] = (after_ns, max(after_ns, ts_event))

    def is_in_hole(self, start_ns: int, end_ns: int) -> bool:
        """Return True if trades of a stretch of time may be missing."""
        return any(
            end_ns > after and (until is None or start_ns <= until) for after, until in self.holes
        )

    def all(self) -> Iterator[Candle]:
        for of_interval in self.candles.values():
            yield from of_interval.values()

    def find(self, interval_ns: int, start_ns: int) -> Candle | None:
        return self.candles.setdefault(interval_ns, {}).get(start_ns)

    def begin(self, interval_ns: int, start_ns: int, trades: Trades, now_ns: int) -> Candle:
        """Begin a candle, and forget those that can change no more.

        Args:
            interval_ns: its length.
            start_ns: its start.
            trades: the first of its trades.
            now_ns: the time of receipt of what is looked at.
        """
        end_ns = start_ns + interval_ns
        is_partial = self.is_in_hole(start_ns, end_ns)
        candle = Candle(start_ns, interval_ns, end_ns + self.wait_ns, trades, is_partial)
        of_interval = self.candles.setdefault(interval_ns, {})
        for old in [old for old in of_interval.values() if old.due_ns + KEPT_NS <= now_ns]:
            if old.is_closed:
                del of_interval[old.start_ns]
        of_interval[start_ns] = candle
        return candle

    def row(self, candle: Candle, ts_recv: int) -> bytes:
        """Return the row of a closed candle; a GAP where no row can hold its volume.

        candle: the candle. ts_recv: ns, when it became what it is.
        """
        trades = candle.trades
        if trades.volume > INT64_MAX:
            return gap_row(self.number, ts_recv, Cause.REJECTED)
        buys = ABSENT if trades.unknown else trades.buy_volume
        turnover, exponent = self._turnover(trades.value)
        return _ROW.pack(
            *(ts_recv, ts_recv, 0, self.number),
            *(_FLAGS | (Flag.PARTIAL if candle.is_partial else 0), 0, RowClass.CANDLE.id),
            *(candle.start_ns, candle.end_ns, candle.interval_ns),
            *(trades.open, trades.high, trades.low, trades.close),
            *(trades.volume, buys, turnover, trades.count, exponent),
            *(CandleState.CLOSED, Origin.TRADES),
        )

    def _turnover(self, value: int) -> tuple[int, int]:
        """Return the turnover and its decimals: the fewest that hold it, as those of venues."""
        if self.turnover is None:
            return ABSENT, 0
        value, exponent = value * self.turnover.factor, self.turnover.exponent
        while exponent and value % 10 == 0:
            value, exponent = value // 10, exponent - 1
        fits = value <= INT64_MAX and exponent <= OWN_EXPONENT_MAX
        return (value, exponent) if fits else (ABSENT, 0)


def gap_row(number: int, ts_recv: int, cause: Cause, first: int = 0, last: int = 0) -> bytes:
    """Return a GAP row among candles.

    Args:
        number: of the instrument.
        ts_recv: ns since the epoch.
        cause: of the gap.
        first: first number that is missing, 0 = unknown.
        last: last number that is missing, 0 = unknown.
    """
    row = control_row(
        RowClass.CANDLE, Kind.GAP, number, ts_recv, cause=cause, first=first, last=last
    )
    return row.tobytes()
