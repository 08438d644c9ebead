"""New revisions of instruments while running: asked for when a frame has a number that the metadata
don't allow.

A venue that makes a tick finer sends digits that the old exponent can't hold. They are refused,
never rounded; the market's instruments are fetched anew, and what changed gets a new number in the
table, so that rows sealed before keep their exponents and rows from now on have their own. Where a
fresh list confirms the old metadata, `FinerNumbers` says whether the numbers are to be believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from ingestor.adapter import FeedAdapter
from ingestor.app.finer_numbers import FinerNumbers
from ingestor.columns.sealed import Rejected
from ingestor.decode.session import Session
from ingestor.model.errors import BadNumber
from ingestor.model.instruments import Instrument, InstrumentTable
from ingestor.sources.rest.catalog import Catalog, CatalogSettings
from ingestor.sources.rest.pool import RestPools
from ingestor.telemetry.bulkheads import bulkheads

INTERVAL_S: Final = 60.0  # between two questions to one market

log = structlog.get_logger(__name__)

Market = tuple[str, str]


class Revisions:
    """Finds revised instruments. rest_urls: addresses that replace the venues' own."""

    def __init__(
        self,
        table: InstrumentTable,
        pools: RestPools,
        catalogue: CatalogSettings,
        rest_urls: Mapping[Market, str | None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._lists = Catalog(catalogue, pools)
        self.rest_urls = rest_urls
        self._clock_s = clock_s
        self._asked_s: dict[Market, float] = {}
        self._finer = FinerNumbers(table, clock_s)
        self._followers: list[Callable[[Mapping[int, int]], None]] = []

    def subscribe(self, follow: Callable[[Mapping[int, int]], None]) -> None:
        """Have `follow(numbers)` called when instruments have new revisions. numbers: old -> new.

        Whatever keeps state by instrument number subscribes here. Each follower has a boundary.
        """
        self._followers.append(bulkheads.guard("instrument", follow))

    def announce(self, numbers: Mapping[int, int]) -> None:
        """Let all followers take the new numbers, in the order of their subscription."""
        for follow in self._followers:
            follow(numbers)

    def suspects(self, rejected: Sequence[Rejected]) -> list[tuple[type[FeedAdapter], str]]:
        """Return whom to ask for the sake of these frames, each market at most once an interval."""
        found: list[tuple[type[FeedAdapter], str]] = []
        for frame in rejected:
            source = frame.source
            if frame.reason != BadNumber.reason or not isinstance(source, Session):
                continue
            self._finer.see(frame)
            market = (source.adapter.venue, source.market)
            now_s = self._clock_s()
            if now_s - self._asked_s.get(market, -INTERVAL_S) >= INTERVAL_S:
                self._asked_s[market] = now_s
                found.append((type(source.adapter), source.market))
        return found

    async def refresh(self, adapter: type[FeedAdapter], market: str) -> list[Instrument]:
        """Ask a venue for a market's instruments; return them, none when it can't be reached."""
        rest_url = self.rest_urls.get((adapter.venue, market))
        listed = await self._lists.refresh(adapter, market, rest_url)
        return [] if listed is None else listed.instruments

    def revise(self, fresh: Iterable[Instrument]) -> dict[int, int]:
        """Take what changed into the table; return its numbers, old -> new."""
        return dict(pair for instrument in fresh if (pair := self._revised(instrument)) is not None)

    def add(self, new: Instrument) -> int:
        """Take an instrument that nothing is subscribed to yet into the table; return its number.

        One that was there before keeps what is known of its numbers.
        """
        return self._table.add(self._finer.widen(new))

    def _revised(self, fresh: Instrument) -> tuple[int, int] | None:
        symbols = self._table.symbols(fresh.venue, fresh.market)
        if fresh.symbol not in symbols:
            return None  # of the market, but not subscribed to
        old = symbols[fresh.symbol]
        new = self._table.add(self._finer.widen(fresh))
        if new == old:
            return None
        log.warning(
            "instrument.revised",
            key=fresh.key,
            **_changes(self._table[old], self._table[new]),
        )
        return old, new


def _changes(old: Instrument, new: Instrument) -> dict[str, str]:
    """Return the fields that differ, for the log."""
    before, after = old.to_json(), new.to_json()
    return {
        name: f"{before[name]} -> {after[name]}" for name in after if before[name] != after[name]
    }
