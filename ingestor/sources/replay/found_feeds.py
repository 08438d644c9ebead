"""Tell whose frames a chain of recorded files holds: its venue, its markets, its instruments."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ingestor.adapter import FeedAdapter, TellsMarkets
from ingestor.decode.frame_queue import FrameQueues
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable
from ingestor.recording.reader import KeptLines, Problems, SegmentChain
from ingestor.sources.replay.inferred import add_surveyed
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.origin import market_of, venue_of
from ingestor.sources.replay.recorded_feed import RecordedFeed
from ingestor.sources.replay.survey import UntoldMarket, survey

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

    def feeds_of(self, chain: SegmentChain) -> list[RecordedFeed]:
        """Return whose frames a chain holds; none when they are not wanted or unknown."""
        try:
            feed = self._feed(chain, self._options.market)
        except UntoldMarket as failure:
            return self._shared(chain, failure)
        except ConfigError as failure:
            self._add_problem(chain, failure)
            return []
        return [feed] if feed is not None else []

    def _shared(self, chain: SegmentChain, failure: UntoldMarket) -> list[RecordedFeed]:
        """Return a feed for each market of a chain whose markets share an address: each reads the
        whole chain, and leaves out what is of others.
        """
        adapter = self._adapters(self._options.venue or venue_of(chain, self._adapters))
        found = []
        if issubclass(adapter, TellsMarkets):
            for market in adapter.markets:
                with suppress(ConfigError):
                    feed = self._feed(replace(chain), market, is_shared=True)
                    if feed is not None and feed.survey is not None and feed.survey.found:
                        found.append(feed)
        if not found:
            self._add_problem(chain, failure)
        return found

    def _add_problem(self, chain: SegmentChain, failure: ConfigError) -> None:
        hint = f"; {failure.hint}" if failure.hint else ""
        self._problems.add(chain.files[0], 0, f"{failure.what}{hint}")

    def _feed(
        self, chain: SegmentChain, wanted: str, *, is_shared: bool = False
    ) -> RecordedFeed | None:
        """wanted: the market of connections that don't say theirs; "" where all of them must.
        is_shared: they carry other markets besides.
        """
        options = self._options
        venue = chain.venue
        if chain.is_foreign:
            venue = options.venue or venue_of(chain, self._adapters)
            if options.venue and chain.venue and venue not in chain.venue.lower():
                what = f"the header says {chain.venue}, read as {options.venue} all the same"
                self._problems.add(chain.files[0], 0, what)
        elif options.venue and venue != options.venue:
            self._problems.add(chain.files[0], 0, f"records {venue}, not {options.venue}")
            return None
        if options.venues and venue not in options.venues:
            venues = " and ".join(sorted(options.venues))
            self._problems.add(
                chain.files[0], 0, f"records {venue or 'no known venue'}, not {venues}"
            )
            return None
        if not venue:
            raise ConfigError(
                "the recording does not say its venue",
                where=str(chain.files[0]),
                hint="say it with --venue and --market",
            )
        adapter = self._adapters(venue)
        market = market_of(chain, adapter, wanted)
        feed = RecordedFeed(chain, adapter, market, self._table, self._frame_queues)
        if chain.is_foreign:
            kept = KeptLines(self._kept_bytes)
            found = survey(chain, adapter, market, kept, is_shared=is_shared)
            feed.survey = found
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
