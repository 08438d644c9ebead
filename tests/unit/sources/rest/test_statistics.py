"""What is said of entries that are left out of a list: each once, a few lines a list, bounded."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from ingestor.adapter.instrument_list import InstrumentList, Unreadable
from ingestor.sources.rest import statistics
from ingestor.sources.rest.statistics import LINES_MAX, ListStatistics


def odd(*symbols: str, market: str = "spot") -> InstrumentList:
    unreadable = tuple(Unreadable(symbol, "ValueError: x") for symbol in symbols)
    return InstrumentList("acme", market, unreadable=unreadable, carried=frozenset({"KEPT"}))


def test_an_entry_is_told_once_and_again_for_another_market() -> None:
    found = ListStatistics()
    with capture_logs() as logs:
        for market in ("spot", "spot", "swap"):
            found.report(odd("A", "KEPT", market=market))
    assert [(line["market"], line["symbol"], line["older_metadata_serve"]) for line in logs] == [
        ("spot", "A", False),
        ("spot", "KEPT", True),
        ("swap", "A", False),
        ("swap", "KEPT", True),
    ]
    assert found.unreadable == {("acme", "spot"): 2, ("acme", "swap"): 2}


def test_a_list_of_odd_entries_is_a_few_lines() -> None:
    found = ListStatistics()
    with capture_logs() as logs:
        found.report(odd(*(f"S{number}" for number in range(1_000))))
    assert len(logs) == LINES_MAX + 1
    assert logs[-1]["count"] == 1_000


def test_memory_of_reports_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "REPORTED_MAX", 3)
    found = ListStatistics()
    with capture_logs():
        found.report(odd(*(f"S{number}" for number in range(10))))
    assert found.unreadable == {("acme", "spot"): 3}
