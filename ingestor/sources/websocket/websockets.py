"""The second transport: the `websockets` package. It has permessage-deflate and SOCKS proxies, and
costs about three times as much per message; one task reads each connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from time import time_ns
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_connection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import CloseCode

from ingestor.model.errors import HandshakeRejected, PeerClosed, TransportError
from ingestor.model.retry_after import retry_after_s
from ingestor.sources.websocket.interface import (
    ABNORMAL_CLOSURE,
    CLOSE_TIMEOUT_S,
    Arrive,
    ClosedByUs,
    ConnectOptions,
    Handler,
    ProtocolViolated,
    connect_failure,
    default_ssl_context,
)

FRAMES_MAX: Final = 16  # frames that wait in the library before it stops reading the socket

# It logs the text of every frame at DEBUG and violations that we report ourselves.
_quiet = logging.getLogger(f"{__name__}.library")
_quiet.setLevel(logging.CRITICAL + 1)


class _OneAttempt(open_connection):
    """`connect` without redirects: a redirect is an answer other than 101 like any other."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _WebsocketsLink:
    __slots__ = (
        "_arrive",
        "_connection",
        "_failure",
        "_handler",
        "_readable",
        "_tasks",
        "_url",
        "received_ns",
    )

    def __init__(self, url: str, connection: ClientConnection, handler: Handler) -> None:
        self._url = url
        self._connection = connection
        self._handler = handler
        self._arrive = handler.arrive
        self._failure: TransportError | None = None
        self._readable = asyncio.Event()
        self._readable.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.received_ns = time_ns()

    def start(self) -> None:
        self._spawn(self._read())

    def send(self, payload: bytes) -> None:
        self._spawn(self._send(payload.decode()))

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

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        # Tasks start in the order of their creation and write before they first wait.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, text: str) -> None:
        with suppress(ConnectionClosed):
            await self._connection.send(text)

    async def _ping(self) -> None:
        with suppress(ConnectionClosed):
            await (await self._connection.ping())
            self.received_ns = time_ns()

    async def _close(self) -> None:
        with suppress(ConnectionClosed):
            await self._connection.close()

    async def _read(self) -> None:
        connection, handler, readable = self._connection, self._handler, self._readable
        try:
            while True:
                payload = await connection.recv(decode=False)
                if not readable.is_set():
                    await readable.wait()
                self.received_ns = ts_recv = time_ns()
                self._arrive((handler.session, payload, ts_recv))
                handler.on_read_complete()
        except ConnectionClosed as ended:
            handler.closed(self._failure or self._why_closed(ended))

    def _why_closed(self, ended: ConnectionClosed) -> TransportError:
        received, sent = ended.rcvd, ended.sent
        if received is not None and (sent is None or ended.rcvd_then_sent):
            return PeerClosed(self._url, received.code, received.reason)
        if sent is not None and sent.code != CloseCode.NORMAL_CLOSURE:
            return ProtocolViolated(self._url, sent.code, sent.reason)
        return PeerClosed(self._url, ABNORMAL_CLOSURE, "connection lost")


async def connect(options: ConnectOptions, handler: Handler) -> _WebsocketsLink:
    """Open a connection; see `transport.Connect`."""
    secure: dict[str, Any] = {}  # the library refuses `ssl`, even None, for ws://
    if options.is_secure:
        secure["ssl"] = options.ssl_context or default_ssl_context()
    source = (options.source_address, 0) if options.source_address is not None else None
    try:
        async with asyncio.timeout(options.open_timeout_s):
            connection = await _OneAttempt(
                options.url,
                compression="deflate" if options.permessage_deflate else None,
                additional_headers=options.headers,
                user_agent_header=None,
                proxy=options.proxy,
                open_timeout=None,
                ping_interval=None,
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=options.frame_bytes_max,
                max_queue=FRAMES_MAX,
                logger=_quiet,
                local_addr=source,
                **secure,
            )
    except InvalidStatus as failure:
        headers = failure.response.headers
        raise HandshakeRejected(
            options.url,
            failure.response.status_code,
            retry_after_s=retry_after_s(headers.get("Retry-After")),
        ) from failure
    except InvalidHandshake as failure:
        raise TransportError(options.url, f"handshake failed: {failure}") from failure
    except (OSError, EOFError) as failure:
        raise connect_failure(options.url, failure, options.open_timeout_s) from failure
    link = _WebsocketsLink(options.url, connection, handler)
    handler.opened(link)
    link.start()
    return link
