"""The instrument catalogue: what symbols a venue's market has, fetched over REST, kept on disk.

What is kept are the venue's own answers, one file a market, so that a newer adapter reads them
anew. While they are fresh the venue is not asked; when it can't be reached, older ones serve and a
warning says so. `resolve` turns what a configuration names into instruments.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import mkstemp
from time import time_ns
from typing import Any, Final

import orjson
import structlog

from ingestor.adapter import FeedAdapter
from ingestor.model.errors import ConfigError, DecodeError, TransportError
from ingestor.model.instruments import Instrument
from ingestor.model.timestamps import SECOND
from ingestor.sources.rest.client import RestClient

_FORMAT: Final = 1
_WILDCARDS: Final = frozenset("*?[")
_NAMED_MAX: Final = 5  # unknown symbols that one message names
_MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """ttl_s: age at which answers on disk are asked for again."""

    cache_dir: Path
    ttl_s: float


@dataclass(frozen=True, slots=True)
class _Kept:
    """Answers of a venue and when they came, ns since the epoch."""

    fetched_ns: int
    bodies: list[bytes]


class Catalog:
    """Instruments of every market that is asked for. `client` must be open."""

    def __init__(
        self,
        settings: CatalogSettings,
        client: RestClient,
        *,
        now_ns: Callable[[], int] = time_ns,
    ) -> None:
        self._settings = settings
        self._client = client
        self._now_ns = now_ns

    async def load(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> list[Instrument]:
        """Return a market's instruments, from disk while they are fresh.

        rest_url: scheme and host to ask instead of the venue's own.
        Raises TransportError or DecodeError where the venue gives none and none are kept.
        """
        rest_url = rest_url or adapter.markets[market].rest_url
        kept = await self._kept(adapter, market, rest_url)
        old = _parsed_or_none(adapter, market, kept.bodies) if kept else None
        age_s = (self._now_ns() - kept.fetched_ns) / SECOND if kept else 0.0
        if old is not None and 0 <= age_s < self._settings.ttl_s:
            return old
        try:
            return await self._fetch(adapter, market, rest_url)
        except (TransportError, DecodeError) as failure:
            if old is None:
                raise
            _log.warning(
                "catalogue.stale",
                venue=adapter.venue,
                market=market,
                age_s=round(age_s),
                reason=str(failure),
            )
            return old

    async def refresh(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> list[Instrument] | None:
        """Ask the venue anew: its frames had a number finer than its instrument allows.

        Returns None when it can't be reached.
        """
        try:
            return await self._fetch(adapter, market, rest_url or adapter.markets[market].rest_url)
        except (TransportError, DecodeError) as failure:
            _log.warning(
                "catalogue.refresh_failed", venue=adapter.venue, market=market, reason=str(failure)
            )
            return None

    async def _fetch(
        self, adapter: type[FeedAdapter], market: str, rest_url: str
    ) -> list[Instrument]:
        bodies = [
            body
            for request in adapter.instrument_requests(market)
            for body in await self._client.pages(rest_url, request)
        ]
        instruments = _parsed(adapter, market, bodies)
        await self._keep(adapter, market, rest_url, _Kept(self._now_ns(), bodies))
        return instruments

    def _path(self, adapter: type[FeedAdapter], market: str) -> Path:
        folder = self._settings.cache_dir.expanduser() / "instruments"
        return folder / f"{adapter.venue}-{market}.json"

    async def _kept(self, adapter: type[FeedAdapter], market: str, rest_url: str) -> _Kept | None:
        path = self._path(adapter, market)
        try:
            return await asyncio.to_thread(_read, path, rest_url)
        except FileNotFoundError:
            return None
        except (OSError, *_MALFORMED) as failure:
            _log.warning("catalogue.unreadable", path=str(path), reason=str(failure))
            return None

    async def _keep(
        self, adapter: type[FeedAdapter], market: str, rest_url: str, kept: _Kept
    ) -> None:
        """A disk that can't be written costs the next start a request, nothing more."""
        path = self._path(adapter, market)
        try:
            await asyncio.to_thread(_write, path, rest_url, kept)
        except (OSError, ValueError) as failure:
            _log.warning("catalogue.not_kept", path=str(path), reason=str(failure))


def resolve(
    instruments: Sequence[Instrument], wanted: Iterable[str], where: str = ""
) -> list[Instrument]:
    """Return the instruments that `wanted` names, each once, in the order named.

    instruments: of one market. wanted: canonical symbols, the venue's own, or patterns over
    canonical symbols (`*-USDT`); case doesn't matter. where: the file and key for the message.
    Raises ConfigError for what names nothing, with the nearest symbols.
    """
    named: dict[str, list[Instrument]] = {}
    for one in instruments:
        for name in {one.canonical.upper(), one.symbol.upper()}:
            named.setdefault(name, []).append(one)
    found: dict[str, Instrument] = {}
    unknown: list[str] = []
    for text in wanted:
        name = text.upper()
        matches = named.get(name)
        if matches is None and _WILDCARDS & set(name):
            matches = [one for one in instruments if fnmatchcase(one.canonical.upper(), name)]
        if not matches:
            unknown.append(text)
        found.update((one.symbol, one) for one in matches or ())
    if unknown:
        raise _unknown(unknown, instruments, named, where)
    return list(found.values())


def _unknown(
    unknown: Sequence[str],
    instruments: Sequence[Instrument],
    named: Iterable[str],
    where: str,
) -> ConfigError:
    market = f"{instruments[0].venue} {instruments[0].market}" if instruments else "the market"
    names = ", ".join(repr(text) for text in unknown[:_NAMED_MAX])
    more = f" and {len(unknown) - _NAMED_MAX} more" if len(unknown) > _NAMED_MAX else ""
    choices = list(named)
    near = dict.fromkeys(
        close
        for text in unknown[:_NAMED_MAX]
        for close in get_close_matches(text.upper(), choices, n=1, cutoff=0.6)
    )
    if near:
        hint = f"did you mean {', '.join(near)}?"
    else:
        hint = f"it has {len(instruments)} symbols, {', '.join(choices[:_NAMED_MAX])} among them"
    return ConfigError(f"{market} has no symbol {names}{more}", where=where, hint=hint)


def _parsed(adapter: type[FeedAdapter], market: str, bodies: list[bytes]) -> list[Instrument]:
    """Raises DecodeError: an answer without any instrument is no instrument list either."""
    try:
        instruments = adapter.parse_instruments(market, bodies)
    except _MALFORMED as failure:
        detail = f"instrument list of {market}: {type(failure).__name__}: {failure}"
        raise DecodeError(adapter.venue, detail) from failure
    if not instruments:
        raise DecodeError(adapter.venue, f"instrument list of {market} is empty")
    return instruments


def _parsed_or_none(
    adapter: type[FeedAdapter], market: str, bodies: list[bytes]
) -> list[Instrument] | None:
    with suppress(DecodeError):
        return _parsed(adapter, market, bodies)
    return None


def _read(path: Path, rest_url: str) -> _Kept | None:
    """Raises OSError or one of _MALFORMED. None: kept in another format, or of another server."""
    content: Any = orjson.loads(path.read_bytes())
    if content["format"] != _FORMAT or content["rest_url"] != rest_url:
        return None
    return _Kept(int(content["fetched_ns"]), [body.encode() for body in content["bodies"]])


def _write(path: Path, rest_url: str, kept: _Kept) -> None:
    """Write beside, then rename: a reader finds the old file or the new one, whole."""
    content = {
        "format": _FORMAT,
        "rest_url": rest_url,
        "fetched_ns": kept.fetched_ns,
        "bodies": [body.decode() for body in kept.bodies],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(content))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
