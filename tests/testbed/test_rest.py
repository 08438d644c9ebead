"""REST on the emulator's port: recorded answers, inferred lists, books at the position."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from feeds.binance import Binance
from feeds.bybit import Bybit
from feeds.coinbase import Coinbase
from feeds.kraken import Kraken
from feeds.okx import Okx
from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import read_list
from ingestor.model.instruments import Contract, instrument
from ingestor.testbed.emulator.server import MAX_SPEED, VenueEmulator
from tests.testbed.made import ALL, BINANCE, BYBIT, OKX, START_NS, peer, write

ADAPTERS: dict[str, type[FeedAdapter]] = {
    adapter.venue: adapter for adapter in (Binance, Bybit, Coinbase, Kraken, Okx)
}
DEPTH = "/api/v3/depth?symbol=BNBBTC&limit=1000"


async def _get(emulator: VenueEmulator, target: str) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(emulator.rest_url + target) as answer,
    ):
        assert answer.content_type == "application/json"
        return answer.status, await answer.read()


async def _list(emulator: VenueEmulator, adapter: type[FeedAdapter], market: str) -> list[Any]:
    bodies = []
    for request in adapter.instrument_requests(market):
        query = "&".join(f"{key}={value}" for key, value in request.query.items())
        status, body = await _get(emulator, f"{request.path}?{query}")
        assert status == 200
        bodies.append(body)
    return read_list(adapter, market, bodies).instruments


EXPECTED = {  # canonical name, tick size, lot size
    "binance": ("BNB-BTC", "0.0001", "0.1"),
    "bybit": ("BTC-USDT-PERP", "0.1", "0.001"),
    "coinbase": ("BTC-USD", "0.01", "0.00000001"),
    "kraken": ("MATIC-USD", "0.0001", "0.00000001"),  # the adapter makes it of lot_decimals
    "okx": ("BTC-USDT", "0.01", "0.00000001"),
}


@pytest.mark.parametrize("made", ALL.values(), ids=ALL)
async def test_an_inferred_instrument_list_is_what_the_adapter_reads(
    made: Any, tmp_path: Path
) -> None:
    async with VenueEmulator([made.write(tmp_path)]) as emulator:
        found = await _list(emulator, ADAPTERS[made.venue], made.market)
    one = found[0]
    assert (one.canonical, one.tick_size, one.lot_size) == EXPECTED[made.venue]


async def test_a_list_of_what_our_recorder_knew(tmp_path: Path) -> None:
    known = instrument(
        "bybit", "linear", "BTCUSDT", "BTC-USDT-PERP", "BTC", "USDT", "0.10", "0.001",
        contract=Contract.PERPETUAL, settlement="USDT",
    ).to_json()  # fmt: skip
    lines = BYBIT.lines()[1:]
    head = {"t": "header", "venue": "bybit", "format": 1, "session": "s", "ts_ns": START_NS}
    connect = lines[0] | {"venue": "bybit", "market": "linear", "instruments": [known], "n": 1}
    rest = [line | {"n": number} for number, line in enumerate(lines[1:], 2)]
    path = write(tmp_path / "own.jsonl.zst", [head | {"n": 0}, connect, *rest])
    async with VenueEmulator([path]) as emulator:
        assert emulator.recording.key == ("bybit", "linear")
        (found,) = await _list(emulator, Bybit, "linear")
    assert found.to_json() == known


async def test_recorded_answers_are_told_apart_by_what_is_asked(tmp_path: Path) -> None:
    base = "https://www.okx.com/api/v5/public/instruments?instType="
    http = [
        {"t": "http", "ts_ns": START_NS, "url": base + name, "data": json.dumps([name])}
        for name in ("SPOT", "SWAP", "OPTION&uly=BTC-USD", "OPTION&uly=ETH-USD")
    ]
    lines = OKX.lines()
    path = write(tmp_path / "okx.jsonl.zst", [lines[0], *http, *lines[1:]])
    async with VenueEmulator([path]) as emulator:
        for name in ("SWAP", "OPTION&uly=BTC-USD"):
            target = f"/api/v5/public/instruments?instType={name}&limit=5"
            assert await _get(emulator, target) == (200, json.dumps([name]).encode())


async def test_the_order_book_is_the_recorded_one_until_playback_has_passed_it(
    tmp_path: Path,
) -> None:
    path = BINANCE.write(tmp_path)
    recorded = BINANCE.http[0][1].encode()
    async with VenueEmulator([path], speed=MAX_SPEED, start_when="manual") as emulator:
        assert await _get(emulator, DEPTH) == (200, recorded)
        emulator.start()
        await emulator.finished.wait()
        status, body = await _get(emulator, DEPTH)
        assert status == 200
        assert json.loads(body) == {
            "lastUpdateId": 165,
            "bids": [["0.0023", "7"], ["0.0022", "5"]],
            "asks": [["0.0025", "3"], ["0.0026", "100"]],
        }
        status, body = await _get(emulator, DEPTH.replace("1000", "1"))
        assert json.loads(body)["bids"] == [["0.0023", "7"]]
        status, body = await _get(emulator, DEPTH.replace("BNBBTC", "NOPE"))
        assert (status, json.loads(body)["code"]) == (400, -1121)


async def test_order_books_as_recorded_where_that_is_wanted(tmp_path: Path) -> None:
    path = BINANCE.write(tmp_path)
    async with VenueEmulator(
        [path], speed=MAX_SPEED, start_when="manual", snapshots="recorded"
    ) as emulator:
        emulator.start()
        await emulator.finished.wait()
        assert await _get(emulator, DEPTH) == (200, BINANCE.http[0][1].encode())


async def test_what_is_not_there_is_404(tmp_path: Path) -> None:
    async with VenueEmulator([BYBIT.write(tmp_path)]) as emulator:
        assert (await _get(emulator, "/api/v3/exchangeInfo"))[0] == 404
        async with peer(emulator.ws_url) as one:  # and the port still speaks websocket
            assert "pong" in (await one.ask('{"op":"ping"}'))[0]
