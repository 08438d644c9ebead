"""Runs fixtures and frames through a real adapter, Session and ColumnBuffer, and reads the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestor.adapter import (
    Ack,
    Control,
    FeedAdapter,
    Filtered,
    NamesStreams,
    Notice,
    Reconnect,
    Refused,
    Reply,
    TradeNumbers,
)
from ingestor.adapter.contract import Subscription
from ingestor.codec.json_encoder import row_values
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealed import Sealed
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.decimals import format_decimal
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Flag, Side
from ingestor.sources.registry import adapter_of
from tests.feeds.fixtures import Fixture, Row, Step, by_kind, id_of, load

TS_RECV = 1_800_000_000_000_000_000  # 2027-01-15; later than every venue time of a fixture
_IMPLIED = Flag.LAST | Flag.NO_VENUE_TIME | Flag.CHECKSUM


def channels_of(adapter: type[FeedAdapter], market: str) -> list[str]:
    """Return the channels that a market has, in order of the classes."""
    endpoints = adapter.markets[market].endpoints
    return [one for one in ROW_CLASSES.channels if any(one in it.channels for it in endpoints)]


@dataclass
class Outcome:
    """What one step of a fixture led to."""

    rows: list[Row] = field(default_factory=list)
    control: dict[str, Any] | None = None
    reason: str | None = None
    payload: bytes = b""
    hole_of_frame: bool = False
    sent: list[str] | None = None


class Connection:
    """One connection of a fixture's market, subscribed to everything it has."""

    def __init__(
        self,
        fixture: Fixture,
        table: InstrumentTable | None = None,
        buffer: ColumnBuffer | None = None,
        counts: FrameCounts | None = None,
    ) -> None:
        self.fixture = fixture
        self.table = fixture.table() if table is None else table
        self.buffer = ColumnBuffer(self.table) if buffer is None else buffer
        self.counts = FrameCounts() if counts is None else counts
        self._open()

    def _open(self) -> None:
        fixture = self.fixture
        symbols = self.table.symbols(fixture.adapter.venue, fixture.market)
        self.adapter: FeedAdapter = fixture.adapter(fixture.market, symbols)
        for step in fixture.steps:
            if step.is_setup:
                self.adapter.decode(step.payload, TS_RECV, ColumnBuffer(self.table))
        self.heard: list[Control] = []  # what `decode` returned since the last step
        self.session = Session(
            0,
            _Listening(self),  # type: ignore[arg-type]  # decode is all that a frame needs
            [
                Subscription(number, symbol, channel, self.adapter.stream(channel, symbol))
                for symbol, number in symbols.items()
                for channel in channels_of(fixture.adapter, fixture.market)
            ],
            self.buffer,
            self.counts,
            SessionEvents(),
            fixture.market,
        )

    def do(self, step: Step, *, seal: bool = True) -> Outcome:
        """Do what a line of the fixture says; with `seal`, read the rows that came of it."""
        self.heard.clear()
        outcome = Outcome()
        match step.verb:
            case "frame":
                reply = self.session.receive(step.payload, TS_RECV)
                replies = [one.payload for one in self.heard if isinstance(one, Reply)]
                assert ([] if reply is None else [reply]) == replies
            case "snapshot":
                self.session.snapshot(step.symbol, step.payload, TS_RECV)
            case "connect":
                self._open()
            case verb:
                frames = getattr(self.adapter, verb)(step.value)
                outcome.sent = [frame.decode() for frame in frames]
        if seal:
            self._read(outcome)
        return outcome

    def _read(self, outcome: Outcome) -> None:
        sealed = self.buffer.seal(self.table)
        outcome.rows = rows_of(sealed, self.table)
        outcome.control = control_of(self.heard[-1]) if self.heard else None
        for one in sealed.rejected:
            outcome.reason, outcome.payload = one.reason, one.payload
            assert one.detail, "quarantine says why"
            assert one.ts_recv == TS_RECV
            outcome.hole_of_frame = any(hole.frame >= 0 for hole in sealed.holes)
            outcome.rows = [row for row in outcome.rows if row["kind"] != "hole"]


class _Listening:
    """Stands between a session and its adapter to hear what `decode` returns."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._adapter = connection.adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def streams_of(self, payload: bytes) -> Sequence[str]:
        adapter = self._adapter
        return adapter.streams_of(payload) if isinstance(adapter, NamesStreams) else ()

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        control = self._adapter.decode(payload, ts_recv, out)
        if control is not None:
            self._connection.heard.append(control)
        return control


@cache
def outcomes(adapter: type[FeedAdapter], market: str) -> list[Outcome]:
    """Do all steps of a market's fixture, each sealed by itself."""
    fixture = load(adapter, market)
    connection = Connection(fixture)
    return [connection.do(step) for step in fixture.steps]


def control_of(control: Control) -> dict[str, Any]:
    """Return a control in the words of the fixture format."""
    match control:
        case Ack(streams):
            return {"ack": list(streams)}
        case Refused(text, streams):
            return {"refused": list(streams), "text": text}
        case Reply(payload):
            return {"reply": payload.decode()}
        case Reconnect(text):
            return {"reconnect": text}
        case Filtered(rule, duplicate):
            return {"filtered": rule} | ({"duplicate": True} if duplicate else {})
        case Notice():
            return {"notice": control.value}


def rows_of(sealed: Sealed, table: InstrumentTable, ts_recv: int | None = TS_RECV) -> list[Row]:
    """Return sealed rows in the words of the fixture format, by kind.

    ts_recv: what all rows must carry; None = their own.
    """
    for received in (sealed.trades, sealed.quotes, sealed.updates):
        assert ts_recv is None or (received["ts_recv"] == ts_recv).all()
    rows = [_trade(row, table) for row in sealed.trades]
    rows += [_quote(row, table) for row in sealed.quotes]
    rows += _updates(sealed, table)
    for row_class, part in sealed.others.items():
        assert ts_recv is None or (part.rows["ts_recv"] == ts_recv).all()
        rows += [_other(row_class, row, table) for row in part.rows]
    rows += [
        {
            "kind": "hole",
            "cause": hole.cause.name,
            "first": hole.first,
            "last": hole.last,
            "symbols": None
            if hole.instruments is None
            else [table[number].symbol for number in hole.instruments],
        }
        for hole in sealed.holes
    ]
    return by_kind(rows)


def _trade(row: Any, table: InstrumentTable) -> Row:
    return {
        **_header("trade", row, table, Flag.LAST),
        "sequence": int(row["sequence"]),
        "price": _price(row["price"], row, table),
        "size": _size(row["size"], row, table),
        "side": Side(row["side"]).name.lower(),
        "trade_id": _trade_id(row, table),
    }


def _other(row_class: RowClass, row: np.void, table: InstrumentTable) -> Row:
    one = table[int(row["instrument"])]
    values = row_values(row_class, row, one.price_exponent, one.size_exponent)
    values.pop("exponent", None)
    for name in row_class.numbers:
        values[name] = None if values[name] is None else Decimal(str(values[name]))
    for name in row_class.ids:
        values[name] = id_of(str(values[name]))
    ends_event = Flag(int(row["flags"])) & Flag.LAST
    header = _header(row_class.kind_name, row, table, ends_event)
    return {**header, "sequence": int(row["sequence"]), **values}


def _trade_id(row: Any, table: InstrumentTable) -> int:
    """Return an id as it is published: what a row of SPANS leaves for the pipeline is no part."""
    one = table[int(row["instrument"])]
    numbers = adapter_of(one.venue).markets[one.market].trade_numbers
    low = int(row["trade_id_low"])
    return low if numbers is TradeNumbers.SPANS else int(row["trade_id_high"]) << 64 | low


def _quote(row: Any, table: InstrumentTable) -> Row:
    return {
        **_header("quote", row, table, Flag.LAST),
        "sequence": int(row["sequence"]),
        "bid_price": _price(row["bid_price"], row, table),
        "bid_size": _size(row["bid_size"], row, table),
        "ask_price": _price(row["ask_price"], row, table),
        "ask_size": _size(row["ask_size"], row, table),
    }


def _updates(sealed: Sealed, table: InstrumentTable) -> list[Row]:
    rows = []
    start = 0
    for row in sealed.updates:
        middle = start + int(row["bids"])
        end = middle + int(row["asks"])
        levels: Sequence[list[Decimal]] = [
            [_price(price, row, table), _size(size, row, table)]
            for price, size in _pairs(sealed.prices, sealed.sizes, start, end)
        ]
        has_checksum = bool(row["flags"] & Flag.CHECKSUM)
        rows.append(
            {
                **_header("update", row, table, Flag(0)),
                "first": int(row["first"]),
                "last": int(row["last"]),
                "previous": int(row["previous"]),
                "bids": levels[: middle - start],
                "asks": levels[middle - start :],
                "checksum": int(row["check_value"]) if has_checksum else None,
            }
        )
        start = end
    assert start == len(sealed.prices) == len(sealed.sizes)
    return rows


def _pairs(
    prices: NDArray[np.int64], sizes: NDArray[np.int64], start: int, end: int
) -> list[tuple[int, int]]:
    return list(zip(prices[start:end].tolist(), sizes[start:end].tolist(), strict=True))


def _header(kind: str, row: Any, table: InstrumentTable, always: Flag) -> Row:
    flags = Flag(int(row["flags"]))
    untimed = Flag.NO_VENUE_TIME in flags
    assert flags & Flag.LAST == always, f"{kind}: LAST"
    assert not untimed or row["ts_event"] == row["ts_recv"]
    return {
        "kind": kind,
        "symbol": table[int(row["instrument"])].symbol,
        "ts_event": None if untimed else int(row["ts_event"]),
        "flags": sorted(flag.name or "" for flag in flags & ~_IMPLIED),
    }


def _price(value: Any, row: Any, table: InstrumentTable) -> Decimal:
    return Decimal(format_decimal(int(value), table[int(row["instrument"])].price_exponent))


def _size(value: Any, row: Any, table: InstrumentTable) -> Decimal:
    return Decimal(format_decimal(int(value), table[int(row["instrument"])].size_exponent))
