"""The supervisor on real sockets, against the simulated venue and its faults."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from feeds.binance import Binance
from feeds.simulated import Simulated
from ingestor.adapter import Control, Market
from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_queue import FrameQueues
from ingestor.model.errors import FeedStale, HandshakeRejected
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.rows import Kind
from ingestor.sources.live.connection import PingTimeout
from ingestor.sources.live.plan import Route, TransportName, Wanted, make_plan
from ingestor.sources.live.supervisor import Supervisor
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.network.harness import Heard, bench, impatient, settings, until

ONE_EACH = Route(streams_per_connection=3)  # all three channels of one symbol


@pytest.mark.parametrize("transport", ["picows", "websockets"])
async def test_everything_arrives_and_the_ledger_balances(transport: TransportName) -> None:
    async with bench(route=Route(transport=transport, streams_per_connection=3)) as one:
        await one.more_frames(400)
        one.flush()
        statistics = one.supervisor.statistics()
        assert one.connected == 4
        assert statistics.pending == 0
        assert not statistics.reconnects
        assert one.count(Kind.GAP) == 0
        assert min(one.count(kind) for kind in (Kind.TRADE, Kind.QUOTE, Kind.LEVEL)) > 0
        counts = one.supervisor.counts["simulated", "spot"]
        assert counts.frames == counts.decoded + counts.control
        assert counts.control == 4  # one ack each
        books = one.pipeline.books.statistics()["simulated", "spot"]
        assert books.valid == 4
        assert books.mismatched == books.gaps == 0
        assert books.verified > 0


async def test_a_cut_connection_comes_back_and_its_hole_is_declared() -> None:
    async with bench(route=ONE_EACH) as one:
        await one.more_frames()
        one.flush()
        one.simulator.cut()
        await until(lambda: one.simulator.statistics.accepted == 8)
        await one.more_frames()
        one.flush()
        assert one.causes == {"close_1006": 4}
        assert one.count(Kind.GAP) == 4 * 3  # trades, quotes and book of each symbol
        assert one.pipeline.books.statistics()["simulated", "spot"].valid == 4
        assert len(one.heard.downs) == 4
        assert one.heard.ups == 8


@pytest.mark.rows("X5")
@pytest.mark.parametrize(
    ("status", "retry_after_s"), [(401, None), (403, None), (429, 1), (503, None), (503, 1)]
)
async def test_refused_handshakes_are_tried_again(status: int, retry_after_s: int | None) -> None:
    def refuse(simulator: Simulator) -> None:
        simulator.faults.refuse = 3
        simulator.faults.status = status
        simulator.faults.retry_after_s = retry_after_s

    started_s = monotonic()
    async with bench(before=refuse, too_many_s=0.1) as one:
        await until(lambda: one.connected == 1)
        assert one.causes == {f"http_{status}": 3}
        assert [failure.status for failure in one.heard.downs] == [status] * 3  # type: ignore[attr-defined]
        assert all(isinstance(failure, HandshakeRejected) for failure in one.heard.downs)
        await one.more_frames()
    if retry_after_s is not None:
        assert monotonic() - started_s >= 3 * retry_after_s


@pytest.mark.rows("X5")
async def test_429_holds_the_whole_venue_back() -> None:
    def refuse(simulator: Simulator) -> None:
        simulator.faults.refuse = 1
        simulator.faults.status = 429
        simulator.faults.retry_after_s = 1

    async with bench(
        SimulatorOptions(symbols=30, rate_per_s=1.0),
        before=refuse,
        route=ONE_EACH,
        connects=(100.0, 1),
    ) as one:
        await until(lambda: one.simulator.statistics.refused == 1)
        await asyncio.sleep(0.5)
        # Those that had their turn before the answer came, and no other.
        assert one.simulator.statistics.accepted <= 5
        await until(lambda: one.connected == 30)


@pytest.mark.rows("I4")
async def test_a_refused_symbol_costs_its_neighbours_nothing() -> None:
    def ban(simulator: Simulator) -> None:
        simulator.faults.bad_symbols = {"S00001-USD"}

    async with bench(before=ban, channels=("trades", "book")) as one:
        await until(lambda: len(one.heard.refusals) == 2)  # refused together, then one by one
        await one.more_frames(200)
        one.flush()
        refused = sorted(stream for streams, _ in one.heard.refusals for stream in streams)
        assert refused == ["book:S00001-USD", "trade:S00001-USD"]
        assert {text for _, text in one.heard.refusals} == {"no such stream"}
        statistics = one.supervisor.statistics()
        assert statistics.refused["simulated"] == 2
        assert statistics.pending == 0
        assert not statistics.reconnects
        assert one.pipeline.books.statistics()["simulated", "spot"].valid == 3


async def test_a_subscription_without_an_answer_is_repeated_then_reported() -> None:
    def silence(simulator: Simulator) -> None:
        simulator.faults.deaf = True

    async with bench(
        before=silence, channels=("trades",), patience=impatient(ack_timeout_s=0.2)
    ) as one:
        await until(lambda: len(one.heard.unanswered) == 4)
        statistics = one.supervisor.statistics()
        assert statistics.repairs["asked_again"] == 1
        assert statistics.unacknowledged["simulated"] == 4
        assert one.connected == 1


def supervisor_of(server: Server, **more: Any) -> tuple[Supervisor, Heard]:
    """One that wants one stream of a server of the test's own."""
    table = InstrumentTable(
        [instrument("simulated", "spot", "A", "A-USD", "A", "USD", "0.01", "0.01")]
    )
    origin = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    plan = make_plan([Wanted(Simulated, "spot", [0], ["trades"], Route(origins=(origin,)))], table)
    heard = Heard()
    supervisor = Supervisor(
        plan,
        table,
        FrameQueues(table, ColumnBuffer()),
        lambda frame_queue: frame_queue.decode,
        lambda: None,
        settings=settings(**more),
        listeners=[heard],
    )
    return supervisor, heard


@pytest.mark.rows("X2")
async def test_a_half_open_connection_is_found_by_its_missing_pong() -> None:
    connections = 0
    over = asyncio.Event()

    async def deaf(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        connection.transport.pause_reading()
        await over.wait()
        connection.transport.abort()

    async with serve(deaf, "127.0.0.1", 0, close_timeout=0.1) as server:
        patience = impatient(ping_interval_s=0.1, ping_timeout_s=0.2)
        supervisor, heard = supervisor_of(server, patience=patience)
        task = asyncio.create_task(supervisor.run())
        await until(lambda: connections == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert isinstance(heard.downs[0], PingTimeout)
        over.set()


async def test_pongs_keep_a_quiet_connection() -> None:
    async with bench(
        SimulatorOptions(symbols=1, rate_per_s=0.001),
        patience=impatient(ping_interval_s=0.1, ping_timeout_s=0.3),
    ) as one:
        await until(lambda: one.connected == 1)
        await asyncio.sleep(1.0)
        assert one.causes == {}
        assert one.simulator.statistics.accepted == 1


@pytest.mark.rows("X3")
async def test_a_stale_stream_is_probed_then_its_connection_is_opened_anew() -> None:
    async with bench(route=ONE_EACH) as one:
        await one.more_frames()
        one.supervisor.stale(0, "book", 9.0, probed=False)
        await until(lambda: one.supervisor.statistics().repairs["resubscribed"] == 1)
        await until(lambda: one.supervisor.statistics().pending == 0)
        assert one.causes == {}
        one.supervisor.stale(0, "book", 18.0, probed=True)
        await until(lambda: one.simulator.statistics.accepted == 5)
        await until(lambda: bool(one.heard.downs))
        assert one.causes == {"stale": 1}
        (failure,) = one.heard.downs
        assert isinstance(failure, FeedStale)
        assert failure.stream == "book:S00000-USD"
        one.supervisor.stale(99, "book", 1.0, probed=True)  # nobody's
        assert one.connected >= 3


async def test_the_venue_asks_to_reconnect() -> None:
    async with bench() as one:
        await one.more_frames()
        one.flush()
        for _ in range(3):
            one.simulator.say(b'{"op":"reconnect","text":"maintenance"}')
        await until(lambda: one.simulator.statistics.accepted == 2)
        await until(lambda: len(one.simulator.clients) == 1)
        await one.more_frames(100)
        one.flush()
        assert one.causes == {"planned": 1}
        books = one.pipeline.books.statistics()["simulated", "spot"]
        assert books.valid == 4
        assert books.mismatched == 0
        assert one.count(Kind.GAP) == 12


class ShortLived(Simulated):
    """Connections are cut after a second."""

    markets: ClassVar[Mapping[str, Market]] = {
        "spot": replace(
            Simulated.markets["spot"],
            limits=replace(Simulated.markets["spot"].limits, lifetime_s=1.0),
        )
    }


async def test_old_connections_are_replaced_before_the_venue_cuts_them() -> None:
    async with bench(adapter=ShortLived) as one:
        await until(lambda: one.simulator.statistics.accepted >= 2)
        await until(lambda: len(one.simulator.clients) == 1)
        await one.more_frames()
        assert one.causes["planned"] >= 1
        assert "close_1006" not in one.causes


async def test_reading_stops_and_goes_on() -> None:
    async with bench(route=ONE_EACH) as one:
        await one.more_frames()
        one.supervisor.pause()
        assert one.supervisor.is_paused
        await asyncio.sleep(0.1)  # what was read already
        before = one.frames
        await asyncio.sleep(0.4)
        assert one.frames == before
        one.supervisor.resume()
        await one.more_frames(200)
        one.flush()
        assert one.causes == {}
        assert one.count(Kind.GAP) == 0  # the simulated venue waits for its readers


async def test_what_connects_while_paused_is_paused() -> None:
    async with bench(
        route=ONE_EACH,
        paused=True,
        patience=impatient(ping_interval_s=0.2, ping_timeout_s=0.2, ack_timeout_s=0.2),
    ) as one:
        await until(lambda: one.connected == 4)
        await asyncio.sleep(0.7)  # longer than any of our timeouts: none runs
        assert one.frames == 0
        assert one.causes == {}
        one.supervisor.resume()
        await one.more_frames(200)
        assert one.supervisor.statistics().pending == 0
        assert one.heard.unanswered == []


@pytest.mark.rows("X1")
async def test_a_storm_comes_back_under_the_limiter() -> None:
    lines, rate, burst = 300, 200.0, 20
    async with bench(
        SimulatorOptions(symbols=lines, rate_per_s=0.5),
        channels=("trades",),
        route=Route(streams_per_connection=1),
        connects=(rate, burst),
    ) as one:
        await until(lambda: one.connected == lines)
        one.simulator.cut()
        cut_s = monotonic()
        most = 0.0
        while one.simulator.statistics.accepted < 2 * lines:
            await asyncio.sleep(0.005)
            back = one.simulator.statistics.accepted - lines
            most = max(most, back - (burst + rate * (monotonic() - cut_s)))
            assert monotonic() - cut_s < 30
        assert most <= 1
        await until(lambda: one.connected == lines)
        assert one.causes == {"close_1006": lines}


async def test_books_that_want_a_rest_snapshot_get_it() -> None:
    options = SimulatorOptions(symbols=3, rate_per_s=50.0, dialect="binance")
    async with bench(options, adapter=Binance) as one:

        def synchronised() -> bool:
            one.flush()
            books = one.pipeline.books.statistics().get(("binance", "spot"))
            return books is not None and books.valid == 3 and books.verified > 20

        await until(synchronised)
        assert one.supervisor.statistics().repairs["fetched"] >= 3
        books = one.pipeline.books.statistics()["binance", "spot"]
        assert books.mismatched == 0
        counts = one.supervisor.counts["binance", "spot"]
        assert counts.rejected == 0


async def test_a_gap_is_repaired_by_subscribing_again() -> None:
    async with bench(SimulatorOptions(symbols=1, rate_per_s=100.0)) as one:
        await one.more_frames()
        one.flush()
        one.simulator.faults.gaps = 1

        def repaired() -> bool:
            one.flush()
            books = one.pipeline.books.statistics()["simulated", "spot"]
            return books.gaps == 1 and books.valid == 1

        await until(repaired)
        assert one.supervisor.statistics().repairs["resubscribed"] == 1
        assert one.causes == {}


async def test_a_malformed_frame_costs_itself() -> None:
    async with bench(channels=("trades",)) as one:
        await one.more_frames()
        one.simulator.faults.malformed = 2
        await one.more_frames(100)
        counts = one.supervisor.counts["simulated", "spot"]
        assert counts.rejected_by_reason == {"malformed": 2}
        assert one.causes == {}


class Notebook:
    """A Tap that keeps the names of what it heard, by connection."""

    def __init__(self) -> None:
        self.heard: dict[int | None, list[str]] = {}
        self.sent_frames: list[bytes] = []

    def _note(self, connection: int | None, what: str) -> None:
        if (notes := self.heard.setdefault(connection, []))[-1:] != [what]:
            notes.append(what)

    def connected(
        self, connection: int, ts_ns: int, venue: str, market: str, url: str, lines: int = 1
    ) -> None:
        self._note(connection, f"connected {venue} {market}")

    def disconnected(self, connection: int, ts_ns: int, reason: str) -> None:
        self._note(connection, "disconnected")

    def received(self, connection: int, ts_ns: int, payload: bytes) -> None:
        self._note(connection, "received")

    def sent(self, connection: int, ts_ns: int, payload: bytes) -> None:
        self.sent_frames.append(payload)
        self._note(connection, "sent")

    def fetched(
        self, connection: int | None, ts_ns: int, venue: str, market: str, url: str, body: bytes
    ) -> None:
        self._note(connection, "fetched")

    def record_decision(self, connection: int | None, ts_ns: int, decision: dict[str, Any]) -> None:
        self._note(connection, f"decided {decision['action']}")


async def test_a_recorder_hears_everything() -> None:
    tap = Notebook()
    async with bench(SimulatorOptions(symbols=1, rate_per_s=100.0), tap=tap) as one:
        await one.more_frames()
        one.simulator.say(b'{"op":"ping","id":7}')
        await until(lambda: b'{"op":"pong","id":7}' in tap.sent_frames)
        one.simulator.cut()
        await until(lambda: one.simulator.statistics.accepted == 2)
        await one.more_frames()
        one.supervisor.pause()
        one.supervisor.resume()
    first, second = tap.heard[1], tap.heard[2]
    assert [*first[:3], first[-1]] == [second[0], "sent", "received", "disconnected"]
    assert "disconnected" not in second  # stopping is no hole
    assert second[0] == "connected simulated spot"
    assert tap.heard[None] == ["decided pause", "decided resume"]


class Broken(Simulated):
    """An adapter with a bug."""

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        raise AssertionError("our own bug")


async def test_a_bug_of_an_adapter_costs_its_frames_alone(expected_bugs: Counter[str]) -> None:
    before = bulkheads.bugs["frame"]
    async with bench(adapter=Broken) as one:
        one.simulator.cut()

        def is_reported() -> bool:
            one.flush()
            return bulkheads.bugs["frame"] > before

        await until(is_reported)
        assert not one.task.done()
        assert one.connected
    expected_bugs["frame"] = bulkheads.bugs["frame"] - before


async def test_stopping_leaves_nothing_behind() -> None:
    before = len(asyncio.all_tasks())
    async with bench(route=ONE_EACH) as one:
        await one.more_frames()
        simulator = one.simulator
    assert not simulator.clients
    assert one.states == {"stopped": 4}
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == before


async def test_what_opens_while_we_stop_was_not_lost() -> None:
    """At some turns of the loop around the one in which the socket opens."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hold_back(*_: object) -> None:
        asked.set()
        await answer.wait()

    ups = []
    async with serve(
        ServerConnection.wait_closed, "127.0.0.1", 0, process_request=hold_back
    ) as server:
        for turns in range(12):
            supervisor, heard = supervisor_of(server)
            task = asyncio.create_task(supervisor.run())
            await asked.wait()
            answer.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert heard.downs == []
            assert not supervisor.statistics().reconnects
            ups.append(heard.ups)
            asked.clear()
            answer.clear()
    assert 1 in ups


async def test_the_kernels_buffer_is_as_large_as_was_asked_for() -> None:
    async with bench(receive_buffer_bytes=20_000) as one:
        await one.more_frames()
        [port] = {urlsplit(address).port for address in one.simulator.addresses}
        assert receive_buffers(port) == [2 * 20_000]  # socket(7): the kernel doubles it


def receive_buffers(port: int | None) -> list[int]:
    """Return the sizes of the buffers of this process' sockets that are connected to a port."""
    found = []
    for descriptor in filter(Path.is_socket, Path("/proc/self/fd").iterdir()):
        with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor.name))) as one:
            if one.family == socket.AF_INET and one.getpeername()[1] == port:
                found.append(one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
    return found


async def test_idle_connections_have_no_task_each() -> None:
    async with bench(
        SimulatorOptions(symbols=50, rate_per_s=1.0),
        channels=("trades",),
        route=Route(streams_per_connection=1),
    ) as one:
        await until(lambda: one.connected == 50 and one.supervisor.statistics().pending == 0)
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) < 12
