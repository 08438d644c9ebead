"""Bounds on the connections of the HTTP server: how many there are, and how long one may idle.

aiohttp lets a client take as long as it likes for a request, keeps idle connections for an hour,
and accepts as many as there are descriptors. Those are wanted by Kafka and by the venues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

CONNECTIONS_MAX: Final = 64
HEAD_TIMEOUT_S: Final = 10.0  # from the begin of a connection to its first whole request
KEEPALIVE_S: Final = 30.0  # from an answer to the next whole request
ANSWER_TIMEOUT_S: Final = 60.0  # from a request to the end of the answer: a client may not read
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 21\r\n\r\ntoo many connections\n"
)

_Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class _Client:
    due_s: float  # when to close it; the loop's time
    requests: int = 0  # under way


class ConnectionLimits:
    """Accepts the connections of one `web.Server`, and ends those that take too long."""

    def __init__(self) -> None:
        self._server: web.Server | None = None
        self._clients: dict[web.RequestHandler, _Client] = {}

    async def listen(self, server: web.Server, host: str, port: int) -> asyncio.Server:
        """Listen for connections.

        Args:
            server: Serves them.
            host: Address to listen on.
            port: TCP port, 0 = any.

        Raises:
            OSError: The address can't be listened on.
        """
        self._server = server
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._accept, host, port, reuse_address=True)

    @web.middleware
    async def track(self, request: web.Request, handler: _Respond) -> web.StreamResponse:
        """Note when requests begin and end; the outermost middleware."""
        loop = asyncio.get_running_loop()
        client = self._clients.setdefault(request.protocol, _Client(0.0))
        client.requests += 1
        client.due_s = loop.time() + ANSWER_TIMEOUT_S
        try:
            return await handler(request)
        finally:
            # the answer itself is still to be written, for which the next request's time will do
            client.requests -= 1
            client.due_s = loop.time() + KEEPALIVE_S

    def renew(self, request: web.Request) -> None:
        """Give an answer that goes on its time anew: its client has read what there was."""
        client = self._clients.get(request.protocol)
        if client is not None:
            client.due_s = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S

    def sweep(self) -> None:
        """Close connections whose time is over. Call it about once a second."""
        now_s = asyncio.get_running_loop().time()
        for protocol, client in self._open().items():
            if client.due_s <= now_s:
                _abort(protocol)

    def _open(self) -> dict[web.RequestHandler, _Client]:
        """Return the open connections; forget the others."""
        assert self._server is not None, "not listening"
        due_s = asyncio.get_running_loop().time() + HEAD_TIMEOUT_S
        known = self._clients
        self._clients = {
            protocol: known.get(protocol) or _Client(due_s) for protocol in self._server.connections
        }
        return self._clients

    def _accept(self) -> asyncio.Protocol:
        clients = self._open()
        if len(clients) >= CONNECTIONS_MAX:
            idle = [protocol for protocol, client in clients.items() if not client.requests]
            if not idle:
                return _Busy()
            _abort(min(idle, key=lambda protocol: clients[protocol].due_s))
        assert self._server is not None, "not listening"
        return self._server()


class _Busy(asyncio.Protocol):
    """Answers that there are too many, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_BUSY)
        transport.close()


def _abort(protocol: web.RequestHandler) -> None:
    if protocol.transport is not None:
        protocol.transport.abort()
