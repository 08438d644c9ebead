"""Order books from now on: each begins with its image, and follows the topic from there.

    async with LiveBooks("localhost:9092", ["acme:spot:BTCUSDT"]) as books:
        async for book in books:
            print(book.instrument, book.best())

The topic `book_snapshot` has an image of each book, and the publisher's number of the first row
that the image may lack. The offset of that row is found by its time, and checked by its number.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from aiokafka import TopicPartition
from numpy.typing import NDArray

from ingestor.codec import CodecError, Decoded, decode
from ingestor.consumer.book_snapshot import BookSnapshot, book_snapshot
from ingestor.consumer.consumer import Consumer
from ingestor.consumer.joining import Joiner, Piece
from ingestor.consumer.orderbook import OrderBook, OrderBooks
from ingestor.consumer.positions import EARLIEST, Position
from ingestor.consumer.progress import Progress
from ingestor.consumer.reader import PartitionReader
from ingestor.kafka.settings import BOOK_SNAPSHOT
from ingestor.model.backoff import Backoff
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.timestamps import SECOND

MARGIN_NS: Final = 10 * SECOND
CATCH_UP_S: Final = 60.0
RESTART: Final = Backoff(base_s=10.0, cap_s=120.0, floor_s=5.0)
_POLL_MS: Final = 500
_FARTHER: Final = 10  # times the margin, where rows were missing
_FARTHEST: Final = 8  # so many times: 30 years
_STEADY_S: Final = 300.0  # without a restart; what comes then is a new trouble


@dataclass(slots=True)
class _Followed:
    """One partition.

    images: of books that began with one that may be newer than what is read now. unjoined: those of
    them of which it is not certain that reading began early enough. lost: books that lack rows, and
    the session and number from which on a new image must be, None where any will do. restarts: how
    often books began again. restart_s: when they may the next time, monotonic.
    """

    progress: Progress
    keys: set[str] = field(default_factory=set)
    images: dict[str, BookSnapshot] = field(default_factory=dict)
    unjoined: set[str] = field(default_factory=set)
    lost: dict[str, tuple[bytes, int] | None] = field(default_factory=dict)
    restarts: int = 0
    restart_s: float = 0.0

    def begin(self, images: Collection[BookSnapshot]) -> int:
        """Take images to begin with; return the time from which on to read, in ns."""
        own = {image.key: image for image in images}
        self.images |= own
        self.keys.update(own)
        self.unjoined.update(own)
        for key in own:
            self.lost.pop(key, None)
        margin_ns: int = MARGIN_NS * _FARTHER ** min(self.restarts, _FARTHEST)
        return max(min(image.ts for image in images) - margin_ns, 0)

    def is_wanted(self, image: BookSnapshot) -> bool:
        """Return whether a book that lacks rows can begin with an image."""
        if image.key not in self.lost:
            return False
        needed = self.lost[image.key]
        return needed is None or image.session != needed[0] or image.sequence >= needed[1]

    def missing(self, decoded: Decoded) -> set[str]:
        """Note and return the books that lack rows which should have been before a record."""
        session, first = decoded.session, decoded.first_sequence
        found: set[str] = set()
        for key in [key for key in self.unjoined if self.images[key].session == session]:
            self.unjoined.remove(key)
            if first > self.images[key].sequence:
                found.add(key)
                self.lost[key] = None
        expected = self.progress.expected(session)
        if expected is not None and first > expected:
            for key in self.keys - found:
                image = self.images.get(key)
                if image is None or image.session != session or image.sequence < first:
                    found.add(key)
                    self.lost[key] = session, first
        for key in found:
            self.images.pop(key, None)
        return found

    def new_rows(self, decoded: Decoded) -> TickBatch:
        """Return the rows of a record that neither an earlier record nor an image had."""
        batch, first = decoded.batch, decoded.first_sequence
        known = self.progress.see(decoded.session, first, len(batch))
        keep = np.arange(len(batch)) >= known
        for number in range(len(batch.instruments)):
            key = batch.instruments[number].key
            self.keys.add(key)
            image = self.images.get(key)
            if image is not None:
                own = batch.rows["instrument"] == number
                keep = np.where(own, image.is_after(decoded), keep)
                if not known and decoded.session == image.session and first >= image.sequence:
                    del self.images[key]
        rows = batch.rows if keep.all() else batch.rows[keep]
        return TickBatch(batch.row_class, rows, batch.instruments)


class LiveBooks(Mapping[str, OrderBook]):
    """Books by instrument key. Inside `async with` they are whole, and as new as the topic.

    Iterating with `async for` reads on, and gives each book that changed and is valid. One that
    breaks is not given until it is whole again: after a GAP with RESET and snapshot; where rows
    were lost on the way, from its next image on.

    An instrument that has no image yet becomes whole with its next RESET.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        instruments: str | Collection[str] = (),
        *,
        topic_prefix: str = "md.",
        **options: Any,
    ) -> None:
        """Create the live books.

        Args:
            bootstrap_servers: addresses.
            instruments: keys (`venue:market:symbol`) or symbols of the venue; none means all.
            topic_prefix: of the topics.
            options: passed on to aiokafka (security).
        """
        self.foreign_records = 0
        self._servers = bootstrap_servers
        self._wanted = {instruments} if isinstance(instruments, str) else set(instruments)
        self._images_topic = topic_prefix + BOOK_SNAPSHOT
        self._topic = topic_prefix + RowClass.LEVEL.topic
        self._options = options
        self._reader = PartitionReader(
            bootstrap_servers, [self._topic], Position(), None, options=options
        )
        self._books = OrderBooks()
        self._joiner = Joiner()
        self._is_wanted: list[bool] = []
        self._followed: dict[TopicPartition, _Followed] = {}
        self._changed: deque[str] = deque()
        self._partitions: list[TopicPartition] = []  # those that are read

    async def __aenter__(self) -> Self:
        """Read the images and what came after each.

        Raises:
            SinkUnavailable: where no broker answers.
            TopicAbsent: where nothing publishes books there.
        """
        images = await self._images()
        await self._reader.start()
        try:
            await self._begin(images)
            is_known = self._wanted and self._wanted <= self._books.keys()
            self._partitions = list(self._followed) if is_known else self._reader.ready
            with suppress(TimeoutError):  # whoever iterates reads what is left
                async with asyncio.timeout(CATCH_UP_S):
                    await self._catch_up()
        except BaseException:
            await self._reader.stop()
            raise
        self._changed.extend(self._books)
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self._reader.stop()

    def __getitem__(self, key: str) -> OrderBook:
        return self._books[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._books)

    def __len__(self) -> int:
        return len(self._books)

    async def __aiter__(self) -> AsyncIterator[OrderBook]:
        while True:
            yield await self.next_book()

    async def next_book(self) -> OrderBook:
        """Return the next book that changed and is valid, when there is one."""
        while True:
            while self._changed:
                book = self._books[self._changed.popleft()]
                if book.is_valid:
                    return book
            self._changed.extend(await self._read())

    async def _images(self) -> list[BookSnapshot]:
        """Return the newest image of each book that is wanted."""
        newest: dict[bytes, bytes] = {}
        async with Consumer(
            self._servers, self._images_topic, start=EARLIEST, stop_at_end=True, **self._options
        ) as consumer:
            async for _, key, value in consumer.records():
                newest[key or b""] = value
        found = []
        for key, value in newest.items():
            if self._wants(key.decode(errors="replace")):
                try:
                    found.append(book_snapshot(value))
                except CodecError:
                    self.foreign_records += 1
        return [image for image in found if image.topic == self._topic]

    def _wants(self, key: str) -> bool:
        return not self._wanted or key in self._wanted or key.split(":", 2)[-1] in self._wanted

    async def _begin(self, images: Collection[BookSnapshot]) -> None:
        """Let books begin with their images, and reading where the first of each partition says."""
        partitions: defaultdict[TopicPartition, list[BookSnapshot]] = defaultdict(list)
        for image in images:
            self._books.feed(image.batch)
            partitions[image.place].append(image)
        for partition, own in partitions.items():
            start_ns = self._follow(partition).begin(own)
            await self._reader.seek([partition], Position(start_ns))

    async def _catch_up(self) -> None:
        ends = await self._reader.ends(self._partitions)
        while await self._reader.is_before(ends):
            await self._read()

    def _follow(self, partition: TopicPartition) -> _Followed:
        found = self._followed.get(partition)
        if found is None:
            progress = Progress(partition.topic, partition.partition)
            found = self._followed[partition] = _Followed(progress)
        return found

    async def _read(self) -> set[str]:
        """Take what comes within half a second; return the books that changed."""
        await self._restart()
        batches: list[TickBatch] = []
        lost: set[str] = set()
        for partition, records in (await self._reader.poll(self._partitions, _POLL_MS)).items():
            followed = self._follow(partition)
            for record in records:
                try:
                    decoded = decode(record.value or b"")
                except CodecError:
                    self.foreign_records += 1
                    continue
                missing = followed.missing(decoded)
                if missing:
                    self._feed(batches)
                    self._break(followed, missing)
                    lost |= missing
                batches.append(followed.new_rows(decoded))
        return self._feed(batches) | lost

    def _feed(self, batches: list[TickBatch]) -> set[str]:
        """Apply rows, and forget them; return the books that changed."""
        changed: set[str] = set()
        for chunk in self._joiner.join([Piece.of(batch, 0) for batch in batches]):
            changed.update(self._books.feed(self._wanted_rows(chunk.batch)))
        batches.clear()
        return changed

    def _wanted_rows(self, batch: TickBatch) -> TickBatch:
        """Leave out the rows of instruments that nobody asked for."""
        if not self._wanted:
            return batch
        known = self._is_wanted
        more = range(len(known), len(batch.instruments))
        known.extend(self._wants(batch.instruments[number].key) for number in more)
        keep: NDArray[np.bool_] = np.array(known, np.bool_)[batch.rows["instrument"]]
        return TickBatch(batch.row_class, batch.rows[keep], batch.instruments)

    def _break(self, followed: _Followed, keys: set[str]) -> None:
        """Let books that lack rows refuse to answer."""
        for key in keys & self._books.keys():
            self._books[key].invalidate("rows were lost on the way; it waits for a new image")
        if time.monotonic() - followed.restart_s > _STEADY_S:
            followed.restarts, followed.restart_s = 0, time.monotonic()

    async def _restart(self) -> None:
        """Let books that lack rows begin again, with newer images or from farther back."""
        now_s = time.monotonic()
        due = {}
        for partition, one in self._followed.items():
            for key in [*one.lost]:
                if key not in self._books or self._books[key].is_valid:
                    del one.lost[key]  # nobody asked for it, or it had a RESET
            if one.lost and one.restart_s <= now_s:
                due[partition] = one
                one.restart_s = now_s + RESTART.delay_s(one.restarts, random.random)
                one.restarts += 1
        if due:
            images = await self._images()
            await self._begin(
                [
                    image
                    for image in images
                    if image.place in due and due[image.place].is_wanted(image)
                ]
            )
