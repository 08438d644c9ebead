"""Sockets as asyncio transports whose read side is ours: plain TCP, and TLS on top of it.

Who reads calls `receive` when `Readiness` says that there is something.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from aiohappyeyeballs import AddrInfoType, start_connection

from ingestor.sources.resolver import Resolver
from ingestor.sources.websocket.interface import (
    CLOSE_TIMEOUT_S,
    ConnectOptions,
    callback_failure,
    default_ssl_context,
)
from ingestor.sources.websocket.poller import ReadComplete, Reader, Readiness

READ_BYTES: Final = 64 << 10  # of one read
_NEXT_ADDRESS_S: Final = 0.25  # RFC 8305 section 5
WRITE_BYTES_MAX: Final = 1 << 20  # that wait for a peer which doesn't read
# A TLS record, or less: OpenSSL's memory BIO keeps the room that it once needed.
_ENCRYPTED: Final = memoryview(bytearray(16 << 10))

Receive = Callable[[int, int], bytes]


class SocketTransport(asyncio.Transport):
    """A connected TCP socket."""

    __slots__ = (
        "_about",
        "_backlog",
        "_is_closing",
        "_is_reading",
        "_loop",
        "_protocol",
        "_reader",
        "_socket",
    )

    def __init__(self, connected: socket.socket) -> None:
        super().__init__()
        self._about: dict[str, object] = {
            "socket": connected,
            "peername": connected.getpeername(),
            "sockname": connected.getsockname(),
        }
        self._loop = asyncio.get_running_loop()
        self._socket = connected
        self._protocol: asyncio.BaseProtocol | None = None
        self._reader: Reader | None = None
        self._backlog = b""
        self._is_closing = False
        self._is_reading = False

    def start(self, protocol: asyncio.BaseProtocol, reader: Reader) -> None:
        """Let `reader` read from now on when there is something to `receive`."""
        self._protocol = protocol
        self._reader = reader
        protocol.connection_made(self)
        self.resume_reading()

    @property
    def receive(self) -> Receive:
        """Return the function that reads at most so many bytes of the descriptor.

        It returns none when the peer has ended. It raises BlockingIOError when there is nothing,
        OSError when the connection is lost.
        """
        return os.read

    def _first_reader(self) -> Reader | None:
        return self._reader

    # reading

    def pause_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            try:
                Readiness.of(self._loop).remove(self._socket.fileno())
            except Exception as failure:  # noqa: BLE001  # whoever pauses all must not stop here
                self.failed(failure)

    def resume_reading(self) -> None:
        reader = self._first_reader()
        if reader is not None and not self._is_reading and not self._is_closing:
            self._is_reading = True
            try:
                Readiness.of(self._loop).add(self._socket.fileno(), reader)
            except Exception as failure:  # noqa: BLE001  # the kernel may be out of watches
                self.failed(failure)

    def read_again(self) -> None:
        """There may be more than one read brought."""
        if self._is_reading:
            Readiness.of(self._loop).again(self._socket.fileno())

    def is_reading(self) -> bool:
        return self._is_reading

    # writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self._send(bytes(data))

    def _send(self, data: bytes) -> None:
        if not self._backlog:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                pass
            except OSError as failure:
                self._lose(failure)
                return
            if not data:
                return
            self._loop.add_writer(self._socket.fileno(), self._writable)
        self._backlog += data
        if len(self._backlog) > WRITE_BYTES_MAX:
            self._lose(ConnectionAbortedError("the peer doesn't read"))

    def _writable(self) -> None:
        try:
            data, self._backlog = self._backlog, b""
            self._loop.remove_writer(self._socket.fileno())
            self._send(data)
            if self._is_closing and not self._backlog:
                self._lose(None)
        except Exception as failure:  # noqa: BLE001  # the boundary of a callback
            self.failed(failure)

    def get_write_buffer_size(self) -> int:
        return len(self._backlog)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The bound is WRITE_BYTES_MAX, and beyond it the connection is lost."""

    def can_write_eof(self) -> bool:
        return False

    # the end

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """End the connection once everything is written, or is not read for CLOSE_TIMEOUT_S."""
        if not self._is_closing:
            self.pause_reading()
            self._is_closing = True
            if self._backlog:
                self._loop.call_later(CLOSE_TIMEOUT_S, self._lose, None)
            else:
                self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def ended(self, failure: OSError | None = None) -> None:
        """The peer ended the connection, or it was lost."""
        self._lose(failure)

    def failed(self, failure: Exception) -> None:
        """Something unforeseen was raised for this connection: report it, and end it alone."""
        reader = self._reader
        if reader is not None:
            reader.failed(failure)
        else:
            callback_failure(str(self._about["peername"]), failure)
            self._lose(None)

    def _lose(self, failure: OSError | None) -> None:
        if self._protocol is None:
            return
        self.pause_reading()
        self._is_closing = True
        if self._backlog:
            self._backlog = b""
            self._loop.remove_writer(self._socket.fileno())
        protocol, self._protocol = self._protocol, None
        self._loop.call_soon(self._lost, protocol, failure)

    def _lost(self, protocol: asyncio.BaseProtocol, failure: OSError | None) -> None:
        try:
            protocol.connection_lost(failure)
        except Exception as bug:  # noqa: BLE001  # the boundary of a callback
            callback_failure(str(self._about["peername"]), bug)
        finally:
            self._socket.close()
            self._reader = None

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._about.get(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None, "lost"
        return self._protocol


class TlsStream(SocketTransport):
    """TLS in memory (`ssl.MemoryBIO`) between the socket and its reader."""

    __slots__ = ("_incoming", "_outgoing", "_tls")

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, host: str) -> None:
        super().__init__(connected)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._about["ssl_object"] = self._tls

    async def shake_hands(self) -> None:
        """Raises ssl.SSLError, OSError."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
            finally:  # an alert too
                if self._outgoing.pending:
                    await self._loop.sock_sendall(self._socket, self._outgoing.read())
            data = await self._loop.sock_recv(self._socket, len(_ENCRYPTED))
            if not data:
                raise ConnectionResetError("closed during the TLS handshake")
            self._incoming.write(data)
        if self._outgoing.pending:
            await self._loop.sock_sendall(self._socket, self._outgoing.read())

    def _first_reader(self) -> Reader | None:
        return None if self._reader is None else self

    def readable(self, descriptor: int) -> ReadComplete | None:
        """Decrypt what came, and let the reader read all of it."""
        reader, on_read_complete = self._reader, None
        assert reader is not None, "not started, or lost"
        for _ in range(READ_BYTES // len(_ENCRYPTED)):
            try:
                size = self._socket.recv_into(_ENCRYPTED)
            except BlockingIOError:
                break
            except OSError as failure:
                self.ended(failure)
                break
            if not size:
                self.ended()
                break
            self._incoming.write(_ENCRYPTED[:size])
            while self._incoming.pending and self._protocol is not None:
                on_read_complete = reader.readable(descriptor) or on_read_complete
            if size < len(_ENCRYPTED) or not self._is_reading:
                break
        else:
            self.read_again()
        return on_read_complete

    @property
    def receive(self) -> Receive:
        return self._decrypt

    def _decrypt(self, _descriptor: int, size: int) -> bytes:
        try:
            return self._tls.read(size)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        finally:
            if self._outgoing.pending:  # the peer wanted new keys
                self._send(self._outgoing.read())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            try:
                self._tls.write(data)
            except ssl.SSLError as failure:  # it costs this connection alone
                self._lose(failure)
            else:
                self._send(self._outgoing.read())

    def close(self) -> None:
        if not self._is_closing:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            if self._outgoing.pending:
                self._send(self._outgoing.read())
        super().close()


async def open_stream(options: ConnectOptions, host: str, port: int) -> SocketTransport:
    """Connect, and agree on TLS where the URL wants it.

    Args:
        options: The connection's options.
        host: Name or address.
        port: TCP port.

    Raises:
        OSError: No connection.
        ssl.SSLError: TLS failed.
    """
    connected = await open_socket(options, host, port)
    try:
        if not options.is_secure:
            return SocketTransport(connected)
        stream = TlsStream(connected, options.ssl_context or default_ssl_context(), host)
        await stream.shake_hands()
    except BaseException:
        connected.close()
        raise
    return stream


async def open_socket(options: ConnectOptions, host: str, port: int) -> socket.socket:
    """Return a socket to the first of the host's addresses that answers.

    The next one is tried beside it when that takes long (RFC 8305).

    Args:
        options: The connection's options.
        host: Name or address.
        port: TCP port.

    Raises:
        OSError: No address answered.
    """
    loop = asyncio.get_running_loop()

    def make(address: AddrInfoType) -> socket.socket:
        made = socket.socket(*address[:3])
        # before it connects: the window's scale is agreed on then
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.receive_buffer_bytes)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        return made

    resolver = Resolver.of(loop)
    source: Sequence[AddrInfoType] | None = None
    if options.source_address is not None:
        source = await resolver.resolve(options.source_address, 0)
    addresses = await resolver.resolve(host, port)
    try:
        return await start_connection(
            addresses,
            local_addr_infos=source,
            happy_eyeballs_delay=_NEXT_ADDRESS_S,
            socket_factory=make,
        )
    except OSError:
        resolver.doubt(host)
        raise
