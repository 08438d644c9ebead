"""From the feeds of the configuration to the connection plan: lists loaded, symbols resolved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ingestor.adapter import FeedAdapter
from ingestor.app import settings
from ingestor.config.model import Config
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import Instrument, InstrumentTable
from ingestor.sources.live.plan import Plan, Wanted, make_plan
from ingestor.sources.registry import adapter_of
from ingestor.sources.rest.catalog import Catalog, resolve
from ingestor.sources.rest.client import RestClient


class InstrumentSource(Protocol):
    """Where instrument lists come from; `Catalog` satisfies it."""

    async def load(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> list[Instrument]: ...


@dataclass(frozen=True, slots=True)
class Planned:
    """The table holds the instruments of the plan alone, not the venues' whole lists."""

    table: InstrumentTable
    plan: Plan


async def make_planned(config: Config, source: InstrumentSource, file: str = "") -> Planned:
    """Plan all feeds. file: the configuration's name, for messages.

    Raises ConfigError for unknown venues, markets, channels and symbols, for a configuration
    without feeds, and for more connections than `limits.connections_max`; what `load` raises.
    """
    place = f"{file}: " if file else ""
    if not config.feeds:
        raise ConfigError("names no feeds", where=file, hint="add a [[feeds]] section")
    table = InstrumentTable()
    wanted: list[Wanted] = []
    for index, feed in enumerate(config.feeds):
        adapter = adapter_of(feed.venue, f"{place}feeds[{index}].venue")
        instruments = await source.load(adapter, feed.market, feed.rest_url)
        chosen = resolve(instruments, feed.symbols, f"{place}feeds[{index}].symbols")
        numbers = _add(table, chosen)
        wanted.append(Wanted(adapter, feed.market, numbers, feed.channels, settings.route(feed)))
    plan = make_plan(wanted, table)
    if len(plan) > config.limits.connections_max:
        raise ConfigError(
            f"the plan has {len(plan):,} connections, more than {config.limits.connections_max:,}",
            where=f"{place}limits.connections_max",
            hint="raise it, or subscribe to less",
        )
    return Planned(table, plan)


def _add(table: InstrumentTable, chosen: Iterable[Instrument]) -> Sequence[int]:
    return [table.add(one) for one in chosen]


async def load_plan(config: Config, file: str = "") -> Planned:
    """Load instruments and plan the connections: what `ingestor check` shows and `run` does.

    file: the configuration's name, for messages. Raises as `make_planned`.
    """
    async with RestClient(settings.rest_settings(config.catalogue)) as client:
        catalogue = Catalog(settings.catalogue_settings(config.catalogue), client)
        return await make_planned(config, catalogue, file)
