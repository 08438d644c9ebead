"""Frames that wait for each other give what they give one by one: rows, holes, rejections, counts.

Those that wait are read by the shapes of their market where the library is compiled; one by one
they are decoded in Python.

Frames of every market's fixture, of several connections in turns, with nonsense, answers and frames
of several lines between them, in batches of every size.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from feeds.binance import Binance
from feeds.bybit import Bybit
from feeds.kraken import Kraken
from ingestor.adapter import FeedAdapter
from ingestor.adapter.contract import Subscription
from ingestor.columns.sealed import Sealed
from ingestor.decode.frame_queue import FRAMES_FULL, FrameQueue, FrameQueues
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.rows import UPDATE
from ingestor.pipeline.pipeline import Pipeline
from tests.feeds.fixtures import load, markets
from tests.feeds.harness import TS_RECV, channels_of

MARKETS = [pytest.param(*pair, id=f"{pair[0].venue}_{pair[1]}") for pair in markets()]
CONNECTIONS = 3
TRADE = (
    b'{"e":"trade","E":1,"s":"BTCUSDT","t":%d,"p":"100.01","q":"0.5","T":1700000000000,"m":true}'
)


_MEANING = [name for name in UPDATE.names or () if name != "spare"]


@dataclass
class Events(SessionEvents):
    """Keeps the answers that sessions want sent."""

    replies: list[tuple[int, bytes]] = field(default_factory=list)

    def reply(self, session: Session, payload: bytes) -> None:
        self.replies.append((session.connection, payload))


class Bench:
    """Some connections to one market of a fixture, and their frame queue."""

    def __init__(self, adapter: type[FeedAdapter], market: str) -> None:
        self.table = load(adapter, market).table()
        rule = adapter.markets[market].book
        self.pipeline = Pipeline(self.table, lambda _number: rule)
        self.frame_queue = self.pipeline.frame_queues.of(adapter, market)
        self.events = Events()
        symbols = self.table.symbols(adapter.venue, market)
        self.sessions = []
        for number in range(CONNECTIONS):
            one = adapter(market, symbols)
            subscriptions = [
                Subscription(place, symbol, channel, one.stream(channel, symbol))
                for symbol, place in symbols.items()
                for channel in channels_of(adapter, market)
            ]
            frame_queue = self.frame_queue
            session = Session(
                *(number, one, subscriptions, frame_queue.buffer, frame_queue.counts),
                *(self.events, market, frame_queue.decode),
            )
            list(session.opened())
            self.sessions.append(session)

    def arrive(self, number: int, payload: bytes, ts_recv: int) -> None:
        self.frame_queue.arrive((self.sessions[number], payload, ts_recv))

    def sealed(self) -> dict[str, Any]:
        """Everything that came of the frames, in a form that can be compared."""
        sealed: Sealed = self.pipeline.buffer.seal(self.table)
        holes = [
            (one.source.connection, one.cause, one.ts_recv, one.update, one.trade, one.quote)  # type: ignore[attr-defined]
            for one in sealed.holes
        ]
        rejected = [
            (one.source.connection, one.payload, one.reason, one.detail, one.ts_recv)  # type: ignore[attr-defined]
            for one in sealed.rejected
        ]
        return {
            "trades": sealed.trades.tolist(),
            "quotes": sealed.quotes.tolist(),
            "updates": sealed.updates[_MEANING].tolist(),
            "prices": sealed.prices.tolist(),
            "sizes": sealed.sizes.tolist(),
            "quote_frames": sealed.quote_frames.tolist(),
            "frames": sealed.frames,
            "sources": [one.connection for one in sealed.sources],  # type: ignore[attr-defined]
            "holes": holes,
            "rejected": rejected,
            "counts": self.frame_queue.counts,
            "replies": self.events.replies,
            "pending": [one.pending for one in self.sessions],
        }


def frames_of(adapter: type[FeedAdapter], market: str, seed: int) -> list[tuple[int, bytes]]:
    """Return some hundred frames of a market, whose connection each: runs of plain ones, and
    between them all that a venue should not send, or not in one frame."""
    chosen = random.Random(seed)
    steps = [step.payload for step in load(adapter, market).steps if step.verb == "frame"]
    frames: list[tuple[int, bytes]] = []
    for _ in range(40):
        frame = chosen.choice(steps)
        for _ in range(chosen.choice((1, 1, 2, 9, 40))):
            frames.append((chosen.randrange(CONNECTIONS), frame))
        if chosen.random() < 0.3:
            odd = chosen.choice(
                (
                    *(b"", b" ", b"{", b"}", b"{}", b"[]", b"null", b"\xff", b"\n"),
                    *(frame + frame, frame + b"\n" + frame, frame[:-1], frame[1:]),
                    *(frame[: len(frame) // 2], frame[len(frame) // 2 :]),
                    frame.replace(b",", b",\n"),
                )
            )
            frames.append((chosen.randrange(CONNECTIONS), odd))
    return frames


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("adapter", "market"), MARKETS)
def test_together_is_as_one_by_one(adapter: type[FeedAdapter], market: str, seed: int) -> None:
    frames = frames_of(adapter, market, seed)
    alone, together = Bench(adapter, market), Bench(adapter, market)
    for place, (number, payload) in enumerate(frames):
        session = alone.sessions[number]
        reply = session.receive(payload, TS_RECV + place)
        if reply is not None:
            alone.events.reply(session, reply)
    sizes = random.Random(seed)
    until = 0
    for place, (number, payload) in enumerate(frames):
        together.arrive(number, payload, TS_RECV + place)
        if place == until:
            together.pipeline.frame_queues.decode()
            until += sizes.choice((1, 2, 5, 6, 30, FRAMES_FULL, 200))
    together.pipeline.frame_queues.decode()
    assert together.pipeline.frame_queues.is_empty
    assert together.sealed() == alone.sealed()
    assert together.frame_queue.counts.frames == len(frames)
    assert together.frame_queue.counts.unaccounted == 0


QUOTE = (
    b'{"topic":"orderbook.1.%s","type":"%s","ts":1,"data":{"s":"%s","b":[["%s","1"]],"a":[],'
    b'"u":%d,"seq":1},"cts":1700000000000}'
)


def bybit_quote(number: int, bid: bytes, kind: bytes = b"snapshot") -> bytes:
    return QUOTE % (b"HYPEUSDT", kind, b"HYPEUSDT", bid, number)


def test_a_connection_knows_its_quotes() -> None:
    """Repetitions are left out and changes applied, for each connection by itself."""
    bench = Bench(Bybit, "spot")
    bench.arrive(0, bybit_quote(7, b"25.1"), TS_RECV)
    bench.frame_queue.decode()
    for number, frame in (
        (0, bybit_quote(7, b"25.1")),  # repeats what came alone
        (1, bybit_quote(7, b"25.1")),  # is news there
        (0, bybit_quote(8, b"25.2", b"delta")),
        (1, bybit_quote(7, b"25.1")),
        (0, bybit_quote(8, b"25.2")),  # repeats what the change led to
        (1, bybit_quote(9, b"25.3")),
    ):
        bench.arrive(number, frame, TS_RECV)
    bench.frame_queue.decode()
    counts = bench.frame_queue.counts
    assert (counts.frames, counts.pending, counts.duplicate) == (7, 4, 3)
    assert counts.unaccounted == 0
    quotes = bench.pipeline.buffer.seal(bench.table).quotes
    assert quotes["sequence"].tolist() == [7, 7, 8, 9]
    assert quotes["bid_price"].tolist() == [2510, 2510, 2520, 2530]


@pytest.mark.parametrize(
    "odd",
    [
        b'{"topic":"publicTrade.HYPEUSDT"}',
        bybit_quote(8, b"25.1")[:-1],
        bybit_quote(8, b"25.1", b"delta"),  # of a quote that its connection doesn't know
    ],
)
def test_quotes_among_odd_frames_stay_news(odd: bytes) -> None:
    """What a frame that was refused has read is not known."""
    bench = Bench(Bybit, "spot")
    for number in range(20):
        if number == 9:
            bench.arrive(1, odd, TS_RECV)
        bench.arrive(0, bybit_quote(number, b"25.1"), TS_RECV)
    bench.frame_queue.decode()
    counts = bench.frame_queue.counts
    assert (counts.pending, counts.duplicate, counts.rejected) == (20, 0, 1)


def test_heartbeats_among_data_are_control() -> None:
    bench = Bench(Kraken, "spot")
    steps = load(Kraken, "spot").steps
    trades = [
        step.payload
        for step in steps
        if (step.verb, step.outcome) == ("frame", "expect") and b'"trade"' in step.payload
    ]
    for frame in (trades[0], b'{"channel":"heartbeat"}') * 5:
        bench.arrive(0, frame, TS_RECV)
    bench.frame_queue.decode()
    counts = bench.frame_queue.counts
    assert (counts.frames, counts.pending, counts.control, counts.unaccounted) == (10, 5, 5, 0)


def test_what_a_session_does_comes_after_what_arrived() -> None:
    bench = Bench(Binance, "spot")
    bench.arrive(0, TRADE % 1, TS_RECV)
    bench.sessions[0].closed(TS_RECV + 1)
    bench.arrive(1, TRADE % 2, TS_RECV + 2)
    bench.sessions[1].replace_instruments({})
    assert bench.pipeline.frame_queues.is_empty
    sealed = bench.sealed()
    assert [hole[4] for hole in sealed["holes"]] == [1], "the hole lies between the two trades"
    assert len(sealed["trades"]) == 2


def test_a_flush_decodes_what_arrived() -> None:
    bench = Bench(Binance, "spot")
    bench.arrive(0, TRADE % 1, TS_RECV)
    assert not bench.pipeline.is_empty
    result = bench.pipeline.flush(TS_RECV)
    assert bench.pipeline.is_empty
    assert result.rows == 1
    assert bench.pipeline.bytes_received == len(TRADE % 1)


def test_each_market_has_one_intake() -> None:
    table = load(Binance, "spot").table()
    frame_queues = FrameQueues(
        table, Pipeline(table, lambda _number: Binance.markets["spot"].book).buffer
    )
    spot = frame_queues.of(Binance, "spot")
    assert frame_queues.of(Binance, "spot") is spot
    assert isinstance(frame_queues.of(Binance, "usdm"), FrameQueue)
    assert set(frame_queues.counts) == {("binance", "spot"), ("binance", "usdm")}
    assert not spot.arrived
