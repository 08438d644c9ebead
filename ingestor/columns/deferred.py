"""Read the trades and quotes that the buffer kept; check the levels of a book's side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ingestor.columns.sealing import set_column
from ingestor.model.rows import Rows

_LEVEL_TYPES: Final = {list, tuple}
_PAIR: Final = {2}


def check_pairs(levels: Sequence[Sequence[object]]) -> None:
    """Raise ValueError for what is no list of pairs."""
    if type(levels) not in _LEVEL_TYPES or not {*map(type, levels)} <= _LEVEL_TYPES:
        raise ValueError("a price level, or a side of a book, is no list")
    if not {*map(len, levels)} <= _PAIR:
        raise ValueError("a price level that is no pair of price and size")


def read_trades(events: list[Any], rows: Rows) -> Sequence[Sequence[object]]:
    """Read what `ColumnBuffer.add_trade` keeps."""
    ts_event, sequence, price, size, side, low, high, flags = zip(*events, strict=True)
    set_column(rows, "ts_event", ts_event)
    set_column(rows, "sequence", sequence)
    set_column(rows, "side", side)
    set_column(rows, "trade_id_low", low)
    set_column(rows, "trade_id_high", high)
    set_column(rows, "flags", flags)
    return price, size


def read_quotes(events: list[Any], rows: Rows) -> Sequence[Sequence[object]]:
    """Read what `ColumnBuffer.add_quote` keeps."""
    ts_event, sequence, *numbers, flags = zip(*events, strict=True)
    set_column(rows, "ts_event", ts_event)
    set_column(rows, "sequence", sequence)
    set_column(rows, "flags", flags)
    return numbers
