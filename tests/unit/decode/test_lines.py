"""ingestor.decode.lines: which streams another session carries now."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingestor.adapter.contract import Subscription
from ingestor.decode.lines import Lines


@dataclass
class Session:
    subscriptions: list[Subscription]
    pending: set[str] = field(default_factory=set)
    interrupted: set[str] = field(default_factory=set)


def session(*numbers: int) -> Session:
    return Session([Subscription(one, f"S{one}", "book", f"book:S{one}") for one in numbers])


def test_what_another_open_session_carries_is_covered() -> None:
    lines = Lines()
    assert not lines.is_used
    first, second = session(1, 2, 3), session(2, 3, 4)
    for one in (first, second):
        lines.add(one)
    assert lines.is_used
    assert [one.instrument for one in lines.uncovered(first, first.subscriptions)] == [1]
    assert lines.paired(6).tolist() == [False, True, True, True, True, False]
    lines.remove(second)
    lines.remove(second)
    assert lines.uncovered(first, first.subscriptions) == first.subscriptions


def test_what_is_not_confirmed_covers_nothing() -> None:
    lines = Lines()
    first, second = session(1, 2, 3), session(1, 2, 3)
    second.pending.add("book:S1")
    second.interrupted.add("book:S2")
    for one in (first, second):
        lines.add(one)
    assert [one.instrument for one in lines.uncovered(first, first.subscriptions)] == [1, 2]
