"""List instruments of venues, from disk or over REST, for `ingestor symbols`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import InstrumentList
from ingestor.app import settings
from ingestor.cli.common import complain
from ingestor.cli.plan import NoNetwork
from ingestor.config.model import Config
from ingestor.model.errors import ConfigError, DecodeError, TransportError
from ingestor.model.instruments import Instrument
from ingestor.model.timestamps import iso_text
from ingestor.sources.registry import adapter_of, registry
from ingestor.sources.rest.catalog import Catalog
from ingestor.sources.rest.pool import RestPools

TRADING: Final = "trading"
_COLUMNS: Final = (
    *("canonical", "venue", "market", "symbol", "type"),
    *("tick", "lot", "multiplier", "expiry", "status"),
)


@dataclass(frozen=True, slots=True)
class Listed:
    """One symbol of a list. instrument: None where the venue gives no metadata of it (yet).

    status: "trading", or the venue's own word for what it is instead.
    """

    venue: str
    market: str
    symbol: str
    status: str
    instrument: Instrument | None

    def matches(self, pattern: str) -> bool:
        """Return whether the symbol or the canonical one fits a pattern in upper case."""
        names = (self.symbol, self.instrument.canonical if self.instrument else "")
        return any(fnmatchcase(name.upper(), pattern) for name in names)

    def to_json(self) -> dict[str, Any]:
        """Return the columns of the table and what else is known, as JSON types."""
        named = {"venue": self.venue, "market": self.market, "symbol": self.symbol}
        one = self.instrument
        if one is None:
            return {**dict.fromkeys(_COLUMNS), **named, "status": self.status}
        return {
            "canonical": one.canonical,
            **named,
            "type": one.contract.value,
            "tick": one.tick_size,
            "lot": one.lot_size,
            "multiplier": one.multiplier,
            "expiry": iso_text(one.expiry_ns)[:19] + "Z" if one.expiry_ns else None,
            "status": self.status,
            "base": one.base,
            "quote": one.quote,
            "settlement": one.settlement,
            "size_unit": one.size_unit.value,
            "key": one.key,
        }


async def list_symbols(config: Config, venue: str | None, pattern: str) -> list[Listed]:
    """Return the instruments of one venue, or those of all whose lists are on disk.

    Args:
        config: Says where the lists are kept, and other addresses of venues.
        venue: Whose lists; those that are old, or that are not there, are asked for over REST.
        pattern: Of symbols, such as "BTC-*"; a text without wildcards may be anywhere in one.

    Raises:
        ConfigError: For an unknown venue, and where nothing was found.
        TransportError: The venue gives no list, and none is kept.
    """
    if venue is None:
        pools: RestPools = NoNetwork()
        adapters = registry().load_all()
    else:
        pools = RestPools(weight_per_s=config.limits.rest_weight_per_s)
        adapters = {venue: adapter_of(venue)}
    catalog = Catalog(settings.catalogue_settings(config.catalogue), pools)
    try:
        found = [
            all_list async for all_list in _all_lists(config, catalog, adapters.values(), venue)
        ]
    finally:
        await pools.aclose()
    wanted = pattern.upper() if any(item in pattern for item in "*?[") else f"*{pattern.upper()}*"
    chosen = [entry for listed in found for entry in _entries(listed) if entry.matches(wanted)]
    if not found:
        raise ConfigError("no list of instruments is on this machine", hint="name a venue")
    if not chosen:
        raise ConfigError(f"no symbol fits {pattern!r}", hint="try '*' for all")
    return sorted(chosen, key=_order)


def _order(one: Listed) -> tuple[str, str, str]:
    return one.venue, one.market, one.instrument.canonical if one.instrument else one.symbol


async def _all_lists(
    config: Config, catalog: Catalog, adapters: Iterable[type[FeedAdapter]], venue: str | None
) -> AsyncIterator[InstrumentList]:
    """Yield each list that can be had. A market of the venue that fails is told."""
    urls = {(feed.venue, feed.market): feed.rest_url for feed in config.feeds}
    failed: list[TransportError | DecodeError] = []
    count = 0
    for adapter in adapters:
        for market in adapter.markets:
            try:
                listed = await catalog.load(adapter, market, urls.get((adapter.venue, market)))
            except (TransportError, DecodeError) as failure:
                failed.append(failure)
                continue
            count += 1
            yield listed
    if venue is not None:
        if failed and not count:
            raise failed[0]
        for item in failed:
            complain(str(item))


def _entries(listed: InstrumentList) -> Iterator[Listed]:
    for symbol, one in listed.trading.items():
        yield Listed(listed.venue, listed.market, symbol, TRADING, one)
    for symbol, halted in listed.halted.items():
        yield Listed(listed.venue, listed.market, symbol, halted.status, halted.instrument)


def symbols_text(found: Sequence[Listed]) -> str:
    """Return a table, one line a symbol."""
    rows = [_COLUMNS, *([str(item.to_json()[name] or "-") for name in _COLUMNS] for item in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)
