"""Read HTX's lists of instruments."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from ingestor.adapter import (
    SECOND,
    Contract,
    Instrument,
    Listing,
    SizeUnit,
    VenueError,
    instrument,
    iso_text,
)

PATHS: Final = {
    "spot": "/v2/settings/common/symbols",
    "linear": "/linear-swap-api/v1/swap_contract_info",
    "inverse": "/swap-api/v1/swap_contract_info",
}
_TEMPORARY: Final = frozenset(
    {"429", "1030", "1031", "1032", "1094", "1126", "gateway-internal-error"}
)
_PLACES_MAX: Final = 18
_LISTED: Final = 1  # the status of a contract that trades
_EXPIRES_AT: Final = 8  # o'clock UTC
_parse: Final = msgspec.json.Decoder(float_hook=str).decode  # of bare numbers the digits are kept


def entries(body: bytes) -> Iterable[Any]:
    answer: Any = _parse(body)
    if answer["status"] != "ok":
        code = str(answer.get("err_code", answer.get("err-code", "")))
        text = str(answer.get("err_msg", answer.get("err-msg", "")))
        raise VenueError("htx", code, text, temporary=code in _TEMPORARY)
    found: Iterable[Any] = answer["data"]
    return found


def listing(market: str, entry: Any) -> Listing | None:
    if market == "spot":
        return Listing(entry["sc"], entry["state"] == "online" and entry["te"], entry["state"])
    status = entry["contract_status"]
    return Listing(entry["contract_code"], status == _LISTED, f"contract_status {status}")


def parse(market: str, entry: Any) -> Instrument:
    return _spot(entry) if market == "spot" else _contract(market, entry)


def _spot(entry: Any) -> Instrument:
    base, quote = entry["bcdn"], entry["qcdn"]
    return instrument(
        "htx",
        "spot",
        entry["sc"],
        f"{base}-{quote}".upper(),
        base,
        quote,
        _increment(entry["tpp"]),
        _increment(entry["tap"]),
        settlement=quote,
    )


def _increment(places: object) -> str:
    if type(places) is not int or not 0 <= places <= _PLACES_MAX:
        raise ValueError(f"{places!r:.40} decimals")
    return f"0.{'1':0>{places}}" if places else "1"


def _contract(market: str, entry: Any) -> Instrument:
    """A contract of the linear market is an amount of base, of the inverse one of dollars."""
    base = entry["symbol"]
    quote = entry.get("trade_partition") or ("USD" if market == "inverse" else "USDT")
    pair = f"{base}-{quote}"
    date = entry["contract_code"].removeprefix(pair).lstrip("-")
    expiry_ns = _expiry_ns(date) if date else 0
    suffix = iso_text(expiry_ns)[:10].replace("-", "") if expiry_ns else "PERP"
    return instrument(
        "htx",
        market,
        entry["contract_code"],
        f"{pair}-{suffix}".upper(),
        base,
        quote,
        str(entry["price_tick"]),
        "1",
        contract=Contract.FUTURE if expiry_ns else Contract.PERPETUAL,
        settlement=quote if market == "linear" else base,
        size_unit=SizeUnit.CONTRACT,
        multiplier=str(entry["contract_size"]),
        expiry_ns=expiry_ns,
    )


def _expiry_ns(date: str) -> int:
    """Return the time of a contract whose code ends in its day, such as 251226."""
    day = datetime.strptime(date, "%y%m%d").replace(hour=_EXPIRES_AT, tzinfo=UTC)
    return int(day.timestamp()) * SECOND
