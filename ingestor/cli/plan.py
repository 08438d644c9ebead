"""Print plans and feeds for `ingestor check` and `ingestor feeds`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import InstrumentList
from ingestor.app import settings
from ingestor.app.planning import make_planned
from ingestor.config.model import Config
from ingestor.model.errors import DecodeError, TransportError
from ingestor.model.instruments import instrument
from ingestor.sources.live.plan import Plan, PlannedConnection
from ingestor.sources.live.replan import shard_part
from ingestor.sources.rest.catalog import Catalog
from ingestor.sources.rest.client import RestClient
from ingestor.sources.rest.pool import RestPools
from ingestor.sources.rest.resolve import Waiting
from ingestor.telemetry import logs

_STREAMS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class PlanReport:
    """A plan, the markets whose symbols could not be checked, and the symbols that don't run."""

    plan: Plan
    assumed: tuple[str, ...]
    waiting: tuple[Waiting, ...] = ()
    shard: Plan | None = None

    def of_shard(self, index: int, shards: int) -> PlanReport:
        """Return the report of one shard. index: from 0."""
        return replace(self, shard=shard_part(self.plan, index, shards))

    @property
    def _shown(self) -> Plan:
        return self.plan if self.shard is None else self.shard

    def to_json(self) -> dict[str, Any]:
        shown = self._shown
        return {
            "plan": self.plan.digest,
            "shard": {"index": shown.shard, "of": shown.shards, "planned": len(self.plan)},
            "connections": [_connection_json(item) for item in shown],
            "unchecked_markets": list(self.assumed),
            "waiting": [asdict(waiting_symbol) for waiting_symbol in self.waiting],
        }

    def to_text(self) -> str:
        shown = self._shown
        streams = sum(len(item.streams) for item in shown)
        lines = [f"{len(shown)} connections, {streams} streams (plan {self.plan.digest})"]
        if self.shard is not None:
            part = f"shard {shown.shard}/{shown.shards} of {len(self.plan)} connections"
            lines = [f"{part}: {lines[0]}"]
        for item in shown:
            first = " ".join(item.streams[:_STREAMS_SHOWN])
            more = len(item.streams) - _STREAMS_SHOWN
            source = f" from {item.source_address}" if item.source_address else ""
            lines += [
                (
                    f"#{item.number} {item.venue} {item.market} {item.url}{source} "
                    f"({item.route.transport})"
                ),
                f"   why: {item.why}",
                f"   streams: {first}{f' and {more} more' if more > 0 else ''}",
            ]
        lines += [
            f"note: no instrument list of {market} on this machine: its symbols are taken as they "
            "are, unchecked"
            for market in self.assumed
        ]
        lines += [
            f"note: {waiting_symbol.venue} {waiting_symbol.market} {waiting_symbol.name} "
            "does not run yet "
            f"({waiting_symbol.reason.replace('_', ' ')}): {waiting_symbol.detail}"
            for waiting_symbol in self.waiting
        ]
        return "\n".join(lines)


async def offline_plan(config: Config, file: str) -> PlanReport:
    """Plan without a network. Raises ConfigError."""
    logs.configure(config.log.model_copy(update={"level": "error"}))  # old lists are no news here
    source = _Offline(config)
    planned = await make_planned(config, source, file)
    names = dict.fromkeys(f"{feed.venue} {feed.market}" for feed in config.feeds)
    assumed = tuple(name for name in names if name in source.assumed)
    return PlanReport(planned.plan, assumed, planned.waiting)


class NoNetwork(RestPools):
    """Refuses every request: lists come from disk alone."""

    async def client(self, adapter: type[FeedAdapter], market: str, origin: str) -> RestClient:
        """Return a client.

        Args:
            adapter: The venue's adapter.
            market: Name of the market.
            origin: Scheme, host and port.
        """
        raise TransportError(origin, "the network is not used")


class _Offline:
    """Instrument lists from disk, of any age; else the configured symbols, taken as they are."""

    def __init__(self, config: Config) -> None:
        lists = settings.catalogue_settings(config.catalogue)
        self._catalogue = Catalog(lists, NoNetwork())
        self._config = config
        self.assumed: set[str] = set()

    async def load(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList:
        """Return a kept list, taken for fresh: an unknown symbol is then an error, not a wait.

        Args:
            adapter: The venue's adapter.
            market: Name of the market.
            rest_url: Not used.
        """
        try:
            return replace(await self._catalogue.load(adapter, market, rest_url), fresh=True)
        except (TransportError, DecodeError):
            self.assumed.add(f"{adapter.venue} {market}")
            assumed = {
                symbol: instrument(adapter.venue, market, symbol, symbol.upper(), "", "", "1", "1")
                for feed in self._config.feeds
                if (feed.venue, feed.market) == (adapter.venue, market)
                for symbol in feed.symbols
            }
            return InstrumentList(adapter.venue, market, assumed)

    async def refresh(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList | None:
        """Ask for the list of a market again.

        Args:
            adapter: The venue's adapter.
            market: Name of the market.
            rest_url: Address to ask in place of the venue's own.
        """
        return None


def _connection_json(one: PlannedConnection) -> dict[str, Any]:
    return {
        "number": one.number,
        "venue": one.venue,
        "market": one.market,
        "url": one.url,
        "transport": one.route.transport,
        "source_address": one.source_address,
        "why": one.why,
        "streams": one.streams,
        "subscriptions": [
            {"symbol": sub.symbol, "channel": sub.channel, "stream": sub.stream}
            for sub in one.subscriptions
        ],
    }
