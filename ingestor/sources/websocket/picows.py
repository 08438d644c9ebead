"""The default transport: picows' protocol on streams of our own (`streams`).

Whole data frames, all but a few in a million, are taken from the read buffer here. The handshake
and every other frame go to the library: it checks, masks and closes. What it leaves to its user is
done here too: fragments are joined, close and ping frames answered. docs/adr/0018 has the
measurement.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from struct import Struct
from typing import Final

from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSError,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
)
from picows.picows import WSCloseHandshake, WSProtocol  # type: ignore[attr-defined]
from picows.url import parse_url

from ingestor.model.errors import PeerClosed, TransportError
from ingestor.sources.websocket.handshake import answer_end, check_answer
from ingestor.sources.websocket.interface import (
    ABNORMAL_CLOSURE,
    CLOSE_TIMEOUT_S,
    NO_STATUS,
    Arrive,
    ClosedByUs,
    ConnectOptions,
    Handler,
    PingLimit,
    ProtocolViolated,
    callback_failure,
    connect_failure,
    is_close_code,
    oversize,
    take_of,
)
from ingestor.sources.websocket.poller import ReadComplete
from ingestor.sources.websocket.sockets import READ_BYTES, Receive, SocketTransport, open_stream

# The version whose undocumented parts, `picows.picows` and `picows.url`, were read.
REVIEWED_VERSION: Final = "2.3.1"
LIBRARY_BUFFER_BYTES: Final = 2_048  # the library's own, for what is handed to it; it grows
# One read may bring hundreds of frames: the owner is asked to flush within it, so that batches stay
# as small as the processor's cache. A power of two.
BURST_FRAMES_MAX: Final = 64
# What holds fewer than about six frames costs less frame by frame than a call of the compiled way.
TAKE_BYTES_MIN: Final = 800
# RFC 6455 section 5.2: final text and binary frames without extensions, and the lengths that mean
# that 16 or 64 bits of length follow (or, above, that the frame is masked, as no server's may be).
_DATA_FIRST: Final = frozenset({0x81, 0x82})
_header: Final = Struct(">BBH").unpack_from
_HEAD_BYTES: Final = 4
_LENGTH_16: Final = 126
_LENGTH: Final = 0x7F
_RESERVED_BITS: Final = 0x70  # RFC 6455 section 5.2: an extension's, and we offer none
_EVERYTHING: Final = 1 << 62
_DATA: Final = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})

# The library logs each connection, and each violation that we report ourselves. An adapter, not a
# logger: it would make one more Logger object for each connection.
_logger = logging.getLogger(f"{__name__}.library")
_logger.setLevel(logging.CRITICAL + 1)
_QUIET: Final = logging.LoggerAdapter(_logger, {})


class _PicowsLink(WSListener):
    """The library's listener and our Link in one object."""

    __slots__ = (
        "_abandoned",
        "_arrive",
        "_clock_ns",
        "_failure",
        "_flows",
        "_handler",
        "_library",
        "_library_waits",
        "_message_bytes_max",
        "_on_read_complete",
        "_parts",
        "_parts_bytes",
        "_pings",
        "_receive",
        "_rest",
        "_session",
        "_stream",
        "_take",
        "_transport",
        "_url",
        "received_ns",
    )

    _receive: Receive
    _stream: SocketTransport

    def __init__(self, options: ConnectOptions, handler: Handler) -> None:
        self._handler = handler
        self._clock_ns = options.clock_ns
        self._session = handler.session
        self._arrive = handler.arrive
        self._take = take_of(handler)
        self._on_read_complete = handler.on_read_complete
        self._url = options.url
        self._message_bytes_max = options.frame_bytes_max
        self._transport: WSTransport | None = None
        self._failure: TransportError | None = None
        self._flows = False  # frame follows frame: nothing before that concerns what arrives now
        self._rest = b""  # of a frame that has not arrived whole
        self._library: WSProtocol | None = None  # it holds us: let go of it at the end
        self._library_waits = 0  # for so many bytes more, which belong to what it was given
        self._parts: list[bytes] | None = None
        self._parts_bytes = 0
        self._pings = PingLimit()
        self._abandoned = False
        self.received_ns = 0

    def start(self, stream: SocketTransport, library: WSProtocol) -> None:
        """Ask for the handshake, on a stream that is connected."""
        self._stream, self._library, self._receive = stream, library, stream.receive
        stream.start(library, self)

    # What the stream calls

    def readable(self, descriptor: int) -> ReadComplete | None:
        """Read once and hand over what came; return `on_read_complete` if that is due."""
        receive = self._receive  # slots are slow to call as methods
        try:
            data = receive(descriptor, READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as failure:
            self._stream.ended(failure)
            return None
        if not data:
            self._stream.ended()
            return None
        self.received_ns = ts_recv = self._clock_ns()
        size = len(data)
        if self._flows and not self._rest and _HEAD_BYTES <= size < READ_BYTES:
            # One whole frame and nothing else, as nearly always: what `_whole_frames` does for it.
            first, length, length_16 = _header(data)
            if size < _LENGTH_16 + 2:
                start, is_alone = 2, length == size - 2
            else:
                start, is_alone = 4, length == _LENGTH_16 and length_16 == size - 4
            if is_alone and first in _DATA_FIRST and size - start <= self._message_bytes_max:
                arrive = self._arrive
                arrive((self._session, data[start:], ts_recv))
                return self._on_read_complete
        self._frames(data)
        return None

    def _frames(self, data: bytes) -> None:
        """Hand over what is whole of any frames, as a burst of its own."""
        has_more = len(data) == READ_BYTES
        if self._rest:
            data, self._rest = self._rest + data, b""
        at = self._whole_frames(data, 0) if self._flows else 0
        if at < len(data):
            at = self._odd_frames(data, at)
            self._rest = data[at:]
        self._on_read_complete()
        if has_more:
            self._stream.read_again()

    def _whole_frames(self, data: bytes, at: int) -> int:
        """Hand over data frames that are whole, from `at`; return where something else begins."""
        if self._take is not None and len(data) - at >= TAKE_BYTES_MIN:
            return self._take(self._session, data, at, self._message_bytes_max, self.received_ns)
        arrive, session, ts_recv = self._arrive, self._session, self.received_ns
        longest, size, frames = self._message_bytes_max, len(data), 0
        while at + _HEAD_BYTES <= size:
            first, length, length_16 = _header(data, at)
            start = at + 2
            if length >= _LENGTH_16:
                if length > _LENGTH_16:
                    break
                start, length = at + _HEAD_BYTES, length_16
            end = start + length
            if end > size or first not in _DATA_FIRST or length > longest:
                break
            arrive((session, data[start:end], ts_recv))
            at = end
            frames += 1
            if frames == BURST_FRAMES_MAX:
                frames = 0
                self._on_read_complete()
        return at

    def _odd_frames(self, data: bytes, at: int) -> int:
        """Hand over whatever comes, from `at`; return where a frame begins that is to be kept until
        there is more of it.
        """
        if self._library_waits:
            at = self._feed(data, at, min(at + self._library_waits, len(data)))
        elif self._transport is None:
            at = self._answered(data)
        while at + 1 < len(data) and self._transport is not None:
            if self._flows:
                at = self._whole_frames(data, at)
                if at + 1 >= len(data):
                    break
            end = self._hand_over(data, at)
            if end == at:
                break
            at = end
        return at

    def _hand_over(self, data: bytes, at: int) -> int:
        """Give the frame at `at` to the library, as much as there is of it; return the end of what
        it was given: `at` itself for a frame that is none of its own, or without a whole header.
        """
        if data[at] & _RESERVED_BITS and not self._library_waits:
            self._violated(WSCloseCode.PROTOCOL_ERROR, "reserved bits without an extension")
            return self._feed(data, at, len(data))
        second = data[at + 1]
        start, length = at + 2, second & _LENGTH
        if length >= _LENGTH_16:
            start += 2 if length == _LENGTH_16 else 8
            length = int.from_bytes(data[at + 2 : start])
        if start > len(data):
            return at
        end = start + length
        is_ours = self._flows and data[at] in _DATA_FIRST and second <= _LENGTH_16
        if is_ours and len(data) < end and length <= self._message_bytes_max:
            return at
        self._library_waits = end - at
        return self._feed(data, at, min(end, len(data)))

    def _answered(self, data: bytes) -> int:
        """Check the answer to our handshake; return the end of it, 0: not whole.

        The library hears of a good one only, since it must not be fed after one that it refused.
        """
        try:
            end = answer_end(self._url, data)
            if not end:
                return 0
            answer = check_answer(self._url, data[:end], data[end:], offers_extension=False)
        except TransportError as failure:
            self._failure = failure
            self._stream.abort()
            return len(data)
        self._library_waits = len(answer)
        self._feed(answer, 0, len(answer))
        return end

    def _feed(self, data: bytes, at: int, end: int) -> int:
        """Give bytes to the library, which waited for so many at least; return their end.

        Once a close frame was sent it gets everything, to hear of the answer; nothing else counts.
        """
        library, view = self._library, memoryview(data)
        assert library is not None, "not started, or ended"
        self._library_waits -= end - at
        while at < end:
            room = library.get_buffer(-1)
            part = min(len(room), end - at)
            room[:part] = view[at : at + part]
            library.buffer_updated(part)
            at += part
            if self._has_ended:
                self._library_waits, end = _EVERYTHING, len(data)
        self._flows = (
            self._transport is not None and self._parts is None and not self._library_waits
        )
        return at

    @property
    def _has_ended(self) -> bool:
        """Return True if only the answer to our close frame counts: the peer closed, or we did, or
        the
        library did on its own.
        """
        transport = self._transport
        return self._failure is not None or (
            transport is not None and transport.is_close_frame_sent
        )

    def failed(self, failure: Exception) -> None:
        """Something unforeseen was raised in a callback: it costs this connection alone."""
        verdict = callback_failure(self._url, failure)
        self._failure = self._failure or verdict
        self._stream.abort()

    # What the library calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.received_ns = self._clock_ns()
        try:
            self._handler.opened(self)
        except Exception as failure:  # noqa: BLE001  # else the library keeps it for itself
            self.failed(failure)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        try:
            if self._has_ended:
                self._after_close(transport, frame)
            elif self._parts is None and frame.fin and frame.msg_type in _DATA:
                self._arrive((self._session, frame.get_payload_as_bytes(), self.received_ns))
            else:
                self._rare(transport, frame)
        except Exception as failure:  # noqa: BLE001  # else the library keeps it for itself
            self.failed(failure)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._library = None
        if self._abandoned:
            return
        self._abandoned = True
        try:
            self._handler.closed(self._failure or self._why_closed(transport))
        except Exception as failure:  # noqa: BLE001  # there is nothing left to end
            callback_failure(self._url, failure)

    # What the supervisor calls

    def send(self, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, payload)

    def ping(self) -> None:
        if self._transport is not None:
            self._transport.send_ping()

    def close(self) -> None:
        if self._failure is None:
            self._failure = ClosedByUs(self._url, "closed by us")
            self._close(WSCloseCode.OK, "")

    def abort(self) -> None:
        if self._failure is None:
            self._failure = ClosedByUs(self._url, "dropped by us")
        if self._transport is not None:
            self._transport.disconnect(False)

    def pause_reading(self) -> None:
        self._stream.pause_reading()

    def resume_reading(self) -> None:
        self._stream.resume_reading()

    def deliver_to(self, arrive: Arrive) -> None:
        self._arrive = arrive
        self._take = None

    def check_open(self) -> None:
        """Raises why the handshake failed, where the library doesn't know of it."""
        if self._transport is None:
            raise self._failure or ConnectionResetError("closed during the handshake")

    def abandon(self) -> None:
        """Nobody waits for this connection any more, and its stream is aborted."""
        self._library = None
        if self._transport is None:
            self._abandoned = True
        else:
            self.abort()

    # Everything but whole data frames

    def _after_close(self, transport: WSTransport, frame: WSFrame) -> None:
        """We sent a close frame, or the library did, which then parses on: hear only the answer."""
        if frame.msg_type is WSMsgType.CLOSE:
            self._peer_closes(transport, frame)

    def _rare(self, transport: WSTransport, frame: WSFrame) -> None:
        match frame.msg_type:
            case WSMsgType.PING if self._pings.is_over(self.received_ns):
                self._violated(WSCloseCode.POLICY_VIOLATION, PingLimit.TEXT)
            case WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
            case WSMsgType.PONG:
                pass
            case WSMsgType.CLOSE:
                self._peer_closes(transport, frame)
            case WSMsgType.CONTINUATION if self._parts is None:
                self._violated(WSCloseCode.PROTOCOL_ERROR, "continuation of no message")
            case WSMsgType.TEXT | WSMsgType.BINARY if self._parts is not None:
                self._violated(WSCloseCode.PROTOCOL_ERROR, "message inside a fragmented message")
            case _:
                self._join(frame)

    def _join(self, frame: WSFrame) -> None:
        if self._parts is None:
            self._parts, self._parts_bytes = [], 0
        self._parts_bytes += frame.payload_size
        if too_big := oversize(self._parts_bytes, len(self._parts), self._message_bytes_max):
            self._parts = []
            self._violated(WSCloseCode.MESSAGE_TOO_BIG, too_big)
            return
        self._parts.append(frame.get_payload_as_bytes())
        if frame.fin:
            payload = b"".join(self._parts)
            self._parts = None
            self._arrive((self._session, payload, self.received_ns))

    def _peer_closes(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._failure is None and transport.close_handshake.sent is not None:
            self._failure = self._why_closed(transport)  # this is the answer to our own
        if self._failure is None:
            payload = frame.get_payload_as_bytes()
            code = int.from_bytes(payload[:2], "big") if payload else NO_STATUS
            if payload and not is_close_code(code):
                self._violated(WSCloseCode.PROTOCOL_ERROR, f"closed with the invalid code {code}")
                return
            self._failure = PeerClosed(self._url, code, payload[2:].decode(errors="replace"))
            transport.send(WSMsgType.CLOSE, payload[:2])
        transport.disconnect()

    def _violated(self, code: WSCloseCode, reason: str) -> None:
        if self._failure is None:
            self._failure = ProtocolViolated(self._url, code.value, reason)
            self._close(code, reason)

    def _close(self, code: WSCloseCode, reason: str) -> None:
        """Send a close frame; the peer drops the socket, or we do when it takes too long."""
        transport = self._transport
        if transport is not None and not transport.is_disconnected:
            self._library_waits, self._flows = _EVERYTHING, False
            transport.send_close(code, reason)
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, transport.disconnect, False)

    def _why_closed(self, transport: WSTransport) -> TransportError:
        # None before any close frame, whatever the library's stubs say.
        handshake: WSCloseHandshake | None = transport.close_handshake
        if handshake is not None and (sent := handshake.sent) is not None:
            # The library found a violation itself; its exception waits to be fetched.
            _fetch_exception(transport)
            return ProtocolViolated(self._url, sent.code.value, sent.reason)
        return PeerClosed(self._url, ABNORMAL_CLOSURE, "connection lost")


_fetching: set[asyncio.Task[None]] = set()


def _fetch_exception(transport: WSTransport) -> None:
    async def fetch() -> None:
        with suppress(Exception):
            await transport.wait_disconnected()

    task = asyncio.get_running_loop().create_task(fetch())
    _fetching.add(task)
    task.add_done_callback(_fetching.discard)


async def connect(options: ConnectOptions, handler: Handler) -> _PicowsLink:
    """Open a connection; see `transport.Connect`. A proxy takes the websockets transport."""
    assert options.proxy is None, "picows: no proxy"
    link = _PicowsLink(options, handler)
    try:
        async with asyncio.timeout(options.open_timeout_s):
            await _open(link, options)
    except WSError as failure:
        link.abandon()
        what = f"in the handshake: {failure}"
        raise ProtocolViolated(options.url, WSCloseCode.PROTOCOL_ERROR.value, what) from None
    except Exception as failure:  # the boundary: all that opening raises
        link.abandon()
        raise connect_failure(options, failure) from failure
    except BaseException:
        link.abandon()
        raise
    return link


async def _open(link: _PicowsLink, options: ConnectOptions) -> None:
    address = parse_url(options.target)
    library = WSProtocol(
        address.netloc,
        address.resource_name,
        True,  # we are the client
        lambda *_: link,
        _QUIET,
        True,  # disconnect on exceptions
        None,  # no timeout of its own
        False,  # no pings of its own
        1.0,
        1.0,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # nor pongs: they are ours to send
        options.frame_bytes_max,
        options.headers,
        LIBRARY_BUFFER_BYTES,
    )
    stream = await open_stream(options, address.host, address.port)
    try:
        link.start(stream, library)
        await library.wait_until_handshake_complete()
        link.check_open()
    except BaseException:
        stream.abort()
        raise
