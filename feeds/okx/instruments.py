"""Read OKX's lists of instruments."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import orjson

from ingestor.adapter import (
    MILLISECOND,
    Contract,
    Instrument,
    Listing,
    SizeUnit,
    VenueError,
    instrument,
    iso_text,
)

TYPES: Final = {"spot": "SPOT", "swap": "SWAP", "futures": "FUTURES"}
# In `post_only` orders are taken and none is matched yet, as before a swap opens.
_PAIR: Final = 2  # parts of the name of one
_TRADING: Final = {"live", "post_only"}
_PERPETUAL_RULE: Final = "xperp"  # a future by its type, and without an end in fact
# Errors of the list that the venue calls temporary: service unavailable, timeout, too many
# requests, systems busy, system error.
_TEMPORARY: Final = frozenset({"50001", "50004", "50011", "50013", "50026"})
_MAGNITUDE_MAX: Final = 18  # powers of ten between a contract and its unit


def entries(body: bytes) -> Iterable[Any]:
    answer = orjson.loads(body)
    code = str(answer["code"])
    if code != "0":
        text = str(answer.get("msg", ""))
        raise VenueError("okx", code, text, temporary=code in _TEMPORARY)
    found: Iterable[Any] = answer["data"]
    return found


def listing(market: str, entry: Any) -> Listing | None:
    if entry["instType"] != TYPES[market]:
        return None
    return Listing(entry["instId"], entry["state"] in _TRADING, entry["state"])


def is_of_market(market: str, symbol: str) -> bool:
    """Tell by a symbol's name: BTC-USDT, BTC-USDT-SWAP or BTC-USD-261225."""
    parts = symbol.split("-")
    if len(parts) == _PAIR:
        return market == "spot"
    return market == ("swap" if parts[-1] == "SWAP" else "futures")


def parse(market: str, entry: Any) -> Instrument:
    return _spot(entry) if market == "spot" else _contract(market, entry)


def _spot(one: Any) -> Instrument:
    base, quote = one["baseCcy"], one["quoteCcy"]
    return instrument(
        "okx",
        "spot",
        one["instId"],
        f"{base}-{quote}".upper(),
        base,
        quote,
        one["tickSz"],
        one["lotSz"],
        settlement=quote,
    )


def _contract(market: str, one: Any) -> Instrument:
    """The underlying names the pair.

    A family may differ from it (BTC-USD_UM beside BTC-USD), and then it keeps the canonical names
    apart.
    """
    base, _, quote = one["uly"].partition("-")
    family = one.get("instFamily") or one["uly"]
    is_future = market == "futures" and one.get("ruleType") != _PERPETUAL_RULE
    expiry_ns = int(one["expTime"]) * MILLISECOND if is_future else 0
    suffix = iso_text(expiry_ns)[:10].replace("-", "") if is_future else "PERP"
    try:
        multiplier = Decimal(one["ctVal"]) * Decimal(one["ctMult"] or "1")
    except ArithmeticError:
        numbers = f"ctVal {one['ctVal']!r:.40}, ctMult {one['ctMult']!r:.40}"
        raise ValueError(f"{numbers} are no numbers") from None
    if abs(multiplier.adjusted()) > _MAGNITUDE_MAX:  # 1e999999999 would become a gigabyte of text
        raise ValueError(f"one contract is {multiplier} units")
    return instrument(
        "okx",
        market,
        one["instId"],
        f"{family}-{suffix}".upper(),
        base,
        quote,
        one["tickSz"],
        one["lotSz"],
        contract=Contract.FUTURE if is_future else Contract.PERPETUAL,
        settlement=one["settleCcy"],
        size_unit=SizeUnit.CONTRACT,
        multiplier=f"{multiplier.normalize():f}",
        expiry_ns=expiry_ns,
    )
