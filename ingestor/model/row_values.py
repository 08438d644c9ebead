"""Name the values of the fields of rows that hold a choice."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class FundingState(IntEnum):
    """Say if a funding rate may still change."""

    UNKNOWN = 0
    PREDICTED = 1  # changes until it is due
    SETTLED = 2  # fixed, or exchanged already


class InterestUnit(IntEnum):
    """Name the unit of open interest."""

    UNKNOWN = 0
    BASE = 1
    QUOTE = 2
    CONTRACT = 3
    USD = 4


class Position(IntEnum):
    """The side of a liquidated position."""

    UNKNOWN = 0
    LONG = 1  # it is closed by an order that sells
    SHORT = 2  # it is closed by an order that buys


class PriceKind(IntEnum):
    """Name the meaning of a liquidation's price."""

    UNKNOWN = 0
    ORDER = 1  # the limit of the order that closes the position
    BANKRUPTCY = 2  # at which the position is worth nothing
    FILL = 3
    MARK = 4


class CandleState(IntEnum):
    """Say if a candle may still change."""

    UNKNOWN = 0
    OPEN = 1
    CLOSED = 2


class Origin(IntEnum):
    """Name the maker of a candle."""

    VENUE = 0
    TRADES = 1  # this program, from the rows of the channel `trades`


class InstrumentState(IntEnum):
    """Name what may be done with an instrument."""

    UNKNOWN = 0
    TRADING = 1
    HALTED = 2
    AUCTION = 3
    MAINTENANCE = 4
    DELISTING = 5  # announced: it ends at `effective_ns`, or soon
    CLOSED = 6  # delisted, expired, or settled
    PRE_OPEN = 7
    CANCEL_ONLY = 8
    POST_ONLY = 9
    LIMIT_ONLY = 10
    REDUCE_ONLY = 11
    SETTLING = 12


class StatusScope(IntEnum):
    """Name the subject of a venue's status; each instrument concerned has a row."""

    UNKNOWN = 0
    INSTRUMENT = 1
    MARKET = 2
    VENUE = 3


class OrderAction(IntEnum):
    """Name what happened to an order."""

    UNKNOWN = 0
    ADD = 1
    CHANGE = 2  # of its size or price
    REMOVE = 3
    MATCH = 4  # a part of it was filled; `size` is what is left


class OrderReason(IntEnum):
    """Name the reason for which an order changed or left."""

    UNKNOWN = 0
    FILLED = 1
    CANCELED = 2
    AMENDED = 3


def names_of(values: type[IntEnum]) -> Mapping[int, str]:
    """Return the names of values as JSON records have them."""
    return {int(value): value.name.lower() for value in values}
