"""Candles, mark prices, funding, open interest, liquidations and instruments' states.

Funding is predicted until its time; the rate of the last settlement comes along. Open interest is
in contracts, and in base coins where that is a number a row can hold (OKX prints up to 24 digits of
a double). The stream of liquidations is of a type of instruments, has at most one a second of each,
and gives both the side of the order and that of the position; in one-way mode the latter is "net".
Candles come from an address of their own, in contracts on derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ingestor.adapter import (
    SECOND,
    CandleState,
    ColumnBuffer,
    Control,
    Filtered,
    Flag,
    FundingState,
    InstrumentState,
    InterestUnit,
    Position,
    PriceKind,
    Side,
    add_candle,
    add_funding,
    add_instrument_status,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    stated,
    time_ns,
)

CANDLES: Final = "candle1m"
BY_TYPE: Final = frozenset({"liquidation-orders", "instruments"})  # streams without a symbol

_parse: Final = msgspec.json.Decoder(float_hook=str).decode
_MINUTE: Final = 60 * SECOND
_DAY: Final = 1_440 * _MINUTE
_INTERVALS: Final = {
    "1s": SECOND,
    **{f"{count}m": count * _MINUTE for count in (1, 3, 5, 15, 30)},
    **{f"{count}H": count * 60 * _MINUTE for count in (1, 2, 4, 6, 12)},
    **{f"{count}D": count * _DAY for count in (1, 2, 3, 5)},
    "1W": 7 * _DAY,
}
_STATES: Final = {
    "live": InstrumentState.TRADING,
    "suspend": InstrumentState.HALTED,
    "rebase": InstrumentState.HALTED,
    "preopen": InstrumentState.PRE_OPEN,
    "post_only": InstrumentState.POST_ONLY,
    "settling": InstrumentState.SETTLING,
    "expired": InstrumentState.CLOSED,
}
_SIDES: Final = {"buy": Side.BID, "sell": Side.ASK}
_CLOSED_BY: Final = {"buy": Position.SHORT, "sell": Position.LONG}
_POSITIONS: Final = {"long": Position.LONG, "short": Position.SHORT}
_CANDLE_STATES: Final = {"0": CandleState.OPEN, "1": CandleState.CLOSED}
_CANDLE_MEMBERS: Final = 9
_OTHER_SYMBOL: Final = Filtered("other_symbol")

Append = Callable[[Mapping[str, int], Any, int, ColumnBuffer], None]


def takes(channel: str) -> bool:
    """Return whether a channel is one of these."""
    return channel in _CHANNELS or channel.removeprefix("candle") in _INTERVALS


def append(
    channel: str, symbols: Mapping[str, int], payload: bytes, ts_recv: int, out: ColumnBuffer
) -> Control | None:
    """Append the rows of a message.

    Args:
        channel: its channel, one that `takes` takes.
        symbols: venue symbol -> instrument number.
        payload: the message.
        ts_recv: ns.
        out: takes the rows.
    """
    before = out.rows
    _CHANNELS.get(channel, _candles)(symbols, _parse(payload), ts_recv, out)
    return None if out.rows > before else _OTHER_SYMBOL


def _time(text: object) -> int | None:
    return None if text in {"", "0"} else time_ns(text)


def _candles(symbols: Mapping[str, int], message: Any, ts_recv: int, out: ColumnBuffer) -> None:
    named = message["arg"]
    symbol, interval_ns = named["instId"], _INTERVALS[named["channel"].removeprefix("candle")]
    is_inverse = "-USD-" in symbol
    number = symbols[symbol]
    for item in message["data"]:
        if len(item) < _CANDLE_MEMBERS:
            raise ValueError(f"a candle of {len(item)} members")
        start, *prices, volume, of_base, of_quote, confirm = item[:_CANDLE_MEMBERS]
        add_candle(
            out,
            number,
            ts_recv,
            start_ns=time_ns(start),
            interval_ns=interval_ns,
            prices=(prices[0], prices[1], prices[2], prices[3]),
            volume=volume,
            turnover=_fitting(of_base if is_inverse else of_quote),
            state=_CANDLE_STATES[confirm],
        )


def _fitting(text: object) -> Any:
    """Return a number; None where it has more digits than a row can hold."""
    digits = text.replace(".", "").lstrip("0") if isinstance(text, str) else ""
    return None if digits.isdecimal() and len(digits) > 18 else text


def _mark_prices(symbols: Mapping[str, int], message: Any, ts_recv: int, out: ColumnBuffer) -> None:
    for item in message["data"]:
        add_mark_price(
            out,
            symbols[item["instId"]],
            ts_recv,
            mark_price=item["markPx"],
            ts_event=time_ns(item["ts"]),
        )


def _funding(symbols: Mapping[str, int], message: Any, ts_recv: int, out: ColumnBuffer) -> None:
    for item in message["data"]:
        number, ts_event = symbols[item["instId"]], time_ns(item["ts"])
        due_ns, after_ns = time_ns(item["fundingTime"]), _time(item["nextFundingTime"])
        interval_ns = None if after_ns is None or after_ns <= due_ns else after_ns - due_ns
        settled = item.get("settFundingRate", "")
        if settled != "":
            add_funding(
                out,
                number,
                ts_recv,
                rate=settled,
                interval_ns=interval_ns,
                state=FundingState.SETTLED,
                ts_event=ts_event,
            )
        add_funding(
            out,
            number,
            ts_recv,
            rate=item["fundingRate"],
            due_ns=due_ns,
            interval_ns=interval_ns,
            ts_event=ts_event,
        )


def _interest(symbols: Mapping[str, int], message: Any, ts_recv: int, out: ColumnBuffer) -> None:
    for item in message["data"]:
        number, ts_event = symbols[item["instId"]], time_ns(item["ts"])
        in_base = _fitting(item["oiCcy"])
        units = [(InterestUnit.CONTRACT, item["oi"]), (InterestUnit.BASE, in_base)]
        for unit, value in units:
            if value is not None:
                add_open_interest(out, number, ts_recv, value=value, unit=unit, ts_event=ts_event)


def _liquidations(
    symbols: Mapping[str, int], message: Any, ts_recv: int, out: ColumnBuffer
) -> None:
    for group in message["data"]:
        number = symbols.get(group["instId"])
        for item in group["details"]:
            side = item["side"]
            position = _POSITIONS.get(item["posSide"], _CLOSED_BY[side])
            if number is None:
                continue
            add_liquidation(
                out,
                number,
                ts_recv,
                position=position,
                side=_SIDES[side],
                size=item["sz"],
                price=stated(item["bkPx"]),
                price_kind=PriceKind.BANKRUPTCY,
                ts_event=time_ns(item["ts"]),
                flags=int(Flag.SAMPLE),
            )


def _instruments(symbols: Mapping[str, int], message: Any, ts_recv: int, out: ColumnBuffer) -> None:
    for item in message["data"]:
        number = symbols.get(item["instId"])
        if number is None:
            continue
        add_instrument_status(
            out,
            number,
            ts_recv,
            state=_STATES.get(item["state"], InstrumentState.UNKNOWN),
            until_ns=_time(item.get("expTime", "")),
        )


_CHANNELS: Final[Mapping[str, Append]] = {
    "mark-price": _mark_prices,
    "funding-rate": _funding,
    "open-interest": _interest,
    "liquidation-orders": _liquidations,
    "instruments": _instruments,
}
