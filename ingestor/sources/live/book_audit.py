"""The slow audit: one book after the other is compared with an image that the venue gives by REST.

For venues whose adapters are `Audited`. One comparison at a time, at most one each interval, so a
process asks a venue for a few images a minute whatever the number of its books.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import structlog

from ingestor.adapter import Audited, BookRule, FeedAdapter
from ingestor.books import rest_check
from ingestor.books.book import BookState
from ingestor.books.manager import BookManager
from ingestor.books.rest_check import AUDIT_DEPTH, Finding, RestCheck
from ingestor.model.backoff import Backoff
from ingestor.model.errors import MALFORMED, DecodeError, TransportError
from ingestor.model.instruments import Instrument, InstrumentTable
from ingestor.sources.live.connection import Connection
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.rest.client import RestSettings
from ingestor.sources.rest.pool import RestPools

if TYPE_CHECKING:
    from ingestor.sources.live.supervisor import Supervisor


_REST: Final = RestSettings(timeout_s=10.0, body_bytes_max=1 << 20, attempts_max=1)
_BACKOFF: Final = Backoff(base_s=5.0, cap_s=300.0)  # after failures in a row: refused, blocked

log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Hold the result of comparing a book with an image.

    outcome: a Finding's value, or "failed". shown: what the image has. held: what the book had
    after the update that the image names, None where it names none of those that were seen.
    """

    outcome: str
    shown: BookState | None = None
    held: BookState | None = None


def has_proof(rule: BookRule) -> bool:
    """Say whether something on a venue's sockets proves its books."""
    return rule.checksum is not None or rule.verify_with_quotes


def depth_of(planned: PlannedConnection) -> int:
    """Return how many levels a side of a connection's books can be compared."""
    depths = [planned.book.depth_max, planned.offer.depth if planned.offer else None, AUDIT_DEPTH]
    return min(depth for depth in depths if depth is not None)


@cache
def is_audited(adapter: type[FeedAdapter]) -> bool:
    return issubclass(adapter, Audited)


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """interval_s: between two comparisons, at least. lead_s: how long before the request a book's
    states are kept: an image may come from a cache. settle_s: how long after the answer the update
    that it shows may come. poll_s: how often it is looked for.
    """

    interval_s: float
    lead_s: float = 1.0
    settle_s: float = 2.0
    poll_s: float = 0.1


class BookAuditor:
    """Runs the audits. on_mismatch(instrument): a book is proved wrong; the caller breaks it."""

    def __init__(
        self,
        connections: Supervisor,
        books: BookManager,
        table: InstrumentTable,
        settings: AuditSettings,
        on_mismatch: Callable[[int], None],
        pools: RestPools,
    ) -> None:
        self._connections = connections
        self._books = books
        self._table = table
        self._settings = settings
        self._on_mismatch = on_mismatch
        self._pools = pools
        self._failures = 0  # in a row
        self._turn = self._candidates()

    async def run(self) -> None:
        """Audit until cancelled."""
        while True:
            started_s = time.monotonic()
            chosen = None if self._connections.is_paused else self._next()
            if chosen is not None:
                await self._audit(*chosen)
            spent_s = time.monotonic() - started_s
            await asyncio.sleep(max(self._settings.interval_s - spent_s, self._hold_s()))

    def _hold_s(self) -> float:
        if not self._failures:
            return 0.0
        return _BACKOFF.delay_s(self._failures - 1, random.random)

    def _next(self) -> tuple[Connection, str, int] | None:
        """Return the next valid book in turn: its connection, symbol and instrument."""
        found = next(self._turn, None)
        if found is None:
            self._turn = self._candidates()
            found = next(self._turn, None)
        return found

    def _candidates(self) -> Iterator[tuple[Connection, str, int]]:
        for slot in self._connections.slots:
            if not is_audited(slot.planned.adapter) or has_proof(slot.planned.book):
                continue
            needed = dict.fromkeys(
                (subscription.symbol, subscription.instrument)
                for subscription in slot.planned.subscriptions
                if subscription.channel in slot.planned.book.channels
            )
            for symbol, instrument in needed:
                connection = slot.connection
                if connection is None:
                    break
                if self._books.is_valid(instrument):
                    yield connection, symbol, instrument

    async def _audit(self, connection: Connection, symbol: str, instrument: int) -> None:
        comparison = await self.compare(connection, symbol, instrument)
        if comparison.outcome == Finding.MISMATCHED.value:
            self._on_mismatch(instrument)

    async def compare(self, connection: Connection, symbol: str, instrument: int) -> Comparison:
        """Compare one valid book with an image.

        Args:
            connection: carries the book.
            symbol: the venue's.
            instrument: its number.
        """
        adapter = connection.session.adapter
        assert isinstance(adapter, Audited)
        check = self._books.start_rest_check(instrument)
        done = Comparison("failed")
        try:
            await asyncio.sleep(self._settings.lead_s)
            shown = await self._image(connection, adapter, symbol, self._table[instrument])
            if shown is not None:
                outcome = (await self._settled(check, shown)).value
                done = Comparison(outcome, shown, check.named(shown))
        finally:
            check.finish(done.outcome)
        return done

    async def _image(
        self, connection: Connection, adapter: Audited, symbol: str, one: Instrument
    ) -> BookState | None:
        """Return what the venue shows of a book, None when it can't be had or read."""
        planned = connection.slot.planned
        depth = depth_of(planned)
        request = adapter.audit_request(symbol, depth)
        try:
            client = await self._pools.client(planned.adapter, planned.market, planned.rest_url)
            body = await client.get(planned.rest_url, request, _REST)
            image = adapter.decode_audit(symbol, body)
            shown = rest_check.read(image, one.price_exponent, one.size_exponent, depth)
        except (TransportError, DecodeError, *MALFORMED) as failure:
            self._failures += 1
            reason = str(failure) or repr(failure)
            log.warning("book.audit.failed", cause=type(failure).__name__, reason=reason)
            return None
        self._failures = 0
        return shown

    async def _settled(self, check: RestCheck, shown: BookState) -> Finding:
        """Compare until something is proved, the book breaks, or time is up."""
        deadline_s = time.monotonic() + self._settings.settle_s
        finding = Finding.UNVERIFIABLE
        while not check.is_over and finding is Finding.UNVERIFIABLE:
            finding = check.compare(shown)
            if time.monotonic() >= deadline_s:
                break
            if finding is Finding.UNVERIFIABLE:
                await asyncio.sleep(self._settings.poll_s)
        return finding
