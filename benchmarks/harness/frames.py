"""Frames of the venues' real shapes, made from a seed: the same bytes on every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

import orjson

from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_queue import FrameQueue
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import Instrument, InstrumentTable, instrument
from ingestor.sources.registry import adapter_of

SYMBOLS: Final = 200
START_MS: Final = 1_790_000_000_000


class OfMarket(Protocol):
    """Name a market; `Shape` does."""

    @property
    def venue(self) -> str: ...
    @property
    def market(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of frame of one venue. rows: trades, quotes or price levels in each frame."""

    venue: str
    market: str
    kind: str
    rows: int
    make: Callable[[int, Random], bytes]

    @property
    def name(self) -> str:
        return f"{self.venue} {self.kind}"

    def frames(self, count: int, seed: int = 1) -> list[bytes]:
        random = Random(seed)  # repeatable, not secret
        return [self.make(number, random) for number in range(count)]


def table(shapes: Sequence[Shape]) -> InstrumentTable:
    """Return a table with the symbols that the shapes name."""
    return InstrumentTable(
        one for shape in {(s.venue, s.market): s for s in shapes}.values() for one in _known(shape)
    )


class Connections:
    """Connections to a shape's market, one after the other, with the queue of their frames."""

    def __init__(
        self, shape: OfMarket, instruments: InstrumentTable, *, is_compiled: bool = True
    ) -> None:
        """Create the connections.

        Args:
            shape: names the market.
            instruments: those of its symbols.
            is_compiled: whether the library is used, where it is there.
        """
        self.buffer = ColumnBuffer(instruments if is_compiled else None)
        self._adapter, self._market = adapter_of(shape.venue), shape.market
        self._symbols = instruments.symbols(shape.venue, shape.market)
        self.frame_queue = FrameQueue(self._adapter, shape.market, self._symbols, self.buffer)

    def open(self) -> Session:
        """Return a new connection."""
        adapter, queue = self._adapter(self._market, self._symbols), self.frame_queue
        return Session(
            *(0, adapter, [], self.buffer, queue.counts),
            *(SessionEvents(), self._market, queue.decode),
        )


def receive(
    frame_queue: FrameQueue, session: Session, frames: Sequence[bytes], ts_recv: int
) -> None:
    """Receive and decode frames as the ingestor does when it is busy."""
    arrive, arrived, full = frame_queue.arrive, frame_queue.arrived, frame_queue.full
    for frame in frames:
        arrive((session, frame, ts_recv))
        if len(arrived) >= full:
            frame_queue.decode()
    frame_queue.decode()


def _known(shape: Shape) -> list[Instrument]:
    return [
        instrument(
            shape.venue,
            shape.market,
            _symbol(shape.venue, number),
            f"C{number:03d}-USDT",
            f"C{number:03d}",
            "USDT",
            "0.01",
            "0.00001",
        )
        for number in range(SYMBOLS)
    ]


def _symbol(venue: str, number: int) -> str:
    base = f"C{number % SYMBOLS:03d}"
    return {
        "binance": f"{base}USDT",
        "bybit": f"{base}USDT",
        "coinbase": f"{base}-USDT",
        "okx": f"{base}-USDT",
        "kraken": f"{base}/USDT",
    }[venue]


def _price(random: Random) -> str:
    return f"{random.uniform(60_000, 62_000):.2f}"


def _size(random: Random) -> str:
    return f"{random.uniform(0, 3):.5f}"


def _levels(random: Random, count: int) -> list[list[str]]:
    return [[_price(random), _size(random)] for _ in range(count)]


def _binance_trade(number: int, random: Random) -> bytes:
    ms = START_MS + number
    return orjson.dumps(
        {
            "e": "trade",
            "E": ms,
            "s": _symbol("binance", number),
            "t": 3_700_000_000 + number,
            "p": _price(random) + "000000",
            "q": _size(random) + "000",
            "T": ms,
            "m": random.random() < 0.5,
            "M": True,
        }
    )


def _binance_quote(number: int, random: Random) -> bytes:
    return orjson.dumps(
        {
            "u": 50_000_000_000 + number,
            "s": _symbol("binance", number),
            "b": _price(random) + "000000",
            "B": _size(random) + "000",
            "a": _price(random) + "000000",
            "A": _size(random) + "000",
        }
    )


def binance_book(levels: int) -> Shape:
    """Return the shape of Binance's book updates of so many levels."""
    return Shape("binance", "spot", f"book{levels}", levels, _binance_depth(levels))


def _binance_depth(levels: int) -> Callable[[int, Random], bytes]:
    def make(number: int, random: Random) -> bytes:
        event = number // SYMBOLS
        return orjson.dumps(
            {
                "e": "depthUpdate",
                "E": START_MS + number,
                "s": _symbol("binance", number),
                "U": 1_000 + event * 10,
                "u": 1_009 + event * 10,
                "b": _levels(random, levels // 2),
                "a": _levels(random, levels - levels // 2),
            }
        )

    return make


def _bybit_trade(number: int, random: Random) -> bytes:
    symbol = _symbol("bybit", number)
    return orjson.dumps(
        {
            "topic": f"publicTrade.{symbol}",
            "type": "snapshot",
            "ts": START_MS + number,
            "data": [
                {
                    "T": START_MS + number,
                    "s": symbol,
                    "S": random.choice(("Buy", "Sell")),
                    "v": _size(random),
                    "p": _price(random),
                    "L": "PlusTick",
                    "i": f"{random.getrandbits(32):08x}-0000-4000-8000-{number:012x}",
                    "BT": False,
                    "seq": 430_000_000_000 + number,
                }
            ],
        }
    )


def _okx_trade(number: int, random: Random) -> bytes:
    symbol = _symbol("okx", number)
    return orjson.dumps(
        {
            "arg": {"channel": "trades", "instId": symbol},
            "data": [
                {
                    "instId": symbol,
                    "tradeId": str(12_000_000 + number),
                    "px": _price(random),
                    "sz": _size(random),
                    "side": random.choice(("buy", "sell")),
                    "ts": str(START_MS + number),
                    "count": "1",
                }
            ],
        }
    )


def _coinbase_trade(number: int, random: Random) -> bytes:
    return orjson.dumps(
        {
            "channel": "market_trades",
            "timestamp": "2026-08-09T21:05:48.228751305Z",
            "sequence_num": number,
            "events": [
                {
                    "type": "update",
                    "trades": [
                        {
                            "product_id": _symbol("coinbase", number),
                            "trade_id": str(833_000_000 + number),
                            "price": _price(random),
                            "size": _size(random),
                            "time": "2026-08-09T21:05:44.820409Z",
                            "side": random.choice(("BUY", "SELL")),
                        }
                    ],
                }
            ],
        }
    )


def _kraken_trade(number: int, random: Random) -> bytes:
    return (
        b'{"channel":"trade","type":"update","data":[{"symbol":"%s","side":"%s","price":%s,'
        b'"qty":%s,"ord_type":"limit","trade_id":%d,"timestamp":"2026-08-01T02:53:54.966086Z"}]}'
        % (
            _symbol("kraken", number).encode(),
            random.choice((b"buy", b"sell")),
            _price(random).encode(),
            _size(random).encode(),
            4_665_000 + number,
        )
    )


def _kraken_level(number: int, random: Random) -> bytes:
    return (
        b'{"channel":"book","type":"update","data":[{"symbol":"%s","bids":[{"price":%s,"qty":%s}],'
        b'"asks":[],"checksum":%d,"timestamp":"2026-08-01T02:53:54.966086Z"}]}'
        % (
            _symbol("kraken", number).encode(),
            _price(random).encode(),
            _size(random).encode(),
            random.getrandbits(32),
        )
    )


SHAPES: Final = (
    Shape("binance", "spot", "trade", 1, _binance_trade),
    Shape("binance", "spot", "quote", 1, _binance_quote),
    binance_book(20),
    binance_book(200),
    Shape("bybit", "linear", "trade", 1, _bybit_trade),
    Shape("okx", "spot", "trade", 1, _okx_trade),
    Shape("coinbase", "spot", "trade", 1, _coinbase_trade),
    Shape("kraken", "spot", "trade", 1, _kraken_trade),
    Shape("kraken", "spot", "book1", 1, _kraken_level),
)
