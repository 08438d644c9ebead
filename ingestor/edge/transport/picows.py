"""The default transport: picows' core API, whose callback is synchronous.

What the library leaves to its user is done here: fragments are joined, close and ping frames
answered, and the payload, valid only inside the callback, copied once. `enable_auto_pong` is off
because a ping that the library answers by itself never reaches the callback, and it may be the
frame that ends a burst. Every connection runs on uvloop's own transport with the smallest read
buffer: docs/adr/0010 has the measurement.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from ssl import SSLContext
from time import time_ns
from typing import Final

from picows import (
    WSCloseCode,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)
from picows.picows import WSCloseHandshake
from picows.url import WSParsedURL

from ingestor.edge.transport import (
    ABNORMAL_CLOSURE,
    CLOSE_TIMEOUT_S,
    NO_STATUS,
    Arrive,
    ClosedByUs,
    ConnectOptions,
    Handler,
    ProtocolViolated,
    connect_failure,
    default_ssl_context,
    retry_after_s,
)
from ingestor.errors import HandshakeRejected, PeerClosed, TransportError

READ_BUFFER_BYTES: Final = 2_048  # grows with what arrives
# The library's buffer grows to MBs on a saturated socket, and one read then brings 10,000 frames:
# the owner is asked to flush within it, so that batches stay as small as the processor's cache.
BURST_FRAMES_MAX: Final = 64
# The kernel would hold up to 6 MB for a socket that we read too slowly, all of it older than what
# we could still act on, and one turn of the loop would work through that for each connection. This
# is 2 MB/s over 100 ms of distance, and the peer's buffer holds the rest.
RECEIVE_BUFFER_BYTES: Final = 256 << 10
_CONTROL_BYTES_MAX: Final = 125  # RFC 6455 section 5.5
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
        "_burst_end",
        "_burst_frames",
        "_failure",
        "_handler",
        "_message_bytes_max",
        "_parts",
        "_parts_bytes",
        "_session",
        "_transport",
        "_url",
        "received_ns",
    )

    def __init__(self, options: ConnectOptions, handler: Handler) -> None:
        self._handler = handler
        self._session = handler.session
        self._arrive = handler.arrive
        self._burst_end = handler.burst_end
        self._url = options.url
        self._message_bytes_max = options.frame_bytes_max
        self._transport: WSTransport | None = None
        self._failure: TransportError | None = None
        self._parts: list[bytes] | None = None
        self._parts_bytes = 0
        self._burst_frames = 0  # of the socket read whose frames are being handed over
        self._abandoned = False
        self.received_ns = 0

    # What the library calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self._abandoned:
            transport.disconnect(False)
            return
        self._transport = transport
        self.received_ns = time_ns()
        self._handler.opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        frames = self._burst_frames
        if frames:
            ts_recv = self.received_ns
        else:
            if transport.is_close_frame_sent:
                self._after_close(transport, frame)
                return
            ts_recv = self.received_ns = time_ns()
        # Control frames are never longer than 125 bytes; asking for the type costs more than all
        # other attributes together, so only short frames are asked.
        if (
            self._parts is None
            and frame.fin
            and (frame.payload_size > _CONTROL_BYTES_MAX or frame.msg_type in _DATA)
        ):
            self._arrive((self._session, frame.get_payload_as_bytes(), ts_recv))
        else:
            self._rare(transport, frame, ts_recv)
        if frame.last_in_buffer:
            if frames:
                self._burst_frames = 0
            self._burst_end()
        elif frames < BURST_FRAMES_MAX:
            self._burst_frames = frames + 1
        else:
            self._burst_frames = 1
            self._burst_end()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._abandoned:
            return
        self._abandoned = True
        self._handler.closed(self._failure or self._why_closed(transport))

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
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.underlying_transport.resume_reading()

    def deliver_to(self, arrive: Arrive) -> None:
        self._arrive = arrive

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def abandon(self) -> None:
        """Nobody waits for this connection any more: if it still opens, drop it unheard."""
        if self._transport is None:
            self._abandoned = True
        else:
            self.abort()

    # Everything but whole data frames

    def _after_close(self, transport: WSTransport, frame: WSFrame) -> None:
        """We sent a close frame, or the library did, which then parses on: hear only the answer."""
        if frame.msg_type is WSMsgType.CLOSE:
            self._peer_closes(transport, frame)

    def _rare(self, transport: WSTransport, frame: WSFrame, ts_recv: int) -> None:
        match frame.msg_type:
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
                self._join(frame, ts_recv)

    def _join(self, frame: WSFrame, ts_recv: int) -> None:
        if self._parts is None:
            self._parts = []
            self._parts_bytes = 0
        self._parts_bytes += frame.payload_size
        if self._parts_bytes > self._message_bytes_max:
            self._parts = []
            self._violated(
                WSCloseCode.MESSAGE_TOO_BIG, f"message of more than {self._message_bytes_max} bytes"
            )
            return
        self._parts.append(frame.get_payload_as_bytes())
        if frame.fin:
            payload = b"".join(self._parts)
            self._parts = None
            self._arrive((self._session, payload, ts_recv))

    def _peer_closes(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._failure is None and transport.close_handshake.sent is not None:
            self._failure = self._why_closed(transport)  # this is the answer to our own
        if self._failure is None:
            payload = frame.get_payload_as_bytes()
            code = int.from_bytes(payload[:2], "big") if payload else NO_STATUS
            reason = payload[2:].decode(errors="replace")
            self._failure = PeerClosed(self._url, code, reason)
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


class _Sockets:
    """Makes the connection's socket, and keeps hold of it: an attempt that is cancelled between
    TCP and handshake leaves the library's transport open, with no other way to reach it."""

    def __init__(self, source_address: str | None) -> None:
        self._source_address = source_address
        self._made: socket.socket | None = None

    async def make(self, address: WSParsedURL) -> socket.socket:
        """Return a connected socket. Raises OSError of the last address that was tried."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        for family, kind, protocol, _, where in found:
            made = socket.socket(family, kind, protocol)
            try:
                made.setblocking(False)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
                if self._source_address is not None:
                    made.bind((self._source_address, 0))
                await loop.sock_connect(made, where)
            except OSError as refused:
                made.close()
                failure = refused
            except BaseException:
                made.close()
                raise
            else:
                self._made = made
                return made
        raise failure or OSError(f"{address.host} has no address")

    def drop(self) -> None:
        if self._made is not None:
            with suppress(OSError):
                self._made.shutdown(socket.SHUT_RDWR)


async def connect(options: ConnectOptions, handler: Handler) -> _PicowsLink:
    """Open a connection; see `transport.Connect`."""
    link = _PicowsLink(options, handler)
    sockets = _Sockets(options.source_address)
    try:
        async with asyncio.timeout(options.open_timeout_s):
            await ws_connect(
                lambda: link,
                options.url,
                ssl_context=_ssl_context(options),
                websocket_handshake_timeout=None,
                logger_name=_QUIET,
                enable_auto_pong=False,
                max_frame_size=options.frame_bytes_max,
                extra_headers=options.headers,
                max_redirects=0,
                proxy=options.proxy,
                read_buffer_init_size=READ_BUFFER_BYTES,
                socket_factory=sockets.make,
                use_aiofastnet=False,
            )
    except BaseException as failure:
        link.abandon()
        sockets.drop()
        if isinstance(failure, WSHandshakeError):
            raise _rejected(options.url, failure) from failure
        if isinstance(failure, Exception):
            raise connect_failure(options.url, failure, options.open_timeout_s) from failure
        raise
    if not link.is_open:  # the peer hung up instead of answering the handshake
        raise connect_failure(
            options.url, ConnectionResetError("closed during the handshake"), options.open_timeout_s
        )
    return link


def _ssl_context(options: ConnectOptions) -> SSLContext | None:
    if not options.is_secure:
        return None
    return options.ssl_context or default_ssl_context()


def _rejected(url: str, failure: WSHandshakeError) -> TransportError:
    response = failure.response
    if response is None or response.status == 101:
        return TransportError(url, f"handshake failed: {failure}")
    return HandshakeRejected(
        url,
        int(response.status),
        retry_after_s=retry_after_s(response.headers.get("Retry-After")),
    )
