"""Random rows of any width of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Flag, Rows

NOW_NS = 1_790_000_000_000_000_000
_NAMES = (
    ("BTCUSDT", "0.01", "0.00001"),
    ("X", "1", "1"),
    ("币安人生USDT", "0.000000000000000001", "0.1"),
    ("1000SATSUSDT", "0.0000001", "1"),
    ('Q"Z', "0.1", "0.001"),
    *((f"S{number:05}USD", "0.01", "0.0001") for number in range(300)),
)


def random_table() -> InstrumentTable:
    return InstrumentTable(
        instrument(f"v{number % 3}", "spot", symbol, f"C{number}", "A", "B", tick, lot)
        for number, (symbol, tick, lot) in enumerate(_NAMES)
    )


def random_rows(
    row_class: RowClass, table: InstrumentTable, generator: np.random.Generator, turn: int
) -> Rows:
    """Return up to 600 rows that a template can write. turn: varies what they have in common."""
    count = int(generator.integers(1, 600))

    def wide() -> NDArray[np.int64]:
        return generator.integers(0, 2**63, count) >> generator.integers(0, 63, count)

    rows = np.zeros(count, row_class.dtype)
    near = NOW_NS + np.sort(generator.integers(0, 10**10, count))
    rows["ts_event"] = near if turn % 3 else wide()
    rows["ts_recv"] = NOW_NS + generator.integers(-(10**9), 10**12, count)
    rows["sequence"], rows["kind"] = wide(), row_class.id
    rows["instrument"] = generator.integers(0, (2, 5, len(table))[turn % 3], count)
    rows["flags"], rows["side"] = Flag.LAST, generator.integers(0, 3, count)
    for name in row_class.numbers:
        rows[name] = wide()
    if row_class is RowClass.TRADE:
        rows["trade_id_low"] = rows["sequence"] if turn % 2 else wide()
        if turn % 5 == 0:
            rows["trade_id_high"] = wide()
    if row_class is RowClass.LEVEL:
        _make_events(rows, generator, turn)
    return rows


def _make_events(rows: Rows, generator: np.random.Generator, turn: int) -> None:
    """Give some consecutive levels all that the levels of one event share."""
    event = np.arange(len(rows)) // int(generator.integers(1, 60))
    for name in ("ts_event", "ts_recv", "sequence", "instrument"):
        rows[name] = rows[name][event]
    rows["side"] = 1 + (np.arange(len(rows)) % 7 > 3)
    rows["flags"] = np.where(np.diff(event, append=-1) != 0, int(Flag.LAST), 0)
    if turn % 4 == 0:
        rows["price"] = 6_312_345 + generator.integers(0, 999, len(rows))
