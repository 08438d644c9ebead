"""Candles of five minutes, and products' states: the channels `candles` and `status`.

A candle comes each second while it changes; none says that it is closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from ingestor.adapter import (
    SECOND,
    ColumnBuffer,
    InstrumentState,
    add_candle,
    add_instrument_status,
    seconds_ns,
)

_CANDLE_NS: Final = 300 * SECOND  # the only interval
_STATES: Final = {
    "online": InstrumentState.TRADING,
    "offline": InstrumentState.HALTED,
    "delisted": InstrumentState.CLOSED,
}


class Candle(Struct, gc=False):
    """One candle of an event."""

    product_id: str
    start: str  # s
    open: Any  # as text or bare: `float_hook` keeps the digits
    high: Any
    low: Any
    close: Any
    volume: Any


class Product(Struct, gc=False):
    """One product of an event."""

    id: str
    status: str


def append_candles(
    candles: Sequence[Candle],
    symbols: Mapping[str, int],
    times: tuple[int, int],
    flags: int,
    out: ColumnBuffer,
) -> None:
    """Append candles.

    Args:
        candles: of one event.
        symbols: product -> instrument number.
        times: of the message and of its receipt, ns.
        flags: SNAPSHOT of the first ones.
        out: takes them.
    """
    ts_event, ts_recv = times
    for candle in candles:
        add_candle(
            out,
            symbols[candle.product_id],
            ts_recv,
            start_ns=seconds_ns(candle.start),
            interval_ns=_CANDLE_NS,
            prices=(candle.open, candle.high, candle.low, candle.close),
            volume=candle.volume,
            ts_event=ts_event,
            flags=flags,
        )


def append_statuses(
    products: Sequence[Product],
    symbols: Mapping[str, int],
    times: tuple[int, int],
    flags: int,
    out: ColumnBuffer,
) -> None:
    """Append what may be done with products.

    Args:
        products: of one event.
        symbols: product -> instrument number.
        times: of the message and of its receipt, ns.
        flags: SNAPSHOT of the first ones.
        out: takes them.
    """
    ts_event, ts_recv = times
    for product in products:
        state = _STATES.get(product.status, InstrumentState.UNKNOWN)
        number = symbols[product.id]
        add_instrument_status(out, number, ts_recv, state=state, ts_event=ts_event, flags=flags)
