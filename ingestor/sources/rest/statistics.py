"""Count what happened to instrument lists, for the whole process."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import structlog

from ingestor.adapter.instrument_list import InstrumentList

REPORTED_MAX: Final = 20_000  # entries that are remembered, so that each is reported once
LINES_MAX: Final = 20  # log lines for one list

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ListStatistics:
    """Counters by venue and market.

    unreadable: entries that were left out, each symbol once. reads: lists by outcome: "fetched",
    "kept" (an older one serves, since the new one is none or worse) and "failed" (none serves).
    waiting: configured symbols that don't run, by venue, market and reason.
    """

    unreadable: Counter[tuple[str, str]] = field(default_factory=Counter)
    reads: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    waiting: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _reported: set[tuple[str, str, str]] = field(default_factory=set)

    def report(self, found: InstrumentList) -> None:
        """Count and log the entries that were left out, each symbol the first time."""
        lines = 0
        for entry in found.unreadable:
            key = (found.venue, found.market, entry.symbol or entry.reason)
            if key in self._reported or len(self._reported) >= REPORTED_MAX:
                continue
            self._reported.add(key)
            self.unreadable[found.venue, found.market] += 1
            lines += 1
            if lines <= LINES_MAX:
                log.warning(
                    "catalogue.entry_unreadable",
                    venue=found.venue,
                    market=found.market,
                    symbol=entry.symbol,
                    reason=entry.reason,
                    older_metadata_serve=entry.symbol in found.carried,
                )
        if lines > LINES_MAX:
            log.warning(
                "catalogue.entries_unreadable",
                venue=found.venue,
                market=found.market,
                count=lines,
                shown=LINES_MAX,
            )


# One object for all: lists are read before the parts of a process exist, and by several of them.
lists: Final = ListStatistics()
