"""Reads records of the topic of book snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from aiokafka import TopicPartition
from numpy.typing import NDArray

from ingestor.codec import CodecError, Decoded, WireInstrument
from ingestor.model.batch import TickBatch
from ingestor.model.decimals import parse_decimal
from ingestor.model.errors import MALFORMED
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import LEVEL, Flag, Kind, Side


@dataclass(frozen=True, slots=True)
class BookSnapshot:
    """A record of the topic `book_snapshot`: an instrument's book, and where to read on.

    batch: its levels as one SNAPSHOT (an empty book: one RESET). topic, partition, session (16
    bytes), sequence: from where on rows are to be read. ts: when it was made, ns since the epoch.

        image = book_snapshot(value)
        books.feed(image.batch)
        for decoded in ...:                    # the records of that partition, from any place
            books.feed(image.after(decoded))
    """

    batch: TickBatch
    topic: str
    partition: int
    session: bytes
    sequence: int
    ts: int

    @property
    def key(self) -> str:
        """The instrument's key."""
        return self.batch.instruments[0].key

    @property
    def place(self) -> TopicPartition:
        """The partition in which its rows are."""
        return TopicPartition(self.topic, self.partition)

    def after(self, decoded: Decoded) -> TickBatch:
        """Return the instrument's rows of a record that the image may lack.

        Sizes are absolute, so the few that it has already do no harm. Of another session, rows
        received later count: they begin with a RESET.
        """
        rows, instruments = decoded.batch.rows, decoded.batch.instruments
        numbers = [item for item in range(len(instruments)) if instruments[item].key == self.key]
        keep = np.isin(rows["instrument"], numbers) & self.is_after(decoded)
        return TickBatch(decoded.batch.row_class, rows[keep], instruments)

    def is_after(self, decoded: Decoded) -> NDArray[np.bool_]:
        """Return which rows of a record the image may lack, were they of its instrument."""
        rows = decoded.batch.rows
        after: NDArray[np.bool_]
        if decoded.session == self.session:
            after = decoded.first_sequence + np.arange(len(rows)) >= self.sequence
        else:
            after = rows["ts_recv"] > self.batch.rows["ts_recv"][0]
        return after


def book_snapshot(value: bytes) -> BookSnapshot:
    """Read a record of the topic `book_snapshot`. Raises CodecError."""
    try:
        return _book_image(orjson.loads(value))
    except MALFORMED as failure:
        raise CodecError(f"no book image: {failure!r}") from failure


def _book_image(message: Any) -> BookSnapshot:
    one = WireInstrument(
        message["key"], message["price_exponent"], message["size_exponent"], message["revision"]
    )
    levels = [
        (side, parse_decimal(price, one.price_exponent), parse_decimal(size, one.size_exponent))
        for side, some in ((Side.BID, message["bids"]), (Side.ASK, message["asks"]))
        for price, size in some
    ]
    rows = np.zeros(max(len(levels), 1), LEVEL)
    for name in ("ts_event", "ts_recv", "sequence"):
        rows[name] = message[name]
    rows["kind"] = Kind.LEVEL if levels else Kind.RESET
    rows["flags"] = Flag.SNAPSHOT | (Flag.PARTIAL if message["partial"] else 0)
    rows["flags"][-1] |= np.uint16(Flag.LAST)
    if levels:
        rows["side"], rows["price"], rows["size"] = np.array(levels, np.int64).T
    resume = message["resume"]
    return BookSnapshot(
        TickBatch(RowClass.LEVEL, rows, [one]),
        resume["topic"],
        resume["partition"],
        bytes.fromhex(resume["session"]),
        resume["sequence"],
        message.get("ts", message["ts_recv"]),  # records before 0.2 have no time of their own
    )
