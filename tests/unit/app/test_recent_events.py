"""ingestor.app.recent_events: what befell connections, in words."""

from __future__ import annotations

from ingestor.app.recent_events import RecentEvents
from ingestor.model.clocks import Clocks
from ingestor.model.errors import TransportError
from ingestor.sources.live.plan import PlannedConnection, Route
from ingestor.telemetry.status import EVENTS_MAX
from tests.fakes.acme import Acme

PLANNED = PlannedConnection(7, Acme, "spot", "wss://acme.example", "", (), Route(), None, "")


def test_each_event_says_where_and_what() -> None:
    times = iter(range(1, 100))
    recent = RecentEvents(Clocks(wall_ns=lambda: next(times)))
    recent.down(PLANNED, None, TransportError("wss://acme.example", "no route"))
    recent.refused(PLANNED, ["trades:A", "trades:B"], "unknown symbol")
    recent.unacknowledged(PLANNED, ["trades:C"])
    events = recent.newest()
    assert [event.time_ns for event in events] == [1, 2, 3]
    assert all(event.is_bad for event in events)
    assert [event.text for event in events] == [
        "acme spot connection 7: could not be opened: transport, wss://acme.example: no route",
        "acme spot connection 7: the venue refuses trades:A and 1 more: unknown symbol",
        "acme spot connection 7: the venue does not answer for trades:C",
    ]


def test_a_flood_of_events_and_endless_words_are_bounded() -> None:
    recent = RecentEvents(Clocks())
    for _ in range(10 * EVENTS_MAX):
        recent.refused(PLANNED, ["trades:A"], "x" * 100_000)
    assert len(recent.newest()) == EVENTS_MAX
    assert max(len(event.text) for event in recent.newest()) <= 200
