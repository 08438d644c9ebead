"""Instruments: what a symbol is, and the table that gives each one a number.

Canonical names are one scheme over all venues, in upper case:

| contract | canonical | example |
|---|---|---|
| spot | BASE-QUOTE | BTC-USDT |
| perpetual | BASE-QUOTE-PERP | BTC-USDT-PERP, BTC-USD-PERP (inverse) |
| future | BASE-QUOTE-YYYYMMDD | BTC-USD-20261225 |
| option | BASE-QUOTE-YYYYMMDD-STRIKE-C or -P | BTC-USD-20261225-90000-C |

The key of an instrument, and of its records on Kafka, is `venue:market:symbol` with the venue's
own symbol.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.decimals import EXPONENT_MAX, INT64_MAX, exponent_of, plain_decimal
from ingestor.model.errors import UnknownInstrument

_TEXT_MAX: Final = 128
_TEXTS: Final = (
    "venue",
    "market",
    "symbol",
    "canonical",
    "base",
    "quote",
    "settlement",
    "tick_size",
    "lot_size",
    "multiplier",
)
_DECIMALS: Final = ("tick_size", "lot_size", "multiplier")
_MAY_BE_EMPTY: Final = frozenset({"base", "quote", "settlement"})


class Contract(StrEnum):
    SPOT = "spot"
    PERPETUAL = "perpetual"
    FUTURE = "future"
    OPTION = "option"


class SizeUnit(StrEnum):
    """Name the unit of a size of 1."""

    BASE = "base"
    QUOTE = "quote"
    CONTRACT = "contract"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One tradable symbol of one market of one venue, at one revision of its metadata.

    tick_size, lot_size, multiplier: decimal text, as exact as the venue gives it.
    multiplier: units of `base` (of `quote` for inverse contracts) in one contract; "1" for spot.
    They are kept as plain decimals, whatever the venue writes ("1e-8").
    expiry_ns: ns since the epoch, 0 = none. revision: 1, 2, ... counted up when metadata change.
    """

    venue: str
    market: str
    symbol: str
    canonical: str
    base: str
    quote: str
    tick_size: str
    lot_size: str
    price_exponent: int
    size_exponent: int
    contract: Contract = Contract.SPOT
    settlement: str = ""
    size_unit: SizeUnit = SizeUnit.BASE
    multiplier: str = "1"
    expiry_ns: int = 0
    revision: int = 1

    def __post_init__(self) -> None:
        for name in _DECIMALS:
            text = getattr(self, name)
            if type(text) is str:
                object.__setattr__(self, name, plain_decimal(text))

    @property
    def key(self) -> str:
        return f"{self.venue}:{self.market}:{self.symbol}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types, in the order of their declaration."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Instrument:
        """Rebuild from `to_json`. Raises TypeError or ValueError when fields don't fit."""
        known = dict(fields)
        known["contract"] = Contract(known["contract"])
        known["size_unit"] = SizeUnit(known["size_unit"])
        return cls(**known)


def instrument(
    venue: str,
    market: str,
    symbol: str,
    canonical: str,
    base: str,
    quote: str,
    tick_size: str,
    lot_size: str,
    **more: Any,
) -> Instrument:
    """Build an Instrument whose exponents follow from its tick and lot size.

    Args:
        venue: Name of the venue.
        market: Name of the market.
        symbol: The venue's own name of the instrument.
        canonical: The name that is the same at all venues.
        base: Asset that is traded.
        quote: Asset that prices are in.
        tick_size: Smallest step of a price, decimal text.
        lot_size: Smallest step of a size, decimal text.
        **more: Other fields of `Instrument`.

    Raises:
        ValueError: An increment is not a positive decimal, or needs more than 18 decimals.
    """
    return Instrument(
        venue=venue,
        market=market,
        symbol=symbol,
        canonical=canonical,
        base=base,
        quote=quote,
        tick_size=tick_size,
        lot_size=lot_size,
        price_exponent=exponent_of(tick_size),
        size_exponent=exponent_of(lot_size),
        **more,
    )


def check_instrument(found: Instrument) -> Instrument:
    """Return an instrument whose fields everything downstream can hold.

    Raises ValueError that names the first field that doesn't fit, TypeError for what is none.
    """
    if type(found) is not Instrument:
        raise TypeError(f"{type(found).__name__} is no Instrument")
    for name in _TEXTS:
        text = getattr(found, name)
        if type(text) is not str or len(text) > _TEXT_MAX or not text.isprintable():
            raise ValueError(f"{name} is no text of at most {_TEXT_MAX} characters")
        if not text and name not in _MAY_BE_EMPTY:
            raise ValueError(f"{name} is empty")
    for name in ("price_exponent", "size_exponent"):
        exponent = getattr(found, name)
        if type(exponent) is not int or not 0 <= exponent <= EXPONENT_MAX:
            raise ValueError(f"{name} is {exponent!r:.40}, not 0 to {EXPONENT_MAX}")
    for name in _DECIMALS:
        exponent_of(getattr(found, name))
    if type(found.expiry_ns) is not int or not 0 <= found.expiry_ns <= INT64_MAX:
        raise ValueError("expiry_ns is no time of int64")
    if type(found.contract) is not Contract or type(found.size_unit) is not SizeUnit:
        raise TypeError("contract and size_unit are members of their enumerations")
    if type(found.revision) is not int or found.revision < 1:
        raise ValueError(f"revision is {found.revision!r:.40}")
    return found


class Symbols(dict[str, int]):
    """Venue symbol -> instrument number. A miss is a DecodeError of its own kind."""

    def __init__(self, venue: str) -> None:
        super().__init__()
        self.venue = venue

    def __missing__(self, symbol: str) -> int:
        raise UnknownInstrument(self.venue, symbol)


class InstrumentTable:
    """All instruments of the process; an instrument's number indexes it and never changes.

    A new revision of an instrument gets a new number, so that rows sealed before keep their
    exponents. `symbols(venue, market)` is the live mapping that adapters hold.
    """

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._all: list[Instrument] = []
        self._symbols: dict[tuple[str, str], Symbols] = {}
        self._exponents = np.zeros((64, 4), np.int64)
        self._pairs = self._exponents[:, :2].copy()  # apart, since rows in one piece are read fast
        for known_instrument in instruments:
            self.add(known_instrument)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> Instrument:
        return self._all[number]

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._all)

    def add(self, one: Instrument) -> int:
        """Add an instrument, or a new revision of one; return its number.

        Metadata equal to the revision in force add nothing and return its number.
        """
        symbols = self.symbols(one.venue, one.market)
        number = symbols.get(one.symbol)
        if number is not None:
            current = self._all[number]
            if replace(one, revision=current.revision) == current:
                return number
            one = replace(one, revision=max(one.revision, current.revision + 1))
        number = len(self._all)
        if number == len(self._exponents):
            self._exponents = np.concatenate([self._exponents] * 2)
            self._pairs = np.concatenate([self._pairs] * 2)
        self._pairs[number] = pair = one.price_exponent, one.size_exponent
        self._exponents[number] = pair * 2
        self._all.append(one)
        symbols[one.symbol] = number
        return number

    def symbols(self, venue: str, market: str) -> Symbols:
        """Return the live mapping of venue symbol to number. Callers only read it."""
        found = self._symbols.get((venue, market))
        if found is None:
            found = self._symbols[venue, market] = Symbols(venue)
        return found

    @property
    def exponents(self) -> NDArray[np.int64]:
        """int64[instruments or more, 4]: of price and size, twice, as a quote has them."""
        return self._exponents

    def exponents_of(self, numbers: NDArray[np.uint32], width: int) -> NDArray[np.int64]:
        """Return the exponents of prices and sizes in turn, int64[numbers, width].

        Args:
            numbers: of instruments.
            width: 2 or 4.

        Raises:
            IndexError: for a number that no instrument can have.
        """
        return (self._pairs if width == 2 else self._exponents).take(numbers, axis=0)

    @property
    def price_exponents(self) -> NDArray[np.int64]:
        """int64, indexed by instrument number (may be longer than the table)."""
        return self._exponents[:, 0]

    @property
    def size_exponents(self) -> NDArray[np.int64]:
        """int64, indexed by instrument number (may be longer than the table)."""
        return self._exponents[:, 1]
