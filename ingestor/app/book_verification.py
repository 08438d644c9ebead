"""Compares the books of a configuration with REST images, once, without Kafka.

The connections of the configuration's feeds are opened as a run opens them, for books alone. Each
book that became valid is compared with one image of its venue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from ingestor.app.ingestor import Ingestor
from ingestor.app.planning import Planned
from ingestor.books.book import BookState
from ingestor.books.rest_check import Finding
from ingestor.config.model import BooksConfig, Config, HttpConfig
from ingestor.model.decimals import format_decimal
from ingestor.model.instruments import Instrument
from ingestor.sources.live.book_audit import (
    AuditSettings,
    BookAuditor,
    Comparison,
    depth_of,
    is_audited,
)

_POLL_S: Final = 0.05
_ATTEMPTS: Final = 5  # an image may show a moment between two updates
_AT_ONCE: Final = 8
_NO_BOOK: Final = "no book"
_NO_IMAGE: Final = "no image"


@dataclass(frozen=True, slots=True)
class BookVerdict:
    """Hold the result of comparing one book.

    outcome: "verified", "contradicted", "unverifiable" (no image showed a state that the book had,
    and none named one), "failed" (no image could be had), "no image" (the venue shows none), "no
    book" (none was valid in time).
    number: of the update that the image names, 0 = none. levels: levels a side that were compared.
    detail: of a contradiction, the first level that differs.
    """

    key: str
    canonical: str
    outcome: str
    number: int = 0
    levels: int = 0
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def for_books(config: Config) -> Config:
    """Return a configuration that subscribes to books alone, and writes and serves nothing."""
    feeds = tuple(feed.model_copy(update={"channels": ("book",)}) for feed in config.feeds)
    return config.model_copy(
        update={
            "feeds": feeds,
            "recorder": None,
            "http": HttpConfig(enabled=False),
            "books": config.books.model_copy(update={"audit_interval_s": 0.0}),
        }
    )


async def verify_books(config: Config, planned: Planned, timeout_s: float) -> list[BookVerdict]:
    """Compare every book of a plan with an image.

    Args:
        config: as `for_books` returns it.
        planned: its plan.
        timeout_s: how long books may take to become valid.
    """
    ingestor = Ingestor(config, planned, publish=False)
    running = asyncio.create_task(ingestor.run())
    verifying = asyncio.create_task(_Verification(ingestor, timeout_s).run())
    try:
        await asyncio.wait({running, verifying}, return_when=asyncio.FIRST_COMPLETED)
        if not verifying.done():
            await running  # raises what ended it
        return await verifying
    finally:
        verifying.cancel()
        ingestor.stop()
        await asyncio.gather(running, verifying, return_exceptions=True)


class _Verification:
    """One comparison of each book of an ingestor."""

    def __init__(self, ingestor: Ingestor, timeout_s: float) -> None:
        self._ingestor = ingestor
        self._deadline_s = time.monotonic() + timeout_s
        pipeline = ingestor.pipeline
        self._auditor = BookAuditor(
            ingestor.supervisor,
            pipeline.books,
            pipeline.table,
            AuditSettings(BooksConfig().audit_interval_s),
            lambda _instrument: None,
            ingestor.rest,
        )
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> list[BookVerdict]:
        books = [
            subscription.instrument
            for planned in self._ingestor.planned.plan
            for subscription in planned.subscriptions
            if subscription.channel == "book"
        ]
        return list(await asyncio.gather(*map(self._verify, books)))

    async def _verify(self, instrument: int) -> BookVerdict:
        one = self._ingestor.pipeline.table[instrument]
        done, levels = Comparison(_NO_BOOK), 0
        for _ in range(_ATTEMPTS):
            if not await self._valid(instrument):
                break
            async with self._slots:
                done, levels = await self._compare(instrument, one)
            if done.outcome != Finding.UNVERIFIABLE.value:
                break
        return _verdict(one, done, levels)

    async def _valid(self, instrument: int) -> bool:
        """Wait until a book can be used; return whether that came in time."""
        books = self._ingestor.pipeline.books
        while not books.is_valid(instrument):
            if time.monotonic() >= self._deadline_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    async def _compare(self, instrument: int, one: Instrument) -> tuple[Comparison, int]:
        connection = self._ingestor.supervisor.connection_of(instrument)
        if connection is None or not self._ingestor.pipeline.books.is_valid(instrument):
            return Comparison(Finding.UNVERIFIABLE.value), 0  # it broke meanwhile
        planned = connection.slot.planned
        if not is_audited(planned.adapter):
            return Comparison(_NO_IMAGE), 0
        compared = await self._auditor.compare(connection, one.symbol, instrument)
        return compared, depth_of(planned)


def _verdict(one: Instrument, done: Comparison, levels: int) -> BookVerdict:
    is_wrong = done.outcome == Finding.MISMATCHED.value
    detail = ""
    if is_wrong and done.shown is not None and done.held is not None:
        detail = difference(one, done.held, done.shown)
    return BookVerdict(
        one.key,
        one.canonical,
        "contradicted" if is_wrong else done.outcome,
        done.shown[0] if done.shown is not None else 0,
        levels,
        detail,
    )


def difference(one: Instrument, held: BookState, shown: BookState) -> str:
    """Describe the first level in which a book and an image differ; "" if they are equal.

    Args:
        one: The instrument.
        held: Our book.
        shown: The image.
    """
    for side, ours, theirs in (("bid", held[1], shown[1]), ("ask", held[2], shown[2])):
        for place in range(max(len(ours), len(theirs))):
            mine, venues = _level(one, ours, place), _level(one, theirs, place)
            if mine != venues:
                return f"{side} {place + 1}: the book has {mine}, the image {venues}"
    return ""


def _level(one: Instrument, levels: Sequence[tuple[int, int]], place: int) -> str:
    if place >= len(levels):
        return "none"
    key, size = levels[place]
    numbers = ((size, one.size_exponent), (abs(key), one.price_exponent))
    return " at ".join(_short(format_decimal(*number)) for number in numbers)


def _short(number: str) -> str:
    """Return decimal text without the zeros at its end."""
    return number.rstrip("0").removesuffix(".") if "." in number else number
