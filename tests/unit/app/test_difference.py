"""ingestor.app.difference: a change of the plan as steps, counted as the venue counts them."""

from __future__ import annotations

from collections.abc import Iterable

from ingestor.app.difference import difference_of
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.sources.live.plan import Plan, Route, Wanted, make_plan
from ingestor.sources.live.replan import replan
from tests.unit.app.venues import ADAPTERS

TABLE = InstrumentTable(
    instrument("okx", "spot", f"S{number}-USDT", f"S{number}-USDT", f"S{number}", "USDT", "1", "1")
    for number in range(60)
)
CHANNELS = ("trades", "quotes", "book")


def plan(numbers: Iterable[int], channels: Iterable[str] = CHANNELS) -> Plan:
    wanted = Wanted(ADAPTERS["okx"], "spot", [*numbers], [*channels], Route())
    return make_plan([wanted], TABLE)


def test_no_change_has_no_steps() -> None:
    same = replan(plan(range(3)), plan(range(3)))
    found = difference_of(same, (), ())
    assert (found.steps, found.subscribed, found.unsubscribed, found.kept) == ((), 0, 0, 9)


def test_a_change_on_an_open_connection_is_counted_in_requests() -> None:
    found = difference_of(replan(plan(range(30)), plan(range(10, 40))), ("feeds",), ())
    assert (found.subscribed, found.unsubscribed, found.kept) == (30, 30, 60)
    changed = [step for step in found.steps if step.action == "change"]
    assert changed
    for step in changed:
        assert step.requests >= bool(step.subscribe) + bool(step.unsubscribe)
        assert not {*step.subscribe} & {*step.unsubscribe}
    content = found.to_json()
    assert content["settings"] == ["feeds"]
    assert content["subscribe"] == sum(len(step["subscribe"]) for step in content["steps"])


def test_what_is_closed_takes_no_requests_and_comes_first() -> None:
    before = plan(range(2))
    after = Plan(
        tuple(one for one in make_plan([wanted_at("wss://other.example")], TABLE).connections)
    )
    found = difference_of(replan(before, after), (), ())
    assert [step.action for step in found.steps] == ["close", "open"]
    assert found.steps[0].requests == 0
    assert found.steps[1].url.startswith("wss://other.example")


def wanted_at(origin: str) -> Wanted:
    return Wanted(ADAPTERS["okx"], "spot", [0, 1], CHANNELS, Route(origins=(origin,)))


def test_many_requests_take_their_time() -> None:
    numbers = range(60)
    found = difference_of(replan(Plan(()), plan(numbers)), (), ())
    assert all(step.action == "open" for step in found.steps)
    limit = ADAPTERS["okx"].markets["spot"].limits.requests_per_s
    for step in found.steps:
        assert step.seconds >= (step.requests - max(1, int(limit))) / limit - 0.001
