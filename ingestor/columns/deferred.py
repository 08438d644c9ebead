"""Keep members of trades and quotes until the buffer is sealed; read the buffer's own events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingestor.columns.narrowing import DEFERRED_WIDTH
from ingestor.columns.sealing import ColumnReader, set_column
from ingestor.model.rows import Rows


def deferred(
    reader: ColumnReader,
    events: Sequence[object],
    instruments: Sequence[int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
) -> list[Any]:
    """Return the members of several events, flat, as `ColumnBuffer` keeps them.

    Args:
        reader: Reads the events when the buffer is sealed.
        events: n events.
        instruments: n instrument numbers.
        ts_recv: n times of receipt in ns.
        frames: n frame numbers.
    """
    members: list[Any] = [reader] * (DEFERRED_WIDTH * len(events))
    members[1::DEFERRED_WIDTH] = events
    members[2::DEFERRED_WIDTH] = instruments
    members[3::DEFERRED_WIDTH] = ts_recv
    members[4::DEFERRED_WIDTH] = frames
    return members


def read_trades(events: list[Any], rows: Rows) -> Sequence[Sequence[object]]:
    """Read what `ColumnBuffer.trade` keeps."""
    ts_event, sequence, price, size, side, low, high, flags = zip(*events, strict=True)
    set_column(rows, "ts_event", ts_event)
    set_column(rows, "sequence", sequence)
    set_column(rows, "side", side)
    set_column(rows, "trade_id_low", low)
    set_column(rows, "trade_id_high", high)
    set_column(rows, "flags", flags)
    return price, size


def read_quotes(events: list[Any], rows: Rows) -> Sequence[Sequence[object]]:
    """Read what `ColumnBuffer.quote` keeps."""
    ts_event, sequence, *numbers, flags = zip(*events, strict=True)
    set_column(rows, "ts_event", ts_event)
    set_column(rows, "sequence", sequence)
    set_column(rows, "flags", flags)
    return numbers
