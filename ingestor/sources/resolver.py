"""Looks names up without holding up anybody: neither other names nor the end of the process.

The C library's `getaddrinfo` blocks, for 30 s and more where a server doesn't answer, and can't be
cancelled. In uvloop it takes one of the four threads that all lookups of a process share. Here each
lookup has a thread of its own, which nobody waits for at exit; threads are few in all, for one
domain, and for one name. Who asks waits for a deadline at most, and gets the last known addresses
where there are any.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import uvloop
from aiohappyeyeballs import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

DEADLINE_S: Final = 5.0  # that somebody waits for an answer
STALE_WAIT_S: Final = 1.0  # the same, of somebody who has an old answer
TTL_S: Final = 60.0  # that an answer is used without asking again
STALE_S: Final = 24 * 3600.0  # that an old one is used where there is no new one
FAILURE_TTL_S: Final = 1.0  # that a failure is believed
NAMES_MAX: Final = 4096  # that are remembered
# A thread that hangs ends when the C library gives up; until then it counts here.
THREADS_MAX: Final = 64
THREADS_PER_DOMAIN: Final = 8
THREADS_PER_NAME: Final = 2

_STREAM: Final = socket.SOCK_STREAM
Lookup = Callable[[str], list[AddrInfoType]]


def look_up(host: str) -> list[AddrInfoType]:
    """Ask the system, and block. Raises OSError, UnicodeError."""
    return list(socket.getaddrinfo(host, 0, type=_STREAM))


class _Answer(NamedTuple):
    addresses: list[AddrInfoType]  # none: it failed
    failure: tuple[int, str]  # what to raise of it: errno and text


@dataclass(slots=True, eq=False)
class _Name:
    """Remember what is known of one host name. Times are the loop's."""

    addresses: list[AddrInfoType] = field(default_factory=list)
    found_s: float = -STALE_S
    failure: tuple[int, str] = (0, "")
    failed_s: float = -STALE_S
    asking: asyncio.Future[None] | None = None  # done when any lookup of it is
    asked_s: float = -STALE_S  # when the last one began
    turn: int = 0  # of answers


class Resolver:
    """The names of one event loop."""

    def __init__(self, lookup: Lookup = look_up) -> None:
        """lookup: called in a thread of its own; may block for as long as it likes."""
        self._lookup = lookup
        self._names: OrderedDict[str, _Name] = OrderedDict()
        self._threads: Counter[str] = Counter()  # under way, by name, by domain, and "" for all

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Resolver:
        """Return the resolver that all connections of a loop share."""
        found = _RESOLVERS.get(loop)
        if found is None:
            found = _RESOLVERS[loop] = cls()
        return found

    async def resolve(
        self, host: str, port: int, *, deadline_s: float = DEADLINE_S
    ) -> list[AddrInfoType]:
        """Return the addresses of a host, as `socket.getaddrinfo` does for stream sockets.

        Args:
            host: a name, or an address.
            port: put into each address.
            deadline_s: how long to wait at most, in seconds.

        Raises:
            socket.gaierror: if there is no such name, or no answer in time.
        """
        if _is_address(host):
            numeric = socket.AI_NUMERICHOST  # nobody is asked
            return _with_port(socket.getaddrinfo(host, 0, type=_STREAM, flags=numeric), port)
        loop = asyncio.get_running_loop()
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name()
            self._forget()
        self._names.move_to_end(host)
        begun_s = loop.time()
        has_stale = bool(name.addresses) and begun_s - name.found_s < STALE_S
        until_s = begun_s + min(deadline_s, STALE_WAIT_S if has_stale else deadline_s)
        while begun_s - name.found_s >= TTL_S:
            now_s = loop.time()
            if now_s - name.failed_s < FAILURE_TTL_S or now_s >= until_s:
                break
            asking = self._ask(host, name, loop)
            if asking is None:  # all threads hang: one of them may end in time
                await asyncio.sleep(min(0.05, until_s - now_s))
            else:
                await asyncio.wait((asking,), timeout=until_s - now_s)
        if name.addresses and loop.time() - name.found_s < STALE_S:
            name.turn += 1
            return _with_port(_in_turn(name.addresses, name.turn), port)
        if name.failed_s >= begun_s - FAILURE_TTL_S:
            raise socket.gaierror(*name.failure)
        raise socket.gaierror(socket.EAI_AGAIN, f"no answer from DNS within {deadline_s:g} s")

    def doubt(self, host: str) -> None:
        """Ask anew next time: none of the addresses took a connection."""
        name = self._names.get(host)
        if name is not None:
            now_s = asyncio.get_running_loop().time()
            name.found_s = min(name.found_s, now_s - TTL_S)

    def _ask(
        self, host: str, name: _Name, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Future[None] | None:
        """Begin a lookup, or join the one under way; None where no thread is to be had."""
        now_s = loop.time()
        if name.asking is not None and now_s - name.asked_s < DEADLINE_S:
            return name.asking
        shares = (
            ("", THREADS_MAX),
            (_domain(host), THREADS_PER_DOMAIN),
            (f"{host}.", THREADS_PER_NAME),
        )
        if any(self._threads[share] >= most for share, most in shares):
            return name.asking
        keys = [share for share, _ in shares]
        self._threads.update(keys)
        if name.asking is None:
            name.asking = loop.create_future()
        name.asked_s = now_s

        def done(answer: _Answer) -> None:
            self._threads.subtract(keys)
            self._threads += Counter()  # forgets what is 0
            self._note(name, answer, loop.time())

        def run() -> None:
            answer = _ask_system(self._lookup, host)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(done, answer)

        threading.Thread(target=run, name=f"lookup {host}", daemon=True).start()
        return name.asking

    @staticmethod
    def _note(name: _Name, answer: _Answer, now_s: float) -> None:
        if answer.addresses:
            name.addresses, name.found_s = answer.addresses, now_s
        else:
            name.failure, name.failed_s = answer.failure, now_s
        if name.asking is not None:
            name.asking.set_result(None)
            name.asking = None

    def _forget(self) -> None:
        """Keep the table small: drop what was asked for longest ago."""
        if len(self._names) > NAMES_MAX:
            host, name = next(iter(self._names.items()))
            if name.asking is None:
                del self._names[host]


class HttpResolver(AbstractResolver):
    """The same names for an aiohttp session."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name for aiohttp.

        Args:
            host: The name.
            port: TCP port.
            family: Not used.

        Raises:
            socket.gaierror: The name has no address; aiohttp expects this error.
        """
        found = await Resolver.of(asyncio.get_running_loop()).resolve(host, port)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=of_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for of_family, _, protocol, _, address in found
            if family in (socket.AF_UNSPEC, of_family)
        ]

    async def close(self) -> None:
        """Keep the names: other sessions use them."""


class ResolvingLoop(uvloop.Loop):
    """uvloop's loop, whose connections by name ask the same names: the Kafka client's too."""

    async def create_connection(  # type: ignore[override]  # its overloads are six
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        **settings: Any,
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """Connect as the base class does, to one address of `host` after the other.

        Args:
            protocol_factory: makes the protocol.
            host: a name or an address; None with `sock`.
            port: of TCP.
            settings: what else the base class takes.

        Raises:
            OSError: if the name has no address, or none takes the connection.
        """
        connect: Any = super().create_connection
        made: tuple[asyncio.BaseTransport, asyncio.BaseProtocol]
        if not host or port is None or _is_address(host):
            made = await connect(protocol_factory, host, port, **settings)
            return made
        if settings.get("ssl"):
            settings.setdefault("server_hostname", host)
        resolver = Resolver.of(self)
        refusal: OSError | None = None
        for *_, address in await resolver.resolve(host, port):
            try:
                made = await connect(protocol_factory, str(address[0]), port, **settings)
            except OSError as failure:
                refusal = failure
            else:
                return made
        resolver.doubt(host)
        raise refusal or OSError(f"{host} has no address")


def _ask_system(lookup: Lookup, host: str) -> _Answer:
    """Return addresses or why there are none; whatever a system's resolver module raises."""
    try:
        return _Answer(lookup(host), (socket.EAI_NONAME, "no address"))
    except OSError as failure:
        return _Answer([], (failure.errno or socket.EAI_FAIL, failure.strerror or str(failure)))
    except UnicodeError:  # a label that is empty or longer than 63 bytes
        return _Answer([], (socket.EAI_NONAME, "no valid host name"))
    except Exception as failure:  # noqa: BLE001  # a thread has nobody to raise it to
        return _Answer([], (socket.EAI_FAIL, f"lookup failed: {type(failure).__name__}"))


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _domain(host: str) -> str:
    """Return what the names of one venue have in common, as a rule: the last two labels."""
    return ".".join(host.rstrip(".").rsplit(".", 2)[-2:])


def _in_turn(addresses: list[AddrInfoType], turn: int) -> list[AddrInfoType]:
    """Let each address of a family be the first one in turn, as DNS servers do."""
    by_family: dict[int, list[AddrInfoType]] = {}
    for address in addresses:
        by_family.setdefault(address[0], []).append(address)
    members = by_family.values()
    return [
        address
        for group in members
        for address in group[turn % len(group) :] + group[: turn % len(group)]
    ]


def _with_port(addresses: Sequence[AddrInfoType], port: int) -> list[AddrInfoType]:
    return [
        (family, kind, protocol, name, (address[0], port, *address[2:]))
        for family, kind, protocol, name, address in addresses
    ]


_RESOLVERS: WeakKeyDictionary[asyncio.AbstractEventLoop, Resolver] = WeakKeyDictionary()
