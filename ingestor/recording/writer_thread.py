"""The recorder's thread: entries of the buffer become lines of the venues' segments."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import structlog

from ingestor.adapter.contract import Subscription
from ingestor.model.instruments import InstrumentTable
from ingestor.recording.format import (
    Connect,
    Decided,
    Disconnect,
    Header,
    Http,
    Line,
    Open,
    Recv,
    Send,
    lost_line,
    text_or_bytes,
)
from ingestor.recording.segments import RecorderSettings, SegmentWriter, retain
from ingestor.telemetry.bulkheads import bulkheads

ENTRY_BYTES: Final = 120  # of memory for each entry of the buffer, beside its payload
WAKE_S: Final = 0.05
_CHUNK_BYTES: Final = 256 << 10  # taken from the buffer at once: bounds how long the loop waits

_log = structlog.get_logger("ingestor.recorder")


class RecorderState(StrEnum):
    RECORDING = "recording"
    FAILED = (
        "failed"  # the disk refuses, or a bug; frames wait in the buffer, beyond it they are lost
    )
    STOPPED = "stopped"


@dataclass(slots=True)
class LostFrames:
    """Entries of one connection that the full buffer did not take."""

    connection: int
    from_ns: int
    to_ns: int
    lines: int = 0
    size: int = 0


@dataclass(slots=True)
class ConnectionOpened:
    connection: int
    ts_ns: int
    venue: str
    market: str
    url: str
    subscriptions: Sequence[Subscription]
    lines: int = 1


@dataclass(slots=True)
class FrameRun:
    """Frames of one read, one after the other.

    The loop appends to it until it closes it, the thread takes what is there. size: what the loop
    added to `_bytes_in` for it.
    """

    connection: int
    ts_ns: int
    payloads: list[bytes] = field(default_factory=list)
    is_closed: bool = False
    size: int = 0
    taken: int = 0  # payloads; the thread's


ControlEntry = ConnectionOpened | LostFrames | Disconnect | Send | Http | Decided
Entry = FrameRun | ControlEntry
Frames = tuple[int, int, list[bytes]]  # connection, ts_ns, payloads


def take_chunk(entries: deque[Entry]) -> tuple[list[Frames | ControlEntry], int]:
    """Take entries out; of a run that is open, what it has.

    Return them, none only if there are none, and what the loop added to `_bytes_in` for those that
    are gone.
    """
    chunk: list[Frames | ControlEntry] = []
    size = 0
    while entries and (size < _CHUNK_BYTES or not chunk):
        entry = entries[0]
        if isinstance(entry, FrameRun):
            is_closed = entry.is_closed  # asked first: nothing is added after it
            payloads = entry.payloads[entry.taken :]
            if payloads:
                entry.taken += len(payloads)
                chunk.append((entry.connection, entry.ts_ns, payloads))
            if not is_closed:
                break
            size += entry.size
        else:
            chunk.append(entry)
            size += _size(entry)
        entries.popleft()
    return chunk, size


def _size(entry: ControlEntry) -> int:
    """Return the bytes that the loop added to `_bytes_in` for a control entry."""
    if isinstance(entry, Send | Http):
        return len(entry.payload) + ENTRY_BYTES
    return 0


class RecorderWorker:
    """Own the state of the recorder's thread: connections, writers, the state of the disk."""

    def __init__(
        self,
        settings: RecorderSettings,
        session: str,
        instruments: InstrumentTable,
        subscriptions: Callable[[int], Sequence[Subscription]],
    ) -> None:
        self.writers: dict[str, SegmentWriter] = {}
        self.state = RecorderState.RECORDING
        self.reason = ""
        self.failures = 0
        self.delay_s = 1.0
        self.lines_lost = 0
        self.segments_finished = 0
        self.segments_removed = 0
        self._settings = settings
        self._session = session
        self._instruments = instruments
        self._subscriptions = subscriptions
        self._retry_at_s = 0.0  # monotonic: after a failure, when to write again
        self._open: dict[int, ConnectionOpened] = {}
        self._by_connection: dict[int, SegmentWriter] = {}

    def take(self, entries: Sequence[Frames | ControlEntry]) -> None:
        """Turn entries into lines of their venue's segment. An entry that fails is lost alone."""
        for entry in entries:
            try:
                if isinstance(entry, tuple):
                    self._received(*entry)
                else:
                    self._control(entry)
            except Exception as failure:  # noqa: BLE001  # the boundary
                self.lines_lost += len(entry[2]) if isinstance(entry, tuple) else 1
                self.failed(failure)
        now_s = time.monotonic()
        for writer in list(self.writers.values()):
            self._keep(writer, lambda writer=writer: writer.encode(now_s))  # type: ignore[misc]

    def _keep(self, writer: SegmentWriter, call: Callable[[], None]) -> None:
        """Call something of a writer; where that fails, begin its venue's segment anew."""
        try:
            call()
        except Exception as failure:  # noqa: BLE001  # the boundary
            self.lines_lost += writer.renew()
            self.failed(failure)

    def _received(self, connection: int, ts_ns: int, payloads: Sequence[bytes]) -> None:
        writer = self._by_connection.get(connection)
        if writer is None:
            self.lines_lost += len(payloads)  # of a connection that was never opened
            return
        numbered = enumerate(payloads, writer.n)
        try:
            lines = [Recv(ts_ns, connection, one.decode(), None, n) for n, one in numbered]
        except UnicodeDecodeError:
            numbered = enumerate(payloads, writer.n)
            lines = [Recv(ts_ns, connection, *text_or_bytes(one), n) for n, one in numbered]
        writer.lines += lines
        writer.n += len(lines)

    def _control(self, entry: ControlEntry) -> None:
        match entry:
            case ConnectionOpened():
                self._connected(entry)
            case LostFrames():
                for writer in self._writers_of(entry.connection):
                    writer.n += entry.lines
                    line = lost_line(
                        entry.connection,
                        entry.to_ns,
                        writer.n,
                        lines=entry.lines,
                        size=entry.size,
                        from_ns=entry.from_ns,
                    )
                    _put(writer, line)
            case Disconnect():
                for writer in self._writers_of(entry.conn):
                    _put(writer, entry)
                    writer.encode(time.monotonic())  # a header must not say that it was closed
                self._open.pop(int(entry.conn), None)
                self._by_connection.pop(int(entry.conn), None)
            case Http():
                _put(self._writer(entry.venue), entry)
            case Send():
                for writer in self._writers_of(entry.conn):
                    _put(writer, entry)
            case Decided():
                venue = str(entry.decision.get("key", "")).partition(":")[0]
                only = self.writers.get(venue)
                for writer in [only] if only else self._writers_of(entry.conn):
                    # Each writer numbers it differently.
                    _put(writer, Decided(entry.ts_ns, entry.decision, entry.conn))

    def _connected(self, entry: ConnectionOpened) -> None:
        writer = self._writer(entry.venue)
        self._by_connection[entry.connection] = writer
        line = Connect(entry.ts_ns, entry.connection, entry.url, entry.venue, entry.market)
        line.lines = entry.lines
        line.subscriptions = [
            (subscription.symbol, subscription.channel, subscription.stream)
            for subscription in entry.subscriptions
        ]
        writer.encode(time.monotonic())
        line.instruments = self._new_instruments(writer, entry.subscriptions)
        _put(writer, line)
        writer.encode(time.monotonic())  # a header must not say that it was open already
        self._open[entry.connection] = entry

    def _writer(self, venue: str) -> SegmentWriter:
        writer = self.writers.get(venue)
        if writer is None:
            writer = SegmentWriter(self._settings, self._session, venue, self._header)
            self.writers[venue] = writer
        return writer

    def _writers_of(self, connection: int | str | None) -> list[SegmentWriter]:
        """The writer of a connection; all of them for what concerns none in particular."""
        if connection is None or connection == -1:
            return list(self.writers.values())
        writer = self._by_connection.get(int(connection))
        return [] if writer is None else [writer]

    def _header(self, writer: SegmentWriter, ts_ns: int) -> Header:
        header = Header(ts_ns=ts_ns)
        for connection, entry in self._open.items():
            if entry.venue == writer.venue:
                subscriptions = self._subscriptions(connection)
                texts = [
                    (subscription.symbol, subscription.channel, subscription.stream)
                    for subscription in subscriptions
                ]
                opened = Open(connection, entry.market, entry.url, texts, entry.lines)
                header.connections.append(opened)
                header.instruments += self._new_instruments(writer, subscriptions)
        return header

    def _new_instruments(
        self, writer: SegmentWriter, subscriptions: Sequence[Subscription]
    ) -> list[dict[str, Any]]:
        numbers = dict.fromkeys(subscription.instrument for subscription in subscriptions)
        new = [number for number in numbers if number not in writer.named]
        writer.named.update(new)
        return [self._instruments[number].to_json() for number in new]

    def tick(self) -> None:
        """Let the writers end what is old."""
        now_s = time.monotonic()
        for writer in list(self.writers.values()):
            self._keep(writer, lambda writer=writer: writer.tick(now_s))  # type: ignore[misc]

    def write(self) -> bool:
        """Write what the writers cut; return whether the disk took it. Never raises."""
        if time.monotonic() < self._retry_at_s:
            return False
        try:
            for writer in self.writers.values():
                self.segments_finished += writer.write()
        except Exception as failure:  # noqa: BLE001  # the boundary
            self.failed(failure)
            return False
        if self.state is RecorderState.FAILED:
            self.state = RecorderState.RECORDING
            self.reason = ""
            self.delay_s = 1.0
            _log.info("recorder.resumed", lines_lost=self.lines_lost)
        return True

    def failed(self, failure: Exception) -> None:
        """Note a failure: of the disk, or one that nothing foresaw. `write` tries again later."""
        self.failures += 1
        if isinstance(failure, OSError):
            place = failure.filename or self._settings.path
            self.reason = f"{failure.strerror or failure} ({place})"
        else:
            self.reason = repr(failure)
            bulkheads.bug("recorder", failure)
        self.delay_s = min(2 * self.delay_s, self._settings.retry_s)
        is_first = self.state is not RecorderState.FAILED
        if is_first:
            self.state = RecorderState.FAILED
            self.delay_s = min(1.0, self._settings.retry_s)
            _log.error("recorder.failed", reason=self.reason)
        self._retry_at_s = time.monotonic() + self.delay_s
        if is_first:
            self.retain()

    def retain(self) -> None:
        """Remove segments that are too old or too many. Never raises."""
        try:
            self.segments_removed += retain(self._settings, time.time())
        except OSError as failure:
            _log.warning("recorder.retention_failed", reason=str(failure))
        except Exception as failure:  # noqa: BLE001  # the boundary
            bulkheads.bug("recorder", failure)

    def close(self) -> None:
        """Finish the segments, with one last try on a failed disk."""
        self._retry_at_s = 0.0
        for writer in list(self.writers.values()):
            self._keep(writer, writer.end)
        self._retry_at_s = 0.0
        if not self.write():
            for writer in self.writers.values():
                self.lines_lost += writer.lines_pending
                writer.abandon()
        self.retain()


def _put(writer: SegmentWriter, line: Line) -> None:
    line.n = writer.n
    writer.n += 1
    writer.lines.append(line)
