"""One connection's protocol, without I/O: payloads in; rows, replies and counts out.

The transport calls `receive` for each text or binary frame. It is the boundary at which a venue's
surprises become `DecodeError`: the frame is taken back whole, kept as rejected, and its
connection's instruments have a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ingestor.adapter import (
    Ack,
    Control,
    FeedAdapter,
    Filtered,
    Notice,
    Reconnect,
    Refused,
    Reply,
)
from ingestor.adapter.contract import Subscription
from ingestor.columns.buffer import ColumnBuffer, PackError
from ingestor.decode.frame_counts import FrameCounts
from ingestor.model.errors import DecodeError
from ingestor.model.rows import CHANNEL_OF, Cause, RowClass

MALFORMED: Final = (
    *(LookupError, TypeError, ValueError, AttributeError, PackError, OverflowError),
    RecursionError,  # of a parser, or of repr, over a message that is nested too deeply
)


class SessionEvents:
    """What a session tells its owner. All are rare; the default does nothing."""

    def refused(self, session: Session, streams: Sequence[str], text: str) -> None:
        """The venue refuses these streams."""

    def refused_together(self, session: Session, streams: Sequence[str]) -> None:
        """The venue refuses a request for several streams: they must be asked for one by one."""

    def reconnect(self, session: Session, reason: str) -> None:
        """The venue wants this connection to be opened anew."""

    def reply(self, session: Session, payload: bytes) -> None:
        """The venue wants this text frame as an answer."""


def _nothing_waits() -> None: ...


def instruments_of(subscriptions: Iterable[Subscription], row_class: RowClass) -> list[int]:
    """Return the instruments of which a class of rows is subscribed to."""
    channel = CHANNEL_OF[row_class]
    return [one.instrument for one in subscriptions if one.channel == channel]


class _Streams:
    """Some streams of a connection, as the source of a hole that concerns no others."""

    __slots__ = ("_subscriptions",)

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        self._subscriptions = subscriptions

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return instruments_of(self._subscriptions, row_class)


class Session:
    """One connection: its adapter, its subscriptions, its part of the ledger."""

    __slots__ = (
        "_buffer",
        "_decode",
        "_events",
        "_settle",
        "adapter",
        "connection",
        "counts",
        "market",
        "pending",
        "refused_streams",
        "subscriptions",
    )

    def __init__(
        self,
        connection: int,
        adapter: FeedAdapter,
        subscriptions: Iterable[Subscription],
        buffer: ColumnBuffer,
        counts: FrameCounts,
        events: SessionEvents,
        market: str = "",
        settle: Callable[[], None] = _nothing_waits,
    ) -> None:
        """connection: a number unique in the process. counts: shared by a (venue, market).

        settle: decodes what arrived and still waits (`FrameQueue.decode`), before anything else
        about this connection takes place."""
        self.connection = connection
        self.market = market
        self.adapter = adapter
        self.subscriptions = list(subscriptions)
        self.counts = counts
        self.pending: set[str] = set()
        self.refused_streams: set[str] = set()
        self._buffer = buffer
        self._decode: Callable[[bytes, int, ColumnBuffer], Control | None] = adapter.decode
        self._events = events
        self._settle = settle

    @property
    def streams(self) -> list[str]:
        """The distinct streams of the subscriptions, in order."""
        return list(dict.fromkeys(one.stream for one in self.subscriptions))

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return instruments_of(self.subscriptions, row_class)

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Some instruments have a new revision. numbers: old -> new."""
        self._settle()
        self.subscriptions = [
            replace(one, instrument=numbers.get(one.instrument, one.instrument))
            for one in self.subscriptions
        ]

    def change(self, subscriptions: Iterable[Subscription], ts_recv: int) -> None:
        """Carry other streams from now on.

        Those that go and those that come have a hole here: frames of a stream that is given up may
        still arrive, and nobody knows what came before one that is new, or carried again.

        Args:
            subscriptions: all that the connection carries from now on.
            ts_recv: the time of the GAPs, ns since the epoch.
        """
        self._settle()
        before, self.subscriptions = self.subscriptions, list(subscriptions)
        kept = {*before} & {*self.subscriptions}
        changed = [one for one in (*before, *self.subscriptions) if one not in kept]
        self.pending.intersection_update(self.streams)
        if changed:
            self._buffer.hole(Cause.DISCONNECT, ts_recv, source=_Streams(changed))

    def opened(self) -> Iterable[bytes]:
        """The connection is up: return the frames that subscribe to everything."""
        streams = self.streams
        self.pending = set(streams)
        return self.adapter.subscribe(streams) if streams else ()

    def receive(self, payload: bytes, ts_recv: int) -> bytes | None:
        """Take one frame; return the frame to answer with, if any. ts_recv: ns."""
        counts = self.counts
        counts.frames += 1
        buffer = self._buffer
        buffer.frames.append(payload)  # ColumnBuffer.begin, without the call
        buffer.sources.append(self)
        buffer.frame += 1
        try:
            control = self._decode(payload, ts_recv, buffer)
        except DecodeError as failure:
            buffer.reject(failure.reason, failure.detail, ts_recv)
            counts.reject(failure.reason)
            return None
        except MALFORMED as failure:
            buffer.reject(DecodeError.reason, f"{type(failure).__name__}: {failure}", ts_recv)
            counts.reject(DecodeError.reason)
            return None
        if control is None:
            counts.decoded += 1
            return None
        return self._control(control)

    def reply(self, payload: bytes) -> None:
        """Have an answer sent that `receive` gave."""
        self._events.reply(self, payload)

    def snapshot(self, symbol: str, body: bytes, ts_recv: int) -> bool:
        """Take a REST book snapshot; return whether it could be read. Not a frame of the ledger:
        the rejection, if any, is kept like a frame's."""
        self._settle()
        self._buffer.begin(self, body)
        try:
            self.adapter.decode_snapshot(symbol, body, ts_recv, self._buffer)
        except (DecodeError, *MALFORMED) as failure:
            self._buffer.reject("snapshot", f"{symbol}: {failure}", ts_recv, is_hole=False)
            return False
        return True

    def closed(self, ts_recv: int) -> None:
        """The connection ended: everything on it has a hole from here."""
        self._settle()
        self.pending.clear()
        self._buffer.hole(Cause.DISCONNECT, ts_recv, source=self)

    def _control(self, control: Control) -> bytes | None:
        self.counts.leave_out(control)
        match control:
            case Reply(payload):
                return payload
            case Ack(streams):
                self._acked(streams)
            case Refused(text, streams):
                self._refused(text, streams)
            case Reconnect(text):
                self._events.reconnect(self, text)
            case Notice() | Filtered():
                pass
        return None

    def _acked(self, streams: Sequence[str]) -> None:
        if streams:
            self.pending.difference_update(streams)
        else:
            self.pending.clear()

    def _refused(self, text: str, streams: Sequence[str]) -> None:
        if len(streams) > 1:
            self._events.refused_together(self, streams)
            return
        self.pending.difference_update(streams)
        self.refused_streams.update(streams)
        self.subscriptions = [one for one in self.subscriptions if one.stream not in streams]
        self._events.refused(self, streams, text)
