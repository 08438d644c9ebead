"""Rows that a replay is asked for, and what to say where nothing has the name of a symbol."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import Instrument, InstrumentTable
from ingestor.model.suggest import nearest
from ingestor.sources.replay.options import ReplayOptions


def matches_any(one: Instrument, wanted: Collection[str]) -> bool:
    """Return whether an instrument has one of these names: the venue's symbol, the canonical one,
    or its key.
    """
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


def kept_of(batch: TickBatch, options: ReplayOptions, table: InstrumentTable) -> TickBatch:
    """Return the rows of a batch that a replay's options ask for.

    Args:
        batch: Rows of one class.
        options: The replay's.
        table: The instruments of its rows.
    """
    rows = batch.rows
    if options.channels and batch.row_class.channel not in options.channels:
        return TickBatch(batch.row_class, rows[:0], batch.instruments)
    if options.start_ns:
        rows = rows[rows["ts_recv"] >= options.start_ns]
    if options.symbols and len(rows):
        wanted = np.array(
            [matches_any(instrument, options.symbols) for instrument in table], np.bool_
        )
        rows = rows[wanted[rows["instrument"]]]
    return TickBatch(batch.row_class, rows, batch.instruments)
