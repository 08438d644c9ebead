"""Records raw frames beside the way: the loop appends to a deque, a thread does everything else.

`received` costs the loop an append, an addition and a comparison. The thread encodes, compresses
(both zstd and the disk run without the interpreter lock) and writes. When the disk fails, the
buffer fills up to its bound; beyond it frames are not recorded, are counted, and a control line
says so where they would have stood. Publishing never notices.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import structlog

from ingestor.edge.segments import RecorderSettings, SegmentWriter, retain
from ingestor.instruments import InstrumentTable
from ingestor.recording import (
    Connect,
    Decided,
    Disconnect,
    Header,
    Http,
    Line,
    Open,
    Send,
    lost_line,
    recv_line,
    text_or_bytes,
)
from ingestor.session import Subscription

_ENTRY_BYTES: Final = 120  # of memory for each entry of the buffer, beside its payload
_CHUNK_BYTES: Final = 256 << 10  # taken from the buffer at once: bounds how long the loop waits
_WAKE_S: Final = 0.05
_RETENTION_S: Final = 60.0

_log = structlog.get_logger("ingestor.recorder")


class RecorderState(StrEnum):
    RECORDING = "recording"
    FAILED = "failed"  # the disk refuses; frames wait in the buffer, beyond it they are lost
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """Counts since the start. reason: why the state is FAILED. Bytes written are compressed."""

    state: RecorderState
    reason: str
    lines_written: int
    bytes_written: int
    segments_finished: int
    segments_removed: int
    lines_lost: int
    bytes_lost: int
    bytes_buffered: int
    failures: int


@dataclass(slots=True)
class _Lost:
    """Entries of one connection that the full buffer did not take."""

    connection: int
    from_ns: int
    to_ns: int
    lines: int = 0
    size: int = 0


@dataclass(slots=True)
class _Connected:
    connection: int
    ts_ns: int
    venue: str
    market: str
    url: str
    subscriptions: Sequence[Subscription]


_Control = _Connected | _Lost | Disconnect | Send | Http | Decided
_Entry = tuple[int, int, bytes] | _Control  # a tuple is a frame received


class Recorder:
    """A `Tap` that writes segments (`ingestor.recording`). All calls come from one thread."""

    def __init__(
        self,
        settings: RecorderSettings,
        session: str,
        instruments: InstrumentTable,
        subscriptions: Callable[[int], Sequence[Subscription]],
    ) -> None:
        """session: id of this run, letters, digits, ".", "_", "-". subscriptions: those in force
        on a connection; asked when it opens, and from the recorder's thread for a new segment."""
        self._subscriptions = subscriptions
        self._entries: deque[_Entry] = deque()
        self._append = self._entries.append
        self._bytes_in = 0  # written by the loop alone
        self._bytes_out = 0  # written by the thread alone
        self._limit = settings.buffer_bytes
        self._lost: dict[int, _Lost] = {}
        self._lines_lost = 0
        self._bytes_lost = 0
        self._worker = _Worker(settings, session, instruments, subscriptions)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    # The loop's side -----------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    async def stop(self, timeout_s: float = 10.0) -> None:
        """Write what waits and finish the segments; on a failed disk, one last try."""
        for lost in self._lost.values():
            self._append(lost)
        self._lost.clear()
        self._limit = -1
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, timeout_s)

    def received(self, connection: int, ts_ns: int, payload: bytes) -> None:
        if self._bytes_in - self._bytes_out > self._limit or self._lost:
            self._take_slowly(connection, ts_ns, len(payload), (connection, ts_ns, payload))
            return
        self._bytes_in += len(payload) + _ENTRY_BYTES
        self._append((connection, ts_ns, payload))

    def sent(self, connection: int, ts_ns: int, payload: bytes) -> None:
        text, binary = text_or_bytes(payload)
        self._take(connection, ts_ns, len(payload), Send(ts_ns, connection, text, binary))

    def connected(self, connection: int, ts_ns: int, venue: str, market: str, url: str) -> None:
        subscriptions = self._subscriptions(connection)
        self._append(_Connected(connection, ts_ns, venue, market, url, subscriptions))

    def disconnected(self, connection: int, ts_ns: int, reason: str) -> None:
        self._append(Disconnect(ts_ns, connection, reason))

    def fetched(
        self, connection: int | None, ts_ns: int, venue: str, market: str, url: str, body: bytes
    ) -> None:
        text, binary = text_or_bytes(body)
        line = Http(ts_ns, url, text, binary, connection, venue, market)
        self._take(-1 if connection is None else connection, ts_ns, len(body), line)

    def decided(self, connection: int | None, ts_ns: int, decision: dict[str, Any]) -> None:
        self._append(Decided(ts_ns, decision, connection))

    def statistics(self) -> RecorderStatistics:
        worker = self._worker
        writers = list(worker.writers.values())
        running = self._thread.is_alive()
        return RecorderStatistics(
            state=worker.state if running else RecorderState.STOPPED,
            reason=worker.reason,
            lines_written=sum(writer.lines_written for writer in writers),
            bytes_written=sum(writer.bytes_written for writer in writers),
            segments_finished=worker.segments_finished,
            segments_removed=worker.segments_removed,
            lines_lost=self._lines_lost + worker.lines_lost,
            bytes_lost=self._bytes_lost,
            bytes_buffered=self._bytes_in - self._bytes_out,
            failures=worker.failures,
        )

    def _take(self, connection: int, ts_ns: int, size: int, entry: _Entry) -> None:
        if self._bytes_in - self._bytes_out > self._limit or self._lost:
            self._take_slowly(connection, ts_ns, size, entry)
            return
        self._bytes_in += size + _ENTRY_BYTES
        self._append(entry)

    def _take_slowly(self, connection: int, ts_ns: int, size: int, entry: _Entry) -> None:
        """The buffer is full, or was: take entries again when half of it is free."""
        if self._bytes_in - self._bytes_out <= self._limit // 2:
            for lost in self._lost.values():
                self._append(lost)
            self._lost.clear()
            self._bytes_in += size + _ENTRY_BYTES
            self._append(entry)
            return
        if self._limit < 0:
            return  # stopped
        lost_here = self._lost.get(connection)
        if lost_here is None:
            lost_here = self._lost[connection] = _Lost(connection, ts_ns, ts_ns)
        lost_here.to_ns = ts_ns
        lost_here.lines += 1
        lost_here.size += size
        self._lines_lost += 1
        self._bytes_lost += size

    # The thread's side ---------------------------------------------------------------------------

    def _run(self) -> None:
        stopping = False
        retained_s = time.monotonic()
        while not stopping:
            stopping = self._stopping.wait(_WAKE_S)
            self._drain()
            now_s = time.monotonic()
            if now_s - retained_s >= _RETENTION_S:
                retained_s = now_s
                self._worker.retain()
        self._worker.close()

    def _drain(self) -> None:
        """Move everything that waits to the writers, and what they cut to the disk."""
        entries = self._entries
        worker = self._worker
        while True:
            chunk: list[_Entry] = []
            size = 0
            while entries and size < _CHUNK_BYTES:
                entry = entries.popleft()
                chunk.append(entry)
                size += _size(entry)
            worker.take(chunk)
            worker.tick()
            while not worker.write():
                if self._stopping.wait(worker.delay_s):
                    break
            self._bytes_out += size
            if not entries:
                return


def _size(entry: _Entry) -> int:
    """What the loop added to `_bytes_in` for an entry."""
    if isinstance(entry, tuple):
        return len(entry[2]) + _ENTRY_BYTES
    if isinstance(entry, Send | Http):
        return len(entry.payload) + _ENTRY_BYTES
    return 0


class _Worker:
    """What the thread owns: connections, writers, the state of the disk."""

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
        self._open: dict[int, _Connected] = {}
        self._by_connection: dict[int, SegmentWriter] = {}

    def take(self, entries: Sequence[_Entry]) -> None:
        """Turn entries into lines of their venue's segment."""
        by_connection = self._by_connection
        for entry in entries:
            if isinstance(entry, tuple):
                connection, ts_ns, payload = entry
                writer = by_connection.get(connection)
                if writer is None:
                    self.lines_lost += 1  # a frame of a connection that was never opened
                    continue
                writer.lines.append(recv_line(connection, ts_ns, writer.n, payload))
                writer.n += 1
            else:
                self._control(entry)
        now_s = time.monotonic()
        for writer in self.writers.values():
            writer.encode(now_s)

    def _control(self, entry: _Control) -> None:
        match entry:
            case _Connected():
                self._connected(entry)
            case _Lost():
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

    def _connected(self, entry: _Connected) -> None:
        writer = self._writer(entry.venue)
        self._by_connection[entry.connection] = writer
        line = Connect(entry.ts_ns, entry.connection, entry.url, entry.venue, entry.market)
        line.subscriptions = [(one.symbol, one.channel, one.stream) for one in entry.subscriptions]
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
                texts = [(one.symbol, one.channel, one.stream) for one in subscriptions]
                header.connections.append(Open(connection, entry.market, entry.url, texts))
                header.instruments += self._new_instruments(writer, subscriptions)
        return header

    def _new_instruments(
        self, writer: SegmentWriter, subscriptions: Sequence[Subscription]
    ) -> list[dict[str, Any]]:
        numbers = dict.fromkeys(one.instrument for one in subscriptions)
        new = [number for number in numbers if number not in writer.named]
        writer.named.update(new)
        return [self._instruments[number].to_json() for number in new]

    def tick(self) -> None:
        """Let the writers end what is old."""
        now_s = time.monotonic()
        for writer in self.writers.values():
            writer.tick(now_s, 2 * _WAKE_S)

    def write(self) -> bool:
        """Write what the writers cut; return whether the disk took it."""
        try:
            for writer in self.writers.values():
                self.segments_finished += writer.write()
        except OSError as failure:
            self._failed(failure)
            return False
        if self.state is RecorderState.FAILED:
            self.state = RecorderState.RECORDING
            self.reason = ""
            self.delay_s = 1.0
            _log.info("recorder.resumed", lines_lost=self.lines_lost)
        return True

    def _failed(self, failure: OSError) -> None:
        self.failures += 1
        self.reason = f"{failure.strerror or failure} ({failure.filename or self._settings.path})"
        self.delay_s = min(2 * self.delay_s, self._settings.retry_s)
        if self.state is not RecorderState.FAILED:
            self.state = RecorderState.FAILED
            self.delay_s = min(1.0, self._settings.retry_s)
            _log.error("recorder.failed", reason=self.reason)
            self.retain()

    def retain(self) -> None:
        try:
            self.segments_removed += retain(self._settings, time.time())
        except OSError as failure:
            _log.warning("recorder.retention_failed", reason=str(failure))

    def close(self) -> None:
        for writer in self.writers.values():
            writer.end()
        if not self.write():
            for writer in self.writers.values():
                self.lines_lost += writer.lines_pending
                writer.abandon()
        self.retain()


def _put(writer: SegmentWriter, line: Line) -> None:
    line.n = writer.n
    writer.n += 1
    writer.lines.append(line)
