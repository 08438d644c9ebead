"""REST on the emulator's port: recorded answers, inferred lists, books at the position."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets

from feeds.binance import Binance
from feeds.bybit import Bybit
from feeds.coinbase import Coinbase
from feeds.kraken import Kraken
from feeds.okx import Okx
from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import read_list
from ingestor.model.instruments import Contract, instrument
from ingestor.testbed.certificate import make_certificate
from ingestor.testbed.emulator.server import CLOSE_TIMEOUT_S, MAX_SPEED, VenueEmulator
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


# what clients ask before they begin, and what the answer must hold
STARTUP: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "binance": [("/api/v3/ping", {}), ("/api/v3/time", {"serverTime": int})],
    "bybit": [("/v5/market/time", {"retCode": 0, "result": dict})],
    "coinbase": [
        ("/api/v3/brokerage/time", {"epochMillis": str}),
        ("/api/v3/brokerage/market/products/BTC-USD", {"product_id": "BTC-USD"}),
    ],
    "kraken": [
        ("/0/public/Time", {"error": [], "result": dict}),
        ("/0/public/Assets", {"error": [], "result": dict}),
        ("/0/public/AssetPairs?pair=MATICUSD", {"error": [], "result": dict}),
        ("/0/public/AssetPairs?pair=NOPE", {"error": ["EQuery:Unknown asset pair"]}),
    ],
    "okx": [("/api/v5/public/time", {"code": "0", "data": list})],
}


@pytest.mark.parametrize("venue", STARTUP)
async def test_what_clients_ask_before_they_begin(venue: str, tmp_path: Path) -> None:
    async with VenueEmulator([ALL[venue].write(tmp_path)]) as emulator:
        for target, expected in STARTUP[venue]:
            status, body = await _get(emulator, target)
            answer = json.loads(body)
            assert status == 200, target
            for key, wanted in expected.items():
                found = answer[key]
                assert isinstance(found, wanted) if isinstance(wanted, type) else found == wanted


AUDITED = {"bybit": "BTCUSDT", "coinbase": "BTC-USD", "okx": "BTC-USDT", "kraken": "MATIC/USD"}


@pytest.mark.parametrize("venue", AUDITED)
async def test_the_order_book_by_rest_is_that_of_the_socket(venue: str, tmp_path: Path) -> None:
    made, symbol = ALL[venue], AUDITED[venue]
    async with VenueEmulator(
        [made.write(tmp_path)], speed=MAX_SPEED, start_when="manual"
    ) as emulator:
        emulator.start()
        await emulator.finished.wait()
        if venue == "kraken":
            _, body = await _get(emulator, "/0/public/Depth?pair=MATICUSD&count=1")
            [levels] = json.loads(body)["result"].values()
            assert [len(levels[side]) for side in ("bids", "asks")] == [1, 1]
            return
        adapter: Any = ADAPTERS[venue](made.market, {})
        request = adapter.audit_request(symbol, 1)
        query = "&".join(f"{key}={value}" for key, value in request.query.items())
        status, body = await _get(emulator, f"{request.path}?{query}")
        assert status == 200
        image = adapter.decode_audit(symbol, body)
        assert max(len(image.bids), len(image.asks)) == 1
        query = query.replace(symbol, "NO-PE")
        assert b"NO-PE" not in (await _get(emulator, f"{request.path}?{query}"))[1]


async def test_a_list_has_the_fields_of_its_own_market(tmp_path: Path) -> None:
    """Clients tell a swap from spot by the fields that are there."""
    of_contracts = {"contractType", "deliveryDate", "deliveryTime", "settleCoin", "marginAsset"}
    async with VenueEmulator([BINANCE.write(tmp_path)]) as emulator:
        _, body = await _get(emulator, "/api/v3/exchangeInfo")
        [one] = json.loads(body)["symbols"]
        assert not of_contracts & one.keys()
        assert one["isSpotTradingAllowed"]
    async with VenueEmulator([BYBIT.write(tmp_path)]) as emulator:
        _, body = await _get(emulator, "/v5/market/instruments-info?category=linear")
        [one] = json.loads(body)["result"]["list"]
        assert (one["contractType"], one["settleCoin"]) == ("LinearPerpetual", "USDT")
        assert "basePrecision" not in one["lotSizeFilter"]


OTHERS = {  # a stream that was recorded under another name: another depth, speed, sort of trades
    "binance": '{"method":"SUBSCRIBE","params":["bnbbtc@depth5@500ms"],"id":1}',
    "bybit": '{"op":"subscribe","args":["orderbook.500.BTCUSDT"]}',
    "kraken": '{"method":"subscribe","params":{"channel":"book","depth":500,'
    '"symbol":["MATIC/USD"]}}',
    "okx": '{"op":"subscribe","args":[{"channel":"books5","instId":"BTC-USDT"}]}',
}


@pytest.mark.parametrize("venue", OTHERS)
async def test_what_was_not_recorded_is_refused(venue: str, tmp_path: Path) -> None:
    path = ALL[venue].write(tmp_path)
    async with (
        VenueEmulator([path], start_when="manual", stands_in=False) as emulator,
        peer(emulator.ws_url + ALL[venue].path) as one,
    ):
        await one.until(1 if venue == "kraken" else 0)
        (text,) = await one.ask(OTHERS[venue])
        answer = json.loads(text)
        assert answer.get("error") or answer.get("event") == "error" or not answer["success"], text


async def test_wss_with_a_certificate_made_now(tmp_path: Path) -> None:
    server, trusted = make_certificate(tmp_path, "127.0.0.1")
    client = ssl.create_default_context(cafile=trusted)
    assert sorted(tmp_path.iterdir()) == [trusted], "the key is not kept"
    path = ALL["okx"].write(tmp_path)
    async with VenueEmulator([path], tls=server) as emulator:
        assert (emulator.ws_url[:6], emulator.rest_url[:8]) == ("wss://", "https://")
        async with websockets.connect(emulator.ws_url, ssl=client) as socket:
            await socket.send("ping")
            assert await socket.recv() == "pong"
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client)) as session,
            session.get(f"{emulator.rest_url}/api/v5/public/time") as answer,
        ):
            assert answer.status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await websockets.connect(emulator.ws_url)


async def test_it_ends_at_once_whoever_is_connected(tmp_path: Path) -> None:
    """A client that answers nothing holds nothing up."""
    async with VenueEmulator([ALL["okx"].write(tmp_path)]) as emulator:
        host, port = emulator.ws_url.removeprefix("ws://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        while not emulator.statistics.clients_open:
            await asyncio.sleep(0.01)
        begun_s = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begun_s < CLOSE_TIMEOUT_S
    writer.close()
