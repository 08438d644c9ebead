"""The side topics: what is published beside the ticks, one small JSON record at a time.

status: sessions and feeds, up and down. instruments: metadata, one instrument per record,
compacted. book_snapshot: the top of each book, compacted. quarantine: frames that we refused.
docs/semantics.md has the fields.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import orjson

from ingestor.adapter.contract import Subscription
from ingestor.decode.session import Session
from ingestor.kafka.settings import BOOK_SNAPSHOT, INSTRUMENTS, QUARANTINE, STATUS
from ingestor.model.decimals import format_decimal
from ingestor.model.errors import TransportError
from ingestor.model.instruments import Instrument, InstrumentTable
from ingestor.model.rows import Flag, Rows, Side
from ingestor.pipeline.pipeline import FlushResult
from ingestor.sources.live.events import SupervisorEvents
from ingestor.sources.live.plan import PlannedConnection

_RAW_BYTES_MAX: Final = 64 << 10
_MILLISECOND_NS: Final = 1_000_000


class AuxiliarySink(Protocol):
    """Take auxiliary records; `KafkaSink` is one."""

    session: bytes

    def publish(self, topic: str, key: bytes | None, value: bytes, *, ts_ms: int) -> None:
        """Queue one record.

        Args:
            topic: Name of the topic without the prefix.
            key: Key of the record.
            value: Value of the record.
            ts_ms: Time of the record in ms since the epoch.
        """


class AuxiliaryRecords(SupervisorEvents):
    """Turns what happens into side records."""

    def __init__(self, sink: AuxiliarySink) -> None:
        self._sink = sink
        self._session = sink.session.hex()

    def status(self, event: str, key: str, **fields: object) -> None:
        """Publish a status event now. key: what it is about (`session`, `venue:market`)."""
        now_ns = time.time_ns()
        record = {"event": event, "session": self._session, "ts": now_ns, **fields}
        self._publish(STATUS, key, record, now_ns)

    def instruments(self, instruments: Iterable[Instrument]) -> None:
        """Publish metadata; the record's key is the instrument's."""
        now_ns = time.time_ns()
        for instrument in instruments:
            record = {
                "key": instrument.key,
                **instrument.to_json(),
                "session": self._session,
                "ts": now_ns,
            }
            self._publish(INSTRUMENTS, instrument.key, record, now_ns)

    def observe(self, result: FlushResult, _now_ns: int) -> None:
        """Publish refused frames: the raw bytes (base64, at most 64 KiB) and the reason."""
        for frame in result.rejected:
            session = frame.source
            where = ("", "")
            if isinstance(session, Session):
                where = (session.adapter.venue, session.market)
            record = {
                "venue": where[0],
                "market": where[1],
                "session": self._session,
                "connection": getattr(session, "connection", 0),
                "reason": frame.reason,
                "detail": frame.detail,
                "ts_recv": frame.ts_recv,
                "size": len(frame.payload),
                "raw": base64.b64encode(frame.payload[:_RAW_BYTES_MAX]).decode(),
            }
            self._publish(QUARANTINE, f"{where[0]}:{where[1]}", record, frame.ts_recv)

    def book(self, table: InstrumentTable, rows: Rows, position: Mapping[str, Any]) -> None:
        """Publish one book.

        Args:
            table: The book's instrument is in it.
            rows: Its SNAPSHOT levels.
            position: Where to resume on the topic.
        """
        if not len(rows):
            return
        one = table[int(rows["instrument"][0])]
        ts_recv = int(rows["ts_recv"][0])
        record = {
            "key": one.key,
            "session": self._session,
            "ts_event": int(rows["ts_event"][0]),
            "ts_recv": ts_recv,
            "sequence": int(rows["sequence"][0]),
            "partial": bool((rows["flags"] & Flag.PARTIAL).any()),
            "price_exponent": one.price_exponent,
            "size_exponent": one.size_exponent,
            "revision": one.revision,
            "resume": dict(position),
            "bids": _levels(rows[rows["side"] == Side.BID], one),
            "asks": _levels(rows[rows["side"] == Side.ASK], one),
            "ts": time.time_ns(),
        }
        self._publish(BOOK_SNAPSHOT, one.key, record, ts_recv)

    def up(self, planned: PlannedConnection, session: Session) -> None:
        self._feed("feed_up", planned, session.connection)

    def down(
        self, planned: PlannedConnection, session: Session | None, failure: TransportError
    ) -> None:
        """Take note that a connection ended or could not be opened.

        Args:
            planned: The planned connection.
            session: Its session, None before there is one.
            failure: Why.
        """
        if session is not None:  # attempts that fail are counted, not published
            self._feed("feed_down", planned, session.connection, reason=str(failure))

    def refused(self, planned: PlannedConnection, streams: Sequence[str], text: str) -> None:
        """Take note that the venue refuses streams.

        Args:
            planned: The planned connection.
            streams: Names of the streams.
            text: The venue's words.
        """
        self._feed("refused", planned, None, streams=list(streams), reason=text)

    def silent(
        self, planned: PlannedConnection, subscription: Subscription, silence_s: float
    ) -> None:
        """Take note that a stream stays silent.

        Args:
            planned: The planned connection.
            subscription: The stream.
            silence_s: How long it has been silent.
        """
        silence_s = round(silence_s, 1)
        streams = [subscription.stream]
        self._feed("silent", planned, None, streams=streams, silence_s=silence_s)

    def spoke_again(self, planned: PlannedConnection, subscription: Subscription) -> None:
        self._feed("spoke_again", planned, None, streams=[subscription.stream])

    def unacknowledged(self, planned: PlannedConnection, streams: Sequence[str]) -> None:
        self._feed("unacknowledged", planned, None, streams=list(streams))

    def _feed(
        self, event: str, planned: PlannedConnection, connection: int | None, **fields: object
    ) -> None:
        self.status(
            event,
            f"{planned.venue}:{planned.market}",
            venue=planned.venue,
            market=planned.market,
            planned=planned.number,
            connection=connection,
            **fields,
        )

    def _publish(self, topic: str, key: str, record: Mapping[str, Any], ts_ns: int) -> None:
        ts_ms = ts_ns // _MILLISECOND_NS
        self._sink.publish(topic, key.encode(), orjson.dumps(record), ts_ms=ts_ms)


def _levels(rows: Rows, one: Instrument) -> list[list[str]]:
    pairs = np.stack([rows["price"], rows["size"]], axis=1).tolist()
    return [
        [format_decimal(price, one.price_exponent), format_decimal(size, one.size_exponent)]
        for price, size in pairs
    ]
