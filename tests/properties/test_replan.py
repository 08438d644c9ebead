"""`replan`: whatever runs and whatever is wanted, the change is right and as small as can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter.contract import Subscription
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.sources.live.plan import Plan, PlannedConnection, Route, Wanted, make_plan
from ingestor.sources.live.replan import PlanChange, replan
from ingestor.sources.live.slots import ConnectionSlots
from tests.unit.sources.live.test_plan import VENUE

SYMBOLS = [*(f"S{number}" for number in range(9)), "SHARED"]  # two of its channels are one stream
Stream = tuple[str, str, str]  # market, symbol, channel

wishes = st.lists(
    st.tuples(
        st.sampled_from(["spot", "one"]),
        st.sets(st.sampled_from(SYMBOLS), max_size=len(SYMBOLS)),
        st.sets(st.sampled_from(["book", "trades", "quotes"]), min_size=1),
        st.sampled_from([None, 1, 2, 3]),
    ),
    max_size=3,
)


def table_of_all() -> InstrumentTable:
    return InstrumentTable(
        instrument("acme", market, symbol, symbol, symbol, "USD", "0.01", "0.1")
        for market in ("spot", "one")
        for symbol in SYMBOLS
    )


TABLE = table_of_all()


def plan_of(chosen: Iterable[tuple[str, set[str], set[str], int | None]]) -> Plan:
    wanted = []
    for market, symbols, channels, most in chosen:
        numbers = [TABLE.symbols("acme", market)[symbol] for symbol in sorted(symbols)]
        known = channels if market == "spot" else channels | {"book"}
        route = Route(streams_per_connection=most)
        wanted.append(Wanted(VENUE, market, numbers, sorted(known), route))
    return make_plan([one for one in wanted if one.instruments], TABLE)


def streams(plan: Iterable[PlannedConnection]) -> Counter[Stream]:
    return Counter(
        (planned.market, subscription.symbol, subscription.channel)
        for planned in plan
        for subscription in planned.subscriptions
    )


def place(plan: Iterable[PlannedConnection]) -> dict[Stream, PlannedConnection]:
    return {
        (planned.market, subscription.symbol, subscription.channel): planned
        for planned in plan
        for subscription in planned.subscriptions
    }


def limit_of(planned: PlannedConnection) -> int:
    allowed = planned.limits.streams_per_connection
    return min(allowed, planned.route.streams_per_connection or allowed)


def follow(running: Plan, change: PlanChange) -> list[PlannedConnection]:
    """Take the steps of a change one after another, in the order of `Supervisor.apply`."""
    slots = ConnectionSlots(running)
    for planned in change.removed:
        assert slots.remove(planned.number) is not None
    for stream_change in change.changed:
        slot = slots.change(stream_change.planned)
        assert slot is not None
    for planned in change.added:
        slots.add(planned)
    for slot in slots:  # each stream is found at the connection that carries it
        for subscription in slot.planned.subscriptions:
            where = subscription.instrument, subscription.channel
            assert slots.stream_of(*where) == (slot.planned, subscription)
    return [slot.planned for slot in slots]


def asked_for(change: PlanChange) -> tuple[list[Subscription], list[Subscription]]:
    subscribed = [one for planned in change.added for one in planned.subscriptions]
    subscribed += [one for step in change.changed for one in step.subscribe]
    gone = [one for planned in change.removed for one in planned.subscriptions]
    gone += [one for step in change.changed for one in step.unsubscribe]
    return subscribed, gone


@given(wishes, wishes)
def test_any_plan_becomes_any_other(before: list[Any], after: list[Any]) -> None:
    running, wanted = plan_of(before), plan_of(after)
    change = replan(running, wanted)
    assert streams(change.plan) == streams(wanted)
    assert all(len(planned.streams) <= limit_of(planned) for planned in change.plan)
    numbers = [planned.number for planned in change.plan]
    assert len({*numbers}) == len(numbers)
    new = {planned.number for planned in change.added}
    assert not new & {planned.number for planned in running}
    by_number = {planned.number: planned for planned in change.plan}
    assert {one.number: one for one in follow(running, change)} == by_number
    assert replan(change.plan, wanted).is_empty
    assert replan(change.plan, change.plan).is_empty


@given(wishes, wishes)
def test_no_stream_moves_that_could_stay(before: list[Any], after: list[Any]) -> None:
    """It could if its market is still reached by the same way."""
    running, wanted = plan_of(before), plan_of(after)
    change = replan(running, wanted)
    was, is_now, will = place(running), place(change.plan), place(wanted)
    for stream in was.keys() & is_now.keys():
        if was[stream].route == will[stream].route and was[stream].url == will[stream].url:
            assert is_now[stream].number == was[stream].number
        assert is_now[stream].route == will[stream].route
        assert is_now[stream].url == will[stream].url


@given(wishes, wishes)
def test_what_is_asked_for_is_the_difference(before: list[Any], after: list[Any]) -> None:
    running, wanted = plan_of(before), plan_of(after)
    change = replan(running, wanted)
    subscribed, gone = asked_for(change)
    count = Counter((one.instrument, one.channel) for one in subscribed)
    lost = Counter((one.instrument, one.channel) for one in gone)
    had = Counter((one.instrument, one.channel) for p in running for one in p.subscriptions)
    has = Counter((one.instrument, one.channel) for p in change.plan for one in p.subscriptions)
    assert had - lost + count == has
    assert not lost - had
    assert {(one.instrument, one.channel) for one in change.unsubscribed} == had.keys() - has.keys()


@given(wishes, wishes, st.sets(st.sampled_from(SYMBOLS)))
def test_a_new_revision_is_no_change(
    before: list[Any], after: list[Any], revised: set[str]
) -> None:
    """The plan that runs has the new numbers; nothing goes on under an old one."""
    old = TABLE.symbols("acme", "spot")
    numbers = {old[symbol]: 1_000 + old[symbol] for symbol in revised}
    running, wanted = plan_of(before).renumbered(numbers), plan_of(after).renumbered(numbers)
    change = replan(running, wanted)
    assert streams(change.plan) == streams(wanted)
    carried = {one.instrument for planned in change.plan for one in planned.subscriptions}
    assert not carried & numbers.keys()
    again = plan_of(before)
    assert replan(again.renumbered(numbers), again).is_empty
