"""Tell whose traffic a recording of others holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

from ingestor.adapter import FeedAdapter
from ingestor.adapter.addresses import markets_at
from ingestor.model.errors import ConfigError
from ingestor.recording.format import Connect, Http
from ingestor.recording.reader import Problems, SegmentChain, read_lines
from ingestor.sources.registry import venues_at

_LINES_MAX: Final = 200  # in which an address is looked for
_LOCAL: Final = frozenset({None, "localhost", "127.0.0.1", "::1"})


def venue_of(chain: SegmentChain, adapters: Callable[[str], type[FeedAdapter]]) -> str:
    """Return the venue of a foreign recording, as its addresses say, else as its header does.

    A header may name a family of venues, or a venue by another name than ours.

    Args:
        chain: The recording.
        adapters: Returns the adapter of a name; raises ConfigError for an unknown one.
    """
    named = chain.venue.lower().partition("_")[0]
    addresses = list(dict.fromkeys(_addresses(chain)))
    with suppress(ConfigError):
        adapter = adapters(named)
        if not addresses or any(markets_at(adapter, address) for address in addresses):
            return named
    for address in addresses:
        found = venues_at(address)
        if len(found) == 1:
            return found[0]
    return named


def market_of(chain: SegmentChain, adapter: type[FeedAdapter], wanted: str) -> str:
    """Return the market of connections that don't say theirs; "" where all of them must.

    Args:
        chain: The recording.
        adapter: Of its venue.
        wanted: The market that was asked for; "" = none.

    Raises:
        ConfigError: The venue has no such market.
    """
    is_single = len(adapter.markets) == 1
    if chain.venue and wanted not in adapter.markets and is_single:
        wanted = ""  # said of other venues' recordings
    if not wanted and chain.is_foreign and is_single:
        wanted = next(iter(adapter.markets))
    if wanted and wanted not in adapter.markets:
        raise ConfigError(
            f"{adapter.venue} has no market {wanted!r}",
            where=str(chain.files[0]),
            hint=f"its markets are {', '.join(adapter.markets)}",
        )
    return wanted


def _addresses(chain: SegmentChain) -> Iterator[str]:
    """Yield the addresses at the beginning of a recording. One of this machine is a proxy's."""
    for path in chain.files:
        lines = (line for some in read_lines(path, Problems()) for line in some)
        for line in islice(lines, _LINES_MAX):
            if isinstance(line, (Connect, Http)) and urlsplit(line.url).hostname not in _LOCAL:
                yield line.url
