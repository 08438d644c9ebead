"""Read what HTX tells of contracts on its notification addresses: funding and liquidations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    Ack,
    ColumnBuffer,
    Control,
    Milliseconds,
    Notice,
    Position,
    PriceKind,
    Reconnect,
    Refused,
    Reply,
    UnknownMessage,
    add_funding,
    add_liquidation,
    time_ns,
)

TOPICS: Final = {"funding": "funding_rate", "liquidations": "liquidation_orders"}
PREFIX: Final = "public."
_POSITIONS: Final = {"buy": Position.SHORT, "sell": Position.LONG}  # by the order that closes them


class _Funding(msgspec.Struct, gc=False):
    contract_code: str
    funding_rate: Any
    settlement_time: Any = None


class _Liquidation(msgspec.Struct, gc=False):
    contract_code: str
    direction: str
    price: Any
    volume: Any
    created_at: Milliseconds


class Notification(msgspec.Struct, rename="kebab", gc=False):
    """One message of a notification address."""

    op: str
    topic: str = ""
    ts: Any = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    cid: Any = None
    err_code: Any = 0
    err_msg: Any = ""


_parse_fundings: Final = msgspec.json.Decoder(list[_Funding], float_hook=str).decode
_parse_liquidations: Final = msgspec.json.Decoder(list[_Liquidation], float_hook=str).decode


def take(
    told: Notification,
    symbols: Mapping[str, int],
    answered: Callable[[object], tuple[str, ...]],
    ts_recv: int,
    out: ColumnBuffer,
) -> Control | None:
    """Append what a message says, or return what else it is.

    Args:
        told: the message.
        symbols: venue symbol -> instrument number.
        answered: returns the streams of a request by its number, once.
        ts_recv: ns since the epoch.
        out: takes the rows.
    """
    match told.op:
        case "notify" if told.topic.endswith(TOPICS["funding"]):
            time = time_ns(told.ts)
            for parse_funding in _parse_fundings(told.data):
                due = parse_funding.settlement_time
                due_ns = None if due is None else time_ns(due)
                number, rate = symbols[parse_funding.contract_code], parse_funding.funding_rate
                add_funding(out, number, ts_recv, rate=rate, due_ns=due_ns, ts_event=time)
            return None
        case "notify" if told.topic.endswith(TOPICS["liquidations"]):
            for order in _parse_liquidations(told.data):
                _append(order, symbols[order.contract_code], ts_recv, out)
            return None
        case "ping":
            return Reply(orjson.dumps({"op": "pong", "ts": told.ts}))
        case "sub":
            streams = answered(told.cid)
            if told.err_code not in {0, "0"}:
                return Refused(f"{told.err_code} {told.err_msg}".strip(), streams)
            return Ack(streams) if streams else Notice.INFO
        case "unsub":
            return Notice.INFO
        case "close" | "error":
            return Reconnect(f"{told.op} {told.err_msg}".strip())
    raise UnknownMessage("htx", f"{told.op:.20} {told.topic:.60}")


def _append(order: _Liquidation, number: int, ts_recv: int, out: ColumnBuffer) -> None:
    add_liquidation(
        out,
        number,
        ts_recv,
        position=_POSITIONS[order.direction],
        size=order.volume,
        price=order.price,
        price_kind=PriceKind.ORDER,
        ts_event=order.created_at * MILLISECOND,
    )
