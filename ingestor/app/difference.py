"""A change of the plan as people and programs read it: steps, within what the venues allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ingestor.adapter.contract import Subscription
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.live.replan import PlanChange
from ingestor.sources.rest.resolve import Waiting

Action = Literal["open", "change", "close"]


@dataclass(frozen=True, slots=True)
class Step:
    """Say what becomes of one connection.

    subscribe, unsubscribe: streams, as the venue names them. requests: how many messages that
    takes. seconds: how long they take at the venue's pace, once the connection is open.
    """

    action: Action
    connection: int
    venue: str
    market: str
    url: str
    subscribe: tuple[str, ...]
    unsubscribe: tuple[str, ...]
    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Say how a running process and a configuration differ.

    settings: names of what else changes. kept: streams that nothing happens to. waiting: configured
    symbols that would not run.
    """

    settings: tuple[str, ...]
    steps: tuple[Step, ...]
    kept: int
    waiting: tuple[Waiting, ...]

    @property
    def subscribed(self) -> int:
        return sum(len(step.subscribe) for step in self.steps)

    @property
    def unsubscribed(self) -> int:
        return sum(len(step.unsubscribe) for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": list(self.settings),
            "subscribe": self.subscribed,
            "unsubscribe": self.unsubscribed,
            "keep": self.kept,
            "steps": [asdict(step) for step in self.steps],
            "waiting": [asdict(item) for item in self.waiting],
        }


def difference_of(
    change: PlanChange, settings: Sequence[str], waiting: Sequence[Waiting]
) -> Difference:
    """Return a change of the plan as steps, those that free room first.

    Args:
        change: the change.
        settings: names of what else changes.
        waiting: configured symbols that would not run.
    """
    steps = tuple(_steps(change))
    streams = sum(len(planned.streams) for planned in change.plan)
    kept = streams - sum(len(step.subscribe) for step in steps)
    return Difference(tuple(settings), steps, kept, tuple(waiting))


def _steps(change: PlanChange) -> Iterator[Step]:
    for planned in change.removed:
        yield _step("close", planned, (), planned.subscriptions)
    for item in change.changed:
        kept = {*item.planned.subscriptions} - {*item.subscribe}
        yield _step("change", item.planned, item.subscribe, item.unsubscribe, kept)
    for planned in change.added:
        yield _step("open", planned, planned.subscriptions, ())


def _step(
    action: Action,
    planned: PlannedConnection,
    subscribe: Sequence[Subscription],
    unsubscribe: Sequence[Subscription],
    kept: set[Subscription] | None = None,
) -> Step:
    """Channels may share a stream: it is asked for once, and not given up while one needs it."""
    stay = {item.stream for item in kept or ()}
    begin = [name for name in _streams(subscribe) if name not in stay]
    end = [name for name in _streams(unsubscribe) if name not in stay and name not in begin]
    requests = 0
    if action != "close":  # closing the connection says it all
        adapter = planned.make_adapter({})
        requests += len(list(adapter.subscribe(begin))) if begin else 0
        requests += len(list(adapter.unsubscribe(end))) if end else 0
    pace = planned.limits.requests_per_s
    seconds = max(0.0, requests - max(1, int(pace))) / pace
    return Step(
        action,
        planned.number,
        planned.venue,
        planned.market,
        planned.url,
        tuple(begin),
        tuple(end),
        requests,
        round(seconds, 3),
    )


def _streams(subscriptions: Sequence[Subscription]) -> list[str]:
    return list(dict.fromkeys(subscription.stream for subscription in subscriptions))
