"""Read KuCoin's lists of instruments and its answers over REST."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec

from ingestor.adapter import (
    Contract,
    Handshake,
    Instrument,
    Listing,
    SizeUnit,
    VenueError,
    instrument,
    iso_text,
    time_ns,
)

PATHS: Final = {"spot": "/api/v2/symbols", "futures": "/api/v1/contracts/active"}
_OK: Final = "200000"
# Too many requests, internal errors, server busy.
_TEMPORARY: Final = frozenset({"429000", "500000", "200002", "1015"})
_PERPETUAL: Final = "FFWCSX"
_ALIASES: Final = {"XBT": "BTC"}
_TOKEN_S: Final = 20 * 3_600.0  # of the 24 hours for which a token opens connections
_parse: Final = msgspec.json.Decoder(float_hook=str).decode  # of bare numbers the digits are kept


def content(body: bytes) -> Any:
    """Return what an answer holds. Raises VenueError for a refusal."""
    answer: Any = _parse(body)
    code = str(answer["code"])
    if code != _OK:
        text = str(answer.get("msg", ""))
        raise VenueError("kucoin", code, text, temporary=code in _TEMPORARY)
    return answer["data"]


def handshake(body: bytes) -> Handshake:
    """Read where to connect, and with which token."""
    found = content(body)
    token, url = found["token"], found["instanceServers"][0]["endpoint"]
    if type(token) is not str or type(url) is not str or not token.isascii():
        raise ValueError("no token")
    return Handshake(url, f"token={token}", _TOKEN_S)


def entries(body: bytes) -> Iterable[Any]:
    found: Iterable[Any] = content(body)
    return found


def listing(market: str, entry: Any) -> Listing | None:
    if market == "spot":
        is_trading = entry["enableTrading"]
        return Listing(entry["symbol"], is_trading, "enabled" if is_trading else "disabled")
    return Listing(entry["symbol"], entry["status"] == "Open", entry["status"])


def parse(market: str, entry: Any) -> Instrument:
    return _spot(entry) if market == "spot" else _contract(entry)


def _spot(entry: Any) -> Instrument:
    base, quote = entry["baseCurrency"], entry["quoteCurrency"]
    return instrument(
        "kucoin",
        "spot",
        entry["symbol"],
        f"{base}-{quote}".upper(),
        base,
        quote,
        entry["priceIncrement"],
        entry["baseIncrement"],
        settlement=quote,
    )


def _contract(entry: Any) -> Instrument:
    """The multiplier of an inverse contract is negative: it counts dollars."""
    base, quote = (
        _ALIASES.get(name, name) for name in (entry["baseCurrency"], entry["quoteCurrency"])
    )
    expires = None if entry["type"] == _PERPETUAL else entry["expireDate"]
    expiry_ns = 0 if expires is None else time_ns(expires)
    suffix = iso_text(expiry_ns)[:10].replace("-", "") if expiry_ns else "PERP"
    settlement = entry["settleCurrency"]
    multiplier = str(entry["multiplier"])
    if Decimal(multiplier) < 0:
        multiplier = multiplier.removeprefix("-")
    return instrument(
        "kucoin",
        "futures",
        entry["symbol"],
        f"{base}-{quote}-{suffix}".upper(),
        base,
        quote,
        str(entry["tickSize"]),
        str(entry["lotSize"]),
        contract=Contract.FUTURE if expiry_ns else Contract.PERPETUAL,
        settlement=_ALIASES.get(settlement, settlement),
        size_unit=SizeUnit.CONTRACT,
        multiplier=multiplier,
        expiry_ns=expiry_ns,
    )
