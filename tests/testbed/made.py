"""Small recordings written by hand after the venues' documents, and a plain client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websockets
import zstandard
from websockets.asyncio.client import ClientConnection

from ingestor.testbed.emulator.server import VenueEmulator

START_NS = 1_700_000_000_000_000_000
GAP_NS = 20_000_000


@dataclass(frozen=True)
class Made:
    """One venue. path: what a client connects to. frames: received, data and answers mixed.

    requests: what a client sends to get all data frames; answers: how many it gets before data.
    """

    venue: str
    market: str
    address: str
    path: str
    frames: list[str]
    requests: list[str]
    answers: int
    http: list[tuple[str, str]] = field(default_factory=list)
    is_data: Any = None

    @property
    def data(self) -> list[str]:
        return [frame for frame in self.frames if self.is_data(json.loads(frame))]

    def write(self, folder: Path) -> Path:
        return write(folder / f"{self.venue}.jsonl.zst", self.lines())

    def lines(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = [{"t": "header", "venue": self.venue.upper(), "channels": {}}]
        for url, body in self.http:
            lines.append({"t": "http", "ts_ns": START_NS, "conn": "h", "url": url, "data": body})
        lines.append({"t": "connect", "ts_ns": START_NS, "conn": "c", "url": self.address})
        for number, frame in enumerate(self.frames):
            time = START_NS + number * GAP_NS
            lines.append({"t": "recv", "ts_ns": time, "conn": "c", "data": frame})
        return lines


def write(path: Path, lines: Iterable[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_bytes(zstandard.ZstdCompressor().compress(text.encode()))
    return path


def _depth(first: int, last: int, bids: str, asks: str) -> str:
    return (
        '{"stream":"bnbbtc@depth@100ms","data":{"e":"depthUpdate","E":1672515782136,"s":"BNBBTC",'
        f'"U":{first},"u":{last},"b":{bids},"a":{asks}}}}}'
    )


BINANCE = Made(
    "binance",
    "spot",
    "wss://stream.binance.com:9443/stream",
    "/stream",
    [
        '{"result":null,"id":1}',
        _depth(157, 160, '[["0.0024","10"]]', '[["0.0026","100"]]'),
        (
            '{"stream":"bnbbtc@trade","data":{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,'
            '"p":"0.00100","q":"100.0","T":1672515782136,"m":true,"M":true}}'
        ),
        (
            '{"stream":"bnbbtc@bookTicker","data":{"u":400900217,"s":"BNBBTC","b":"0.0024","B":"10.5",'
            '"a":"0.0026","A":"100"}}'
        ),
        _depth(161, 162, '[["0.0024","0"],["0.0023","7"]]', "[]"),
        _depth(163, 165, "[]", '[["0.0025","3"]]'),
    ],
    [
        '{"method":"SUBSCRIBE","params":["bnbbtc@depth@100ms","bnbbtc@trade"],"id":1}',
        '{"method":"SUBSCRIBE","params":["bnbbtc@bookTicker"],"id":2}',
    ],
    2,
    [
        (
            "https://api.binance.com/api/v3/depth?symbol=BNBBTC&limit=1000",
            '{"lastUpdateId":160,"bids":[["0.0024","10"],["0.0022","5"]],"asks":[["0.0026","100"]]}',
        )
    ],
    is_data=lambda message: "stream" in message,
)


def _coinbase(channel: str, number: int, event: str) -> str:
    return (
        f'{{"channel":"{channel}","client_id":"","timestamp":"2023-02-09T20:32:50.714964855Z",'
        f'"sequence_num":{number},"events":[{event}]}}'
    )


def _l2(number: int, product: str, kind: str, price: str, size: str) -> str:
    level = (
        f'{{"side":"bid","event_time":"2023-02-09T20:32:50Z","price_level":"{price}",'
        f'"new_quantity":"{size}"}}'
    )
    event = f'{{"type":"{kind}","product_id":"{product}","updates":[{level}]}}'
    return _coinbase("l2_data", number, event)


COINBASE = Made(
    "coinbase",
    "spot",
    "wss://advanced-trade-ws.coinbase.com",
    "",
    [
        _coinbase("subscriptions", 0, '{"subscriptions":{"level2":["BTC-USD","ETH-USD"]}}'),
        _coinbase("subscriptions", 1, '{"subscriptions":{"market_trades":["BTC-USD"]}}'),
        _l2(2, "BTC-USD", "snapshot", "21921.73", "0.06317902"),
        _l2(3, "ETH-USD", "snapshot", "1259.8", "1.75"),
        _coinbase(
            "market_trades",
            4,
            '{"type":"update","trades":[{"trade_id":"12345","product_id":"BTC-USD",'
            '"price":"21921.74","size":"0.3","side":"BUY","time":"2023-02-09T20:19:35.39625135Z"}]}',
        ),
        _l2(5, "ETH-USD", "update", "1259.9", "0.02"),
        _l2(6, "BTC-USD", "update", "21921.3", "0.07"),
        _l2(7, "BTC-USD", "update", "21921.73", "0"),
    ],
    [
        '{"type":"subscribe","product_ids":["BTC-USD","ETH-USD"],"channel":"level2"}',
        '{"type":"subscribe","product_ids":["BTC-USD"],"channel":"market_trades"}',
    ],
    2,
    is_data=lambda message: message["channel"] in {"l2_data", "market_trades"},
)

KRAKEN = Made(
    "kraken",
    "spot",
    "wss://ws.kraken.com/v2",
    "/v2",
    [
        '{"channel":"heartbeat"}',
        (
            '{"method":"subscribe","result":{"channel":"book","depth":10,"snapshot":true,"symbol":'
            '"MATIC/USD"},"success":true,"time_in":"2023-10-06T17:35:55.219022Z","time_out":'
            '"2023-10-06T17:35:55.219067Z"}'
        ),
        (
            '{"channel":"book","type":"snapshot","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5666,'
            '"qty":4831.75496356},{"price":0.5665,"qty":6658.22734739}],"asks":[{"price":0.5668,"qty":'
            '4410.79769741}],"checksum":2439117997}]}'
        ),
        (
            '{"channel":"book","type":"update","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5657,'
            '"qty":1098.3947558}],"asks":[],"checksum":2114181697,"timestamp":'
            '"2023-10-06T17:35:55.440295Z"}]}'
        ),
        (
            '{"channel":"trade","type":"update","data":[{"symbol":"MATIC/USD","side":"sell","price":'
            '0.5117,"qty":40.0,"ord_type":"market","trade_id":4665906,"timestamp":'
            '"2023-09-25T07:49:37.708706Z"}]}'
        ),
        (
            '{"channel":"book","type":"update","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5666,'
            '"qty":0.00000000}],"asks":[],"checksum":17,"timestamp":"2023-10-06T17:35:56.440295Z"}]}'
        ),
    ],
    [
        '{"method":"subscribe","params":{"channel":"book","depth":10,"symbol":["MATIC/USD"]},"req_id":7}',
        '{"method":"subscribe","params":{"channel":"trade","symbol":["MATIC/USD"]}}',
    ],
    3,  # the status of the venue comes first
    is_data=lambda message: message.get("channel") in {"book", "trade"},
)


def _orderbook(kind: str, number: int, bids: str) -> str:
    return (
        f'{{"topic":"orderbook.50.BTCUSDT","type":"{kind}","ts":1672304484978,"data":{{"s":'
        f'"BTCUSDT","b":{bids},"a":[["16611.00","0.029"]],"u":{number},"seq":7961638724}},'
        '"cts":1672304484976}'
    )


BYBIT = Made(
    "bybit",
    "linear",
    "wss://stream.bybit.com/v5/public/linear",
    "/v5/public/linear",
    [
        '{"success":true,"ret_msg":"","conn_id":"2324d924","req_id":"","op":"subscribe"}',
        _orderbook("snapshot", 18521288, '[["16493.50","0.006"],["16493.00","0.100"]]'),
        (
            '{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486868,"data":[{"T":'
            '1672304486865,"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick","i":'
            '"20f43950-d8dd-5b31-9112-a178eb6023af","BT":false,"seq":1783284617}]}'
        ),
        _orderbook("delta", 18521289, '[["16493.50","0"]]'),
        _orderbook("delta", 18521290, '[["16492.00","0.2"]]'),
    ],
    ['{"req_id":"r1","op":"subscribe","args":["orderbook.50.BTCUSDT","publicTrade.BTCUSDT"]}'],
    1,
    is_data=lambda message: "topic" in message,
)


def _books(action: str, previous: int, number: int, asks: str) -> str:
    return (
        f'{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":'
        f'{asks},"bids":[["8476.97","256","0","12"]],"ts":"1597026383085","checksum":0,'
        f'"prevSeqId":{previous},"seqId":{number}}}]}}'
    )


OKX = Made(
    "okx",
    "spot",
    "wss://ws.okx.com:8443/ws/v5/public",
    "/ws/v5/public",
    [
        '{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}',
        _books("snapshot", -1, 100, '[["8476.98","415","0","13"],["8477","7","0","2"]]'),
        (
            '{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"instType":"SPOT","instId":'
            '"BTC-USDT","last":"9999.99","askPx":"9999.99","askSz":"11","bidPx":"8888.88","bidSz":"5",'
            '"ts":"1597026383085"}]}'
        ),
        (
            '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":'
            '"130639474","px":"42219.9","sz":"0.12060306","side":"buy","ts":"1630048897897"}]}'
        ),
        _books("update", 100, 101, '[["8476.98","0","0","0"]]'),
    ],
    [
        (
            '{"op":"subscribe","args":[{"channel":"books","instId":"BTC-USDT"},'
            '{"channel":"bbo-tbt","instId":"BTC-USDT"},{"channel":"trades","instId":"BTC-USDT"}]}'
        )
    ],
    3,
    is_data=lambda message: "data" in message,
)

ALL = {made.venue: made for made in (BINANCE, BYBIT, COINBASE, KRAKEN, OKX)}


def requests_for(venue: str, streams: Sequence[str]) -> list[str]:
    """What a client sends to subscribe to streams by their names in the emulator."""
    if venue == "binance":
        return [json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 1})]
    if venue == "bybit":
        return [json.dumps({"op": "subscribe", "args": streams})]
    pairs = [stream.split(":") for stream in streams]
    if venue == "okx":
        arguments = [{"channel": channel, "instId": symbol} for channel, symbol in pairs]
        return [json.dumps({"op": "subscribe", "args": arguments})]
    symbols: dict[str, list[str]] = {}
    for channel, symbol in pairs:
        symbols.setdefault(channel, []).append(symbol)
    if venue == "coinbase":
        return [
            json.dumps({"type": "subscribe", "channel": channel, "product_ids": some})
            for channel, some in symbols.items()
        ]
    return [
        json.dumps({"method": "subscribe", "params": {"channel": channel, "symbol": some}})
        for channel, some in symbols.items()
    ]


@dataclass
class Peer:
    """A plain client that keeps what it hears."""

    socket: ClientConnection
    heard: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        try:
            async for message in self.socket:
                assert isinstance(message, str)
                self.heard.append(message)
                self.news.set()
        except websockets.ConnectionClosed:
            pass
        finally:
            self.closed.set()

    async def until(self, count: int, timeout_s: float = 60.0) -> list[str]:
        """Wait until so many frames were heard; return all that were."""
        async with asyncio.timeout(timeout_s):
            while len(self.heard) < count:
                self.news.clear()
                await self.news.wait()
        return self.heard

    async def ask(self, text: str, answers: int = 1) -> list[str]:
        """Send a frame and return the next frames heard."""
        before = len(self.heard)
        await self.socket.send(text)
        return (await self.until(before + answers))[before:]


@asynccontextmanager
async def peer(url: str) -> AsyncIterator[Peer]:
    async with websockets.connect(url, max_size=None, compression=None) as socket:
        one = Peer(socket)
        task = asyncio.create_task(one.listen())
        try:
            yield one
        finally:
            await socket.close()
            await task


async def subscribed(emulator: VenueEmulator, made: Made, one: Peer) -> int:
    """Subscribe to everything, wait for the answers; return how many there were."""
    for request in made.requests:
        await one.socket.send(request)
    await one.until(made.answers)
    return made.answers
