"""The emulator's REST side: recorded answers, instrument lists inferred, books at the position.

An answer is the recorded one where there is one. An instrument list that was not recorded is made
of what the recorder knew of its instruments, else of the digits of the frames. An order book
(Binance) is the recorded answer until playback has passed it, then the book at this position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import orjson

from ingestor.testbed.emulator.playback import Digits, Recording, RestAnswer
from ingestor.testbed.emulator.venue import Book, Change, request_of

Snapshots = Literal["position", "recorded"]

# Query values that make two requests of one path different questions.
_TELLING: Final = ("category", "instType", "uly", "symbol", "pair", "cursor")
_MISSING: Final = (404, b'{"error":"not found"}')
_BAD_SYMBOL: Final = (400, b'{"code":-1121,"msg":"Invalid symbol."}')
_QUOTES: Final = (
    *("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USD", "EUR", "GBP", "TRY", "BTC", "ETH", "BNB"),
)
_DEPTH_LIMIT: Final = 5_000
_LARGEST_ORDER: Final = "9000"  # Binance says it of every symbol; no frame does


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list says of one instrument; increments are decimal text."""

    symbol: str
    base: str
    quote: str
    tick_size: str
    lot_size: str
    known: Mapping[str, Any]  # `Instrument.to_json`, empty where nothing but digits is known

    @property
    def price_decimals(self) -> int:
        """What a client must take: our recorder knew it, or the digits say it."""
        return int(self.known.get("price_exponent", len(self.tick_size.partition(".")[2])))

    @property
    def size_decimals(self) -> int:
        return int(self.known.get("size_exponent", len(self.lot_size.partition(".")[2])))

    def of(self, name: str, default: str) -> str:
        return str(self.known.get(name) or default)


@dataclass(slots=True)
class _Depth:
    """One symbol's book, as `GET depth` answers it: recorded until passed, then as played."""

    recorded: list[tuple[int, bytes]] = field(default_factory=list)  # by lastUpdateId
    book: Book | None = None
    waiting: list[Change] = field(default_factory=list)  # played before the recorded snapshot

    def apply(self, change: Change) -> None:
        if self.book is not None:
            self.book.apply(change)
            return
        self.waiting.append(change)
        passed = [one for one in self.recorded if one[0] <= change.number]
        if passed or not self.recorded:
            self._seed(passed[-1] if passed else None)

    def _seed(self, recorded: tuple[int, bytes] | None) -> None:
        self.book = book = Book()
        number = 0
        if recorded is not None:
            number, body = recorded
            answer = orjson.loads(body)
            book.apply(
                Change(
                    "", "", is_image=True, bids=answer["bids"], asks=answer["asks"],
                    number=number, details=(answer.get("E"), answer.get("T")),
                )
            )  # fmt: skip
        for change in self.waiting:
            if change.number > number:
                book.apply(change)
        self.waiting.clear()

    def answer(self, limit: int, snapshots: Snapshots) -> bytes:
        if self.recorded and (self.book is None or snapshots == "recorded"):
            return self.recorded[0][1]
        book = self.book or Book(details=(None, None))
        answer: dict[str, Any] = {"lastUpdateId": book.number}
        event_ms, transaction_ms = book.details
        if transaction_ms is not None:
            answer |= {"E": event_ms, "T": transaction_ms}
        return orjson.dumps(answer | {"bids": book.bids(limit), "asks": book.asks(limit)})


class RestDesk:
    """Answers GET requests for one recording."""

    def __init__(self, recording: Recording, snapshots: Snapshots = "position") -> None:
        self._recording = recording
        self._snapshots = snapshots
        self._depths: dict[str, _Depth] = {}
        self._answers: list[RestAnswer] = []
        self._sort_answers()

    def _sort_answers(self) -> None:
        recording = self._recording
        books = recording.venue == "binance"
        for one in recording.answers:
            if not (books and one.path.endswith("/depth")):
                self._answers.append(one)
                continue
            symbol = one.query.get("symbol") or next(iter(recording.symbols), "")
            answer = request_of(one.body) or {}
            if "lastUpdateId" not in answer:  # the venue refused
                continue
            self._depths.setdefault(symbol, _Depth()).recorded.append(
                (answer["lastUpdateId"], one.body)
            )
            digits = recording.digits.setdefault(symbol, Digits())
            for price, size in (*answer["bids"], *answer["asks"]):
                digits.price = max(digits.price, len(price.rstrip("0").partition(".")[2]))
                digits.size = max(digits.size, len(size.rstrip("0").partition(".")[2]))

    def played(self, change: Change) -> None:
        """Take a book change that playback has passed (venues whose snapshots come by REST)."""
        self._depths.setdefault(change.symbol, _Depth()).apply(change)

    def lists(self, symbol: str) -> bool:
        """Return whether a recorded instrument list names the symbol."""
        quoted = f'"{symbol}"'.encode()
        return any(quoted in one.body for one in self._answers)

    def answer(self, target: str) -> tuple[int, bytes]:
        """Return status and body. target: path and query of the request."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        if self._recording.venue == "binance" and parts.path.endswith("/depth"):
            depth = self._depths.get(query.get("symbol", ""))
            limit = query.get("limit", "500")
            if depth is None or not limit.isdecimal():
                return _BAD_SYMBOL
            return 200, depth.answer(min(int(limit), _DEPTH_LIMIT), self._snapshots)
        recorded = _closest(self._answers, parts.path, query)
        if recorded is not None:
            return 200, recorded.body
        infer = _LISTS.get((self._recording.venue, parts.path))
        if infer is None:
            return _MISSING
        return 200, orjson.dumps(infer(listed(self._recording), query, self._recording.market))


def _closest(answers: Iterable[RestAnswer], path: str, query: dict[str, str]) -> RestAnswer | None:
    """Return the last answer to the same question: equal in what tells questions apart."""
    asked = {key: query[key] for key in _TELLING if key in query}
    fitting = [
        one
        for one in answers
        if one.path == path
        and {key: one.query[key] for key in _TELLING if key in one.query} == asked
    ]
    return fitting[-1] if fitting else None


def listed(recording: Recording) -> list[Listed]:
    """Return what is known of the recording's instruments."""
    found = []
    for symbol in dict.fromkeys((*recording.instruments, *recording.symbols)):
        known = recording.instruments.get(symbol)
        if known is not None:
            base, quote, tick_size, lot_size = (
                str(known[name]) for name in ("base", "quote", "tick_size", "lot_size")
            )
            found.append(Listed(symbol, base, quote, tick_size, lot_size, known))
        elif symbol in recording.digits:
            digits = recording.digits[symbol]
            base, quote = _split(symbol)
            tick_size, lot_size = _increment(digits.price), _increment(digits.size)
            found.append(Listed(symbol, base, quote, tick_size, lot_size, {}))
    return found


def _increment(decimals: int) -> str:
    return f"0.{'1'.rjust(decimals, '0')}" if decimals else "1"


def _split(symbol: str) -> tuple[str, str]:
    """Take base and quote out of a venue's symbol."""
    for separator in ("/", "-"):
        if separator in symbol:
            base, quote = symbol.split(separator)[:2]
            return base, quote
    plain = symbol.partition("_")[0]
    for quote in _QUOTES:
        if plain.endswith(quote) and plain != quote:
            return plain.removesuffix(quote), quote
    return plain[:-3], plain[-3:]


_Infer = Callable[[list[Listed], dict[str, str], str], Any]


def _binance(instruments: list[Listed], query: dict[str, str], market: str) -> Any:
    symbols = []
    for one in instruments:
        perpetual = one.of("contract", "perpetual") == "perpetual"
        symbols.append(
            {
                "symbol": one.symbol,
                "status": "TRADING",
                "contractStatus": "TRADING",
                "contractType": "PERPETUAL" if perpetual else "CURRENT_QUARTER",
                "deliveryDate": int(one.of("expiry_ns", "0")) // 1_000_000,
                "contractSize": int(one.of("multiplier", "1")) if market == "coinm" else 1,
                "baseAsset": one.base,
                "quoteAsset": one.quote,
                "marginAsset": one.of("settlement", one.base if market == "coinm" else one.quote),
                "pricePrecision": one.price_decimals,
                "quantityPrecision": one.size_decimals,
                "baseAssetPrecision": one.size_decimals if one.known else 8,
                "quoteAssetPrecision": one.price_decimals if one.known else 8,
                "filters": [
                    {"filterType": "PRICE_FILTER", "tickSize": one.tick_size},
                    {
                        "filterType": "LOT_SIZE",
                        "minQty": one.lot_size,
                        "maxQty": _LARGEST_ORDER,
                        "stepSize": one.lot_size,
                    },
                ],
            }
        )
    return {"timezone": "UTC", "symbols": symbols}


def _kraken(instruments: list[Listed], query: dict[str, str], market: str) -> Any:
    return {
        "error": [],
        "result": {
            one.symbol.replace("/", ""): {
                "altname": one.symbol.replace("/", ""),
                "wsname": one.symbol,
                "base": one.base,
                "quote": one.quote,
                "pair_decimals": one.price_decimals,
                "lot_decimals": one.size_decimals,
                "tick_size": one.tick_size,
                "status": "online",
            }
            for one in instruments
        },
    }


def _coinbase(instruments: list[Listed], query: dict[str, str], market: str) -> Any:
    products = [
        {
            "product_id": one.symbol,
            "product_type": "SPOT",
            "base_currency_id": one.base,
            "quote_currency_id": one.quote,
            "price_increment": one.tick_size,
            "base_increment": one.lot_size,
            "status": "online",
            "trading_disabled": False,
            "is_disabled": False,
            "alias": "",
        }
        for one in instruments
    ]
    return {"products": products, "num_products": len(products)}


def _bybit(instruments: list[Listed], query: dict[str, str], market: str) -> Any:
    category = query.get("category", market)
    fitting = [] if category != market or query.get("cursor") else instruments
    prefix = {"linear": "Linear", "inverse": "Inverse"}.get(market, "")
    symbols = [
        {
            "symbol": one.symbol,
            "status": "Trading",
            "baseCoin": one.base,
            "quoteCoin": one.quote,
            "settleCoin": one.of("settlement", one.quote),
            "contractType": f"{prefix}{one.of('contract', 'perpetual').capitalize()}"
            .replace("Future", "Futures"),
            "deliveryTime": str(int(one.of("expiry_ns", "0")) // 1_000_000),
            "priceFilter": {"tickSize": one.tick_size},
            "lotSizeFilter": {"basePrecision": one.lot_size, "qtyStep": one.lot_size},
        }
        for one in fitting
    ]  # fmt: skip
    result = {"category": category, "list": symbols, "nextPageCursor": ""}
    return {"retCode": 0, "retMsg": "OK", "result": result}


def _okx(instruments: list[Listed], query: dict[str, str], market: str) -> Any:
    wanted = query.get("instType", "SPOT")
    data = []
    for one in instruments:
        parts = one.symbol.split("-")
        kind = "SPOT" if len(parts) == 2 else "SWAP" if parts[2] == "SWAP" else "FUTURES"
        if kind == wanted:
            data.append(
                {
                    "instId": one.symbol,
                    "instType": kind,
                    "state": "live",
                    "baseCcy": one.base if kind == "SPOT" else "",
                    "quoteCcy": one.quote if kind == "SPOT" else "",
                    "uly": "" if kind == "SPOT" else f"{one.base}-{one.quote}",
                    "settleCcy": one.of("settlement", one.quote),
                    "ctVal": one.of("multiplier", "1"),
                    "ctMult": "1",
                    "expTime": str(int(one.of("expiry_ns", "0")) // 1_000_000),
                    "tickSz": one.tick_size,
                    "lotSz": one.lot_size,
                }
            )
    return {"code": "0", "msg": "", "data": data}


_LISTS: Final[dict[tuple[str, str], _Infer]] = {
    ("binance", "/api/v3/exchangeInfo"): _binance,
    ("binance", "/fapi/v1/exchangeInfo"): _binance,
    ("binance", "/dapi/v1/exchangeInfo"): _binance,
    ("bybit", "/v5/market/instruments-info"): _bybit,
    ("coinbase", "/api/v3/brokerage/market/products"): _coinbase,
    ("kraken", "/0/public/AssetPairs"): _kraken,
    ("okx", "/api/v5/public/instruments"): _okx,
}
