"""Read Kraken's list of instruments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import orjson

from ingestor.adapter import Instrument, Listing, VenueError, instrument

_TRADING: Final = {"online", "post_only", "limit_only", "reduce_only"}
_TEMPORARY: Final = (
    "EService:",
    "Rate limit",
    "Too many requests",
    "Temporary lockout",
    "Internal error",
)
ASSETS: Final = {"XBT": "BTC", "XDG": "DOGE"}  # REST name -> websocket name
REST_ASSETS: Final = {name: rest for rest, name in ASSETS.items()}


def entries(body: bytes) -> Iterable[Any]:
    answer = orjson.loads(body)
    errors = [text for text in answer["error"] if not text.startswith("W")]  # E: error
    if errors:
        code, _, text = errors[0].partition(":")
        temporary = any(mark in errors[0] for mark in _TEMPORARY)
        raise VenueError("kraken", code, "; ".join([text, *errors[1:]]), temporary=temporary)
    found: Iterable[Any] = answer["result"].values()
    return found


def listing(entry: Any) -> Listing | None:
    """Dark pools have no websocket name."""
    if not entry.get("wsname"):
        return None
    status = entry["status"]
    return Listing("/".join(_assets(entry)), status in _TRADING, status)


def _assets(entry: Any) -> tuple[str, str]:
    """Return base and quote as the websocket has them."""
    base, quote = entry["wsname"].split("/")
    return ASSETS.get(base, base), ASSETS.get(quote, quote)


def parse(entry: Any) -> Instrument:
    base, quote = _assets(entry)
    decimals = entry["pair_decimals"]
    one = instrument(
        "kraken",
        "spot",
        f"{base}/{quote}",
        f"{base}-{quote}".upper(),
        base,
        quote,
        entry.get("tick_size") or f"1e-{decimals}",
        f"1e-{entry['lot_decimals']}",
        settlement=quote,
    )
    return replace(one, price_exponent=decimals)
