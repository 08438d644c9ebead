"""Venues confirm subscriptions by an answer, by data, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from ingestor.adapter import Acks, ColumnBuffer, Control, DecodeError
from ingestor.adapter.contract import Subscription
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents

STREAMS = ["trades:A", "book:A"]


class Acme:
    """It gives no rows: a frame is the name of its stream."""

    acks: ClassVar[Acks] = Acks.ANSWERED

    def subscribe(self, streams: Sequence[str]) -> list[bytes]:
        return [stream.encode() for stream in streams]

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        if payload == b"spoiled":
            raise DecodeError("acme", "spoiled")
        return None

    def streams_of(self, payload: bytes) -> Sequence[str]:
        return [payload.decode()] if b":" in payload else []


def session_of(acks: Acks) -> Session:
    adapter = type("Acme", (Acme,), {"acks": acks})()
    subscriptions = [Subscription(0, "A", stream.partition(":")[0], stream) for stream in STREAMS]
    session = Session(0, adapter, subscriptions, ColumnBuffer(), FrameCounts(), SessionEvents())
    assert list(session.opened()) == [stream.encode() for stream in STREAMS]
    return session


def test_the_first_data_of_a_stream_confirm_it() -> None:
    session = session_of(Acks.BY_DATA)
    assert session.pending == {*STREAMS}
    session.receive(b"nameless", 1)
    session.receive(b"spoiled", 1)
    assert session.pending == {*STREAMS}
    session.receive(b"book:A", 1)
    assert session.pending == {"trades:A"}
    session.expect_acks(["book:A"])
    assert session.pending == {*STREAMS}


def test_data_confirm_nothing_where_answers_do() -> None:
    session = session_of(Acks.ANSWERED)
    session.receive(b"book:A", 1)
    assert session.pending == {*STREAMS}


@pytest.mark.parametrize("streams", [[], STREAMS])
def test_nothing_is_waited_for_where_nothing_comes(streams: list[str]) -> None:
    session = session_of(Acks.NEVER)
    session.expect_acks(streams)
    assert session.pending == set()
