"""Find what must change on the open connections so that a plan becomes another one.

Pure. A connection keeps every stream that is still wanted, so that the others on it notice nothing.
New streams go where their connection has room, an instrument's streams together; the rest gets
connections of its own. A connection whose route changed, or that nothing is wanted of, is given up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from ingestor.adapter import BookOffer
from ingestor.adapter.contract import Subscription
from ingestor.sources.live.plan import (
    Plan,
    PlannedConnection,
    Room,
    Route,
    TransportName,
    room_of,
    shard_of,
)

# Connections with equal places and forms of books may carry each other's streams.
_Place = tuple[str, str, str, int, Route, TransportName]
_Group = tuple[_Place, BookOffer | None]

_REFUSALS_MAX: Final = 8  # of a connection that has no room


@dataclass(frozen=True, slots=True)
class StreamChange:
    """One connection that goes on with other streams.

    planned: what it carries from now on, under its old number. subscribe, unsubscribe: what to ask
    the venue for.
    """

    planned: PlannedConnection
    subscribe: tuple[Subscription, ...]
    unsubscribe: tuple[Subscription, ...]


@dataclass(frozen=True, slots=True)
class PlanChange:
    """The steps from one plan to another. plan: the new one, with the numbers of the old.

    continues: another process had what is added, or gets what is removed, without a hole.
    """

    plan: Plan
    added: tuple[PlannedConnection, ...]
    removed: tuple[PlannedConnection, ...]
    changed: tuple[StreamChange, ...]
    continues: bool = False

    @property
    def subscribed(self) -> list[Subscription]:
        """Every subscription that is new, or moved."""
        added = [subscription for planned in self.added for subscription in planned.subscriptions]
        return added + [
            subscription for change in self.changed for subscription in change.subscribe
        ]

    @property
    def unsubscribed(self) -> list[Subscription]:
        """Every subscription that the new plan does not have at all."""
        removed = [
            subscription for planned in self.removed for subscription in planned.subscriptions
        ]
        removed += [subscription for change in self.changed for subscription in change.unsubscribe]
        moved = {
            (subscription.instrument, subscription.channel) for subscription in self.subscribed
        }
        return [
            subscription
            for subscription in removed
            if (subscription.instrument, subscription.channel) not in moved
        ]

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed)


def without(running: Plan, venue: str, market: str, symbols: Collection[str]) -> Plan:
    """Return a plan that carries nothing of some symbols of a market.

    Args:
        running: The plan.
        venue: Name of the venue.
        market: Name of the market.
        symbols: The venue's names.
    """
    connections = []
    for planned in running:
        if (planned.venue, planned.market) == (venue, market):
            stay = tuple(
                subscription
                for subscription in planned.subscriptions
                if subscription.symbol not in symbols
            )
            planned = replace(planned, subscriptions=stay)  # noqa: PLW2901
        if planned.subscriptions:
            connections.append(planned)
    return replace(running, connections=tuple(connections))


def together(first: Plan, second: Plan) -> Plan:
    """Return a plan of the connections of both, as what is wanted of `replan`."""
    return replace(first, connections=(*first.connections, *second.connections))


def shard_part(plan: Plan, shard: int, shards: int) -> Plan:
    """Return what one of several processes carries that never talk, on connections of its own.

    Its instruments follow from their names alone (`shard_of`), so that processes whose plans differ
    in other instruments agree, and a change of the plan moves none from one to another.

    Args:
        plan: The whole.
        shard: Which one, from 0.
        shards: How many there are. Each has the venues' limits of an address to itself.

    Raises:
        ValueError: For a shard that does not exist.
    """
    if not 0 <= shard < shards:
        raise ValueError(f"no shard {shard} among {shards}")
    mine = plan.only_where(lambda stream: shard_of(":".join(stream[:3]), shards) == shard)
    nothing = replace(plan, connections=(), shards=shards, shard=shard)
    packed = replan(nothing, mine, f"of shard {shard}/{shards}").plan
    urls: dict[_Group, list[str]] = {}
    for item in mine:
        urls.setdefault((_place_of(item), item.offer), []).append(item.url)
    # The lines of a stream come one after the other, as `Plan.share` wants them.
    places: Counter[_Group] = Counter()
    order: dict[tuple[object, ...], int] = {}
    found: list[tuple[int, int, int, PlannedConnection]] = []
    for item in packed:
        place = _place_of(item)
        group = place, item.offer
        first = order.setdefault((*place[:3], *place[4:], item.offer), len(order))
        of_group = places[group]
        places[group] += 1
        url = urls[group][of_group % len(urls[group])]
        found.append((first, of_group, item.line, replace(item, url=url)))
    found.sort(key=lambda entry: entry[:3])
    return replace(
        packed,
        connections=tuple(replace(item, number=number) for number, (*_, item) in enumerate(found)),
    )


def replan(running: Plan, wanted: Plan, what: str = "added while running") -> PlanChange:
    """Return how `running` becomes a plan with the subscriptions of `wanted`.

    Instruments are compared by symbol, so that a new revision of one is no change. Books in another
    form move to other connections; the streams beside them stay.

    Args:
        running: The plan in force.
        wanted: What is subscribed to afterwards.
        what: Of the streams on new connections, for people.
    """
    missing: dict[_Group, dict[tuple[str, str], Subscription]] = {}
    model: dict[_Group, PlannedConnection] = {}
    where: dict[tuple[_Group, str, str], _Group] = {}
    for planned in wanted:
        group = _place_of(planned), planned.offer
        model.setdefault(group, planned)
        wishes = missing.setdefault(group, {})
        for subscription in planned.subscriptions:
            wishes[subscription.symbol, subscription.channel] = subscription
            where[_needed(planned, subscription), subscription.symbol, subscription.channel] = group
    kept: dict[_Group, list[tuple[PlannedConnection, list[Subscription]]]] = {}
    removed: list[PlannedConnection] = []
    for planned in running:
        stay = []
        for item in planned.subscriptions:
            wish = where.get((_needed(planned, item), item.symbol, item.channel))
            if wish and missing[wish].pop((item.symbol, item.channel), None) is not None:
                stay.append(item)
        if stay:
            kept.setdefault((_place_of(planned), planned.offer), []).append((planned, stay))
        else:
            removed.append(planned)
    added = list(_distribute(missing, kept, model, _next_number(running, wanted), what))
    changed = [
        change
        for connections in kept.values()
        for planned, subscriptions in connections
        if (change := _change(planned, subscriptions)) is not None
    ]
    after = {change.planned.number: change.planned for change in changed}
    gone = {planned.number for planned in removed}
    connections = [
        after.get(planned.number, planned) for planned in running if planned.number not in gone
    ]
    plan = replace(running, connections=(*connections, *added))
    return PlanChange(plan, tuple(added), tuple(removed), tuple(changed))


def _distribute(
    missing: dict[_Group, dict[tuple[str, str], Subscription]],
    kept: dict[_Group, list[tuple[PlannedConnection, list[Subscription]]]],
    model: dict[_Group, PlannedConnection],
    number: int,
    what: str,
) -> Iterable[PlannedConnection]:
    """Put missing streams where there is room; yield the connections that are needed besides."""
    for group, wishes in missing.items():
        room_for = room_of(model[group])
        bins = _Bins((subscriptions for _, subscriptions in kept.get(group, ())), room_for)
        for unit in _by_symbol(wishes.values()):
            for part in _parts(unit, room_for):
                bins.put(part)
        fresh = bins.fresh
        for subscriptions in fresh:
            why = f"{_count(subscriptions)} streams {what}: at most {room_for.most}"
            yield replace(
                model[group],
                number=number,
                subscriptions=tuple(subscriptions),
                source_address=model[group].route.source_address(number, model[group].line),
                why=why,
            )
            number += 1


class _Bin:
    """One connection that is being filled. refusals: how often it had no room."""

    __slots__ = ("channels", "refusals", "streams", "subscriptions")

    def __init__(self, subscriptions: list[Subscription]) -> None:
        self.subscriptions = subscriptions
        self.streams: set[str] = set()
        self.channels: dict[str, set[str]] = {}
        self.refusals = 0
        self._count(subscriptions)

    def put(self, part: Sequence[Subscription]) -> None:
        self.subscriptions.extend(part)
        self._count(part)

    def has_room(self, part: Sequence[Subscription], room: Room) -> bool:
        """Say what `Room.holds` says, at the cost of the part alone."""
        if (
            len(self.streams) + len({subscription.stream for subscription in part} - self.streams)
            > room.most
        ):
            return False
        for channel, most in room.of_channel.items():
            held = self.channels.get(channel, set())
            new = {
                subscription.stream for subscription in part if subscription.channel == channel
            } - held
            if len(held) + len(new) > most:
                return False
        return True

    def _count(self, part: Iterable[Subscription]) -> None:
        for subscription in part:
            self.streams.add(subscription.stream)
            self.channels.setdefault(subscription.channel, set()).add(subscription.stream)


class _Bins:
    """Connections that are being filled, first fit. fresh: those that were needed besides.

    One that had no room several times is not tried again: with thousands of instruments, trying
    every full connection for each would hold the loop for seconds.
    """

    def __init__(self, held: Iterable[list[Subscription]], room: Room) -> None:
        self.fresh: list[list[Subscription]] = []
        self._open = [_Bin(subscriptions) for subscriptions in held]
        self._room = room

    def put(self, part: Sequence[Subscription]) -> None:
        """Add streams that belong together to the first connection with room."""
        chosen = next(
            (subscription for subscription in self._open if self._may_take(subscription, part)),
            None,
        )
        if chosen is None:
            chosen = _Bin([])
            self.fresh.append(chosen.subscriptions)
            self._open.append(chosen)
        chosen.put(part)
        self._open = [
            subscription for subscription in self._open if subscription.refusals < _REFUSALS_MAX
        ]

    def _may_take(self, one: _Bin, part: Sequence[Subscription]) -> bool:
        if one.has_room(part, self._room):
            return True
        one.refusals += 1
        return False


def _change(planned: PlannedConnection, subscriptions: list[Subscription]) -> StreamChange | None:
    before, after = set(planned.subscriptions), set(subscriptions)
    if before == after:
        return None
    return StreamChange(
        replace(planned, subscriptions=tuple(subscriptions)),
        subscribe=tuple(
            subscription for subscription in subscriptions if subscription not in before
        ),
        unsubscribe=tuple(
            subscription for subscription in planned.subscriptions if subscription not in after
        ),
    )


def _place_of(planned: PlannedConnection) -> _Place:
    path = urlsplit(planned.url).path
    market = planned.venue, planned.market
    return *market, path, planned.line, planned.route, planned.route.transport


def _needed(planned: PlannedConnection, one: Subscription) -> _Group:
    """Return what a connection must be for a stream: only books ask for a form."""
    form = planned.offer if one.channel in planned.book.channels else None
    return _place_of(planned), form


def _count(subscriptions: Iterable[Subscription]) -> int:
    return len({subscription.stream for subscription in subscriptions})


def _by_symbol(subscriptions: Iterable[Subscription]) -> list[list[Subscription]]:
    units: dict[str, list[Subscription]] = {}
    for subscription in subscriptions:
        units.setdefault(subscription.symbol, []).append(subscription)
    return list(units.values())


def _parts(unit: Sequence[Subscription], room: Room) -> Iterable[list[Subscription]]:
    """Cut the streams of one instrument where a connection may not carry all of them."""
    part: list[Subscription] = []
    for subscription in unit:
        if part and not room.holds([*part, subscription]):
            yield part
            part = []
        part.append(subscription)
    if part:
        yield part


def _next_number(*plans: Plan) -> int:
    return 1 + max((planned.number for plan in plans for planned in plan), default=-1)
