"""Records raw frames beside the way: the loop appends to a list, a thread does everything else.

`received` costs the loop a comparison and an append; the rest of its work is done once for all
frames of a read. The thread encodes, compresses (both zstd and the disk run without the interpreter
lock) and writes. When the disk fails, the buffer fills up to its bound; beyond it frames are not
recorded, are counted, and a control line says so where they would have stood. Publishing never
notices.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ingestor.adapter.contract import Subscription
from ingestor.model.instruments import InstrumentTable
from ingestor.recording.format import Decided, Disconnect, Http, Send, text_or_bytes
from ingestor.recording.segments import RecorderSettings
from ingestor.recording.writer_thread import (
    ENTRY_BYTES,
    WAKE_S,
    ConnectionOpened,
    ControlEntry,
    Entry,
    FrameRun,
    LostFrames,
    RecorderState,
    RecorderWorker,
    take_chunk,
)

__all__ = ["Recorder", "RecorderSettings", "RecorderState", "RecorderStatistics"]

_RETENTION_S: Final = 60.0


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


class Recorder:
    """A `FrameTap` that writes segments (`ingestor.recording.format`); called from one thread."""

    def __init__(
        self,
        settings: RecorderSettings,
        session: str,
        instruments: InstrumentTable,
        subscriptions: Callable[[int], Sequence[Subscription]],
    ) -> None:
        """session: id of this run, letters, digits, ".", "_", "-". subscriptions: those in force
        on a connection; asked when it opens, and from the recorder's thread for a new segment.
        """
        self._subscriptions = subscriptions
        self._entries: deque[Entry] = deque()
        self._append = self._entries.append
        self._bytes_in = 0  # written by the loop alone
        self._bytes_out = 0  # written by the thread alone
        self._limit = settings.buffer_bytes
        self._lost: dict[int, LostFrames] = {}
        self._run: FrameRun | None = None  # the frames of the current read; the buffer's last entry
        self._connection = self._ts_ns = -1  # of the run
        self._is_kept = True  # the buffer had room for it
        self._hear: Callable[[bytes], None] = list[bytes]().append
        self._lines_lost = 0
        self._bytes_lost = 0
        self._worker = RecorderWorker(settings, session, instruments, subscriptions)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    # The loop's side -----------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    async def stop(self, timeout_s: float = 10.0) -> None:
        """Write what waits and finish the segments; on a failed disk, one last try."""
        if not self._thread.is_alive():
            return
        self._close()
        for lost in self._lost.values():
            self._append(lost)
        self._lost.clear()
        self._limit = -1
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, timeout_s)

    def received(self, connection: int, ts_ns: int, payload: bytes) -> None:
        """Record a frame of the venue.

        Args:
            connection: Number of the connection.
            ts_ns: Time of receipt.
            payload: The frame's bytes.
        """
        if ts_ns != self._ts_ns or connection != self._connection:
            self._begin(connection, ts_ns)
        self._hear(payload)

    def sent(self, connection: int, ts_ns: int, payload: bytes) -> None:
        """Record a message to the venue.

        Args:
            connection: Number of the connection.
            ts_ns: Time of sending.
            payload: The message's bytes.
        """
        text, binary = text_or_bytes(payload)
        self._take(connection, ts_ns, payload, Send(ts_ns, connection, text, binary))

    def connected(
        self, connection: int, ts_ns: int, venue: str, market: str, url: str, lines: int = 1
    ) -> None:
        """Record that a connection is open.

        Args:
            connection: Number of the connection.
            ts_ns: Time of the handshake's end.
            venue: Name of the venue.
            market: Name of the market.
            url: Address that was connected to.
            lines: How many connections carry its streams.
        """
        subscriptions = self._subscriptions(connection)
        self._put(ConnectionOpened(connection, ts_ns, venue, market, url, subscriptions, lines))

    def disconnected(self, connection: int, ts_ns: int, reason: str) -> None:
        """Record that a connection has ended.

        Args:
            connection: Number of the connection.
            ts_ns: Time of its end.
            reason: Text for people.
        """
        self._put(Disconnect(ts_ns, connection, reason))

    def fetched(
        self, connection: int | None, ts_ns: int, venue: str, market: str, url: str, body: bytes
    ) -> None:
        """Record the answer to a REST request.

        Args:
            connection: Number of the connection that it was asked for, if any.
            ts_ns: Time of receipt.
            venue: Name of the venue.
            market: Name of the market.
            url: Address that was asked.
            body: Body of the answer.
        """
        text, binary = text_or_bytes(body)
        line = Http(ts_ns, url, text, binary, connection, venue, market)
        self._take(-1 if connection is None else connection, ts_ns, body, line)

    def record_decision(self, connection: int | None, ts_ns: int, decision: dict[str, Any]) -> None:
        """Record a decision of the program that a replay must follow.

        Args:
            connection: Number of the connection, if it is about one.
            ts_ns: Time of the decision.
            decision: The decision's members as JSON values.
        """
        self._put(Decided(ts_ns, decision, connection))

    @property
    def condition(self) -> tuple[RecorderState, str]:
        """Return the state, and the reason of a failure."""
        worker = self._worker
        return (worker.state if self._thread.is_alive() else RecorderState.STOPPED), worker.reason

    def statistics(self) -> RecorderStatistics:
        self._close()  # so that its frames are counted
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

    def _begin(self, connection: int, ts_ns: int) -> None:
        """A read brings frames: what is heard next is a run of its own."""
        self._close()
        run = self._run = FrameRun(connection, ts_ns)
        self._connection, self._ts_ns, self._hear = connection, ts_ns, run.payloads.append
        self._is_kept = self._has_room()
        if self._is_kept:
            self._append(run)

    def _close(self) -> None:
        """End the current run, so that something else may follow it."""
        run, self._run = self._run, None
        if run is None:
            return
        self._connection = self._ts_ns = -1
        if self._is_kept:
            run.size = sum(map(len, run.payloads)) + ENTRY_BYTES * (len(run.payloads) + 1)
            self._bytes_in += run.size
            run.is_closed = True
        else:
            self._lose(run.connection, run.ts_ns, run.payloads)

    def _put(self, entry: ControlEntry) -> None:
        """Append what is small and must not be lost."""
        self._close()
        self._append(entry)

    def _take(self, connection: int, ts_ns: int, payload: bytes, entry: Send | Http) -> None:
        self._close()
        if self._has_room():
            self._bytes_in += len(payload) + ENTRY_BYTES
            self._append(entry)
        else:
            self._lose(connection, ts_ns, [payload])

    def _has_room(self) -> bool:
        """Once the buffer was full, entries are taken again when half of it is free."""
        waiting = self._bytes_in - self._bytes_out
        if not self._lost:
            return waiting <= self._limit
        if waiting > self._limit // 2:
            return False
        for lost in self._lost.values():
            self._append(lost)
        self._lost.clear()
        return True

    def _lose(self, connection: int, ts_ns: int, payloads: Sequence[bytes]) -> None:
        if self._limit < 0:
            return  # stopped
        lost_here = self._lost.get(connection)
        if lost_here is None:
            lost_here = self._lost[connection] = LostFrames(connection, ts_ns, ts_ns)
        lost_here.to_ns = ts_ns
        size = sum(map(len, payloads))
        lost_here.lines += len(payloads)
        lost_here.size += size
        self._lines_lost += len(payloads)
        self._bytes_lost += size

    # The thread's side ---------------------------------------------------------------------------

    def _work(self) -> None:
        stopping = False
        retained_s = time.monotonic()
        while not stopping:
            stopping = self._stopping.wait(WAKE_S)
            try:
                self._drain()
            except Exception as failure:  # noqa: BLE001  # the boundary: the thread goes on
                self._worker.failed(failure)
                self._stopping.wait(self._worker.delay_s)
            now_s = time.monotonic()
            if now_s - retained_s >= _RETENTION_S:
                retained_s = now_s
                self._worker.retain()
        self._worker.close()

    def _drain(self) -> None:
        """Move everything that waits to the writers, and what they cut to the disk."""
        worker = self._worker
        while True:
            chunk, size = take_chunk(self._entries)
            try:
                worker.take(chunk)
                worker.tick()
                while not worker.write():
                    if self._stopping.wait(worker.delay_s):
                        break
            finally:
                self._bytes_out += size
            if not chunk:
                return
