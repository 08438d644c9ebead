"""A feed is a venue, a market and a channel."""

from __future__ import annotations

import numpy as np

from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.telemetry.feeds import FeedKey
from ingestor.telemetry.metrics import Metrics


def test_feeds_are_venue_market_channel() -> None:
    table = InstrumentTable(
        instrument(venue, "spot", name, f"{name}-USD", name, "USD", "1", "1")
        for venue in ("acme", "zeta")
        for name in ("A", "B")
    )
    metrics = Metrics(table)
    metrics.count_rows("decoded", RowClass.QUOTE, np.array([0, 3, 3], np.uint32))
    by_feed = dict(zip(metrics.feeds.all, metrics.counter("decoded").tolist(), strict=True))
    assert by_feed[FeedKey("acme", "spot", "quotes")] == 1
    assert by_feed[FeedKey("zeta", "spot", "quotes")] == 2
    assert metrics.total("decoded") == 3
    table.add(instrument("new", "spot", "C", "C-USD", "C", "USD", "1", "1"))
    metrics.count_rows("decoded", RowClass.TRADE, np.array([4], np.uint32))
    place = -len(ROW_CLASSES)
    assert metrics.feeds.all[place] == FeedKey("new", "spot", "trades")
    assert metrics.counter("decoded")[place] == 1
