"""The instrument catalogue: what symbols a venue's market has, fetched over REST, kept on disk.

What is kept are the venue's own answers, one file a market, so that a newer adapter reads them
anew. While they are fresh the venue is not asked. Older ones serve, and a warning says so, when the
new ones are worse: no answer, an error, no list, or one of less than half the symbols.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkstemp
from time import time_ns
from typing import Any, Final

import orjson
import structlog

from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import (
    InstrumentList,
    carry,
    entries_of,
    read_entries,
    read_list,
)
from ingestor.model.errors import MALFORMED, DecodeError, TransportError
from ingestor.model.instruments import Instrument, check_instrument
from ingestor.model.timestamps import SECOND
from ingestor.sources.rest.client import RestSettings, value_at
from ingestor.sources.rest.pool import RestPools
from ingestor.sources.rest.statistics import lists

_FORMAT: Final = 1
_SMALLER: Final = 0.5  # a list with less than this share of the kept one's symbols is worse,
_SMALL: Final = 20  # unless the kept one is as small as this
_TRUSTED_S: Final = 86_400.0  # a kept list of this age is no argument against a smaller one

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """ttl_s: age at which answers on disk are asked for again. deadline_s: for all requests of one
    list together, repetitions included. rest: of one request; None = as the pools have it.
    """

    cache_dir: Path
    ttl_s: float
    deadline_s: float = 30.0
    rest: RestSettings | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """Answers of a venue and when they came, ns since the epoch.

    carried: metadata of still older answers, of symbols whose entry in these can't be read.
    """

    fetched_ns: int
    bodies: list[bytes]
    carried: tuple[Instrument, ...] = ()


@dataclass(frozen=True, slots=True)
class _Old:
    """A kept list that could be read, and its age in seconds."""

    listed: InstrumentList
    age_s: float


class Catalog:
    """Instrument lists of every market that is asked for."""

    def __init__(
        self,
        settings: CatalogSettings,
        pools: RestPools,
        *,
        now_ns: Callable[[], int] = time_ns,
    ) -> None:
        self._settings = settings
        self._pools = pools
        self._now_ns = now_ns

    async def load(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList:
        """Return a market's list, from disk while that is fresh.

        Args:
            adapter: the venue.
            market: one of its markets.
            rest_url: scheme and host to ask instead of the venue's own.

        Raises:
            TransportError, DecodeError: the venue gives none and none is kept.
        """
        rest_url = rest_url or adapter.markets[market].rest_url
        old = await self._old(adapter, market, rest_url)
        if old is not None and 0 <= old.age_s < self._settings.ttl_s:
            return old.listed
        try:
            return await self._fetch(adapter, market, rest_url, old)
        except (TransportError, DecodeError) as failure:
            lists.reads[adapter.venue, market, "failed" if old is None else "kept"] += 1
            if old is None:
                raise
            _log.warning(
                "catalogue.stale",
                venue=adapter.venue,
                market=market,
                age_s=round(old.age_s),
                reason=str(failure),
            )
            return old.listed

    async def refresh(
        self, adapter: type[FeedAdapter], market: str, rest_url: str | None = None
    ) -> InstrumentList | None:
        """Ask the venue for its instrument list again.

        Args:
            adapter: The venue's adapter.
            market: Name of the market.
            rest_url: Address to ask in place of the venue's own.

        Returns:
            None where the venue gives no list, or a worse one than is kept.
        """
        rest_url = rest_url or adapter.markets[market].rest_url
        old = await self._old(adapter, market, rest_url)
        try:
            return await self._fetch(adapter, market, rest_url, old)
        except (TransportError, DecodeError) as failure:
            lists.reads[adapter.venue, market, "failed" if old is None else "kept"] += 1
            _log.warning(
                "catalogue.refresh_failed", venue=adapter.venue, market=market, reason=str(failure)
            )
            return None

    async def _fetch(
        self, adapter: type[FeedAdapter], market: str, rest_url: str, old: _Old | None
    ) -> InstrumentList:
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                bodies, entries = await self._ask(adapter, market, rest_url)
        except TimeoutError:
            reason = f"no list within {self._settings.deadline_s:g} s"
            raise TransportError(rest_url, reason) from None
        # In a thread, between whose steps sockets are read: thousands of entries take a while.
        found = await asyncio.to_thread(read_entries, adapter, market, entries)
        fault = _fault(found, old)
        if fault:
            raise DecodeError(adapter.venue, f"instrument list of {market} {fault}")
        found = carry(old.listed if old else None, found)
        lists.reads[adapter.venue, market, "fetched"] += 1
        lists.report(found)
        carried = tuple(found.trading[symbol] for symbol in sorted(found.carried))
        await self._keep(adapter, market, rest_url, _Kept(self._now_ns(), bodies, carried))
        return found

    async def _ask(
        self, adapter: type[FeedAdapter], market: str, rest_url: str
    ) -> tuple[list[bytes], list[Any]]:
        """Return the answers of all pages and their entries."""
        bodies: list[bytes] = []
        entries: list[Any] = []
        try:
            requests = list(adapter.instrument_requests(market))
        except Exception as failure:  # an adapter of a third party
            detail = f"instrument list of {market}: {type(failure).__name__}"
            raise DecodeError(adapter.venue, detail) from failure
        client = await self._pools.client(adapter, market, rest_url)
        for request in requests:
            before = len(entries)
            pages = await client.pages(
                rest_url,
                request,
                lambda body: entries.extend(entries_of(adapter, market, body)),
                self._settings.rest,
            )
            promised = value_at(pages[-1], request.total) if request.total else None
            found = len(entries) - before
            if isinstance(promised, int) and found < promised:
                _log.warning(
                    "catalogue.incomplete",
                    venue=adapter.venue,
                    market=market,
                    found=found,
                    promised=promised,
                )
            bodies += pages
        return bodies, entries

    def _path(self, adapter: type[FeedAdapter], market: str) -> Path:
        folder = self._settings.cache_dir.expanduser() / "instruments"
        return folder / f"{adapter.venue}-{market}.json"

    async def _old(self, adapter: type[FeedAdapter], market: str, rest_url: str) -> _Old | None:
        """Return what is on disk, None for nothing that can be used."""
        kept = await self._kept(adapter, market, rest_url)
        if kept is None:
            return None
        with suppress(TransportError, DecodeError):
            found = await asyncio.to_thread(read_list, adapter, market, kept.bodies)
            older = InstrumentList(
                adapter.venue, market, {symbol.symbol: symbol for symbol in kept.carried}
            )
            listed = replace(carry(older, found), fresh=False)
            lists.report(listed)
            if listed.readable:
                return _Old(listed, (self._now_ns() - kept.fetched_ns) / SECOND)
        return None

    async def _kept(self, adapter: type[FeedAdapter], market: str, rest_url: str) -> _Kept | None:
        path = self._path(adapter, market)
        try:
            return await asyncio.to_thread(_read, path, rest_url)
        except FileNotFoundError:
            return None
        except (OSError, *MALFORMED) as failure:
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


def _fault(found: InstrumentList, old: _Old | None) -> str:
    """Return why a list must not replace the kept one, or be used at all; "" for a good one."""
    if not found.readable:
        reasons = [f"{entry.symbol} {entry.reason}".strip() for entry in found.unreadable[:1]]
        return ": ".join(["has no entry that can be read", *reasons])
    if old is not None and 0 <= old.age_s < _TRUSTED_S:
        before = old.listed.readable
        if before >= _SMALL and found.readable < before * _SMALLER:
            return f"has {found.readable} symbols, and had {before} before"
    return ""


def _read(path: Path, rest_url: str) -> _Kept | None:
    """Raises OSError or one of MALFORMED. None: kept in another format, or of another server."""
    content: Any = orjson.loads(path.read_bytes())
    if content["format"] != _FORMAT or content["rest_url"] != rest_url:
        return None
    return _Kept(
        int(content["fetched_ns"]),
        [body.encode() for body in content["bodies"]],
        tuple(
            check_instrument(Instrument.from_json(symbol)) for symbol in content.get("carried", ())
        ),
    )


def _write(path: Path, rest_url: str, kept: _Kept) -> None:
    """Write beside, then rename: a reader finds the old file or the new one, whole."""
    content = {
        "format": _FORMAT,
        "rest_url": rest_url,
        "fetched_ns": kept.fetched_ns,
        "bodies": [body.decode() for body in kept.bodies],
        "carried": [symbol.to_json() for symbol in kept.carried],
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
