"""Symbols that rows are asked for by, and what to say where nothing has that name."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ingestor.model.errors import ConfigError
from ingestor.model.instruments import Instrument
from ingestor.model.suggest import nearest


def matches_any(one: Instrument, wanted: Collection[str]) -> bool:
    """Return whether an instrument has one of these names: the venue's symbol, the canonical one,
    or its key."""
    if one.symbol in wanted or one.canonical in wanted or one.key in wanted:
        return True
    # Inferred: nobody said what its base and quote are.
    return one.canonical == one.symbol and _bare(one.symbol) in map(_bare, wanted)


def check_symbols(wanted: Iterable[str], instruments: Iterable[Instrument]) -> None:
    """Say which of the symbols no instrument has.

    Raises:
        ConfigError: with the nearest name that is there.
    """
    present = list(instruments)
    for symbol in wanted:
        if not any(matches_any(name, (symbol,)) for name in present):
            refuse_symbol(
                symbol, {name for item in present for name in (item.symbol, item.canonical)}
            )


def refuse_symbol(symbol: str, names: Iterable[str]) -> None:
    """Raise ConfigError: nothing has this name; of those that are there the nearest is named."""
    raise ConfigError(f"no instrument {symbol!r} is recorded", hint=nearest(symbol, names))


def _bare(symbol: str) -> str:
    """Return BTC-USDT, BTC/USDT and btcusdt as one."""
    return "".join(filter(str.isalnum, symbol)).upper()
