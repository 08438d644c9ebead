"""A plain websockets client subscribes as each venue documents it and hears the recording."""

import asyncio
import json
import math
import time
from pathlib import Path

import aiohttp
import pytest
import websockets

from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable
from ingestor.recording.recorder import Recorder
from ingestor.recording.segments import RecorderSettings
from ingestor.testbed.emulator.server import MAX_SPEED, VenueEmulator, serve
from tests.testbed.made import (
    ALL,
    BINANCE,
    BYBIT,
    COINBASE,
    GAP_NS,
    KRAKEN,
    OKX,
    START_NS,
    Made,
    peer,
    requests_for,
    subscribed,
    write,
)


@pytest.mark.parametrize("speed", [1.0, 10.0, MAX_SPEED])
@pytest.mark.parametrize("made", ALL.values(), ids=ALL)
async def test_frames_come_verbatim_in_order_and_not_too_early(
    made: Made, speed: float, tmp_path: Path
) -> None:
    path = made.write(tmp_path)
    async with VenueEmulator([path], speed=speed, start_when="manual") as emulator:
        assert emulator.recording.venue == made.venue
        async with peer(emulator.ws_url + made.path) as one:
            answers = await subscribed(emulator, made, one)
            assert [json.loads(text) for text in one.heard[:answers]]
            started_s = time.monotonic()
            emulator.start()
            heard = await one.until(answers + len(made.data))
            elapsed_s = time.monotonic() - started_s
            await asyncio.wait_for(emulator.finished.wait(), 60)
    assert heard[answers:] == made.data
    first, last = (made.frames.index(made.data[at]) for at in (0, -1))
    if not math.isinf(speed):
        assert elapsed_s >= (last - first) * GAP_NS / 1e9 / speed * 0.99
    assert emulator.statistics.frames_sent.total() == len(made.data)
    assert not emulator.statistics.faults


@pytest.mark.parametrize("made", ALL.values(), ids=ALL)
async def test_what_our_recorder_wrote_is_played(made: Made, tmp_path: Path) -> None:
    recorder = Recorder(RecorderSettings(tmp_path), "s1", InstrumentTable(), lambda _: ())
    recorder.start()
    for url, body in made.http:
        recorder.fetched(None, START_NS, made.venue, made.market, url, body.encode())
    recorder.connected(1, START_NS, made.venue, made.market, made.address)
    for number, frame in enumerate(made.frames):
        recorder.received(1, START_NS + number * GAP_NS, frame.encode())
    await recorder.stop()
    async with VenueEmulator([tmp_path], speed=MAX_SPEED, start_when="manual") as emulator:
        assert emulator.recording.venue == made.venue
        async with peer(emulator.ws_url + made.path) as one:
            answers = await subscribed(emulator, made, one)
            emulator.start()
            heard = await one.until(answers + len(made.data))
    assert heard[answers:] == made.data


async def test_binance_streams_named_in_the_address(tmp_path: Path) -> None:
    path = BINANCE.write(tmp_path)
    depth = [text for text in BINANCE.data if "depth" in text]
    trade = next(text for text in BINANCE.data if "@trade" in text)
    async with VenueEmulator([path], speed=MAX_SPEED, start_when="manual") as emulator:
        combined = emulator.ws_url + "/stream?streams=bnbbtc%40depth%40100ms/bnbbtc@trade"
        async with peer(combined) as one, peer(emulator.ws_url + "/ws/bnbbtc@trade") as raw:
            emulator.start()
            assert await one.until(4) == [depth[0], trade, *depth[1:]]
            assert await raw.until(1) == [trade[trade.index('{"e"') : -1]]
            assert json.loads(raw.heard[0]) == json.loads(trade)["data"]


async def test_a_raw_recording_is_wrapped_for_who_wants_combined_streams(tmp_path: Path) -> None:
    raw = '{"e":"trade","E":1,"s":"BNBBTC","t":1,"p":"0.1","q":"1","T":1,"m":true,"M":true}'
    lines = [
        {"t": "connect", "ts_ns": 1, "conn": 0, "url": "wss://stream.binance.com/ws/bnbbtc@trade"},
        {"t": "recv", "ts_ns": 2, "conn": 0, "data": raw},
    ]
    path = write(tmp_path / "raw.jsonl.zst", lines)
    async with (
        VenueEmulator([path], speed=MAX_SPEED, start_when=1) as emulator,
        peer(emulator.ws_url + "/stream?streams=bnbbtc@trade") as one,
    ):
        assert await one.until(1) == ['{"stream":"bnbbtc@trade","data":' + raw + "}"]


async def test_any_depth_of_a_book_gets_the_recorded_one(tmp_path: Path) -> None:
    wanted = {
        "binance": '{"method":"SUBSCRIBE","params":["bnbbtc@depth"],"id":1}',
        "bybit": '{"op":"subscribe","args":["orderbook.200.BTCUSDT"]}',
        "kraken": '{"method":"subscribe","params":{"channel":"book","depth":100,'
        '"symbol":["MATIC/USD"]}}',
    }
    for venue, request in wanted.items():
        made = ALL[venue]
        path = made.write(tmp_path)
        mark = {"binance": "depth", "bybit": "orderbook", "kraken": '"book"'}[venue]
        books = [text for text in made.data if mark in text]
        async with (
            VenueEmulator([path], speed=MAX_SPEED, start_when="first") as emulator,
            peer(emulator.ws_url + made.path) as one,
        ):
            await one.socket.send(request)
            answers = 2 if venue == "kraken" else 1
            assert (await one.until(answers + len(books)))[answers:] == books


async def test_only_what_was_subscribed_and_nothing_after_unsubscribing(tmp_path: Path) -> None:
    path = BYBIT.write(tmp_path)
    async with (
        VenueEmulator([path], speed=MAX_SPEED, start_when="manual") as emulator,
        peer(emulator.ws_url) as one,
        peer(emulator.ws_url) as other,
    ):
        await one.ask('{"op":"subscribe","args":["publicTrade.BTCUSDT"]}')
        await other.ask('{"op":"subscribe","args":["orderbook.50.BTCUSDT"]}')
        await other.ask('{"op":"subscribe","args":["publicTrade.BTCUSDT"]}')
        answer = await other.ask('{"op":"unsubscribe","args":["publicTrade.BTCUSDT"]}')
        assert json.loads(answer[0])["op"] == "unsubscribe"
        emulator.start()
        await emulator.finished.wait()
        assert (await one.until(2))[1:] == [text for text in BYBIT.data if "publicTrade" in text]
        assert (await other.until(6))[3:] == [text for text in BYBIT.data if "orderbook" in text]


async def test_who_comes_late_gets_the_book_at_this_position(tmp_path: Path) -> None:
    """Bybit, Kraken, OKX and Coinbase send a snapshot on subscribe."""
    expected = {
        "bybit": lambda m: (m["type"], m["data"]["b"], m["data"]["u"]),
        "kraken": lambda m: (m["type"], m["data"][0]["bids"], m["data"][0]["checksum"]),
        "okx": lambda m: (m["action"], m["data"][0]["asks"], m["data"][0]["seqId"]),
        "coinbase": lambda m: (m["channel"], m["sequence_num"], m["events"][0]["updates"]),
    }
    found = {}
    for made in (BYBIT, KRAKEN, OKX, COINBASE):
        path = made.write(tmp_path)
        async with VenueEmulator([path], speed=MAX_SPEED, start_when="manual") as emulator:
            emulator.start()
            await emulator.finished.wait()
            async with peer(emulator.ws_url + made.path) as one:
                await one.socket.send(made.requests[0])
                answers = {"bybit": 1, "kraken": 2, "okx": 3, "coinbase": 1}[made.venue]
                heard = await one.until(answers + 1)
                found[made.venue] = expected[made.venue](json.loads(heard[answers]))
    assert found["bybit"] == ("snapshot", [["16493.00", "0.100"], ["16492.00", "0.2"]], 18521290)
    assert found["kraken"] == (
        "snapshot",
        [{"price": 0.5665, "qty": 6658.22734739}, {"price": 0.5657, "qty": 1098.3947558}],
        17,
    )
    assert found["okx"] == ("snapshot", [["8477", "7", "0", "1"]], 101)
    channel, number, updates = found["coinbase"]
    assert (channel, number) == ("l2_data", 1)
    assert [one["price_level"] for one in updates] == ["21921.3"]


async def test_coinbase_numbers_stay_contiguous_for_who_hears_a_part(tmp_path: Path) -> None:
    path = COINBASE.write(tmp_path)
    wanted = [text for text in COINBASE.data if "BTC-USD" in text and "l2_data" in text]
    async with (
        VenueEmulator([path], speed=MAX_SPEED, start_when=1) as emulator,
        peer(emulator.ws_url) as one,
    ):
        request = '{"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}'
        await one.socket.send(request)
        heard = await one.until(1 + len(wanted))
    numbers = [json.loads(text)["sequence_num"] for text in heard]
    assert numbers == [0, 1, 2, 3]
    recorded = [json.loads(text)["sequence_num"] for text in wanted]
    again = [
        text.replace(f'"sequence_num":{number}', f'"sequence_num":{old}')
        for text, number, old in zip(heard[1:], numbers[1:], recorded, strict=True)
    ]
    assert again == wanted


async def test_connections_stay_open_or_close_at_the_end(tmp_path: Path) -> None:
    path = OKX.write(tmp_path)
    async with (
        VenueEmulator([path], speed=MAX_SPEED, start_when=1, at_end="close") as emulator,
        peer(emulator.ws_url) as one,
    ):
        await one.socket.send(OKX.requests[0])
        await asyncio.wait_for(one.closed.wait(), 60)
        assert one.socket.close_code == 1001
    async with (
        VenueEmulator([path], speed=MAX_SPEED, start_when=1) as emulator,
        peer(emulator.ws_url) as one,
    ):
        await one.socket.send(OKX.requests[0])
        await emulator.finished.wait()
        assert await one.ask("ping")
        assert not one.closed.is_set()


async def test_playback_begins_some_time_after_the_first_subscription(tmp_path: Path) -> None:
    path = BYBIT.write(tmp_path)
    async with (
        VenueEmulator([path], speed=MAX_SPEED, start_after_s=0.05) as emulator,
        peer(emulator.ws_url) as one,
    ):
        await one.ask('{"op":"subscribe","args":["publicTrade.BTCUSDT"]}')
        assert len(await one.until(2)) == 2


async def test_a_client_that_does_not_read_holds_playback_back(tmp_path: Path) -> None:
    """More than the kernel and the emulator's queue take; then it reads, and nothing is lost."""
    frames = [
        f'{{"topic":"publicTrade.X","ts":{number},"data":"{"x" * 200_000}"}}'
        for number in range(200)
    ]
    lines = [{"t": "recv", "ts_ns": n, "conn": 0, "data": text} for n, text in enumerate(frames)]
    path = write(tmp_path / "wide.jsonl.zst", lines)
    async with VenueEmulator([path], speed=MAX_SPEED, start_when=1) as emulator:
        socket = await websockets.connect(
            emulator.ws_url, compression=None, max_size=None, max_queue=1
        )
        await socket.send('{"op":"subscribe","args":["publicTrade.X"]}')
        await socket.recv()
        played = 0
        while not played or played != emulator.statistics.frames_played:
            played = emulator.statistics.frames_played
            await asyncio.sleep(0.2)
        assert 0 < played < len(frames)
        assert not emulator.finished.is_set()
        assert [await socket.recv() for _ in frames] == frames
        await asyncio.wait_for(emulator.finished.wait(), 60)
        await socket.close()


async def test_who_leaves_does_not_stop_the_others(tmp_path: Path) -> None:
    path = BYBIT.write(tmp_path)
    async with VenueEmulator([path], speed=MAX_SPEED, start_when="manual") as emulator:
        async with peer(emulator.ws_url) as one:
            async with peer(emulator.ws_url) as other:
                await subscribed(emulator, BYBIT, one)
                await subscribed(emulator, BYBIT, other)
                other.socket.transport.abort()
            emulator.start()
            assert (await one.until(1 + len(BYBIT.data)))[1:] == BYBIT.data
        assert emulator.statistics.clients == 2


async def test_serve_plays_each_venue_on_a_port_of_its_own(tmp_path: Path) -> None:
    paths = [BYBIT.write(tmp_path), OKX.write(tmp_path)]
    up: list[VenueEmulator] = []
    both = asyncio.Event()

    def tell(emulator: VenueEmulator) -> None:
        up.append(emulator)
        if len(up) == 2:
            both.set()

    task = asyncio.create_task(serve(paths, port=0, speed=MAX_SPEED, tell=tell))
    await asyncio.wait_for(both.wait(), 60)
    assert {one.recording.venue for one in up} == {"bybit", "okx"}
    assert len({one.ws_url for one in up}) == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_recorded_nonsense_is_played_where_its_stream_is_known(tmp_path: Path) -> None:
    lines = OKX.lines()
    odd = [
        '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":7}',
        OKX.data[0].replace("415", "many"),
    ]
    cut = '{"arg":{"channel":"bo'
    for text in (*odd, cut):
        lines.append({"t": "recv", "ts_ns": lines[-1]["ts_ns"] + 1, "conn": "c", "data": text})
    path = write(tmp_path / "odd.jsonl.zst", lines)
    async with (
        VenueEmulator([path], speed=MAX_SPEED, start_when="manual") as emulator,
        peer(emulator.ws_url) as one,
    ):
        answers = await subscribed(emulator, OKX, one)
        emulator.start()
        heard = await one.until(answers + len(OKX.data) + 2)
        assert heard[answers:] == [*OKX.data, *odd]
        await emulator.finished.wait()


async def test_a_venue_without_a_module_is_played_as_recorded(tmp_path: Path) -> None:
    head = {"t": "header", "venue": "acme", "format": 1, "session": "s", "ts_ns": START_NS}
    connect = {
        "t": "connect", "ts_ns": START_NS, "conn": "c", "url": "wss://acme.example/feed",
        "venue": "acme", "market": "spot", "instruments": [],
    }  # fmt: skip
    recorded = ['{"subscribed":["trades"]}', "pong", '{"trade":{"price":"1.5"}}', '{"tra']
    lines = [
        head,
        connect,
        *({"t": "recv", "ts_ns": START_NS, "conn": "c", "data": text} for text in recorded),
        {
            "t": "http", "ts_ns": START_NS, "conn": "h", "url": "https://acme.example/list",
            "venue": "acme", "market": "spot", "data": "[1]",
        },
    ]  # fmt: skip
    numbered = [line | {"n": number} for number, line in enumerate(lines)]
    path = write(tmp_path / "own.jsonl.zst", numbered)
    async with (
        VenueEmulator([path], speed=MAX_SPEED) as emulator,
        peer(emulator.ws_url + "/feed") as client,
        aiohttp.ClientSession() as session,
    ):
        assert emulator.recording.key == ("acme", "spot")
        assert await client.until(len(recorded)) == recorded
        async with session.get(emulator.rest_url + "/list") as answer:
            assert await answer.text() == "[1]"
        async with session.get(emulator.rest_url + "/instruments") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("made", ALL.values(), ids=ALL)
@pytest.mark.parametrize("told_by", ["name", "address", "frame"])
async def test_whose_a_recording_of_others_is(made: Made, told_by: str, tmp_path: Path) -> None:
    lines = made.lines()
    if told_by != "name":
        lines[0]["venue"] = ""
    for line in lines:
        if line["t"] == "connect" and told_by != "address":
            line["url"] = "wss://relay.example/"
    path = write(tmp_path / "foreign.jsonl.zst", lines)
    async with VenueEmulator([path]) as emulator:
        market = "" if made.venue == "okx" else made.market
        assert emulator.recording.key == (made.venue, market)


async def test_nothing_to_play_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.zst").write_bytes(b"not zstd at all")
    for paths in ([tmp_path / "absent"], [tmp_path / "x.jsonl.zst"]):
        with pytest.raises(ConfigError, match="nothing to play"):
            async with VenueEmulator(paths):
                pass
    both = [BYBIT.write(tmp_path), OKX.write(tmp_path)]
    with pytest.raises(ConfigError, match=r"more than one.*there are bybit:linear, okx"):
        async with VenueEmulator(both):
            pass
    with pytest.raises(ConfigError, match="kraken:any is in none"):
        async with VenueEmulator(both, "kraken"):
            pass
    async with VenueEmulator(both, "okx", "swap") as emulator:
        assert emulator.recording.venue == "okx"


async def test_one_port_for_websockets_and_rest(tmp_path: Path) -> None:
    async with VenueEmulator([BINANCE.write(tmp_path)]) as emulator:
        assert emulator.ws_url.removeprefix("ws") == emulator.rest_url.removeprefix("http")
        async with (
            aiohttp.ClientSession() as session,
            session.get(emulator.rest_url + "/api/v3/nothing") as answer,
        ):
            assert answer.status == 404
        assert emulator.statistics.rest_requests == {"/api/v3/nothing": 1}


@pytest.mark.captures
async def test_captures_come_verbatim(captures: Path) -> None:
    names = sorted(path for path in captures.glob("*.jsonl.zst"))
    assert len(names) == 8
    for path in names:
        async with VenueEmulator([path], speed=MAX_SPEED, start_when="manual") as emulator:
            recording = emulator.recording
            venue = recording.venue
            wanted = [frame.payload.decode() for frame in recording.frames()]
            async with peer(emulator.ws_url + "/stream") as one:
                requests = requests_for(venue, list(recording.streams))
                for request in requests:
                    await one.socket.send(request)
                answers = {"okx": len(recording.streams), "kraken": 2}.get(venue, len(requests))
                await one.until(answers)
                emulator.start()
                heard = (await one.until(answers + len(wanted)))[answers:]
        if venue == "coinbase":  # verbatim from where the recorded answers are over
            last_answer = 26
            first = next(
                at
                for at, text in enumerate(wanted)
                if json.loads(text)["sequence_num"] > last_answer
            )
            numbers = [json.loads(text)["sequence_num"] for text in heard]
            assert numbers == list(range(answers, answers + len(wanted)))
            heard, wanted = heard[first:], wanted[first:]
        assert len(heard) == len(wanted)
        assert heard == wanted, path.name
