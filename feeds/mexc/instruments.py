"""Read MEXC's lists of instruments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import msgspec

from ingestor.adapter import Contract, Instrument, Listing, SizeUnit, VenueError, instrument

PATHS: Final = {"spot": "/api/v3/exchangeInfo", "futures": "/api/v1/contract/detail"}
_TRADING: Final = frozenset({"1", "ENABLED"})
_PLACES_MAX: Final = 18
# Too frequent, server busy.
_TEMPORARY: Final = frozenset({"429", "500", "501", "510", "10072", "30002"})
_parse: Final = msgspec.json.Decoder(float_hook=str).decode  # of bare numbers the digits are kept


def entries(market: str, body: bytes) -> Iterable[Any]:
    answer: Any = _parse(body)
    found: Iterable[Any]
    if market == "spot":
        if "symbols" not in answer and "code" in answer:
            raise _refusal(answer, "msg")
        found = answer["symbols"]
        return found
    if not answer["success"]:
        raise _refusal(answer, "message")
    found = answer["data"]
    return found


def _refusal(answer: Any, name: str) -> VenueError:
    code = str(answer["code"])
    return VenueError("mexc", code, str(answer.get(name, "")), temporary=code in _TEMPORARY)


def listing(market: str, entry: Any) -> Listing | None:
    if market == "spot":
        status = str(entry["status"])
        return Listing(entry["symbol"], status in _TRADING, f"status {status}")
    return Listing(entry["symbol"], entry["state"] == 0, f"state {entry['state']}")


def parse(market: str, entry: Any) -> Instrument:
    return _spot(entry) if market == "spot" else _contract(entry)


def _spot(entry: Any) -> Instrument:
    base, quote = entry["baseAsset"], entry["quoteAsset"]
    return instrument(
        "mexc",
        "spot",
        entry["symbol"],
        f"{base}-{quote}".upper(),
        base,
        quote,
        _increment(entry["quotePrecision"]),
        _increment(entry["baseAssetPrecision"]),
        settlement=quote,
    )


def _contract(entry: Any) -> Instrument:
    """A contract is an amount of base, or of dollars where it settles in its base."""
    base, quote, settlement = entry["baseCoin"], entry["quoteCoin"], entry["settleCoin"]
    found = instrument(
        "mexc",
        "futures",
        entry["symbol"],
        f"{base}-{quote}-PERP".upper(),
        base,
        quote,
        str(entry["priceUnit"]),
        str(entry["volUnit"]),
        contract=Contract.PERPETUAL,
        settlement=settlement,
        size_unit=SizeUnit.CONTRACT,
        multiplier=str(entry["contractSize"]),
    )
    places = max(found.price_exponent, _checked(entry["priceScale"]))
    return replace(found, price_exponent=places)


def _checked(places: object) -> int:
    if type(places) is not int or not 0 <= places <= _PLACES_MAX:
        raise ValueError(f"{places!r:.40} decimals")
    return places


def _increment(places: object) -> str:
    count = _checked(places)
    return f"0.{'1':0>{count}}" if count else "1"
