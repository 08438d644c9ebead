"""Frames of one market as they arrived, until they are decoded together.

On arrival a frame costs its payload and three entries of a list. What a connection's frames have in
common is done for many of them at once, where the adapter offers it (`DecodesMany`). Frames that
are not plain data (acks, snapshots, nonsense) are found by halving, and take the way of
`Session.receive`, in order. Whatever else goes into the buffer comes after `decode`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, cast

from ingestor.adapter import DecodeMany, DecodesMany, FeedAdapter
from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session
from ingestor.model.errors import MALFORMED, DecodeError
from ingestor.model.instruments import InstrumentTable

Arrival = tuple[Session, bytes, int]  # whose, payload, ts_recv in ns since the epoch
Arrive = Callable[[Arrival], None]

FRAMES_FULL: Final = 64  # are decoded at once: what they hold still is in the processor's cache
FRAMES_FULL_ALONE: Final = 32  # the same where nothing decodes them together
_FORESEEN: Final = (DecodeError, *MALFORMED)
_FEW: Final = 4  # are decoded one by one
_FAILURES_MAX: Final = 8  # in one go: two odd frames are searched for; then all go one by one
WIDTH: Final = 3  # members of an arrival


class FrameQueue:
    """What waits to be decoded for one (venue, market).

    arrive: takes an `Arrival`; on the hot path, so it is the list's own method. arrived: that list,
    WIDTH members for each frame. full: its length at which it should be decoded. counts: the frame
    side of the ledger, as of the last `decode`.
    """

    def __init__(
        self,
        adapter: type[FeedAdapter],
        market: str,
        symbols: Mapping[str, int],
        buffer: ColumnBuffer,
    ) -> None:
        """symbols: venue symbol -> instrument number, live (InstrumentTable.symbols)."""
        self.buffer = buffer
        self.counts = FrameCounts()
        self.arrived: list[object] = []
        self.arrive: Arrive = self.arrived.extend
        self._bug: Exception | None = None  # what nothing foresaw about frames decoded together
        self._decode_many: DecodeMany | None = None
        if issubclass(adapter, DecodesMany):
            self._decode_many = adapter.decoder_of_many(market, symbols)
        self.full = WIDTH * (FRAMES_FULL if self._decode_many is not None else FRAMES_FULL_ALONE)

    def decode(self) -> None:
        """Decode all that arrived, in order."""
        arrived = self.arrived
        if not arrived:
            return
        sessions = cast("list[Session]", arrived[0::WIDTH])
        payloads = cast("list[bytes]", arrived[1::WIDTH])
        ts_recv = cast("list[int]", arrived[2::WIDTH])
        arrived.clear()
        if self._decode_many is None or len(payloads) <= _FEW:
            self._alone(sessions, payloads, ts_recv)
        elif not self._together(sessions, payloads, ts_recv):
            found = len(self.buffer.bugs)
            self._apart(sessions, payloads, ts_recv)
            if self._bug is not None and len(self.buffer.bugs) == found:  # of no frame alone
                self.buffer.bugs.append(self._bug)
            self._bug = None

    def _alone(self, sessions: list[Session], payloads: list[bytes], ts_recv: list[int]) -> None:
        for session, payload, received in zip(sessions, payloads, ts_recv, strict=True):
            reply = session.receive(payload, received)
            if reply is not None:
                session.reply(reply)

    def _apart(self, sessions: list[Session], payloads: list[bytes], ts_recv: list[int]) -> None:
        """Find what is odd among these frames, and decode all of them."""
        start, odd_until, failures = 0, len(payloads), 1  # what is odd ends before `odd_until`
        while start < len(payloads):
            until = (start + odd_until) // 2 if start < odd_until else len(payloads)
            if failures > _FAILURES_MAX:
                until = len(payloads)
            elif until - start <= _FEW:
                until = min(start + _FEW, len(payloads))
            some = sessions[start:until], payloads[start:until], ts_recv[start:until]
            if failures > _FAILURES_MAX or until - start <= _FEW:
                self._alone(*some)
            elif not self._together(*some):
                failures += 1
                odd_until = until
                continue
            start = until

    def _together(self, sessions: list[Session], payloads: list[bytes], ts_recv: list[int]) -> bool:
        """Decode frames with one call; return False, and leave nothing behind, if one of them is
        anything but data."""
        assert self._decode_many is not None
        buffer = self.buffer
        frames = buffer.begin_many(sessions, payloads)
        try:
            others = self._decode_many(payloads, ts_recv, frames, buffer)
        except Exception as failure:  # noqa: BLE001  # found again, alone
            buffer.withdraw(frames.start)
            if not isinstance(failure, _FORESEEN):
                self._bug = failure
            return False
        buffer.frame = frames.stop - 1
        counts = self.counts
        counts.frames += len(payloads)
        counts.pending += len(payloads) - len(others)
        for control in others:
            counts.leave_out(control)
        return True


class FrameQueues:
    """All frame queues of a process. counts: the frame side of the ledger, by venue and market."""

    def __init__(self, table: InstrumentTable, buffer: ColumnBuffer) -> None:
        self._table = table
        self._buffer = buffer
        self._frame_queues: dict[tuple[str, str], FrameQueue] = {}
        self.counts: dict[tuple[str, str], FrameCounts] = {}

    def of(self, adapter: type[FeedAdapter], market: str) -> FrameQueue:
        """Return the frame queue of a (venue, market); made when it is first asked for."""
        key = (adapter.venue, market)
        if key not in self._frame_queues:
            symbols = self._table.symbols(*key)
            frame_queue = self._frame_queues[key] = FrameQueue(
                adapter, market, symbols, self._buffer
            )
            self.counts[key] = frame_queue.counts
        return self._frame_queues[key]

    def seal(self) -> None:
        """Count what is pending as decoded: the buffer is sealed."""
        for counts in self.counts.values():
            counts.seal()

    @property
    def is_empty(self) -> bool:
        return not any(frame_queue.arrived for frame_queue in self._frame_queues.values())

    def decode(self) -> None:
        """Decode everything that arrived."""
        for frame_queue in self._frame_queues.values():
            frame_queue.decode()
