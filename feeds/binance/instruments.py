"""Read Binance's lists of instruments."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ingestor.adapter import (
    INT64_MAX,
    MILLISECOND,
    Contract,
    Instrument,
    Listing,
    SizeUnit,
    VenueError,
    instrument,
)

_LARGEST_IN_LEVEL: Final = 10_000  # orders of the largest size that one price level may hold
# Unknown error, disconnected, too many requests, unexpected response, timeout, server busy.
_TEMPORARY: Final = frozenset({-1000, -1001, -1003, -1006, -1007, -1008})


def entries(venue: str, body: bytes) -> Any:
    answer = orjson.loads(body)
    if "symbols" not in answer and "code" in answer:
        code = answer["code"]
        text = str(answer.get("msg", ""))
        raise VenueError(venue, str(code), text, temporary=code in _TEMPORARY)
    return answer["symbols"]


def listing(market: str, entry: Any) -> Listing:
    status = entry["contractStatus" if market == "coinm" else "status"]
    return Listing(entry["symbol"], status == "TRADING", status)


def _filters(entry: Any) -> tuple[str, str, str]:
    """Return tick size, lot size and the size of the largest order."""
    filters = {filter_["filterType"]: filter_ for filter_ in entry["filters"]}
    lot = filters["LOT_SIZE"]
    return filters["PRICE_FILTER"]["tickSize"], lot["stepSize"], lot["maxQty"]


def spot_instrument(market: str, entry: Any) -> Instrument:
    tick_size, lot_size, largest = _filters(entry)
    base, quote = entry["baseAsset"], entry["quoteAsset"]
    one = instrument(
        "binance",
        market,
        entry["symbol"],
        f"{base}-{quote}".upper(),
        base,
        quote,
        tick_size,
        lot_size,
        settlement=quote,
    )
    room = INT64_MAX / (float(largest) * _LARGEST_IN_LEVEL)  # rough will do: it is a bound
    size_exponent = min(entry["baseAssetPrecision"], int(math.log10(room)) if room >= 1 else 0)
    return replace(
        one,
        price_exponent=max(one.price_exponent, entry["quoteAssetPrecision"]),
        size_exponent=max(one.size_exponent, size_exponent),
    )


def futures_instrument(market: str, entry: Any) -> Instrument:
    tick_size, lot_size, _ = _filters(entry)
    base, quote, settlement = entry["baseAsset"], entry["quoteAsset"], entry["marginAsset"]
    perpetual = entry["contractType"].endswith("PERPETUAL")  # also TRADIFI_PERPETUAL
    expiry_ns = 0 if perpetual else (entry["deliveryDate"] + 0) * MILLISECOND
    inverse = market == "coinm"
    one = instrument(
        "binance",
        market,
        entry["symbol"],
        f"{base}-{quote}-{'PERP' if perpetual else _day(expiry_ns)}".upper(),
        base,
        quote,
        tick_size,
        lot_size,
        contract=Contract.PERPETUAL if perpetual else Contract.FUTURE,
        settlement=settlement,
        size_unit=SizeUnit.CONTRACT if inverse else SizeUnit.BASE,
        multiplier=str(entry["contractSize"]) if inverse else "1",
        expiry_ns=expiry_ns,
    )
    return replace(
        one,
        price_exponent=max(one.price_exponent, entry["pricePrecision"]),
        size_exponent=max(one.size_exponent, entry["quantityPrecision"]),
    )


def _day(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC):%Y%m%d}"
