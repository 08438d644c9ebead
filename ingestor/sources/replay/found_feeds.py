"""Tell whose frames a chain of recorded files holds: its venue, its markets, its instruments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ingestor.adapter import FeedAdapter
from ingestor.decode.frame_queue import FrameQueues
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable
from ingestor.recording.reader import KeptLines, Problems, SegmentChain
from ingestor.sources.replay.inferred import add_surveyed
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.recorded_feed import RecordedFeed
from ingestor.sources.replay.survey import survey

_KEPT_BYTES_MAX: Final = 32 << 20  # of small recordings of others, which are read but once

AdapterOf = Callable[[str], type[FeedAdapter]]


class FoundFeeds:
    """Makes feeds of chains. origins: symbols by where their instruments came from: recorded,
    given, inferred.
    """

    def __init__(
        self,
        options: ReplayOptions,
        problems: Problems,
        adapters: AdapterOf,
        table: InstrumentTable,
        frame_queues: FrameQueues,
    ) -> None:
        """table: gets the instruments of foreign chains. frame_queues: get the frames."""
        self.origins: dict[str, list[str]] = {}
        self._options = options
        self._problems = problems
        self._adapters = adapters
        self._table = table
        self._frame_queues = frame_queues
        self._kept_bytes = _KEPT_BYTES_MAX

    def feed(self, chain: SegmentChain) -> RecordedFeed | None:
        """Return what a chain holds; None where it can't be told, which is a problem."""
        try:
            return self._feed(chain)
        except ConfigError as failure:
            hint = f"; {failure.hint}" if failure.hint else ""
            self._problems.add(chain.files[0], 0, f"{failure.what}{hint}")
            return None

    def _feed(self, chain: SegmentChain) -> RecordedFeed | None:
        """Return whose frames a chain holds, or None when they are not wanted or unknown."""
        options = self._options
        venue = chain.venue
        if chain.is_foreign:
            venue = options.venue or venue.lower().partition("_")[0]
            if options.venue and chain.venue and venue not in chain.venue.lower():
                what = f"the header says {chain.venue}, read as {options.venue} all the same"
                self._problems.add(chain.files[0], 0, what)
        elif options.venue and venue != options.venue:
            self._problems.add(chain.files[0], 0, f"records {venue}, not {options.venue}")
            return None
        if options.venues and venue not in options.venues:
            wanted = " and ".join(sorted(options.venues))
            self._problems.add(
                chain.files[0], 0, f"records {venue or 'no known venue'}, not {wanted}"
            )
            return None
        if not venue:
            raise ConfigError(
                "the recording does not say its venue",
                where=str(chain.files[0]),
                hint="say it with --venue and --market",
            )
        adapter = self._adapters(venue)
        market = self._market(chain, adapter)
        feed = RecordedFeed(chain, adapter, market, self._table, self._frame_queues)
        if chain.is_foreign:
            kept = KeptLines(self._kept_bytes)
            found = feed.survey = survey(chain, adapter, market, kept)
            if kept.are_all:
                chain.kept, self._kept_bytes = kept, kept.bytes_max
            for origin, symbols in add_surveyed(found, venue, self._table).items():
                self.origins.setdefault(origin, []).extend(symbols)
            if market and not found.found and "" in found.markets.values():
                raise ConfigError(
                    f"its addresses are of other markets than {market}",
                    where=str(chain.files[0]),
                    hint="leave --market out to read them all",
                )
        return feed

    def _market(self, chain: SegmentChain, adapter: type[FeedAdapter]) -> str:
        """Return the market of connections that don't say theirs; "" where all of them must."""
        market = self._options.market
        if chain.venue and market not in adapter.markets and len(adapter.markets) == 1:
            market = ""  # said of other venues' recordings
        if not market and chain.is_foreign and len(adapter.markets) == 1:
            market = next(iter(adapter.markets))
        if market and market not in adapter.markets:
            raise ConfigError(
                f"{adapter.venue} has no market {market!r}",
                where=str(chain.files[0]),
                hint=f"its markets are {', '.join(adapter.markets)}",
            )
        return market
