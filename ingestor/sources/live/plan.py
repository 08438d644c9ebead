"""Subscriptions -> connections: which connection carries which streams, and why.

Pure and deterministic: the same wishes give the same plan, so that `ingestor check` shows what
`ingestor run` does, and any number of workers and shards can each take their part of it without
talking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal
from urllib.parse import urlsplit
from zlib import crc32

from ingestor.adapter import (
    BookOffer,
    BookRule,
    Endpoint,
    FeedAdapter,
    Limits,
    Market,
    TradeNumbers,
)
from ingestor.adapter.book_offers import adapter_with
from ingestor.adapter.contract import Subscription
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable

TransportName = Literal["picows", "websockets"]


@dataclass(frozen=True, slots=True)
class Route:
    """Say how a market is reached, where that differs from the venue's documents.

    origins: scheme, host and port that replace the venue's; connections take them in turn.
    streams_per_connection: lower than the venue's limit; a higher one has no effect.
    source_addresses: local IP addresses that connections are spread over.
    lines: connections that carry each stream, 1 or 2, from different addresses if there are some.
    """

    origins: tuple[str, ...] = ()
    rest_origin: str | None = None
    transport: TransportName = "picows"
    streams_per_connection: int | None = None
    source_addresses: tuple[str, ...] = ()
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    permessage_deflate: bool = False
    lines: int = 1

    def source_address(self, place: int, line: int) -> str | None:
        """Return the local address of a connection; the two lines of a place have two, if there
        are so many.

        Args:
            place: its place among the connections of its line.
            line: 0 or 1.
        """
        sources = self.source_addresses
        return sources[(place * self.lines + line) % len(sources)] if sources else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Some channels of some instruments of one market.

    instruments: numbers of the table. book: the form of the books; None = the venue's first.
    """

    adapter: type[FeedAdapter]
    market: str
    instruments: Sequence[int]
    channels: Sequence[str]
    route: Route = Route()
    book: BookOffer | None = None

    def of(self, is_mine: Callable[[str], bool], table: InstrumentTable) -> Wanted:
        """Return the wish for the instruments, told by their keys, that belong to one worker."""
        mine = [number for number in self.instruments if is_mine(table[number].key)]
        return replace(self, instruments=mine)


@dataclass(frozen=True, slots=True)
class PlannedConnection:
    """One connection. number: its place in the whole plan, whatever share of it is run. line: 0,
    or 1 for the second one of a feed with two lines.
    """

    number: int
    adapter: type[FeedAdapter]
    market: str
    url: str
    rest_url: str
    subscriptions: tuple[Subscription, ...]
    route: Route
    source_address: str | None
    why: str
    offer: BookOffer | None = None
    headers: tuple[tuple[str, str], ...] = ()
    line: int = 0

    @property
    def venue(self) -> str:
        return self.adapter.venue

    @property
    def about(self) -> tuple[str, str, str, int]:
        """Venue, market, address and number of lines, as a recording keeps them."""
        return self.venue, self.market, self.url, self.route.lines

    @property
    def rules(self) -> Market:
        return self.adapter.markets[self.market]

    @property
    def limits(self) -> Limits:
        return self.rules.limits

    @property
    def book(self) -> BookRule:
        return self.rules.rule_of(self.offer)

    def make_adapter(self, symbols: Mapping[str, int]) -> FeedAdapter:
        """Return the adapter of a connection. symbols: venue symbol -> instrument number, live."""
        return adapter_with(self.adapter, self.market, symbols, self.offer)

    @property
    def streams(self) -> list[str]:
        """The distinct streams, in order."""
        return list(dict.fromkeys(subscription.stream for subscription in self.subscriptions))

    def renumbered(self, numbers: Mapping[int, int]) -> PlannedConnection:
        """Return the same with new revisions of some instruments. numbers: old -> new."""
        if not any(subscription.instrument in numbers for subscription in self.subscriptions):
            return self
        subscriptions = tuple(
            replace(
                subscription,
                instrument=numbers.get(subscription.instrument, subscription.instrument),
            )
            for subscription in self.subscriptions
        )
        return replace(self, subscriptions=subscriptions)


def shard_of(key: str, shards: int) -> int:
    """Return the shard of an instrument, by its name alone.

    Rendezvous hashing: with another number of shards, only what falls to a new one moves.

    Args:
        key: "venue:market:symbol".
        shards: How many there are.
    """

    def rank(shard: int) -> bytes:
        return hashlib.blake2b(f"{shard} {key}".encode(), digest_size=8).digest()

    return 0 if shards == 1 else max(range(shards), key=rank)


@dataclass(frozen=True, slots=True)
class Plan:
    """All connections, or the part of one worker or shard.

    workers: how many share the venues' rate limits. parts: how many share the connections.
    index: which of the parts this is, from 0. shards, shard: the same of processes that never talk,
    each of which carries the instruments whose names fall to it.
    """

    connections: tuple[PlannedConnection, ...]
    workers: int = 1
    parts: int = 1
    index: int = 0
    shards: int = 1
    shard: int = 0

    def is_mine(self, key: str) -> bool:
        """Tell whether an instrument that is new while running belongs to this part."""
        is_of_shard = shard_of(key, self.shards) == self.shard
        return is_of_shard and crc32(key.encode()) % self.parts == self.index

    def __len__(self) -> int:
        return len(self.connections)

    def __iter__(self) -> Iterator[PlannedConnection]:
        return iter(self.connections)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that two machines agree on if they made the same plan."""
        whole = hashlib.sha256()
        for subscription in self.connections:
            place = (
                str(subscription.number),
                subscription.venue,
                subscription.market,
                urlsplit(subscription.url).path,
            )
            whole.update("\n".join((*place, *subscription.streams, "")).encode())
        return whole.hexdigest()[:8]

    def share(self, index: int, parts: int) -> Plan:
        """Return one worker's part: every parts-th connection, market by market.

        The parts are equal to within one, of each market too. A part can be shared out again.

        Args:
            index: which part, from 0.
            parts: how many there are. They reach the venues from one address, and divide what a
                venue allows it.

        Raises:
            ValueError: for a part that does not exist.
        """
        if not 0 <= index < parts:
            raise ValueError(f"no part {index} among {parts}")
        groups: dict[tuple[str, str, str], list[PlannedConnection]] = {}
        for subscription in self.connections:
            groups.setdefault(
                (subscription.venue, subscription.market, urlsplit(subscription.url).path), []
            ).append(subscription)
        # The lines of a stream stay together: what one of them lost, the other has.
        dealt: list[list[PlannedConnection]] = []
        for item in (subscription for group in groups.values() for subscription in group):
            if item.line and dealt and dealt[-1][-1].subscriptions == item.subscriptions:
                dealt[-1].append(item)
            else:
                dealt.append([item])
        return replace(
            self,
            connections=tuple(
                subscription for lines in dealt[index::parts] for subscription in lines
            ),
            workers=self.workers * parts,
            parts=self.parts * parts,
            index=self.index * parts + index,
        )

    def only(self, streams: Collection[tuple[str, str, str, str]]) -> Plan:
        """Return the part that carries some streams. streams: venue, market, symbol, channel."""
        return self.only_where(lambda stream: stream in streams)

    def only_where(self, carries: Callable[[tuple[str, str, str, str]], bool]) -> Plan:
        """Return the same. carries: tells which, by venue, market, symbol, channel."""
        connections = []
        for planned in self.connections:
            market = planned.venue, planned.market
            mine = tuple(
                subscription
                for subscription in planned.subscriptions
                if carries((*market, subscription.symbol, subscription.channel))
            )
            if mine:
                connections.append(replace(planned, subscriptions=mine))
        return replace(self, connections=tuple(connections))

    def renumbered(self, numbers: Mapping[int, int]) -> Plan:
        """Return the same with new revisions of some instruments. numbers: old -> new."""
        connections = tuple(planned.renumbered(numbers) for planned in self.connections)
        return replace(self, connections=connections)

    def trade_numbers(self) -> dict[tuple[str, str], TradeNumbers]:
        """Return what the trade numbers of each (venue, market) say."""
        return {
            (subscription.venue, subscription.market): subscription.rules.trade_numbers
            for subscription in self.connections
        }

    def book_rules(self) -> dict[tuple[str, str, str], BookRule]:
        """Return the book rule by (venue, market, symbol); symbol "" is of those without a book.

        Where nobody subscribes to a market's quotes, none will prove a book, and none of its tops
        need be remembered.
        """
        quoted = {
            (item.venue, item.market)
            for item in self.connections
            if any(subscription.channel == "quotes" for subscription in item.subscriptions)
        }
        rules: dict[tuple[str, str, str], BookRule] = {}
        for item in self.connections:
            rule, market = item.book, (item.venue, item.market)
            if market not in quoted:
                rule = replace(rule, verify_with_quotes=False)
            rules.setdefault((*market, ""), rule)
            for subscription in item.subscriptions:
                if subscription.channel in rule.channels:
                    rules[(*market, subscription.symbol)] = rule
        return rules


def make_plan(wanted: Iterable[Wanted], table: InstrumentTable) -> Plan:
    """Spread all wishes over connections; a channel of an instrument wished twice is taken once.

    Raises ConfigError for a market or a channel that the venue doesn't have.
    """
    numbers = count()
    seen: set[tuple[int, str]] = set()
    connections: list[PlannedConnection] = []
    for wish in wanted:
        connections.extend(_of_one(wish, table, numbers, seen))
    return Plan(tuple(connections))


def _of_one(
    wish: Wanted, table: InstrumentTable, numbers: Iterator[int], seen: set[tuple[int, str]]
) -> Iterator[PlannedConnection]:
    venue = wish.adapter.venue
    rules = wish.adapter.markets.get(wish.market)
    if rules is None:
        known = ", ".join(wish.adapter.markets)
        raise ConfigError(f"{venue} has no market {wish.market!r}", hint=f"it has {known}")
    symbols = table.symbols(venue, wish.market)
    adapter = adapter_with(wish.adapter, wish.market, symbols, wish.book)
    groups: dict[Endpoint, list[list[Subscription]]] = {}
    for instrument in sorted(set(wish.instruments), key=lambda number: table[number].symbol):
        symbol = table[instrument].symbol
        by_endpoint: dict[Endpoint, list[Subscription]] = {}
        for channel in dict.fromkeys(wish.channels):
            if (instrument, channel) in seen:
                continue
            seen.add((instrument, channel))
            endpoint = _endpoint(rules, channel, wish)
            stream = adapter.stream(channel, symbol)
            by_endpoint.setdefault(endpoint, []).append(
                Subscription(instrument, symbol, channel, stream)
            )
        for endpoint, subscriptions in by_endpoint.items():
            groups.setdefault(endpoint, []).append(subscriptions)
    for endpoint in rules.endpoints:
        if endpoint in groups:
            yield from _spread(wish, rules, endpoint, groups[endpoint], numbers)


def _endpoint(rules: Market, channel: str, wish: Wanted) -> Endpoint:
    url = wish.book.url if channel == "book" and wish.book is not None else ""
    for endpoint in rules.endpoints:
        if endpoint.url == url or (not url and channel in endpoint.channels):
            return endpoint
    known = sorted(
        {subscription for endpoint in rules.endpoints for subscription in endpoint.channels}
    )
    raise ConfigError(
        f"{wish.adapter.venue} {wish.market} has no channel {channel!r}",
        hint=f"it has {', '.join(known)}",
    )


def _spread(
    wish: Wanted,
    rules: Market,
    endpoint: Endpoint,
    instruments: list[list[Subscription]],
    numbers: Iterator[int],
) -> Iterator[PlannedConnection]:
    """Fill connections evenly, an instrument's streams together. instruments: each one's own."""
    allowed = rules.limits.streams_per_connection
    most = min(allowed, wish.route.streams_per_connection or allowed)
    room = Room(most, rules.limits.streams_of_channel)
    units = [part for subscription in instruments for part in _fitting(subscription, room)]
    total = sum(_streams(unit) for unit in units)
    bins = _fill(units, room, -(-total // room.connections(units)))
    reason = f"{total} streams of {len(instruments)} instruments"
    if len(instruments) == 1:
        reason = f"{total} streams of 1 instrument"
    limit = f"the venue allows {allowed} streams on a connection"
    if most < allowed:
        limit = f"configured: {most} streams on a connection ({limit})"
    for place, held in enumerate(bins):
        subscriptions = tuple(subscription for unit in held for subscription in unit)
        origins = wish.route.origins
        channels = ", ".join(dict.fromkeys(subscription.channel for subscription in subscriptions))
        url = at_origin(endpoint.url, origins[place % len(origins)] if origins else None)
        for line in range(wish.route.lines):
            of_lines = f", line {line + 1} of {wish.route.lines}" if wish.route.lines > 1 else ""
            yield PlannedConnection(
                number=next(numbers),
                adapter=wish.adapter,
                market=wish.market,
                url=url,
                rest_url=wish.route.rest_origin or rules.rest_url,
                subscriptions=subscriptions,
                route=wish.route,
                source_address=wish.route.source_address(place, line),
                offer=wish.book,
                headers=endpoint.headers,
                why=f"{_streams(subscriptions)} of {reason} ({channels}), "
                f"connection {place + 1} of {len(bins)}{of_lines}: {limit}",
                line=line,
            )


def _streams(subscriptions: Iterable[Subscription]) -> int:
    return len({subscription.stream for subscription in subscriptions})


@dataclass(frozen=True, slots=True)
class Room:
    """Bound what fits on one connection.

    most: streams. of_channel: most streams of some channels.
    """

    most: int
    of_channel: Mapping[str, int]

    def holds(self, subscriptions: Sequence[Subscription]) -> bool:
        """Say whether a connection may carry all of these."""
        return _streams(subscriptions) <= self.most and all(
            _streams(
                subscription for subscription in subscriptions if subscription.channel == channel
            )
            <= limit
            for channel, limit in self.of_channel.items()
        )

    def connections(self, units: Sequence[list[Subscription]]) -> int:
        """Return how many connections are needed at least."""
        flat = [subscription for unit in units for subscription in unit]
        needed = -(-sum(_streams(unit) for unit in units) // self.most)
        for channel, limit in self.of_channel.items():
            needed = max(
                needed,
                -(
                    -_streams(
                        subscription for subscription in flat if subscription.channel == channel
                    )
                    // limit
                ),
            )
        return needed


def room_of(planned: PlannedConnection) -> Room:
    """Return what fits on a planned connection."""
    limits, configured = planned.limits, planned.route.streams_per_connection
    allowed = limits.streams_per_connection
    return Room(min(allowed, configured or allowed), limits.streams_of_channel)


def _fitting(subscriptions: list[Subscription], room: Room) -> Iterator[list[Subscription]]:
    """Cut an instrument with more streams than a connection may have; else leave it whole."""
    part: list[Subscription] = []
    for subscription in subscriptions:
        if part and not room.holds([*part, subscription]):
            yield part
            part = []
        part.append(subscription)
    if part:
        yield part


def _fill(
    units: list[list[Subscription]], room: Room, target: int
) -> list[list[list[Subscription]]]:
    """Put units into bins, in order: a bin is full at `target` streams and never above `room`."""
    bins: list[list[list[Subscription]]] = []
    to_target = left = 0
    left_of: dict[str, int] = {}
    for unit in units:
        size = _streams(unit)
        of_channel = {
            channel: _streams(
                subscription for subscription in unit if subscription.channel == channel
            )
            for channel in room.of_channel
        }
        is_full = size > left or any(of_channel[name] > left_of.get(name, 0) for name in of_channel)
        if not bins or to_target <= 0 or is_full:
            bins.append([])
            to_target, left, left_of = target, room.most, dict(room.of_channel)
        bins[-1].append(unit)
        to_target -= size
        left -= size
        for name, streams in of_channel.items():
            left_of[name] -= streams
    return bins


def at_origin(url: str, origin: str | None) -> str:
    """Return an address whose scheme, host and port are replaced; path and query are the venue's.

    None: as it is.
    """
    if origin is None:
        return url
    target, parts = urlsplit(origin), urlsplit(url)
    return parts._replace(scheme=target.scheme, netloc=target.netloc).geturl()
