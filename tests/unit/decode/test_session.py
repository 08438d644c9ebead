"""The session: counts, replies, refusals, and the boundary where surprises become DecodeError."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import orjson
import pytest

from ingestor.adapter import (
    Ack,
    BookRule,
    Continuity,
    Control,
    Endpoint,
    Filtered,
    Limits,
    Listing,
    Market,
    Notice,
    Reconnect,
    Refused,
    Reply,
    RestRequest,
)
from ingestor.adapter.contract import Subscription
from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.errors import UnknownMessage
from ingestor.model.instruments import Instrument, InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Side

TABLE = InstrumentTable(
    instrument("acme", "spot", name, f"{name}-USD", name, "USD", "0.01", "0.01")
    for name in ("A", "B")
)


class Acme:
    """A venue whose frames say what to do with them."""

    venue: ClassVar[str] = "acme"
    reference: ClassVar[str] = "none: made for these tests"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            (Endpoint("wss://acme"),), "https://acme", Limits(), BookRule(Continuity.NONE)
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols

    def stream(self, channel: str, symbol: str) -> str:
        return f"{channel}.{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return [orjson.dumps({"sub": list(streams)})]

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return [orjson.dumps({"unsub": list(streams)})]

    def ping(self) -> bytes | None:
        return None

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        message: Any = orjson.loads(payload)
        match message["do"]:
            case "trade":
                number = self._symbols[message["s"]]
                out.add_trade(number, 1, ts_recv, 1, "1.00", "1", Side.BID)
                out.add_trade(number, 1, ts_recv, message["n"], "1.00", "1", Side.BID)
                return None
            case "ack":
                return Ack(tuple(message["streams"]))
            case "refuse":
                return Refused("no such symbol", tuple(message["streams"]))
            case "ping":
                return Reply(b"pong")
            case "beat":
                return Notice.HEARTBEAT
            case "again":
                return Filtered("resent", duplicate=True)
            case "candle":
                return Filtered("not_subscribed")
            case "bye":
                return Reconnect("maintenance")
            case "say":
                return message["what"]  # type: ignore[no-any-return]  # no adapter may
        raise UnknownMessage(self.venue, str(message))

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return ()

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Sequence[Any]:
        return ()

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return None

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        raise AssertionError("it has no list")

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return None

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        out.add_book_update(
            self._symbols[symbol], ts_recv, ts_recv, orjson.loads(body)["b"], [], first=1, last=1
        )


class Events(SessionEvents):
    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def refused(self, session: Session, streams: Sequence[str], text: str) -> None:
        self.seen.append(("refused", tuple(streams), text))

    def refused_together(self, session: Session, streams: Sequence[str]) -> None:
        self.seen.append(("refused together", tuple(streams)))

    def reconnect(self, session: Session, reason: str) -> None:
        self.seen.append(("reconnect", reason))


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def session(events: Events) -> Session:
    return session_of(Acme, events)


def session_of(kind: type[Acme], events: Events) -> Session:
    wanted = [
        Subscription(number, TABLE[number].symbol, channel, f"{channel}.{TABLE[number].symbol}")
        for number in (0, 1)
        for channel in ("trades", "book")
    ]
    adapter = kind("spot", TABLE.symbols("acme", "spot"))
    return Session(3, adapter, wanted, ColumnBuffer(), FrameCounts(), events, "spot")


def send(session: Session, **message: Any) -> bytes | None:
    return session.receive(orjson.dumps(message), 1000)


def buffer_of(session: Session) -> ColumnBuffer:
    return session._buffer


def test_opening_subscribes_and_acks_settle(session: Session) -> None:
    frames = list(session.opened())
    assert orjson.loads(frames[0]) == {"sub": ["trades.A", "book.A", "trades.B", "book.B"]}
    assert session.pending == {"trades.A", "book.A", "trades.B", "book.B"}
    send(session, do="ack", streams=["trades.A", "book.A"])
    assert session.pending == {"trades.B", "book.B"}
    send(session, do="ack", streams=[])
    assert session.pending == set()


def test_every_frame_is_counted_as_what_it_is(session: Session) -> None:
    assert send(session, do="trade", s="A", n=2) is None
    assert send(session, do="ping") == b"pong"
    send(session, do="beat")
    send(session, do="again")
    send(session, do="candle")
    send(session, do="unheard of")
    session.receive(b"\xff\xfe", 1000)
    counts = session.counts
    assert (counts.frames, counts.pending, counts.control) == (7, 1, 2)
    assert (counts.duplicate, counts.filtered, counts.rejected) == (1, 1, 2)
    assert counts.filtered_by_rule == {"not_subscribed": 1}
    assert counts.rejected_by_reason == {"unknown_message": 1, "malformed": 1}
    assert (counts.data, counts.unaccounted) == (4, 0)
    counts.seal()
    assert (counts.decoded, counts.pending, counts.unaccounted) == (1, 0, 0)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed"),
        (b"[1]", "malformed"),
        (b'{"do": "trade"}', "malformed"),
        (b'{"do": "trade", "s": "A", "n": "text"}', "malformed"),
        (b'{"do": "trade", "s": "A", "n": -1}', "malformed"),
        (b'{"do": "trade", "s": "A", "n": 99999999999999999999999}', "malformed"),
        (b'{"do": "trade", "s": "X", "n": 1}', "unknown_instrument"),
    ],
)
def test_surprises_cost_their_frame_alone(session: Session, payload: bytes, reason: str) -> None:
    send(session, do="trade", s="A", n=2)
    assert session.receive(payload, 1000) is None
    send(session, do="trade", s="B", n=3)
    sealed = buffer_of(session).seal(TABLE)
    assert sealed.trades["instrument"].tolist() == [0, 0, 1, 1]
    assert [(one.payload, one.reason) for one in sealed.rejected] == [(payload, reason)]
    (hole,) = sealed.holes
    assert (hole.cause, hole.trade, hole.source) == (Cause.REJECTED, 2, session)
    assert session.instruments(RowClass.TRADE) == [0, 1]


def test_an_unknown_message_costs_no_rows(session: Session) -> None:
    send(session, do="trade", s="A", n=2)
    send(session, do="news")
    sealed = buffer_of(session).seal(TABLE)
    assert [one.reason for one in sealed.rejected] == ["unknown_message"]
    assert sealed.holes == []
    assert sealed.bugs == []


class Failing(Acme):
    """An adapter with a bug of each kind, which names the streams of what it can't read."""

    failure: ClassVar[BaseException | type[BaseException]] = RuntimeError("our own bug")

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        if payload.startswith(b"fail"):
            out.add_trade(0, 1, ts_recv, 1, "1.00", "1", Side.BID)
            raise self.failure
        return super().decode(payload, ts_recv, out)

    def streams_of(self, payload: bytes) -> Sequence[str]:
        return payload.decode().split()[1:]


BUGS = [
    *(RuntimeError("x"), OSError("x"), StopIteration(), ArithmeticError("x"), MemoryError()),
    *(AssertionError("x"), EOFError(), NotImplementedError()),
]
FORESEEN = [KeyError("x"), struct.error("x"), RecursionError("x"), OverflowError("x"), TypeError()]


@pytest.mark.parametrize("failure", BUGS + FORESEEN, ids=repr)
def test_whatever_an_adapter_raises_costs_its_frame_alone(
    events: Events, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "failure", failure)
    session = session_of(Failing, events)
    send(session, do="trade", s="A", n=2)
    assert session.receive(b"fail book.B trades.A news.A", 1000) is None
    assert session.receive(b"fail", 1000) is None
    assert session.receive(b"fail news.A", 1000) is None
    assert not session.snapshot("A", b"[]", 1000)
    send(session, do="trade", s="B", n=3)
    sealed = buffer_of(session).seal(TABLE)
    assert sealed.trades["instrument"].tolist() == [0, 0, 1, 1]
    assert [one.is_frame for one in sealed.rejected] == [True, True, True, False]
    assert [(one.row_class, one.instruments) for one in sealed.holes] == [
        (RowClass.TRADE, [0]),
        (RowClass.LEVEL, [1]),
        (None, None),
    ]
    assert sealed.bugs == ([failure] * 3 if failure in BUGS else [])
    counts = session.counts
    assert (counts.frames, counts.rejected, counts.pending, counts.unaccounted) == (5, 3, 2, 0)


def test_what_ends_the_process_is_not_stopped(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "failure", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        session_of(Failing, events).receive(b"fail", 1000)


@pytest.mark.parametrize(
    "message",
    [
        {"do": "ack", "streams": [{}]},
        {"do": "ack", "streams": [["a"]]},
        {"do": "ack", "streams": [1, None]},
        {"do": "refuse", "streams": [{"a": 1}]},
        {"do": "refuse", "streams": ["book.A", {"a": 1}]},
        {"do": "refuse", "streams": 5},
        {"do": "say", "what": "hello"},
        {"do": "say", "what": 5},
    ],
    ids=str,
)
def test_names_of_a_wrong_type_are_refused(
    session: Session, events: Events, message: dict[str, Any]
) -> None:
    list(session.opened())
    send(session, **message)
    assert session.counts.rejected == 1
    assert session.pending == {"trades.A", "book.A", "trades.B", "book.B"}
    assert events.seen == []


def test_a_refused_stream_leaves_its_neighbours(session: Session, events: Events) -> None:
    list(session.opened())
    send(session, do="refuse", streams=["book.A"])
    assert session.streams == ["trades.A", "trades.B", "book.B"]
    assert session.instruments(RowClass.LEVEL) == [1]
    assert "book.A" not in session.pending
    assert events.seen == [("refused", ("book.A",), "no such symbol")]


def test_streams_refused_together_are_not_given_up(session: Session, events: Events) -> None:
    list(session.opened())
    send(session, do="refuse", streams=["book.A", "book.B"])
    assert session.pending >= {"book.A", "book.B"}
    assert session.instruments(RowClass.LEVEL) == [0, 1]
    assert events.seen == [("refused together", ("book.A", "book.B"))]


def test_the_venue_may_ask_for_a_new_connection(session: Session, events: Events) -> None:
    send(session, do="bye")
    assert events.seen == [("reconnect", "maintenance")]
    assert session.counts.control == 1


def test_snapshots_go_the_same_way(session: Session) -> None:
    assert session.snapshot("A", b'{"b": [["1.00", "2"]]}', 5)
    assert not session.snapshot("B", b'{"error": "busy"}', 6)
    sealed = buffer_of(session).seal(TABLE)
    assert sealed.updates["instrument"].tolist() == [0]
    assert [one.reason for one in sealed.rejected] == ["snapshot"]
    assert sealed.holes == []  # whoever asked for it asks again
    assert session.counts.frames == 0


def test_closing_is_a_hole_of_everything(session: Session) -> None:
    list(session.opened())
    session.closed(7)
    (hole,) = buffer_of(session).seal(TABLE).holes
    assert (hole.cause, hole.instruments, hole.ts_recv) == (Cause.DISCONNECT, None, 7)
    assert session.pending == set()


@pytest.mark.rows("I4")
@pytest.mark.parametrize("streams", [["trades.A"], []], ids=["named", "all"])
def test_a_stream_that_is_subscribed_to_again_has_a_hole(
    session: Session, streams: list[str]
) -> None:
    """Not every venue numbers its trades: what came between would be lost unseen."""
    session.interrupt(["trades.A", "book.A"], 7)
    send(session, do="trade", s="A", n=1)  # from before
    send(session, do="ack", streams=streams)
    send(session, do="trade", s="A", n=2)
    send(session, do="ack", streams=["trades.A"])  # once is enough
    first, second = buffer_of(session).seal(TABLE).holes
    assert (first.cause, second.cause) == (Cause.STALE, Cause.STALE)
    assert (first.ts_recv, first.trade, second.trade) == (7, 0, 2)
    for hole in (first, second):
        assert list(hole.source.instruments(RowClass.TRADE)) == [0]
        assert list(hole.source.instruments(RowClass.LEVEL)) == [], "a snapshot follows"


def test_an_end_and_a_change_forget_what_was_interrupted(session: Session) -> None:
    session.interrupt(["trades.A", "trades.B"], 7)
    session.change([one for one in session.subscriptions if one.symbol == "B"], 8)
    assert session.interrupted == {"trades.B"}
    session.closed(9)
    assert session.interrupted == set()
