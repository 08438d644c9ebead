"""ingestor.sources.replay.decisions: which instruments a recorded decision is about."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from ingestor.adapter.contract import Subscription
from ingestor.decode.session import Session
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.recording.format import forgotten
from ingestor.sources.replay.decisions import concerned, named, number_of

TABLE = InstrumentTable(
    instrument("okx", "spot", symbol, symbol, symbol, "USDT", "1", "1") for symbol in ("A", "B:C")
)


def test_keys_are_looked_up_and_unknown_ones_left_out() -> None:
    assert [number_of(TABLE, key) for key in ("okx:spot:A", "okx:spot:B:C")] == [0, 1]
    assert [number_of(TABLE, key) for key in ("okx:spot:D", "okx", "", "x:y:z")] == [None] * 4
    assert named(TABLE, forgotten(["okx:spot:B:C", "okx:spot:D", "okx:spot:A"])) == [1, 0]
    assert named(TABLE, {}) == []


def test_a_session_is_concerned_by_what_it_carries() -> None:
    subscriptions = [Subscription(0, "A", "trades", "t"), Subscription(0, "A", "book", "b")]
    session = cast("Session", SimpleNamespace(subscriptions=subscriptions))
    keys = {"keys": ["okx:spot:A", "okx:spot:B:C"]}
    assert concerned(TABLE, keys, session) == [0]
    assert concerned(TABLE, {"keys": []}, session) == []
    assert concerned(TABLE, {}, session) is None
