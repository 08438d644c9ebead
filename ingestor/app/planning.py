"""From the feeds of the configuration to the connection plan: lists loaded, symbols resolved.

A market whose list can't be had costs itself alone, and so does a symbol that doesn't trade: the
plan is made without them, and says what waits. `InstrumentWatch` finds them later.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from ingestor.adapter import BookOffer, FeedAdapter
from ingestor.adapter.instrument_list import InstrumentList
from ingestor.app import settings
from ingestor.app.book_choice import offer_of
from ingestor.config.model import Channel, Config, FeedConfig
from ingestor.model.errors import ConfigError, DecodeError, TransportError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.suggest import nearest
from ingestor.sources.live.plan import Plan, Wanted, make_plan
from ingestor.sources.registry import adapter_of, registry
from ingestor.sources.rest.catalog import Catalog
from ingestor.sources.rest.pool import RestPools
from ingestor.sources.rest.resolve import Resolved, Waiting, WaitReason, resolve
from ingestor.sources.rest.statistics import lists
from ingestor.telemetry.bulkheads import bulkheads

SHOWN_MAX: Final = 20  # log lines about symbols that wait

log = structlog.get_logger(__name__)


class InstrumentSource(Protocol):
    """Give instrument lists; `Catalog` does."""

    async def load(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList:
        """Return the list of a market.

        Args:
            adapter: The venue's adapter.
            market: Name of the market.
            rest_url: Address to ask in place of the venue's own.
        """

    async def refresh(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList | None:
        """Ask for the list of a market again.

        Args:
            adapter: The venue's adapter.
            market: Name of the market.
            rest_url: Address to ask in place of the venue's own.
        """


@dataclass(frozen=True, slots=True)
class ListSource:
    """One list that the configuration needs. rest_url: None for the venue's own."""

    adapter: type[FeedAdapter]
    market: str
    rest_url: str | None

    @property
    def venue(self) -> str:
        return self.adapter.venue


class Planner:
    """Turns instrument lists into wishes: all at the start, and what is new while running.

    Each channel of an instrument is handed out once, until `retire` takes it back.
    """

    def __init__(
        self,
        config: Config,
        file: str = "",
        known: Mapping[tuple[str, str], Collection[str]] | None = None,
    ) -> None:
        """Create the planner.

        Args:
            config: whose feeds are planned.
            file: its name, for messages.
            known: names by venue and market that were right once: they may have been delisted
                since, and are never an error.

        Raises:
            ConfigError: for a configuration without feeds, unknown venues, markets and channels.
        """
        self.place = f"{file}: " if file else ""
        if not config.feeds:
            raise ConfigError("names no feeds", where=file, hint="add a [[feeds]] section")
        self.table = InstrumentTable()
        self._known = known or {}
        self.lists: dict[ListSource, InstrumentList] = {}
        self._books: dict[int, BookOffer | None] = {}
        self._feeds = [
            (index, feed, self._source(index, feed)) for index, feed in enumerate(config.feeds)
        ]
        self._waiting: dict[int, list[Waiting]] = {}
        self._taken: set[tuple[str, str, str, str]] = set()

    @property
    def sources(self) -> list[ListSource]:
        """The lists that the feeds need, each once."""
        return list(dict.fromkeys(source for _, _, source in self._feeds))

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """The configured symbols that don't run, feed by feed."""
        return tuple(
            waiting_symbol
            for index in sorted(self._waiting)
            for waiting_symbol in self._waiting[index]
        )

    def wanted(self, source: ListSource | None = None, *, strict: bool = False) -> list[Wanted]:
        """Return what the feeds want and was not handed out before, as far as lists are there.

        Args:
            source: whose feeds; None for all.
            strict: whether a name that can never be right is an error, as at the start.

        Raises:
            ConfigError: if strict, for such a name.
        """
        found: list[Wanted] = []
        for index, feed, own in self._feeds:
            if source is None or own == source:
                found.extend(self._wanted_of(index, feed, own, strict=strict))
        return found

    def count_waiting(self) -> None:
        """Let the metrics show which configured symbols don't run, as of the last `wanted`."""
        lists.waiting = dict(
            Counter(
                (waiting_symbol.venue, waiting_symbol.market, waiting_symbol.reason.value)
                for waiting_symbol in self.waiting
            )
        )

    def retire(self, venue: str, market: str, symbols: Collection[str]) -> None:
        """Forget that symbols run, so that they are handed out when they trade again.

        Args:
            venue: Name of the venue.
            market: Name of the market.
            symbols: The venue's names.
        """
        self._taken = {
            (at, where, symbol, channel)
            for at, where, symbol, channel in self._taken
            if (at, where) != (venue, market) or symbol not in symbols
        }

    def unlisted(self, source: ListSource) -> bool:
        """Say whether a feed names a symbol that the list of `source`, not fresh, doesn't have."""
        listed = self.lists.get(source)
        return listed is not None and any(
            waiting_symbol.reason is WaitReason.UNLISTED
            for index, feed, own in self._feeds
            if own == source
            for waiting_symbol in self._resolve(index, feed, listed).waiting
        )

    def _source(self, index: int, feed: FeedConfig) -> ListSource:
        where = f"{self.place}feeds[{index}]"
        adapter = adapter_of(feed.venue, f"{where}.venue")
        market = registry().market(feed.venue, feed.market, f"{where}.market")
        carried = {channel for endpoint in market.endpoints for channel in endpoint.channels}
        for channel in feed.channels:
            if channel not in carried:
                what = f"{feed.venue} {feed.market} has no channel {channel!r}"
                hint = nearest(channel, carried)
                raise ConfigError(what, where=f"{where}.channels", hint=hint)
        offered = f"{feed.venue} {feed.market}"
        book = offer_of(market, offered, feed.depth, feed.speed_ms, where)
        self._books[index] = book if "book" in feed.channels else None
        return ListSource(adapter, feed.market, feed.rest_url)

    def _resolve(self, index: int, feed: FeedConfig, listed: InstrumentList) -> Resolved:
        return resolve(listed, feed.symbols, f"{self.place}feeds[{index}].symbols")

    def _check_names(self, index: int, feed: FeedConfig, listed: InstrumentList) -> None:
        """Raise ConfigError for a name that can never be right, and never was."""
        known = self._known.get((feed.venue, feed.market), ())
        new = tuple(name for name in feed.symbols if name not in known)
        self._resolve(index, feed.model_copy(update={"symbols": new}), listed)

    def _wanted_of(
        self, index: int, feed: FeedConfig, source: ListSource, *, strict: bool
    ) -> Iterator[Wanted]:
        listed = self.lists.get(source)
        if listed is None:
            self._waiting[index] = [
                Waiting(source.venue, source.market, name, WaitReason.NO_LIST, "no list yet")
                for name in feed.symbols
            ]
            return
        if strict:
            self._check_names(index, feed, listed)
        # While running no name is an error: what was right once may be delisted now.
        found = self._resolve(index, feed, replace(listed, fresh=False))
        self._waiting[index] = found.waiting
        by_channels: dict[tuple[Channel, ...], list[int]] = {}
        for instrument in found.chosen:
            keys = [
                (source.venue, source.market, instrument.symbol, channel)
                for channel in feed.channels
            ]
            channels = tuple(
                channel
                for channel, key in dict(zip(feed.channels, keys, strict=True)).items()
                if key not in self._taken
            )
            self._taken.update(keys)
            if channels:
                number = self.table.add(instrument)
                by_channels.setdefault(channels, []).append(number)
        for channels, numbers in by_channels.items():
            route, book = settings.route(feed), self._books[index]
            yield Wanted(source.adapter, source.market, numbers, channels, route, book)


@dataclass(frozen=True, slots=True)
class Planned:
    """The table holds the instruments of the plan alone, not the venues' whole lists.

    waiting: configured symbols that don't run (yet). planner: what planned, with the lists; None
    where a plan was made by hand.
    """

    table: InstrumentTable
    plan: Plan
    waiting: tuple[Waiting, ...] = ()
    planner: Planner | None = None


async def make_planned(config: Config, source: InstrumentSource, file: str = "") -> Planned:
    """Plan all feeds; what can't run yet is named in `Planned.waiting`.

    Args:
        config: whose feeds are planned.
        source: where lists come from. They are asked for at the same time.
        file: the configuration's name, for messages.

    Raises:
        ConfigError: for unknown venues, markets and channels, for symbols that a fresh and whole
            list doesn't have, for a configuration without feeds, and for more connections than
            `limits.connections_max`.
    """
    planner = Planner(config, file)
    await asyncio.gather(*(load_list(planner, source, item) for item in planner.sources))
    plan = make_plan(planner.wanted(strict=True), planner.table)
    check_size(plan, config, planner.place)
    planner.count_waiting()
    return Planned(planner.table, plan, planner.waiting, planner)


def check_size(plan: Plan, config: Config, place: str) -> None:
    """Refuse a plan of too many connections.

    Args:
        plan: The plan.
        config: Has the limit.
        place: The file, for messages.

    Raises:
        ConfigError: There are too many.
    """
    if len(plan) > config.limits.connections_max:
        raise ConfigError(
            f"the plan has {len(plan):,} connections, more than {config.limits.connections_max:,}",
            where=f"{place}limits.connections_max",
            hint="raise it, or subscribe to less",
        )


async def load_list(planner: Planner, source: InstrumentSource, one: ListSource) -> None:
    """Load one list; any failure costs this market alone.

    Args:
        planner: Takes the list.
        source: Gives it.
        one: Which list.
    """
    try:
        planner.lists[one] = await source.load(one.adapter, one.market, one.rest_url)
        if planner.unlisted(one):  # a name that an older list doesn't have: it may be new
            fresh = await source.refresh(one.adapter, one.market, one.rest_url)
            if fresh is not None:
                planner.lists[one] = fresh
    except ConfigError:
        return  # said again, and raised, when everything is resolved
    except (TransportError, DecodeError) as failure:
        log.warning(
            "catalogue.unavailable", venue=one.venue, market=one.market, reason=str(failure)
        )
    except Exception as failure:  # noqa: BLE001  # the boundary
        bulkheads.bug("instrument list", failure, venue=one.venue, market=one.market)


def report_waiting(waiting: Iterable[Waiting]) -> None:
    found = list(waiting)
    for symbol in found[:SHOWN_MAX]:
        log.error(
            "symbol.waiting",
            venue=symbol.venue,
            market=symbol.market,
            symbol=symbol.name,
            reason=symbol.reason.value,
            detail=symbol.detail,
        )
    if len(found) > SHOWN_MAX:
        log.error("symbols.waiting", count=len(found), shown=SHOWN_MAX)


async def load_plan(config: Config, file: str = "") -> Planned:
    """Load instruments and plan the connections: what `ingestor check` shows and `run` does.

    file: the configuration's name, for messages. Raises as `make_planned`.
    """
    pools = RestPools(weight_per_s=config.limits.rest_weight_per_s)
    try:
        catalogue = Catalog(settings.catalogue_settings(config.catalogue), pools)
        planned = await make_planned(config, catalogue, file)
    finally:
        await pools.aclose()
    report_waiting(planned.waiting)
    return planned


def book_problems(config: Config, place: str) -> list[ConfigError]:
    """Return what the venues' tables of books object to. place: the file, for messages."""
    found = []
    for index, feed in enumerate(config.feeds):
        where = f"{place}: feeds[{index}]"
        try:
            market = registry().market(feed.venue, feed.market, f"{where}.market")
            name = f"{feed.venue} {feed.market}"
            offer_of(market, name, feed.depth, feed.speed_ms, where)
        except ConfigError as failure:
            found.append(failure)
    return found
