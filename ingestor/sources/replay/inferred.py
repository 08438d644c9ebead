"""Instruments of a recording of others: given, listed in it, or inferred from its numbers."""

from __future__ import annotations

from dataclasses import replace

from ingestor.model.instruments import Instrument, InstrumentTable, instrument
from ingestor.sources.replay.digits import Digits
from ingestor.sources.replay.survey import Survey


def inferred(
    venue: str, market: str, symbol: str, digits: tuple[Digits, Digits] | None
) -> Instrument:
    """Return an instrument of which only the digits of its numbers are known.

    Args:
        venue: Name of the venue.
        market: Name of the market.
        symbol: The venue's own name of it.
        digits: Those of prices and of sizes, None if it has shown none.
    """
    prices, sizes = digits or (Digits(8), Digits(8))
    tick, lot = (f"0.{'1':0>{of.exponent}}" if of.exponent else "1" for of in (prices, sizes))
    return instrument(venue, market, symbol, symbol, symbol, "", tick, lot)


def add_surveyed(found: Survey, venue: str, table: InstrumentTable) -> dict[str, list[str]]:
    """Give every symbol of a survey an instrument.

    Args:
        found: The survey.
        venue: Name of the venue.
        table: Takes the instruments.

    Returns:
        The symbols by their origin: "given" (in the table already), "recorded" (listed in the
        recording) or "inferred".
    """
    origins: dict[str, list[str]] = {"given": [], "recorded": [], "inferred": []}
    for (market, symbol), digits in found.digits.items():
        if symbol in table.symbols(venue, market):
            origins["given"].append(symbol)
            continue
        listed = found.listed.get((market, symbol)) or next(
            (one for (_, other), one in found.listed.items() if other == symbol), None
        )
        if listed is not None:
            table.add(_fitted(replace(listed, market=market), digits))
            origins["recorded"].append(symbol)
        else:
            table.add(inferred(venue, market, symbol, digits))
            origins["inferred"].append(symbol)
    return origins


def _fitted(one: Instrument, digits: tuple[Digits, Digits]) -> Instrument:
    """Give room for the digits seen."""
    return replace(
        one,
        price_exponent=digits[0].fitted(one.price_exponent),
        size_exponent=digits[1].fitted(one.size_exponent),
    )
