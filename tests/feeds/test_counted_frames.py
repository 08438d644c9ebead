"""A hole that shapes come upon gives the rows, GAPs and counts of the Python way."""

from __future__ import annotations

from random import Random

import pytest

from feeds.coinbase import Coinbase
from ingestor.adapter.contract import Subscription
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealed import Sealed
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.frame_queue import FrameQueue, take_reads
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.rows import UPDATE
from ingestor.native import native
from tests.feeds.fixtures import load
from tests.feeds.shape_frames import header

pytestmark = pytest.mark.skipif(native().library is None, reason=native().reason)

TABLE = load(Coinbase, "spot").table()
SYMBOLS = TABLE.symbols("coinbase", "spot")
TS_RECV = 1_790_000_000_000_000_000
TIME = "2026-08-09T21:05:48.5Z"
SAME = [name for name in UPDATE.names or () if name not in {"frame", "spare"}]


def message(number: int, random: Random) -> bytes:
    """Return a frame of one of the kinds that a connection carries, most of them frequent ones."""
    symbol, client = random.choice(("BTC-USD", "SHIB-USD", "NOPE-USD")), '"client_id":"",'
    trade = (
        f'{{"product_id":"{symbol}","trade_id":"{random.randrange(10**9)}","price":"7","size":"3",'
        f'"time":"{TIME}","side":"BUY"}}'
    )
    level = (
        f'{{"side":"{random.choice(("bid", "offer"))}","event_time":"{TIME}","price_level":"9",'
        '"new_quantity":"2"}'
    )
    levels = f'"product_id":"{symbol}","updates":[{level},{level}]'
    too_fine = trade.replace('"7"', '"7.123456789"')
    channel, event = random.choice(
        (
            *(("market_trades", f'"trades":[{trade}]'), ("l2_data", levels)) * 4,
            ("market_trades", f'"trades":[{trade}]}},{{"type":"update","trades":[{trade}]'),
            ("market_trades", f'"trades":[{too_fine}]'),
            ("heartbeats", '"heartbeat_counter":"1"'),
            ("level3", '"updates":[]'),
            ("l2_data", f'"product_id":"{symbol}"'),
        )
    )
    return (
        f'{{"channel":"{channel}",{random.choice((client, ""))}"timestamp":"{TIME}",'
        f'"sequence_num":{number},"events":[{{"type":"update",{event}}}]}}'
    ).encode()


def numbers(count: int, random: Random) -> list[int]:
    """Return the numbers of frames: some are skipped, sent again, late, or begin anew."""
    found, number = [], 0
    for _ in range(count):
        what = random.random()
        if what < 0.04:
            number += random.randrange(1, 4)
        elif what < 0.08 and number:
            found.append(number - random.randrange(1, min(number, 4) + 1))
            continue
        elif what < 0.09:
            number = 0
        found.append(number)
        number += 1
    return found


class Way:
    """Three connections of one market."""

    def __init__(self, *, is_compiled: bool) -> None:
        self.buffer = ColumnBuffer(TABLE if is_compiled else None)
        self.queue = FrameQueue(Coinbase, "spot", SYMBOLS, self.buffer)
        assert (self.queue.taker is not None) == is_compiled
        self.sessions = [self._session(number) for number in range(3)]
        self.read = take_reads(self.queue, lambda: None)

    def _session(self, number: int) -> Session:
        adapter = Coinbase("spot", SYMBOLS)
        wanted = [
            Subscription(place, one.symbol, channel, adapter.stream(channel, one.symbol))
            for place, one in enumerate(TABLE)
            for channel in ("trades", "book")
        ]
        queue = self.queue
        return Session(
            *(number, adapter, wanted, self.buffer, queue.counts, SessionEvents(), "spot"),
            queue.decode,
        )

    def receive(self, connection: int, frames: list[bytes], ts_recv: int, *, is_read: bool) -> None:
        """Take frames of a connection: those of one read, or one by one."""
        session = self.sessions[connection]
        if is_read and self.read is not None:
            data = b"".join(map(header, frames))
            assert self.read(session, data, 0, 1 << 20, ts_recv) == len(data)
            return
        for frame in frames:
            self.queue.arrive((session, frame, ts_recv))
        if is_read:
            self.queue.decode()

    def sealed(self) -> tuple[Sealed, FrameCounts, list[object]]:
        """Return rows, counts, and all that is said of holes and refused frames."""
        self.queue.decode()
        sealed = self.buffer.seal(TABLE)
        said: list[object] = [
            (
                *(hole.cause, hole.ts_recv, hole.trade, hole.update, hole.first, hole.last),
                *(hole.instruments, hole.row_class, self.sessions.index(hole.source)),  # type: ignore[arg-type]
            )
            for hole in sealed.holes
        ]
        said += [(one.payload, one.reason, one.detail) for one in sealed.rejected]
        said += [session.adapter.next_number for session in self.sessions]  # type: ignore[attr-defined]
        return sealed, self.queue.counts, said


@pytest.mark.parametrize("seed", range(20))
def test_holes_repeats_and_new_counts_are_found_both_ways(seed: int) -> None:
    random = Random(seed)
    streams = [[message(number, random) for number in numbers(400, random)] for _ in range(3)]
    ways = [Way(is_compiled=True), Way(is_compiled=False)]
    turn = 0
    while any(streams):
        connection, many = random.randrange(3), random.choice((1, 1, 1, 5, 40))
        some, streams[connection] = streams[connection][:many], streams[connection][many:]
        turn, is_read = turn + 1, random.random() < 0.5
        for way in ways:
            way.receive(connection, some, TS_RECV + turn, is_read=is_read)
        if random.random() < 0.1:
            compare(*ways)
    compare(*ways)
    taker = ways[0].queue.taker
    assert taker is not None
    assert taker.frames > 250


def compare(compiled: Way, in_python: Way) -> None:
    one, counts, said = compiled.sealed()
    other, same_counts, same_said = in_python.sealed()
    assert one.trades.tobytes() == other.trades.tobytes()
    assert all((one.updates[name] == other.updates[name]).all() for name in SAME)
    assert one.prices.tolist() == other.prices.tolist()
    assert said == same_said
    assert counts == same_counts
