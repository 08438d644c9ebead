"""ingestor.sources.resolver: a name that hangs holds up no other name, and not the end."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
import uvloop
from aiohappyeyeballs import AddrInfoType
from aiohttp import web

from ingestor.sources import resolver as module
from ingestor.sources.resolver import (
    FAILURE_TTL_S,
    STALE_WAIT_S,
    THREADS_MAX,
    THREADS_PER_DOMAIN,
    THREADS_PER_NAME,
    HttpResolver,
    Resolver,
    ResolvingLoop,
)

PATIENCE_S = 60.0


class Dns:
    """A system resolver: `hang*` never answers until it is told to, `fail*` fails at once."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.hanging = 0
        self.gone: set[str] = set()
        self.raises: Exception | None = None
        self.let_go = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, host: str) -> list[AddrInfoType]:
        with self._lock:
            self.asked[host] += 1
        if self.raises is not None:
            raise self.raises
        if host.startswith("hang") or host in self.gone:
            with self._lock:
                self.hanging += 1
            self.let_go.wait(60.0)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host.startswith("fail"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        ip = [f"127.0.0.{number}" for number in (1, 2)]
        stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*stream, (one, 0)) for one in ip]


@pytest.fixture
async def dns() -> AsyncIterator[Dns]:
    dns = Dns()
    yield dns
    dns.let_go.set()
    await until(lambda: not any("lookup" in one.name for one in threading.enumerate()))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def took_s(resolver: Resolver, host: str, deadline_s: float = 5.0) -> float:
    begun_s = time.monotonic()
    await resolver.resolve(host, 443, deadline_s=deadline_s)
    return time.monotonic() - begun_s


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.7", "2001:db8::1"])
async def test_an_address_is_no_question(dns: Dns, address: str) -> None:
    ((family, kind, _, _, found),) = await Resolver(dns).resolve(address, 443)
    assert (found[0], found[1]) == (address, 443)
    assert family == (socket.AF_INET6 if ":" in address else socket.AF_INET)
    assert kind == socket.SOCK_STREAM
    assert not dns.asked


@pytest.mark.rows("I6", "X10")
async def test_a_name_that_hangs_takes_few_threads_and_no_other_names_time(dns: Dns) -> None:
    resolver = Resolver(dns)
    hanging = [
        asyncio.create_task(resolver.resolve("hang.test", 443, deadline_s=1.0)) for _ in range(50)
    ]
    await asyncio.sleep(0.1)
    assert await took_s(resolver, "good.example") < 0.5
    for failure in await asyncio.gather(*hanging, return_exceptions=True):
        assert isinstance(failure, socket.gaierror)
        assert "no answer from DNS within 1 s" in str(failure)
    assert dns.asked["hang.test"] <= THREADS_PER_NAME
    assert await took_s(resolver, "also.good.example") < 0.5


async def test_a_hung_lookup_is_tried_once_more_and_no_oftener(
    dns: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.05)
    resolver = Resolver(dns)
    for _ in range(5):
        with pytest.raises(socket.gaierror):
            await resolver.resolve("hang.test", 443, deadline_s=0.1)
    assert dns.asked["hang.test"] == THREADS_PER_NAME


async def test_names_of_one_domain_share_and_leave_the_rest_to_others(dns: Dns) -> None:
    resolver = Resolver(dns)
    tasks = [
        asyncio.create_task(resolver.resolve(f"hang{number}.venue.test", 443, deadline_s=1.0))
        for number in range(THREADS_MAX)
    ]
    await until(lambda: dns.hanging == THREADS_PER_DOMAIN)
    await asyncio.sleep(0.1)
    assert dns.hanging == THREADS_PER_DOMAIN
    assert await took_s(resolver, "stream.other.test") < 0.5
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_threads_are_bounded_and_come_back(dns: Dns) -> None:
    resolver = Resolver(dns)
    tasks = [
        asyncio.create_task(resolver.resolve(f"hang.venue{number}.test", 443, deadline_s=5.0))
        for number in range(THREADS_MAX + 20)
    ]
    await until(lambda: dns.hanging == THREADS_MAX)
    waiting = asyncio.create_task(resolver.resolve("good.example", 443))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    dns.let_go.set()
    assert await waiting
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not +resolver._threads


async def test_who_asks_together_asks_once_and_is_answered_in_turn(dns: Dns) -> None:
    resolver = Resolver(dns)
    answers = await asyncio.gather(*(resolver.resolve("good.example", 443) for _ in range(100)))
    assert dns.asked == {"good.example": 1}
    assert Counter(answer[0][4][0] for answer in answers) == {"127.0.0.1": 50, "127.0.0.2": 50}
    assert all(len(answer) == 2 for answer in answers)


async def test_an_answer_is_used_again_until_it_is_old_or_doubted(
    dns: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(dns)
    for _ in range(3):
        await resolver.resolve("good.example", 443)
    assert dns.asked["good.example"] == 1
    resolver.doubt("good.example")
    resolver.doubt("never.asked.example")
    await resolver.resolve("good.example", 443)
    assert dns.asked["good.example"] == 2
    monkeypatch.setattr(module, "TTL_S", 0.02)
    await asyncio.sleep(0.03)
    await resolver.resolve("good.example", 443)
    assert dns.asked["good.example"] == 3


@pytest.mark.rows("X10")
async def test_known_addresses_serve_while_dns_fails_or_hangs(dns: Dns) -> None:
    resolver = Resolver(dns)
    known = await resolver.resolve("good.example", 443)
    resolver.doubt("good.example")
    dns.gone.add("good.example")
    assert STALE_WAIT_S * 0.9 < await took_s(resolver, "good.example") < STALE_WAIT_S + 0.5
    dns.let_go.set()
    await until(lambda: not +resolver._threads)
    assert await took_s(resolver, "good.example") < 0.5
    assert sorted(await resolver.resolve("good.example", 443)) == sorted(known)


async def test_a_failure_is_believed_for_a_moment(dns: Dns) -> None:
    resolver = Resolver(dns)
    for _ in range(20):
        with pytest.raises(socket.gaierror, match="Name or service not known"):
            await resolver.resolve("fail.test", 443)
    assert dns.asked["fail.test"] == 1
    await asyncio.sleep(FAILURE_TTL_S + 0.05)
    with pytest.raises(socket.gaierror):
        await resolver.resolve("fail.test", 443)
    assert dns.asked["fail.test"] == 2


@pytest.mark.parametrize(
    "failure",
    [RuntimeError("x"), UnicodeError("x"), MemoryError("x"), StopIteration("x"), OSError()],
)
async def test_whatever_a_lookup_raises_is_a_failure_of_that_name(
    dns: Dns, failure: Exception
) -> None:
    resolver = Resolver(dns)
    dns.raises = failure
    with pytest.raises(socket.gaierror):
        await resolver.resolve("good.example", 443)
    dns.raises = None
    assert await resolver.resolve("other.example", 443)


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test", "", "\udcff.test", "a b"])
async def test_names_that_are_none(host: str) -> None:
    with pytest.raises(socket.gaierror):
        await Resolver().resolve(host, 443)


async def test_who_goes_away_leaves_the_lookup_to_the_others(dns: Dns) -> None:
    resolver = Resolver(dns)
    one, other = (
        asyncio.create_task(resolver.resolve("hang.test", 443, deadline_s=1.0)) for _ in range(2)
    )
    await until(lambda: dns.hanging == 1)
    one.cancel()
    await asyncio.sleep(0.05)
    assert one.cancelled()
    dns.let_go.set()
    with pytest.raises(socket.gaierror, match="Temporary failure"):
        await other


async def test_names_are_forgotten(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMES_MAX", 10)
    resolver = Resolver(dns)
    for number in range(50):
        await resolver.resolve(f"good{number}.example", 443)
    assert len(resolver._names) == 10


async def test_an_http_session_asks_it(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setitem(module._RESOLVERS, loop, Resolver(dns))

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    application = web.Application()
    application.router.add_get("/", hello)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    connector = aiohttp.TCPConnector(resolver=HttpResolver(), use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(f"http://good.example:{port}/") as response:
            assert await response.text() == "hello"
        with pytest.raises(aiohttp.ClientConnectorError, match="Name or service not known"):
            await session.get(f"http://fail.test:{port}/")
    await runner.cleanup()
    assert dns.asked == {"good.example": 1, "fail.test": 1}


END = """
import asyncio, sys, time
import uvloop
from ingestor.sources.resolver import Resolver

async def main():
    loop = asyncio.get_running_loop()
    resolver = Resolver(lambda host: time.sleep(60))
    task = asyncio.create_task(resolver.resolve("hang.test", 443))
    await asyncio.sleep(0.2)
    task.cancel()

(uvloop.run if sys.argv[1] == "uvloop" else asyncio.run)(main())
"""


@pytest.mark.rows("I6")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_end_of_a_process_waits_for_no_lookup(loop: str) -> None:
    begun_s = time.monotonic()
    subprocess.run([sys.executable, "-c", END, loop], check=True, timeout=30.0)
    assert time.monotonic() - begun_s < 15.0  # a start on a busy machine; the lookup takes 60


def test_a_loop_connects_by_name_through_the_resolver() -> None:
    """To the first address that takes the connection; with TLS, to the name."""

    class Echo(asyncio.Protocol):
        pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        dns = Dns()
        module._RESOLVERS[loop] = Resolver(dns)
        server = await loop.create_server(Echo, "127.0.0.2", 0)
        port = server.sockets[0].getsockname()[1]
        for _ in range(2):  # whichever address has its turn
            transport, protocol = await loop.create_connection(Echo, "good.example", port)
            assert isinstance(protocol, Echo)
            assert transport.get_extra_info("peername") == ("127.0.0.2", port)
            transport.close()
        transport, _ = await loop.create_connection(Echo, "127.0.0.2", port)
        transport.close()
        with socket.create_connection(("127.0.0.2", port)) as connected:
            connected.setblocking(False)
            transport, _ = await loop.create_connection(Echo, sock=connected)
            transport.close()
        with pytest.raises(socket.gaierror):
            await loop.create_connection(Echo, "fail.test", port)
        server.close()
        with pytest.raises(OSError, match="refused"):
            await loop.create_connection(Echo, "good.example", port)
        assert dns.asked["good.example"] == 1

    uvloop.run(main(), loop_factory=ResolvingLoop)
