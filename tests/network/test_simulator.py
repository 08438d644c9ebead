"""The simulated venue: its market, its frames, its faults, its process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import AsyncExitStack
from time import time_ns
from urllib.parse import urlsplit

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect

from feeds.binance import Binance
from feeds.simulated import Simulated
from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import read_list
from ingestor.columns.buffer import ColumnBuffer
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable
from ingestor.testbed.simulated.dialects import Kind, dialect_of, make_book
from ingestor.testbed.simulated.market import Encoded, Shape, header, make_walk
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions

PATIENCE_S = 60.0
SHAPE = Shape(levels=20, depth=30, states=16, walks=2)


def test_a_walk_is_never_crossed_and_has_no_seam() -> None:
    price_walk = make_walk(7, SHAPE)
    assert len(price_walk) == 2 * SHAPE.states - 2
    bids, asks = (dict(side) for side in price_walk.states[0].levels())
    for place in [*range(1, len(price_walk)), *range(len(price_walk))]:
        event = price_walk.events[place]
        for side, delta in ((bids, event.bids), (asks, event.asks)):
            for price, size in delta:
                if float(size):
                    side[price] = size
                else:
                    del side[price]
        assert (bids, asks) == tuple(dict(side) for side in price_walk.states[place].levels())
        best_bid, best_ask = max(map(float, bids)), min(map(float, asks))
        assert best_bid < best_ask
        assert [float(text) for text in event.quote[0::2]] == [best_bid, best_ask]
        assert len(bids) == len(asks) == SHAPE.depth
    assert make_walk(7, SHAPE) == price_walk != make_walk(8, SHAPE)


@pytest.mark.parametrize("levels", [2, 20, 200])
def test_updates_have_the_levels_that_were_asked_for(levels: int) -> None:
    shape = Shape(levels=levels, depth=max(50, levels))
    sizes = [len(event.bids) + len(event.asks) for event in make_walk(1, shape).events]
    assert abs(sum(sizes) / len(sizes) - levels) <= max(2.0, levels / 10)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frame_headers(size: int) -> None:
    made = header(size)
    assert made[0] == 0x81
    if size < 126:
        assert made[1:] == bytes([size])
    else:
        width = 2 if size < 1 << 16 else 8
        assert made[1] == (126 if width == 2 else 127)
        assert int.from_bytes(made[2:], "big") == size
        assert len(made) == 2 + width


def test_encoding_keeps_an_at_sign_that_is_no_mark() -> None:
    encoded = Encoded("@L@trade @S@N", 4, framed=False)
    assert encoded.encode((b"ABCD", b"abcd", b"1" * 10, b"", b"")) == b"abcd@trade ABCD1111111111"


@pytest.mark.parametrize("kind", ["trade", "quote", "book"])
@pytest.mark.parametrize(("name", "adapter"), [("simulated", Simulated), ("binance", Binance)])
def test_adapters_read_what_is_sent(name: str, adapter: type[FeedAdapter], kind: Kind) -> None:
    book = make_book(name, SHAPE, 1)
    symbols = [book.dialect.symbol(0), book.dialect.symbol(12_345)]
    path, body = book.dialect.instruments(symbols)
    assert path == adapter.instrument_requests("spot")[0].path
    table = InstrumentTable(read_list(adapter, "spot", [body]).instruments)
    feed = adapter("spot", table.symbols(adapter.venue, "spot"))
    buffer = ColumnBuffer()
    now_ns = time_ns()
    for number, encoded in enumerate(book.events(1, kind)):
        symbol = symbols[number % 2].encode()
        numbers = b"%d" % (1_000_000_000 + number)
        frame = encoded.encode(
            (symbol, symbol.lower(), numbers, b"%d" % now_ns, b"%d" % (now_ns // 1_000_000))
        )
        payload = frame[4:] if frame[1] == 126 else frame[2:]
        assert header(len(payload)) == frame[: len(frame) - len(payload)]
        buffer.begin(feed, payload)  # type: ignore[arg-type]  # any object is a source
        assert feed.decode(payload, now_ns, buffer) is None
    sealed = buffer.seal(table)
    assert sealed.rejected == []
    rows = {"trade": sealed.trades, "quote": sealed.quotes, "book": sealed.updates}[kind]
    assert len(rows) == len(book.walks[1])
    assert set(rows["instrument"].tolist()) == {0, 1}


@pytest.mark.parametrize("name", ["kraken", "nonsense"])
def test_a_venue_without_a_dialect_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no dialect '{name}'"):
        dialect_of(name)


def test_streams_have_the_names_that_adapters_use() -> None:
    for name, adapter in (("simulated", Simulated), ("binance", Binance)):
        dialect = dialect_of(name)
        symbol = dialect.symbol(3)
        for channel, kind in (("trades", "trade"), ("quotes", "quote"), ("book", "book")):
            stream = adapter("spot", {symbol: 0}).stream(channel, symbol)
            assert dialect.split(stream) == (kind, symbol)
        assert dialect.split("nonsense") is None


async def subscribe(connection: ClientConnection, *streams: str) -> None:
    await connection.send(json.dumps({"op": "subscribe", "streams": streams}))
    assert json.loads(await connection.recv()) == {"op": "ack", "streams": [*streams]}


async def test_snapshot_then_contiguous_updates() -> None:
    options = SimulatorOptions(symbols=1, rate_per_s=500.0, shape=SHAPE)
    async with Simulator(options) as simulator, connect(simulator.addresses[0]) as connection:
        await subscribe(connection, "book:S00000-USD")
        first = json.loads(await connection.recv())
        assert first["ch"] == "snapshot"
        number, before_ns = first["u"], first["t"]
        for _ in range(80):  # more than twice around
            update = json.loads(await connection.recv())
            assert (update["ch"], update["U"], update["u"]) == ("book", number + 1, number + 1)
            assert before_ns <= update["t"] <= time_ns()
            number, before_ns = update["u"], update["t"]


async def test_few_frames_bear_the_same_time_of_sending() -> None:
    options = SimulatorOptions(symbols=400, rate_per_s=500.0, shape=SHAPE)
    async with Simulator(options) as simulator, connect(simulator.addresses[0]) as connection:
        await subscribe(connection, *(f"trade:{symbol}" for symbol in simulator.symbols))
        times = [json.loads(await connection.recv())["t"] for _ in range(4_000)]
    assert max(Counter(times).values()) <= 32 < len({*times})


async def test_heartbeats_reach_everybody_who_is_there() -> None:
    options = SimulatorOptions(symbols=1, shape=SHAPE, heartbeat_s=0.1)
    async with Simulator(options) as simulator, AsyncExitStack() as clients:
        opened = [
            await clients.enter_async_context(connect(simulator.addresses[0])) for _ in range(3)
        ]
        for _ in range(2):
            for connection in opened:
                assert json.loads(await connection.recv()) == {"op": "heartbeat"}
            await opened.pop(0).close()


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    options = SimulatorOptions(symbols=1, rate_per_s=0, shape=SHAPE)
    async with (
        Simulator(options) as simulator,
        connect(simulator.addresses[0], max_queue=4, close_timeout=0.1) as connection,
    ):
        await subscribe(connection, "trade:S00000-USD")
        async with asyncio.timeout(PATIENCE_S):
            before = -1
            while simulator.statistics.frames != before:
                before = simulator.statistics.frames
                await asyncio.sleep(0.2)
        number = json.loads(await connection.recv())["i"]
        for _ in range(2_000):
            number += 1
            assert json.loads(await connection.recv())["i"] == number


async def test_a_stall_holds_a_server_without_a_rate_too() -> None:
    options = SimulatorOptions(symbols=1, rate_per_s=0, shape=SHAPE)
    async with Simulator(options) as simulator, connect(simulator.addresses[0]) as connection:
        simulator.stall(60.0)
        await asyncio.sleep(0.05)  # a turn that was under way ends
        await subscribe(connection, "trade:S00000-USD")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.recv(), 0.1)
        simulator.stall(0.0)
        assert json.loads(await connection.recv())["ch"] == "trade"


async def test_aggregate_trades_come_as_in_a_combined_stream() -> None:
    options = SimulatorOptions(symbols=1, rate_per_s=500.0, dialect="binance", shape=SHAPE)
    async with Simulator(options) as simulator, connect(simulator.addresses[0]) as connection:
        stream = "s00000usd@aggTrade"
        await connection.send(json.dumps({"method": "SUBSCRIBE", "params": [stream], "id": 1}))
        assert json.loads(await connection.recv()) == {"result": None, "id": 1}
        first, second = [json.loads(await connection.recv()) for _ in range(2)]
        assert first["stream"] == stream
        assert (first["data"]["e"], first["data"]["s"]) == ("aggTrade", "S00000USD")
        assert second["data"]["a"] == first["data"]["a"] + 1


async def test_rest_and_control() -> None:
    options = SimulatorOptions(symbols=2, hosts=("127.0.0.1", "127.0.0.2"), ports=(0, 0))
    async with Simulator(options) as simulator, aiohttp.ClientSession() as http:
        assert len({urlsplit(one).netloc for one in simulator.addresses}) == 4
        async with http.get(f"{simulator.rest}/instruments") as answer:
            assert len((await answer.json())["instruments"]) == 2
        async with connect(simulator.addresses[3]) as connection:
            await subscribe(connection, "trade:S00001-USD")
            async with http.get(f"{simulator.rest}/control/statistics") as answer:
                statistics = await answer.json()
            assert statistics["connections"] == statistics["streams"] == 1
            assert statistics["cpu_s"] > 0
            async with http.get(f"{simulator.rest}/control/cut") as answer:
                assert answer.status == 200
            await connection.wait_closed()
        for path in ("/nothing", "/control/nothing", "/api/v3/depth?symbol=X"):
            async with http.get(f"{simulator.rest}{path}") as answer:
                assert answer.status == 404
        url = f"{simulator.rest}/control/refuse?count=1&status=429&retry_after_s=9"
        async with http.get(url):
            pass
        assert (simulator.faults.refuse, simulator.faults.status) == (1, 429)
        assert simulator.faults.retry_after_s == 9


async def test_faults_in_the_stream() -> None:
    options = SimulatorOptions(symbols=1, rate_per_s=500.0, shape=SHAPE, heartbeat_s=3_600.0)
    async with Simulator(options) as simulator, connect(simulator.addresses[0]) as connection:
        await subscribe(connection, "book:S00000-USD")
        last: int = json.loads(await connection.recv())["u"]

        async def step_that_is_not(expected: int) -> int:
            nonlocal last
            while True:
                before, last = last, json.loads(await connection.recv())["u"]
                if last - before != expected:
                    return last - before

        simulator.faults.duplicates = 1
        assert await step_that_is_not(1) == 0
        simulator.faults.gaps = 1
        assert await step_that_is_not(1) == 2
        simulator.faults.malformed = 1
        with pytest.raises(json.JSONDecodeError):
            await step_that_is_not(1)
        assert not simulator.faults.spoils


async def test_the_process_tells_its_addresses_and_ends_with_its_parent() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(
            "-m",
            "ingestor.testbed.simulated.simulator",
            "--json",
            "--symbols",
            "3",
            "--rate",
            "100",
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    async with asyncio.timeout(PATIENCE_S):
        about = json.loads(await process.stdout.readline())
        async with connect(about["addresses"][0]) as connection:
            await subscribe(connection, "quote:S00002-USD")
            assert json.loads(await connection.recv())["ch"] == "quote"
        process.stdin.close()
        assert await process.wait() == 0
