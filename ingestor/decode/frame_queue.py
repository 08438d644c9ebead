"""Frames of one market as they arrived, until they are decoded together.

On arrival a frame costs its payload and three entries of a list. Where the compiled library is
there and the adapter declares shapes, frames that have one become rows at once
(`ingestor.native`). All others take the way of `Session.receive`, each at its place. Whatever else
goes into the buffer comes after `decode`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, cast

from ingestor.adapter import BookOffer, CountsFrames, FeedAdapter
from ingestor.adapter.shapes import shapes_of
from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.lines import Lines
from ingestor.decode.session import Session
from ingestor.model.instruments import InstrumentTable
from ingestor.native import FrameCounter, FrameTaker, TakenRows, native

Arrival = tuple[Session, bytes, int]  # whose, payload, ts_recv in ns since the epoch
Arrive = Callable[[Arrival], None]
# Session, what was read, where a frame begins, the most bytes of a payload, ts_recv in ns; returns
# where something else begins.
TakeRead = Callable[[Session, bytes, int, int, int], int]

FRAMES_FULL: Final = 64  # are decoded at once: what they hold still is in the processor's cache
WIDTH: Final = 3  # members of an arrival


class FrameQueue:
    """Hold the frames that wait to be decoded for one (venue, market).

    arrive: takes an `Arrival`; on the hot path, so it is the list's own method. arrived: that list,
    WIDTH members for each frame. full: its length at which it should be decoded. counts: the frame
    side of the ledger, as of the last `decode`. taker: reads frames with shapes, None where nothing
    does. has_taken: whether `take` put rows into the buffer since somebody set it to False.
    """

    def __init__(
        self,
        adapter: type[FeedAdapter],
        market: str,
        symbols: Mapping[str, int],
        buffer: ColumnBuffer,
        counts: FrameCounts | None = None,
        *,
        is_plain: bool = False,
    ) -> None:
        """Create the frame queue.

        Args:
            adapter: the venue.
            market: one of its markets.
            symbols: venue symbol -> instrument number, live (InstrumentTable.symbols).
            buffer: takes the rows.
            counts: of the market; None = its own.
            is_plain: no shape takes a frame (`BookOffer.is_plain`).
        """
        self.buffer = buffer
        self.counts = FrameCounts() if counts is None else counts
        self.arrived: list[object] = []
        self.arrive: Arrive = self.arrived.extend
        self._symbols = symbols
        self._symbols_known = (-1, -1)
        self.taker = None if is_plain else self._taker(adapter, market)
        self.has_taken = False
        if self.taker is not None:
            self.counts.by_shape = self.taker.frames_by_class
        self.full = WIDTH * FRAMES_FULL

    def decode(self) -> None:
        """Decode all that arrived, in order."""
        arrived = self.arrived
        if not arrived:
            return
        sessions = cast("list[Session]", arrived[0::WIDTH])
        payloads = cast("list[bytes]", arrived[1::WIDTH])
        ts_recv = cast("list[int]", arrived[2::WIDTH])
        arrived.clear()
        if self.taker is not None:
            self._compiled(self.taker, sessions, payloads, ts_recv)
        else:
            self._alone(sessions, payloads, ts_recv)

    def take(
        self, session: Session, data: bytes, at: int, longest: int, ts_recv: int
    ) -> tuple[int, bool]:
        """Decode the whole data frames of a read, those with a shape at once.

        Args:
            session: whose read it is.
            data: what was read, with websocket headers.
            at: where a frame begins.
            longest: the most bytes that a payload may have.
            ts_recv: when it was read, ns since the epoch.

        Returns:
            Where that ended; whether there may be more to take, once what was taken is flushed.
        """
        taker, buffer, counts = self.taker, self.buffer, self.counts
        assert taker is not None, "nothing declares shapes"
        self.decode()
        self._refresh(taker)
        counter = cast("CountsFrames", session.adapter) if taker.is_counted else None
        while True:
            frame = buffer.frame + 1
            end, taken, is_full, others = taker.take_read(
                data, at, longest, ts_recv, frame, counter
            )
            if end > at or not is_full:
                break
            taker.rows.grow()  # one frame has more than an empty array holds
        if end > at:
            counts.frames += taken
            counts.pending += taken
            buffer.begin_taken(session, len(others))
            self.has_taken = True
        if others:
            many = len(others)
            payloads = [data[offset : offset + size] for offset, size, _ in others]
            frames = [number for _, _, number in others]
            self._others([session] * many, payloads, [ts_recv] * many, frames)
        return end, is_full

    def _taker(self, adapter: type[FeedAdapter], market: str) -> FrameTaker | None:
        """Return what reads frames with shapes, where there is anything to read them with."""
        shapes, library = shapes_of(adapter, market), native().library
        if not shapes or library is None or self.buffer.table is None:
            return None
        if self.buffer.taken is None:
            self.buffer.taken = TakenRows()
        return FrameTaker(library, shapes, self.buffer.taken)

    def _refresh(self, taker: FrameTaker) -> None:
        """Follow the instrument table: it grows with each new symbol or revision of one."""
        known = (len(self.buffer.table or ()), len(self._symbols))
        if known != self._symbols_known:
            self._symbols_known = known
            taker.set_symbols(
                (symbol, number, *exponents)
                for symbol, number in self._symbols.items()
                if (exponents := self.buffer.exponents(number)) is not None
            )

    def _compiled(
        self,
        taker: FrameTaker,
        sessions: list[Session],
        payloads: list[bytes],
        ts_recv: list[int],
    ) -> None:
        """Decode frames that have a shape at once, and the others after them."""
        self._refresh(taker)
        buffer, counts = self.buffer, self.counts
        frames = buffer.begin_many(sessions, payloads)
        adapters = [session.adapter for session in sessions] if taker.is_counted else []
        counters = cast("list[FrameCounter]", adapters)
        taken = len(payloads)
        for others in taker.take_each(payloads, ts_recv, frames.start, counters):
            taken -= len(others)
            self._others(
                [sessions[place] for place in others],
                [payloads[place] for place in others],
                [ts_recv[place] for place in others],
                [frames[place] for place in others],
            )
        counts.frames += taken
        counts.pending += taken

    def _others(
        self,
        sessions: list[Session],
        payloads: list[bytes],
        ts_recv: list[int],
        frames: list[int],
    ) -> None:
        """Decode frames in Python that the buffer has numbers for."""
        events = self.buffer.events
        try:
            for session, payload, received, frame in zip(
                sessions, payloads, ts_recv, frames, strict=True
            ):
                reply = session.receive_begun(frame, payload, received)
                if reply is not None:
                    session.reply(reply)
        finally:
            self.buffer.resume_last()
            self.counts.in_python.update(self.buffer.events - events)

    def _alone(self, sessions: list[Session], payloads: list[bytes], ts_recv: list[int]) -> None:
        for session, payload, received in zip(sessions, payloads, ts_recv, strict=True):
            reply = session.receive(payload, received)
            if reply is not None:
                session.reply(reply)


def take_reads(frame_queue: FrameQueue, on_read_complete: Callable[[], None]) -> TakeRead | None:
    """Return what takes all whole data frames of a read, and lets the owner flush in between; None
    where nothing takes reads. on_read_complete: asks the owner to flush what is due.
    """
    if frame_queue.taker is None:
        return None

    def take_read(session: Session, data: bytes, at: int, longest: int, ts_recv: int) -> int:
        """Take the whole data frames of a read.

        Args:
            session: The connection's session.
            data: Bytes of the read.
            at: Offset of the first frame.
            longest: Most bytes of a frame.
            ts_recv: Time of receipt in ns.

        Returns:
            The offset behind the last frame that was taken.
        """
        has_more = at < len(data)
        while has_more:
            at, has_more = frame_queue.take(session, data, at, longest, ts_recv)
            if has_more:
                on_read_complete()
        return at

    return take_read


class FrameQueues:
    """All frame queues of a process. counts: the frame side of the ledger, by venue and market."""

    def __init__(self, table: InstrumentTable, buffer: ColumnBuffer) -> None:
        self._table = table
        self._buffer = buffer
        self._frame_queues: dict[tuple[str, str, bool], FrameQueue] = {}
        self.counts: dict[tuple[str, str], FrameCounts] = {}
        self.lines = Lines()

    def of(
        self, adapter: type[FeedAdapter], market: str, offer: BookOffer | None = None
    ) -> FrameQueue:
        """Return the frame queue of a (venue, market); made when it is first asked for.

        Args:
            adapter: the venue.
            market: one of its markets.
            offer: the form of the connection's books; frames of plain ones have their own queue.
        """
        is_plain = offer is not None and offer.is_plain
        key = (adapter.venue, market)
        found = self._frame_queues.get((*key, is_plain))
        if found is None:
            symbols, counts = self._table.symbols(*key), self.counts.setdefault(key, FrameCounts())
            found = FrameQueue(adapter, market, symbols, self._buffer, counts, is_plain=is_plain)
            self._frame_queues[(*key, is_plain)] = found
        return found

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
