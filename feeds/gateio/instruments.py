"""Read Gate's lists of currency pairs and contracts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import orjson

from ingestor.adapter import (
    Contract,
    Instrument,
    Listing,
    SizeUnit,
    VenueError,
    instrument,
)

_TRADING: Final = {"tradable", "trading"}
_TEMPORARY: Final = frozenset({"TOO_MANY_REQUESTS", "SERVER_ERROR", "INTERNAL", "TOO_BUSY"})
# Digits beyond what an instrument's own precision says, as trades and books print them.
_MORE_PRICE_DIGITS: Final = 2
_MORE_SIZE_DIGITS: Final = 4
_SIZE_DIGITS_MAX: Final = 10
_CONTRACT_DIGITS: Final = 8


def entries(body: bytes) -> Iterable[Any]:
    answer = orjson.loads(body)
    if isinstance(answer, dict) and "label" in answer:
        label, text = str(answer["label"]), str(answer.get("message", ""))
        raise VenueError("gateio", label, text, temporary=label in _TEMPORARY)
    if not isinstance(answer, list) or not answer:
        raise ValueError("no list of instruments")
    return answer


def listing(market: str, entry: Any) -> Listing | None:
    if market == "spot":
        status = entry["trade_status"]
        return Listing(entry["id"], status in _TRADING, status)
    is_ending = entry.get("in_delisting") is True
    status = "delisting" if is_ending else entry.get("status", "trading")
    return Listing(entry["name"], status in _TRADING or is_ending, status)


def parse(market: str, entry: Any) -> Instrument:
    return _spot(entry) if market == "spot" else _contract(market, entry)


def _spot(one: Any) -> Instrument:
    base, quote = one["base"], one["quote"]
    digits = [one["precision"], one["amount_precision"]]
    if not all(type(count) is int and 0 <= count <= 16 for count in digits):
        raise ValueError(f"precisions {digits!r:.60}")
    found = instrument(
        "gateio",
        "spot",
        one["id"],
        f"{base}-{quote}".upper(),
        base,
        quote,
        *(f"0.{'1'.rjust(count, '0')}" if count else "1" for count in digits),
        settlement=quote,
    )
    finer = min(found.size_exponent + _MORE_SIZE_DIGITS, _SIZE_DIGITS_MAX)
    return replace(
        found,
        price_exponent=found.price_exponent + _MORE_PRICE_DIGITS,
        size_exponent=max(found.size_exponent, finer),
    )


def _contract(market: str, one: Any) -> Instrument:
    base, _, quote = one["name"].partition("_")
    is_inverse = one["type"] == "inverse"
    found = instrument(
        "gateio",
        market,
        one["name"],
        f"{base}-{quote}-PERP".upper(),
        base,
        quote,
        one["order_price_round"],
        "1",
        contract=Contract.PERPETUAL,
        settlement=market.upper(),
        size_unit=SizeUnit.CONTRACT,
        multiplier="1" if is_inverse else one["quanto_multiplier"],
    )
    return replace(found, size_exponent=_CONTRACT_DIGITS)
