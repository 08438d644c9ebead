"""Websocket clients behind one small interface: `picows` (default) and `websockets`.

A transport knows a websocket library and nothing else: no venue, no queue, no retry. It calls a
`Handler` from the read callback of the loop; whole messages only, text and binary alike, as bytes
that are ours to keep. What a library does on its own initiative (keepalive, redirects, proxies from
the environment) is switched off: the supervisor decides, for all connections at once.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from time import time_ns
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

from ingestor.config.proxy import proxy_secrets
from ingestor.model.errors import TransportError
from ingestor.model.timestamps import SECOND
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.logs import Redactor

CLOSE_TIMEOUT_S: Final = 2.0  # how long the closing handshake may take before the socket is dropped
ABNORMAL_CLOSURE: Final = 1006  # RFC 6455 section 7.1.5: the connection ended without a close frame
NO_STATUS: Final = 1005  # the close frame carried no code
_CLOSE_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015)})
_CLOSE_CODE_REGISTERED: Final = 3000
_CLOSE_CODE_END: Final = 5000
FRAGMENTS_MAX: Final = 4096  # of one message; what the library of the second transport permits
# The kernel would hold up to 6 MB for a socket that we read too slowly, all of it older than what
# we could still act on, and one turn of the loop would work through that for each connection. This
# is 2.5 MB/s over 100 ms of distance, and the peer's buffer holds the rest.
RECEIVE_BUFFER_BYTES: Final = 256 << 10


class ConnectFailed(TransportError):
    """No connection: the name doesn't resolve, or the address refuses or can't be reached."""


class OpenTimeout(TransportError):
    """The connection was not open within ConnectOptions.open_timeout_s."""


class TlsFailed(TransportError):
    """The certificate is not the venue's, or the two sides share no version of TLS."""


class ProtocolViolated(TransportError):
    """The peer broke RFC 6455 or our frame limit; `code` is the close code that we sent."""

    def __init__(self, url: str, code: int, reason: str) -> None:
        super().__init__(url, f"closed by us with code {code}: {reason}")
        self.code = code


class ClosedByUs(TransportError):
    """`Link.close` or `Link.abort` was called."""


class CallbackFailed(TransportError):
    """Something unforeseen was raised for this connection. It was reported as a bug already."""


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """Choose how to open one connection.

    url: ws:// or wss://. secret: a query that is appended to it when it is opened, and that no
    error or log shows. ssl_context: None = the system's trusted certificates, verified.
    frame_bytes_max: bound of a whole message, joined and inflated. open_timeout_s: for name, TCP,
    TLS and handshake together. receive_buffer_bytes: SO_RCVBUF, where there is no proxy.
    source_address: local IP address. proxy: http://, https:// or socks5:// address;
    permessage_deflate: whether to offer it; both are for the websockets transport alone.
    clock_ns: what frames are stamped with, ns since the epoch.
    """

    url: str
    secret: str = field(default="", repr=False)
    ssl_context: ssl.SSLContext | None = None
    frame_bytes_max: int = 1 << 20
    open_timeout_s: float = 10.0
    receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES
    source_address: str | None = None
    proxy: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    permessage_deflate: bool = False
    clock_ns: Callable[[], int] = time_ns

    @property
    def target(self) -> str:
        """The address that is opened, secret included."""
        if not self.secret:
            return self.url
        return f"{self.url}{'&' if '?' in self.url else '?'}{self.secret}"

    @property
    def is_secure(self) -> bool:
        return self.url.startswith("wss:")


Arrive = Callable[[tuple[Any, bytes, int]], None]
# Takes the whole data frames of a read: (session, data, where a frame begins, the most bytes of a
# payload, ts_recv in ns). Returns where something else begins.
Take = Callable[[Any, bytes, int, int, int], int]


class PingLimit:
    """Counts the pings of a peer: exchanges send one in some seconds, and each is answered."""

    __slots__ = ("_count", "_since_ns")

    PER_SECOND: ClassVar = 1_000
    TEXT: ClassVar = f"more than {PER_SECOND} pings in a second"

    def __init__(self) -> None:
        self._count = self._since_ns = 0

    def is_over(self, now_ns: int) -> bool:
        """Count a ping; return whether it is one too many. now_ns: of any clock."""
        if now_ns - self._since_ns >= SECOND:
            self._count, self._since_ns = 0, now_ns
        self._count += 1
        return self._count > self.PER_SECOND


def oversize(size_bytes: int, fragments: int, bytes_max: int) -> str:
    """Say what is too large about a fragmented message; empty if nothing is.

    Args:
        size_bytes: Of the fragments so far.
        fragments: Those before the last one.
        bytes_max: Bound of a message.
    """
    if size_bytes > bytes_max:
        return f"message of more than {bytes_max} bytes"
    return f"message of more than {FRAGMENTS_MAX} fragments" if fragments >= FRAGMENTS_MAX else ""


class Link(Protocol):
    """An open connection. All calls return at once; after the end they do nothing."""

    received_ns: int  # when something last arrived; ns since the epoch

    def send(self, payload: bytes) -> None:
        """Send a text message. payload: UTF-8."""

    def ping(self) -> None:
        """Send a ping; its pong shows in `received_ns`."""

    def close(self) -> None:
        """Close with code 1000; the socket is dropped after CLOSE_TIMEOUT_S at the latest."""

    def abort(self) -> None:
        """Drop the socket."""

    def pause_reading(self) -> None:
        """Stop reading the socket; what is in the read buffer is still handed over."""

    def resume_reading(self) -> None: ...

    def deliver_to(self, arrive: Arrive) -> None:
        """Call this with frames from now on, in place of the handler's `arrive`."""


class Handler(Protocol):
    """Hear of the events of a connection."""

    def opened(self, link: Link) -> None:
        """The handshake is done. Comes before any frame."""

    @property
    def session(self) -> object:
        """Return the session that `arrive` is told with each frame."""

    @property
    def arrive(self) -> Arrive:
        """Called with (session, payload, ts_recv) for each whole message. ts_recv: ns since the
        epoch, taken once for each socket read.
        """

    @property
    def on_read_complete(self) -> Callable[[], None]:
        """Called when the last message of one socket read was handed over, or many of a long one;
        once for several sockets that are read together and share it.
        """

    def closed(self, failure: TransportError) -> None:
        """The connection ended. Exactly once, after `opened`; nothing follows."""


@runtime_checkable
class TakesReads(Protocol):
    """Cut the frames of a read itself: a handler may do that too.

    A transport may use this for reads that hold several frames, in place of `arrive`.
    """

    @property
    def take(self) -> Take | None:
        """None where nothing takes the frames of this connection."""


def take_of(handler: Handler) -> Take | None:
    """Return what takes the frames of a handler's reads, None where nothing does."""
    return handler.take if isinstance(handler, TakesReads) else None


class Connect(Protocol):
    """A transport: `picows.connect` or `websockets.connect`."""

    async def __call__(self, options: ConnectOptions, handler: Handler) -> Link:
        """Open a connection. Raises TransportError; `handler` then hears nothing."""


class Transport(Protocol):
    connect: ClassVar[Connect]


@cache
def default_ssl_context() -> ssl.SSLContext:
    """The context of every connection that brings none: one object, its certificates read once."""
    return ssl.create_default_context()


def connect_failure(options: ConnectOptions, failure: Exception) -> TransportError:
    """Translate whatever opening a connection raises.

    What neither the network nor the peer explains is counted as a bug of this connection, which is
    opened again like any other. No text has the password of a proxy.
    """
    url = options.url
    if isinstance(failure, TransportError):
        return failure
    if isinstance(failure, TimeoutError):
        return OpenTimeout(url, f"not open within {options.open_timeout_s:g} s")
    if isinstance(failure, ssl.SSLCertVerificationError):
        return TlsFailed(url, f"certificate refused: {failure.verify_message}")
    if isinstance(failure, ssl.SSLError):
        return TlsFailed(url, f"TLS failed: {failure.reason or failure}")
    secrets = [*proxy_secrets(options.proxy)] if options.proxy else []
    if options.secret:
        secrets.append(options.secret)
    text = Redactor(secrets).text(
        (failure.strerror if isinstance(failure, OSError) else None)
        or str(failure)
        or type(failure).__name__
    )
    if not isinstance(failure, (OSError, EOFError)):
        bulkheads.bug("connection", failure, url=url)
        return CallbackFailed(url, f"{type(failure).__name__}: {text}")
    return ConnectFailed(url, text)


def callback_failure(url: str, failure: Exception) -> CallbackFailed:
    """Report what a callback of one connection raised; return why that connection is to end."""
    bulkheads.bug("connection", failure, url=url)
    return CallbackFailed(url, f"a callback raised {type(failure).__name__}")


def is_close_code(code: int) -> bool:
    """Return True if a peer may send this code (RFC 6455 section 7.4, and later registrations)."""
    return code in _CLOSE_CODES or _CLOSE_CODE_REGISTERED <= code < _CLOSE_CODE_END
