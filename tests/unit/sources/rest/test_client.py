"""The REST client against a real server on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trustme
from aiohttp import web

from ingestor.adapter import RestLimit, RestRequest
from ingestor.model.backoff import Backoff
from ingestor.model.errors import RequestRefused, TransportError
from ingestor.sources.rest.budget import RestBudget
from ingestor.sources.rest.client import RestClient, RestSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
REQUEST = RestRequest("/v1/list", {"type": "SPOT"}, weight=3)
SETTINGS = RestSettings(
    timeout_s=5.0, body_bytes_max=100_000, backoff=Backoff(base_s=1.0, retry_after_cap_s=60.0)
)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> Any:
    """Serve on a free port of loopback; yields scheme and host."""
    app = web.Application()
    app.router.add_route("*", "/v1/list", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"{'https' if tls else 'http'}://{host}:{port}"
    finally:
        await runner.cleanup()


class Clock:
    """Takes the place of sleeping, and keeps how long it would have been."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)


class Counting(RestBudget):
    """Counts what the client tells it, and holds nobody up."""

    def __init__(self) -> None:
        super().__init__("acme", "all", RestLimit())
        self.paced: list[int] = []
        self.seen: list[int] = []

    async def acquire(self, weight: int, patience_s: float) -> None:
        self.paced.append(weight)

    def observe(self, status: int, headers: Mapping[str, str]) -> None:
        self.seen.append(status)


async def test_a_get_returns_the_body() -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(body=b"[1]")

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        assert await client.get(url + "/", REQUEST) == b"[1]"
        assert await client.get(url, RestRequest("/v1/list")) == b"[1]"
    assert [request.path_qs for request in seen] == ["/v1/list?type=SPOT", "/v1/list"]


@pytest.mark.parametrize("body", [b'{"type":"meta"}', b""])
async def test_a_request_with_a_body_is_a_post(body: bytes) -> None:
    asked: list[tuple[str, bytes, str | None]] = []

    async def handler(request: web.Request) -> web.Response:
        content_type = request.headers.get("Content-Type")
        asked.append((request.method, await request.read(), content_type))
        return web.Response(text="{}", status=200 if len(asked) > 1 else 503)

    request = replace(REQUEST, body=body)
    async with serving(handler) as url, RestClient(SETTINGS, sleep=Clock().sleep) as client:
        assert await client.get(url, request) == b"{}"
    assert [(method, sent) for method, sent, _ in asked] == [("POST", body)] * 2
    assert not body or asked[0][2] == "application/json"


async def test_what_may_pass_is_retried_with_backoff() -> None:
    statuses = [503, 429, 500]
    clock, budget = Clock(), Counting()

    async def handler(request: web.Request) -> web.Response:
        if not statuses:
            return web.Response(body=b"{}")
        status = statuses.pop(0)
        headers = {"Retry-After": "7"} if status == 429 else {}
        return web.Response(status=status, headers=headers)

    async with (
        serving(handler) as url,
        RestClient(SETTINGS, budget=budget, sleep=clock.sleep) as client,
    ):
        assert await client.get(url, REQUEST) == b"{}"
    assert budget.paced == [3, 3, 3, 3]
    assert budget.seen == [503, 429, 500, 200]
    first, second, third = clock.slept
    assert 0 <= first <= 1
    assert 7 <= second <= 9, "Retry-After is a floor"
    assert 0 <= third <= 4


async def test_attempts_end() -> None:
    clock, calls = Clock(), []

    async def handler(request: web.Request) -> web.Response:
        calls.append(1)
        return web.Response(status=502)

    async with serving(handler) as url, RestClient(SETTINGS, sleep=clock.sleep) as client:
        with pytest.raises(RequestRefused, match=r"/v1/list\?type=SPOT: refused with HTTP 502"):
            await client.get(url, REQUEST)
    assert len(calls) == SETTINGS.attempts_max
    assert len(clock.slept) == SETTINGS.attempts_max - 1


@pytest.mark.parametrize(
    ("pages", "asked"),
    [
        ([("b", True), ("c", True), ("", False)], 3),
        ([("b", True), ("c", False)], 2),  # a cursor that leads nowhere
        ([("b", None), ("", None)], 2),  # an older answer, without the flag
    ],
)
async def test_pages_end_where_the_answer_says_so(
    pages: list[tuple[str, bool | None]], asked: int
) -> None:
    cursors: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        cursor, more = pages[len(cursors)]
        cursors.append(request.query.get("cursor"))
        flag = {} if more is None else {"has_next": more}
        return web.json_response({"pagination": {"next_cursor": cursor, **flag}})

    paged = replace(REQUEST, cursor=("pagination", "next_cursor"), more=("pagination", "has_next"))
    async with serving(handler) as url, RestClient(SETTINGS) as client:
        assert len(await client.pages(url, paged)) == asked
    assert cursors == [None, *(cursor for cursor, _ in pages)][:asked]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {}),
        (404, {}),
        (451, {}),
        (302, {"Location": "/v1/list"}),
        (429, {"Retry-After": "3600"}),  # longer than we wait
    ],
)
async def test_what_will_not_pass_is_not_retried(status: int, headers: dict[str, str]) -> None:
    calls: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(1)
        return web.Response(status=status, headers=headers)

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        with pytest.raises(RequestRefused) as caught:
            await client.get(url, REQUEST)
    assert calls == [1]
    assert caught.value.status == status
    assert caught.value.retry_after_s == (3600.0 if status == 429 else None)


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_body_beyond_the_cap_is_cut_off(compressed: bool) -> None:
    calls: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(1)
        response = web.Response(body=b" " * 5_000_000)
        if compressed:
            response.enable_compression()
        return response

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        with pytest.raises(TransportError, match="body exceeds 100000 bytes"):
            await client.get(url, REQUEST)
    assert calls == [1]


async def test_silence_ends_at_the_timeout() -> None:
    release = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    settings = RestSettings(timeout_s=0.05, attempts_max=2)
    clock = Clock()
    async with serving(handler) as url, RestClient(settings, sleep=clock.sleep) as client:
        with pytest.raises(TransportError, match=r"no answer within 0\.05 s"):
            await client.get(url, REQUEST)
        release.set()
    assert len(clock.slept) == 1


async def test_a_refused_connection_is_retried_and_told(unused_tcp_port: int) -> None:
    clock = Clock()
    async with RestClient(SETTINGS, sleep=clock.sleep) as client:
        with pytest.raises(TransportError, match="Cannot connect"):
            await client.get(f"http://127.0.0.1:{unused_tcp_port}", REQUEST)
    assert len(clock.slept) == SETTINGS.attempts_max - 1


async def test_pages_are_followed_until_the_cursor_is_empty() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.query_string)
        page = request.query.get("cursor", "")
        following = {"": "first%3Da+b", "first=a+b": "second", "second": ""}[page]
        return web.json_response({"result": {"next": following}})

    paged = RestRequest("/v1/list", {"type": "SPOT"}, cursor=("result", "next"))
    async with serving(handler) as url, RestClient(SETTINGS) as client:
        assert len(await client.pages(url, paged)) == 3
        assert len(await client.pages(url, REQUEST)) == 1
    assert seen[1] in {"type=SPOT&cursor=first%3Da%2Bb", "type=SPOT&cursor=first=a%2Bb"}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"result":{}}', b'{"result":{"next":7}}'])
async def test_a_body_without_a_cursor_is_the_last_page(body: bytes) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body)

    paged = RestRequest("/v1/list", cursor=("result", "next"))
    async with serving(handler) as url, RestClient(SETTINGS) as client:
        assert await client.pages(url, paged) == [body]


async def test_pages_without_end_are_an_error() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"next": "again"})

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        with pytest.raises(TransportError, match="more than 100 pages"):
            await client.pages(url, RestRequest("/v1/list", cursor=("next",)))


@pytest.mark.rows("X6")
async def test_certificates_are_verified() -> None:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    clock = Clock()

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b"secret")

    async with serving(handler, served) as url:
        async with RestClient(SETTINGS, ssl_context=trusting) as client:
            assert await client.get(url, REQUEST) == b"secret"
        async with RestClient(SETTINGS, sleep=clock.sleep) as client:
            with pytest.raises(TransportError, match="certificate"):
                await client.get(url, REQUEST)
    assert clock.slept == [], "a certificate doesn't get better by asking again"
