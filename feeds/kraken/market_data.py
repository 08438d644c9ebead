"""Candles, and what may be done with pairs: the channels `ohlc` and `instrument`.

A candle has bare numbers, as everything here; it does not say whether it is closed. The channel of
instruments has no symbol: it brings all pairs when subscribing, later those that changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ingestor.adapter import (
    SECOND,
    ColumnBuffer,
    Control,
    Filtered,
    Flag,
    InstrumentState,
    add_candle,
    add_instrument_status,
    iso_event_ns,
)

CANDLES: Final = "ohlc"
PAIRS: Final = "instrument"
STREAMS: Final = {
    "trades": "trade",
    "quotes": "ticker",
    "book": "book",
    "candles": CANDLES,
    "instrument_status": PAIRS,
}
PARAMETERS: Final[Mapping[str, Mapping[str, object]]] = {
    "trade": {"snapshot": True},  # the last 50, which fill what a reconnect missed
    "ticker": {"snapshot": True, "event_trigger": "bbo"},
    "book": {"snapshot": True},
    CANDLES: {"interval": 1, "snapshot": True},
    PAIRS: {"snapshot": True},
}

_parse: Final = msgspec.json.Decoder(float_hook=str).decode
_MINUTE: Final = 60 * SECOND
_INTERVALS: Final = {1, 5, 15, 30, 60, 240, 1_440, 10_080, 21_600}  # minutes
_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT), "update": 0}
_STATES: Final = {
    "online": InstrumentState.TRADING,
    "maintenance": InstrumentState.MAINTENANCE,
    "cancel_only": InstrumentState.CANCEL_ONLY,
    "limit_only": InstrumentState.LIMIT_ONLY,
    "post_only": InstrumentState.POST_ONLY,
    "reduce_only": InstrumentState.REDUCE_ONLY,
    "delisted": InstrumentState.CLOSED,
    "work_in_progress": InstrumentState.PRE_OPEN,
}
_OTHER_SYMBOL: Final = Filtered("other_symbol")


class _Channel(msgspec.Struct):
    channel: Any = None


_parse_channel: Final = msgspec.json.Decoder(_Channel).decode


def channel_of(payload: bytes) -> str | None:
    """Return the channel of a message, if it is CANDLES or PAIRS."""
    channel = _parse_channel(payload).channel
    return channel if channel in {CANDLES, PAIRS} else None


def append(
    channel: str, symbols: Mapping[str, int], payload: bytes, ts_recv: int, out: ColumnBuffer
) -> Control | None:
    """Append the rows of a message.

    Args:
        channel: CANDLES or PAIRS.
        symbols: venue symbol -> instrument number.
        payload: the message.
        ts_recv: ns.
        out: takes the rows.
    """
    message = _parse(payload)
    flags = _FLAGS[message["type"]]
    before = out.rows
    if channel == CANDLES:
        ts_event = iso_event_ns(message["timestamp"])
        for item in message["data"]:
            _candle(item, symbols[item["symbol"]], (ts_event, ts_recv), flags, out)
    else:
        for entry in message["data"]["pairs"]:
            number, state = symbols.get(entry["symbol"]), _state(entry["status"])
            if number is not None:
                add_instrument_status(out, number, ts_recv, state=state, flags=flags)
    return None if out.rows > before else _OTHER_SYMBOL


def _state(word: object) -> InstrumentState:
    if not isinstance(word, str):
        raise TypeError(f"a status that is {word!r:.40}")
    return _STATES.get(word, InstrumentState.UNKNOWN)


def _candle(
    one: Any, instrument: int, times: tuple[int, int], flags: int, out: ColumnBuffer
) -> None:
    minutes = one["interval"]
    if type(minutes) is not int or minutes not in _INTERVALS:
        raise ValueError(f"an interval of {minutes!r:.40} minutes")
    ts_event, ts_recv = times
    add_candle(
        out,
        instrument,
        ts_recv,
        start_ns=iso_event_ns(one["interval_begin"]),
        interval_ns=minutes * _MINUTE,
        prices=(one["open"], one["high"], one["low"], one["close"]),
        volume=one["volume"],
        trades=one["trades"],
        ts_event=ts_event,
        flags=flags,
    )
