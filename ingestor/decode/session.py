"""One connection's protocol, without I/O: payloads in; rows, replies and counts out.

The transport calls `receive` for each text or binary frame. It is the boundary of the unit "frame":
whatever an adapter raises, the frame is taken back whole and kept as rejected, and the streams that
it names have a hole (all of its connection where it names none). What is neither of MALFORMED nor a
DecodeError is a bug of the adapter, which whoever flushes reports.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ingestor.adapter import (
    Ack,
    Acks,
    Control,
    FeedAdapter,
    Filtered,
    HasTradeHistory,
    NamesStreams,
    Notice,
    Reconnect,
    Refused,
    Reply,
    SaysHowItAcks,
)
from ingestor.adapter.contract import Subscription
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealing import SNAPSHOT_REASON
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.lines import Lines
from ingestor.model.errors import MALFORMED, DecodeError, UnknownMessage
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Cause

_FORESEEN: Final = (DecodeError, *MALFORMED)
_DETAIL_MAX: Final = 400  # characters; a parser may quote all that it was given


class SessionEvents:
    """Receive a session's rare events; the default does nothing."""

    def refused(self, session: Session, streams: Sequence[str], text: str) -> None:
        """Take note that the venue refuses streams.

        Args:
            session: The session that asked for them.
            streams: Names of the streams.
            text: The venue's words.
        """

    def refused_together(self, session: Session, streams: Sequence[str]) -> None:
        """The venue refuses a request for several streams: they must be asked for one by one."""

    def reconnect(self, session: Session, reason: str) -> None:
        """The venue wants this connection to be opened anew."""

    def reply(self, session: Session, payload: bytes) -> None:
        """The venue wants this text frame as an answer."""


def _nothing_waits() -> None: ...


def instruments_of(subscriptions: Iterable[Subscription], row_class: RowClass) -> list[int]:
    """Return the instruments of which a class of rows is subscribed to."""
    channel = row_class.channel
    return [
        subscription.instrument for subscription in subscriptions if subscription.channel == channel
    ]


class _Streams:
    """Some streams of a connection, as the source of a hole that concerns no others."""

    __slots__ = ("_subscriptions",)

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        self._subscriptions = subscriptions

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return instruments_of(self._subscriptions, row_class)

    def count_refused(self, reason: str) -> None:
        """Count nothing: no frame came from here."""


class Session:
    """One connection: its adapter, its subscriptions, its part of the ledger."""

    __slots__ = (
        "_acks",
        "_buffer",
        "_decode",
        "_events",
        "_settle",
        "adapter",
        "connection",
        "counts",
        "interrupted",
        "lines",
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
        lines: Lines | None = None,
    ) -> None:
        """connection: a number unique in the process. counts: shared by a (venue, market).

        settle: decodes what arrived and still waits (`FrameQueue.decode`), before anything else
        about this connection takes place.

        lines: where another connection carries the same streams; None where none does.
        """
        self.connection = connection
        self.market = market
        self.adapter = adapter
        self.subscriptions = list(subscriptions)
        self.counts = counts
        self.pending: set[str] = set()
        self.interrupted: set[str] = set()  # subscribed again, and not confirmed yet
        self.refused_streams: set[str] = set()
        self._buffer = buffer
        self._decode: Callable[[bytes, int, ColumnBuffer], Control | None] = adapter.decode
        self._events = events
        self._settle = settle
        self.lines = lines
        self._acks = adapter.acks if isinstance(adapter, SaysHowItAcks) else Acks.ANSWERED

    @property
    def streams(self) -> list[str]:
        """The distinct streams of the subscriptions, in order."""
        return list(dict.fromkeys(subscription.stream for subscription in self.subscriptions))

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return instruments_of(self.subscriptions, row_class)

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Some instruments have a new revision. numbers: old -> new."""
        self._settle()
        self.subscriptions = [
            replace(
                subscription,
                instrument=numbers.get(subscription.instrument, subscription.instrument),
            )
            for subscription in self.subscriptions
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
        changed = [
            subscription
            for subscription in (*before, *self.subscriptions)
            if subscription not in kept
        ]
        self.pending.intersection_update(self.streams)
        if self.lines is not None:  # another line must not be given up for what is not confirmed
            self.expect_acks(
                subscription.stream
                for subscription in self.subscriptions
                if subscription not in kept
            )
        self.interrupted.intersection_update(self.streams)
        self._declare(Cause.DISCONNECT, ts_recv, changed)

    def interrupt(self, streams: Sequence[str], ts_recv: int) -> None:
        """These streams are given up and subscribed to again: what is sent between is lost.

        The hole is declared here and again when the venue confirms, since rows of before may come
        after this, and rows of after before that. Books need none: a snapshot follows.

        Args:
            streams: of the subscriptions.
            ts_recv: the time of the GAPs, ns since the epoch.
        """
        self._settle()
        self.interrupted.update(streams)
        self._pause_of(streams, ts_recv)

    def _pause_of(self, streams: Collection[str], ts_recv: int) -> None:
        lost = [
            subscription
            for subscription in self.subscriptions
            if subscription.stream in streams and subscription.channel != "book"
        ]
        self._declare(Cause.STALE, ts_recv, lost, is_part=True)

    def _declare(
        self,
        cause: Cause,
        ts_recv: int,
        lost: Sequence[Subscription],
        *,
        is_part: bool = False,
    ) -> None:
        """Declare a hole of some streams, as far as no other line carries them."""
        if self.lines is not None:
            lost = self.lines.uncovered(self, lost)
        if lost:
            self._buffer.hole(cause, ts_recv, source=_Streams(lost), is_part=is_part)

    def opened(self) -> Iterable[bytes]:
        """The connection is up: return the frames that subscribe to everything."""
        streams = self.streams
        self.pending.clear()
        self.expect_acks(streams)
        if self.lines is not None:
            self.lines.add(self)
        return self.adapter.subscribe(streams) if streams else ()

    def expect_acks(self, streams: Iterable[str]) -> None:
        """These streams were subscribed to: wait for the venue to confirm them, if it ever does."""
        if self._acks is not Acks.NEVER:
            self.pending.update(streams)

    def receive(self, payload: bytes, ts_recv: int) -> bytes | None:
        """Take one frame; return the frame to answer with, if any. ts_recv: ns."""
        buffer = self._buffer
        buffer.frames.append(payload)  # ColumnBuffer.begin, without the call
        buffer.sources.append(self)
        buffer.frame += 1
        return self._receive(payload, ts_recv)

    def receive_begun(self, frame: int, payload: bytes, ts_recv: int) -> bytes | None:
        """Take a frame that the buffer has a number for, as `receive` does.

        Args:
            frame: The number.
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.

        Returns:
            An answer to send to the venue, or None.
        """
        self._buffer.resume(frame, payload)
        return self._receive(payload, ts_recv)

    def _receive(self, payload: bytes, ts_recv: int) -> bytes | None:
        counts = self.counts
        counts.frames += 1
        try:
            control = self._decode(payload, ts_recv, self._buffer)
            if control is None:
                counts.pending += 1
                if self.pending and self._acks is Acks.BY_DATA:
                    named = self._streams_of(payload)
                    if named:
                        self._acked(named, ts_recv)
                return None
            _check(control)
        except Exception as failure:  # noqa: BLE001  # the boundary of a frame
            self._reject(payload, failure, ts_recv)
            return None
        return self._control(control, ts_recv)

    def count_refused(self, reason: str) -> None:
        """Count a frame that was refused when its columns were sealed."""
        self.counts.refuse_pending(reason)

    def reply(self, payload: bytes) -> None:
        """Have an answer sent that `receive` gave."""
        self._events.reply(self, payload)

    def snapshot(self, symbol: str, body: bytes, ts_recv: int) -> bool:
        """Take a REST book snapshot.

        It is not a frame of the ledger. A rejection is kept as that of a frame is.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.

        Returns:
            True if it could be read.
        """
        return self._answer(self.adapter.decode_snapshot, symbol, body, ts_recv)

    def _answer(
        self,
        decode: Callable[[str, bytes, int, ColumnBuffer], None],
        symbol: str,
        body: bytes,
        ts_recv: int,
    ) -> bool:
        self._settle()
        buffer = self._buffer
        buffer.begin_answer(self, body)
        try:
            decode(symbol, body, ts_recv, buffer)
        except Exception as failure:  # noqa: BLE001  # the boundary of a frame
            buffer.reject(SNAPSHOT_REASON, f"{symbol}: {_words(failure)}", ts_recv)
            if not isinstance(failure, _FORESEEN):
                buffer.bugs.append(failure)
            return False
        return True

    def history(self, symbol: str, body: bytes, ts_recv: int) -> bool:
        """Take past trades, as `snapshot` takes a book.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.

        Returns:
            True if they could be read.
        """
        adapter = self.adapter
        return isinstance(adapter, HasTradeHistory) and self._answer(
            adapter.decode_history, symbol, body, ts_recv
        )

    def closed(self, ts_recv: int) -> None:
        """The connection ended: everything on it has a hole from here."""
        self._settle()
        self.pending.clear()
        self.interrupted.clear()
        if self.lines is None:
            self._buffer.hole(Cause.DISCONNECT, ts_recv, source=self)
            return
        self.lines.remove(self)
        self._declare(Cause.DISCONNECT, ts_recv, self.subscriptions)
        self.subscriptions = []  # its books are the other line's now

    def _reject(self, payload: bytes, failure: Exception, ts_recv: int) -> None:
        """Refuse the current frame, and declare what its streams may have lost.

        A message of a kind that nobody subscribed to costs nothing, nor does one that names streams
        which nobody subscribed to here.
        """
        buffer = self._buffer
        reason = failure.reason if isinstance(failure, DecodeError) else DecodeError.reason
        self.counts.reject(reason)
        buffer.reject(reason, _words(failure), ts_recv)
        if isinstance(failure, UnknownMessage):
            return
        if not isinstance(failure, _FORESEEN):
            buffer.bugs.append(failure)
        named = self._named(payload)
        if named is None:
            buffer.hole(Cause.REJECTED, ts_recv)
            return
        for row_class, instruments in named.items():
            buffer.hole(Cause.REJECTED, ts_recv, instruments=list(instruments), row_class=row_class)

    def _named(self, payload: bytes) -> dict[RowClass, dict[int, None]] | None:
        """Return the instruments, by class, whose streams an unreadable frame names; None where
        that can't be told.
        """
        streams = self._streams_of(payload)
        if not streams:
            return None
        named: dict[RowClass, dict[int, None]] = {}
        for subscription in self.subscriptions:
            if subscription.stream in streams:
                of_class = named.setdefault(ROW_CLASSES.of_channel(subscription.channel), {})
                of_class[subscription.instrument] = None
        return named

    def _streams_of(self, payload: bytes) -> frozenset[str]:
        """Return the streams that a frame names; empty where that can't be told."""
        adapter = self.adapter
        if not isinstance(adapter, NamesStreams):
            return frozenset()
        try:
            return frozenset(adapter.streams_of(payload))
        except Exception:  # noqa: BLE001  # of a frame that is refused, or that was read already
            return frozenset()

    def _control(self, control: Control, ts_recv: int) -> bytes | None:
        self.counts.leave_out(control)
        match control:
            case Reply(payload):
                return payload
            case Ack(streams):
                self._acked(streams, ts_recv)
            case Refused(text, streams):
                self._refused(text, streams)
            case Reconnect(text):
                self._events.reconnect(self, text)
            case Notice() | Filtered():
                pass
        return None

    def _acked(self, streams: Collection[str], ts_recv: int) -> None:
        confirmed = self.interrupted.intersection(streams or self.interrupted)
        if confirmed:
            self.interrupted -= confirmed
            self._pause_of(confirmed, ts_recv)
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
        self.subscriptions = [
            subscription
            for subscription in self.subscriptions
            if subscription.stream not in streams
        ]
        self._events.refused(self, streams, text)


def _check(control: Control) -> None:
    """Raise TypeError for what no adapter may return: its names come from a venue."""
    match control:
        case Ack(streams) | Refused(streams=streams):
            texts: Sequence[object] = streams
        case Reconnect(text) | Filtered(rule=text):
            texts = (text,)
        case Reply(payload) if isinstance(payload, bytes):
            texts = ()
        case Notice():
            texts = ()
        case _:
            raise TypeError(f"an adapter returned {control!r:.60}")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"a name that is no text in {control!r:.60}")


def _words(failure: Exception) -> str:
    """Return what an exception says, in one line of a bounded length."""
    try:
        text = failure.detail if isinstance(failure, DecodeError) else str(failure)
    except Exception:  # noqa: BLE001  # an exception of a third party may not even have words
        text = "(no words)"
    return (text if isinstance(failure, DecodeError) else f"{type(failure).__name__}: {text}")[
        :_DETAIL_MAX
    ]
