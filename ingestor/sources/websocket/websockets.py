"""The second transport: the `websockets` package.

It has permessage-deflate and proxies, and costs about three times as much per message; one task
reads each connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_connection
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event, State
from websockets.uri import WebSocketURI

from ingestor.config.proxy import check_proxy
from ingestor.model.errors import PeerClosed, TransportError
from ingestor.sources.resolver import Resolver
from ingestor.sources.websocket.handshake import answer_end, check_answer
from ingestor.sources.websocket.interface import (
    ABNORMAL_CLOSURE,
    CLOSE_TIMEOUT_S,
    Arrive,
    ClosedByUs,
    ConnectOptions,
    Handler,
    PingLimit,
    ProtocolViolated,
    callback_failure,
    connect_failure,
    default_ssl_context,
)
from ingestor.sources.websocket.sockets import WRITE_BYTES_MAX, open_socket

FRAMES_MAX: Final = 16  # frames that wait in the library before it stops reading the socket
_PIECE_BYTES: Final = 4 << 10  # what the library parses in one go, of which each ping is answered
_PORTS: Final = {"ws": 80, "http": 80, "wss": 443, "https": 443}

# It logs the text of every frame at DEBUG and violations that we report ourselves.
_quiet = logging.getLogger(f"{__name__}.library")
_quiet.setLevel(logging.CRITICAL + 1)


class _Connection(ClientConnection):
    """The library's connection.

    It is given an answer to the handshake that was found good, and the peer gets so much time to
    end what is closed.
    """

    options: ConnectOptions
    refusal: TransportError | None = None  # why the answer was not good
    is_answered = False
    _head = b""
    pings: PingLimit
    _end: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        try:
            if not self.is_answered:
                data = self._answered(self._head + data)
                if not data:
                    return
            for at in range(0, len(data), _PIECE_BYTES):
                super().data_received(data[at : at + _PIECE_BYTES])
            if self.transport.get_write_buffer_size() > WRITE_BYTES_MAX:
                self.transport.abort()  # it sends pings, and reads no pong
            if self._end is None and self.protocol.close_expected():
                self._end = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)
        except Exception as failure:  # noqa: BLE001  # the boundary of a callback
            self.refusal = callback_failure(self.options.url, failure)
            self.transport.abort()

    def process_event(self, event: Event) -> None:
        super().process_event(event)
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            is_open = self.protocol.state is State.OPEN
            if self.pings.is_over(self.options.clock_ns()) and is_open:
                self.protocol.fail(CloseCode.POLICY_VIOLATION, PingLimit.TEXT)

    def _answered(self, data: bytes) -> bytes:
        """Return what the library is to see of the answer and what follows; none for not yet."""
        options = self.options
        try:
            end = answer_end(options.url, data)
            if not end:
                self._head = data
                return b""
            answer = check_answer(
                options.url, data[:end], data[end:], offers_extension=options.permessage_deflate
            )
        except TransportError as failure:
            self.refusal = failure
            self.transport.abort()
            return b""
        self.is_answered, self._head = True, b""
        return answer + data[end:]


class _OneAttempt(open_connection):
    """`connect` without redirects: a redirect is an answer other than 101 like any other."""

    made: _Connection | None = None
    own_socket: socket.socket | None = None  # ours to close until a connection is made of it

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc

    def heed(self, options: ConnectOptions) -> None:
        """Let the connection know its options, and keep it to ask why it failed."""
        make, named = self.factory, self.ws_uri

        def factory(uri: WebSocketURI) -> ClientConnection:
            made = make(named)  # by its name, whatever address it was reached by
            assert isinstance(made, _Connection)
            made.options, made.pings = options, PingLimit()
            self.made = made
            return made

        self.factory = factory


class _WebsocketsLink:
    __slots__ = (
        "_arrive",
        "_clock_ns",
        "_connection",
        "_failure",
        "_handler",
        "_readable",
        "_tasks",
        "_url",
        "received_ns",
    )

    def __init__(self, options: ConnectOptions, connection: _Connection, handler: Handler) -> None:
        self._url = options.url
        self._clock_ns = options.clock_ns
        self._connection = connection
        self._handler = handler
        self._arrive = handler.arrive
        self._failure: TransportError | None = None
        self._readable = asyncio.Event()
        self._readable.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.received_ns = self._clock_ns()

    def start(self) -> None:
        try:
            self._handler.opened(self)
        except Exception as failure:  # noqa: BLE001  # the boundary of a callback
            self._failed(failure)
        self._spawn(self._read())

    def send(self, payload: bytes) -> None:
        self._spawn(self._send(payload))

    def ping(self) -> None:
        self._spawn(self._ping())

    def close(self) -> None:
        if self._failure is None:
            self._failure = ClosedByUs(self._url, "closed by us")
            self._readable.set()
            self._spawn(self._close())

    def abort(self) -> None:
        if self._failure is None:
            self._failure = ClosedByUs(self._url, "dropped by us")
        self._readable.set()
        self._connection.transport.abort()

    def pause_reading(self) -> None:
        if self._failure is None:
            self._readable.clear()

    def resume_reading(self) -> None:
        self._readable.set()

    def deliver_to(self, arrive: Arrive) -> None:
        self._arrive = arrive

    def _failed(self, failure: Exception) -> None:
        """Something unforeseen was raised in a callback: it costs this connection alone."""
        verdict = callback_failure(self._url, failure)
        if self._failure is None:
            self._failure = verdict
        self.abort()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        # Tasks start in the order of their creation and write before they first wait.
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[None, None, None]) -> None:
        try:
            with suppress(ConnectionClosed):
                await work
        except Exception as failure:  # noqa: BLE001  # the boundary of a task
            self._failed(failure)

    async def _send(self, payload: bytes) -> None:
        await self._connection.send(payload, text=True)

    async def _ping(self) -> None:
        await (await self._connection.ping())
        self.received_ns = self._clock_ns()

    async def _close(self) -> None:
        await self._connection.close()

    async def _read(self) -> None:
        connection, handler, readable = self._connection, self._handler, self._readable
        try:
            while True:
                payload = await connection.recv(decode=False)
                if not readable.is_set():
                    await readable.wait()
                self.received_ns = ts_recv = self._clock_ns()
                self._arrive((handler.session, payload, ts_recv))
                handler.on_read_complete()
        except ConnectionClosed as ended:
            why = self._failure or connection.refusal or self._why_closed(ended)
        except Exception as failure:  # noqa: BLE001  # the boundary of a callback
            self._failed(failure)
            why = self._failure or ClosedByUs(self._url, "dropped by us")
            await connection.wait_closed()
        handler.closed(why)

    def _why_closed(self, ended: ConnectionClosed) -> TransportError:
        received, sent = ended.rcvd, ended.sent
        if received is not None and (sent is None or ended.rcvd_then_sent):
            return PeerClosed(self._url, received.code, received.reason)
        if sent is not None and sent.code != CloseCode.NORMAL_CLOSURE:
            return ProtocolViolated(self._url, sent.code, sent.reason)
        return PeerClosed(self._url, ABNORMAL_CLOSURE, "connection lost")


async def connect(options: ConnectOptions, handler: Handler) -> _WebsocketsLink:
    """Open a connection; see `transport.Connect`."""
    attempt: _OneAttempt | None = None
    try:
        async with asyncio.timeout(options.open_timeout_s):
            attempt = await _attempt(options)
            await attempt
    except BaseException as failure:
        if attempt is not None and attempt.made is None and attempt.own_socket is not None:
            attempt.own_socket.close()
        if isinstance(failure, Exception):  # the boundary: all that opening raises
            raise _failure(options, attempt, failure) from None  # it may have a password
        raise
    assert attempt.made is not None, "open"
    link = _WebsocketsLink(options, attempt.made, handler)
    link.start()
    return link


def _failure(
    options: ConnectOptions, attempt: _OneAttempt | None, failure: Exception
) -> TransportError:
    """Explain why a connection is not open."""
    made = attempt.made if attempt is not None else None
    if made is not None and made.refusal is not None:
        return made.refusal
    if made is not None and not isinstance(failure, OSError):
        if not made.is_answered:
            failure = ConnectionResetError("closed during the handshake")
        elif isinstance(failure, WebSocketException):
            what = f"in the handshake: {failure}"
            return ProtocolViolated(options.url, CloseCode.PROTOCOL_ERROR, what)
    elif isinstance(failure, WebSocketException):  # the proxy's
        cause = f": {failure.__cause__}" if failure.__cause__ is not None else ""
        failure = ConnectionError(f"{failure}{cause}")
    return connect_failure(options, failure)


async def _attempt(options: ConnectOptions) -> _OneAttempt:
    """Return an attempt whose names are resolved, and which has a socket where there is no proxy.

    Raises OSError.
    """
    parts = urlsplit(options.url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    settings: dict[str, Any] = {}  # the library refuses `ssl`, even None, for ws://
    if options.is_secure:
        settings |= {"ssl": options.ssl_context or default_ssl_context(), "server_hostname": host}
    proxy = None
    if options.proxy is None:
        settings["sock"] = await open_socket(options, host, port)
    else:
        try:
            check_proxy(options.proxy)
        except ValueError as failure:
            raise ConnectionError(f"proxy {failure}") from None
        proxy = await _resolved(options.proxy)
        if options.proxy.startswith("https:"):
            settings["proxy_server_hostname"] = urlsplit(options.proxy).hostname
            settings["proxy_ssl"] = default_ssl_context()
        if options.source_address is not None:
            settings["local_addr"] = (options.source_address, 0)
    attempt = _OneAttempt(
        options.target,
        compression="deflate" if options.permessage_deflate else None,
        additional_headers=options.headers,
        user_agent_header=None,
        proxy=proxy,
        open_timeout=None,
        ping_interval=None,
        close_timeout=CLOSE_TIMEOUT_S,
        max_size=options.frame_bytes_max,
        max_queue=FRAMES_MAX,
        logger=_quiet,
        create_connection=_Connection,
        **settings,
    )
    attempt.own_socket = settings.get("sock")
    attempt.heed(options)
    if proxy is not None and proxy.startswith("socks5:"):  # the venue's name is for us to resolve
        attempt.ws_uri = replace(attempt.ws_uri, host=await _address(host, port))
    return attempt


async def _resolved(proxy: str) -> str:
    """Return a proxy's URL with its address in place of its name. Raises OSError."""
    parts = urlsplit(proxy)
    address = await _address(parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
    user_info, at, _ = parts.netloc.rpartition("@")
    host = f"[{address}]" if ":" in address else address
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=f"{user_info}{at}{host}{port}").geturl()


async def _address(host: str, port: int) -> str:
    resolver = Resolver.of(asyncio.get_running_loop())
    addresses = await resolver.resolve(host, port)
    # IPv4 first: what a proxy's network lacks is IPv6, and one address is all that we may name
    addresses.sort(key=lambda address: address[0] is not socket.AF_INET)
    return str(addresses[0][4][0])
