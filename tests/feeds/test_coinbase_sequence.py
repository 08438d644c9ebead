"""Coinbase's `sequence_num`: one count over all channels of a connection."""

from __future__ import annotations

import json

import pytest

from feeds.coinbase import Coinbase
from ingestor.adapter import Control, Filtered, Notice, Reconnect
from ingestor.adapter.contract import Subscription
from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.rows import Cause
from tests.feeds.fixtures import load

FIXTURE = load(Coinbase, "spot")


class Wire:
    """A session, fed with frames that differ in their number."""

    def __init__(self) -> None:
        self.table = FIXTURE.table()
        self.buffer = ColumnBuffer()
        self.adapter = Coinbase("spot", self.table.symbols("coinbase", "spot"))
        self.counts = FrameCounts()
        wanted = [
            Subscription(number, one.symbol, channel, self.adapter.stream(channel, one.symbol))
            for number, one in enumerate(self.table)
            for channel in ("trades", "book")
        ]
        self.session = Session(
            1, self.adapter, wanted, self.buffer, self.counts, SessionEvents(), "spot"
        )

    def trade(self, number: object, symbol: str = "BTC-USD") -> None:
        set_column = {
            "trade_id": "7",
            "product_id": symbol,
            "price": "1",
            "size": "1",
            "side": "BUY",
            "time": "2025-03-04T10:00:00Z",
        }
        message = {
            "channel": "market_trades",
            "sequence_num": number,
            "events": [{"type": "update", "trades": [set_column]}],
        }
        self.session.receive(json.dumps(message).encode(), 5)

    def beat(self, number: int) -> Control | None:
        self.buffer.begin(self.session, b"")
        payload = json.dumps({"channel": "heartbeats", "sequence_num": number, "events": []})
        return self.adapter.decode(payload.encode(), 5, self.buffer)

    @property
    def holes(self) -> list[tuple[Cause, int, int, int]]:
        """Cause, first, last missing, and the number of trades before the hole."""
        return [(hole.cause, hole.first, hole.last, hole.trade) for hole in self.buffer.holes]


def test_a_skip_is_a_hole_before_the_frame_that_shows_it() -> None:
    wire = Wire()
    for number in (0, 1, 4, 5):
        wire.trade(number)
    assert wire.holes == [(Cause.SEQUENCE, 2, 3, 2)]
    assert wire.buffer.holes[0].instruments is None, "it names no product: all are concerned"
    assert len(wire.buffer.seal(wire.table).trades) == 4


def test_the_count_begins_at_0() -> None:
    wire = Wire()
    wire.trade(2)
    assert wire.holes == [(Cause.SEQUENCE, 0, 1, 0)]


def test_control_frames_count_too() -> None:
    wire = Wire()
    assert wire.beat(0) is Notice.HEARTBEAT
    wire.trade(1)
    assert wire.beat(3) is Notice.HEARTBEAT
    assert wire.holes == [(Cause.SEQUENCE, 2, 2, 1)]


def test_what_lies_before_a_rejected_frame_is_declared_with_the_next() -> None:
    wire = Wire()
    wire.trade(0)
    wire.trade(3, "NOPE-USD")
    assert wire.holes == [], "the skip went back with the frame, which names nothing of ours"
    wire.trade(4)
    assert wire.holes == [(Cause.SEQUENCE, 1, 3, 1)]


@pytest.mark.parametrize(
    "message",
    [
        {"channel": "futures_balance_summary", "events": []},
        {"channel": "level3", "events": [{"type": 5}]},
        {"channel": "candles", "events": {}},
        {"channel": "l2_data", "events": [{"type": "update", "product_id": "NOPE-USD"}]},
        {"channel": "market_trades", "events": [{"type": "update", "trades": [{}]}]},
        {"channel": "l2_data"},
    ],
)
def test_a_rejected_frame_uses_its_number_up(message: dict[str, object]) -> None:
    """It costs the streams that it names, and not all of its connection."""
    wire = Wire()
    wire.trade(0)
    wire.session.receive(json.dumps({"sequence_num": 1, **message}).encode(), 1)
    wire.trade(2)
    assert wire.counts.rejected == 1
    assert [hole for hole in wire.holes if hole[0] is Cause.SEQUENCE] == []


@pytest.mark.parametrize("number", ["1", None, [], {}, 2**70])
def test_a_number_that_is_none_is_refused(number: object) -> None:
    wire = Wire()
    wire.trade(0)
    wire.trade(number)
    wire.trade(1)
    assert wire.counts.rejected == 1
    assert len(wire.buffer.seal(wire.table).trades) == 2


def test_repeated_and_late_frames_are_left_out() -> None:
    wire = Wire()
    for number in (0, 1, 1, 4, 3, 5):
        wire.trade(number)
    assert (wire.counts.duplicate, wire.counts.filtered_by_rule) == (1, {"late": 1})
    assert wire.holes == [(Cause.SEQUENCE, 2, 3, 2)]
    assert len(wire.buffer.seal(wire.table).trades) == 4


def test_a_new_count_on_the_same_object_is_followed() -> None:
    wire = Wire()
    for number in (0, 1, 2, 0, 1):
        wire.trade(number)
    assert wire.holes == []
    assert wire.counts.pending == 5


def test_a_count_that_fell_for_good_asks_for_a_new_connection() -> None:
    wire = Wire()
    wire.beat(5_000)
    answers = [wire.beat(number) for number in range(1_000, 1_101)]
    assert set(answers[:100]) == {Filtered("late")}
    assert answers[100] == Reconnect("sequence_num fell from 5001 to 1100 and stays there")
    assert wire.beat(5_001) is Notice.HEARTBEAT
    assert wire.beat(4_000) == Filtered("late"), "late frames are counted in a row"
