"""Who spoke last, and when."""

from __future__ import annotations

import numpy as np

from ingestor.model.row_classes import RowClass
from ingestor.telemetry.last_seen import LastSeen


def test_last_seen_keeps_the_last_row_of_each_stream() -> None:
    last = LastSeen()
    assert last.of(RowClass.TRADE, 5) == (0, 0, 0)
    last.update(
        RowClass.TRADE,
        np.array([1, 0, 1], np.uint32),
        np.array([15, 2, 27]),
        np.array([10, 1, 20]),
        2,
    )
    assert last.of(RowClass.TRADE, 1) == (2, 27, 7)
    assert last.of(RowClass.TRADE, 0) == (1, 2, 1)
    assert last.of(RowClass.QUOTE, 1) == (0, 0, 0)
