"""What servers and addresses can do wrong: each is a TransportError, and costs one request."""

from __future__ import annotations

import asyncio
import gzip
import io
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web

from ingestor.adapter import RestRequest
from ingestor.model.backoff import Backoff
from ingestor.model.errors import RequestRefused, TransportError, VenueError
from ingestor.sources.rest.client import RestClient, RestSettings
from tests.unit.sources.rest.test_client import Clock, serving

REQUEST = RestRequest("/v1/list")
SETTINGS = RestSettings(
    timeout_s=1.0,
    body_bytes_max=100_000,
    attempts_max=2,
    backoff=Backoff(base_s=0.001, retry_after_cap_s=60.0),
)
PAGED = RestRequest("/v1/list", cursor=("next",))


@asynccontextmanager
async def raw_server(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Answer every request with these bytes, then reset the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{'https' if tls else 'http'}://{host}:{port}"


def packed(body: bytes, coding: str) -> bytes:
    if coding == "gzip":
        return gzip.compress(body)
    return zlib.compress(body)


def zeros(size: int) -> bytes:
    """Return a gzip file of `size` zeros without ever holding them."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb") as writer:
        for _ in range(size >> 20):
            writer.write(bytes(1 << 20))
    return file.getvalue()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_compressed_body_is_inflated(coding: str) -> None:
    body = b'{"list":[]}' * 5_000

    async def handler(request: web.Request) -> web.Response:
        assert coding in request.headers["Accept-Encoding"]
        return web.Response(body=packed(body, coding), headers={"Content-Encoding": coding})

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        assert await client.get(url, REQUEST) == body


async def test_all_members_of_a_gzip_file_are_read() -> None:
    async def handler(request: web.Request) -> web.Response:
        body = gzip.compress(b"[1,") + gzip.compress(b"") + gzip.compress(b"2]")
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        assert await client.get(url, REQUEST) == b"[1,2]"


@pytest.mark.rows("I13")
async def test_a_bomb_is_cut_off_while_it_grows() -> None:
    bomb = zeros(32 << 20)
    assert len(bomb) < 300_000
    calls: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(1)
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        with pytest.raises(TransportError, match="body exceeds 100000 bytes"):
            await client.get(url, REQUEST)
    assert calls == [1], "another attempt would bring the same"


async def test_all_pages_together_are_bounded() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"next": f"{request.query_string}x", "filler": " " * 40_000})

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        with pytest.raises(TransportError, match="body exceeds"):
            await client.pages(url, PAGED)


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({"Content-Encoding": "gzip"}, gzip.compress(b"x" * 1_000)[:-9], "cut short"),
        ({"Content-Encoding": "gzip"}, b"<html>not gzip</html>", "incorrect header check"),
        ({"Content-Encoding": "deflate"}, b"\x00" * 50, "Error -3"),
        ({"Content-Encoding": "br"}, b"\x0b\x02\x80", "unknown content coding 'br'"),
        ({"Content-Encoding": "gzip, gzip"}, b"x", "unknown content coding"),
        ({"Content-Encoding": "zstd\tx"}, b"x", "unknown content coding"),
    ],
    ids=range(6),
)
async def test_a_body_that_cannot_be_inflated(
    headers: dict[str, str], body: bytes, message: str
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        with pytest.raises(TransportError, match=message):
            await client.get(url, REQUEST)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff" * 100,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 two-hundred OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[1]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n[1]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[1]\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1]",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n[1]",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n[1]",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=lambda answer: repr(answer[:24]),
)
async def test_an_answer_that_is_no_http(answer: bytes) -> None:
    async with raw_server(answer) as url, RestClient(SETTINGS) as client:
        with pytest.raises(TransportError):
            await client.get(url, REQUEST)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "http://",
        "no url at all",
        "ftp://127.0.0.1",
        "http://[::1",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:port",
        f"http://{'a' * 64}.example.invalid",
        "http://a..b.invalid",
        "http://\udcff.invalid",
        "http://xn--a\u0301\u200d.invalid",
        "http://ho st.invalid",
        "http://127.0.0.1\x00.invalid",
    ],
)
async def test_an_address_that_is_none(base_url: str) -> None:
    async with RestClient(SETTINGS) as client:
        with pytest.raises(TransportError):
            await client.get(base_url, REQUEST)
        with pytest.raises(TransportError):
            await client.pages(base_url, RestRequest("/\udcff", {"a": "\udcff"}))


async def test_a_page_whose_cursor_cannot_be_sent() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b'{"next":"\\u0000\\u200d%ff%zz"}')

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        with pytest.raises(TransportError):
            await client.pages(url, PAGED)


async def test_no_tls_where_tls_is_wanted_and_the_reverse() -> None:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    async with RestClient(SETTINGS) as client:
        async with raw_server(b"HTTP/1.1 200 OK\r\n\r\n") as url:
            with pytest.raises(TransportError):
                await client.get(url.replace("http:", "https:"), REQUEST)
        async with raw_server(b"", served) as url:
            with pytest.raises(TransportError):
                await client.get(url.replace("https:", "http:"), REQUEST)


async def test_a_refusal_says_what_its_body_says() -> None:
    async def handler(request: web.Request) -> web.Response:
        text = '{"code":-1121,"msg":"Invalid\r\nsymbol.\x1b[31m"}' + "x" * 1_000
        response = web.Response(status=400, text=text)
        if "gzip" in request.query_string:
            response.enable_compression(web.ContentCoding.gzip)
        return response

    wanted = 'refused with HTTP 400: {"code":-1121,"msg":"Invalid symbol.?[31m"}xxx'
    async with serving(handler) as url, RestClient(SETTINGS) as client:
        for query in ({}, {"gzip": "1"}):
            with pytest.raises(RequestRefused) as caught:
                await client.get(url, RestRequest("/v1/list", query))
            assert wanted in str(caught.value)
            assert len(str(caught.value)) < 400


@pytest.mark.parametrize("status", [418, 520, 522, 530])
async def test_statuses_that_may_pass_are_tried_again(status: int) -> None:
    calls: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(1)
        return web.Response(status=status if len(calls) == 1 else 200, body=b"[]")

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        assert await client.get(url, REQUEST) == b"[]"


@pytest.mark.rows("I11")
@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("1000000000", 3_600.0),
        ("9" * 400, 3_600.0),
        ("-7", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3_600.0),
    ],
)
async def test_a_huge_retry_after_is_bounded(header: str, wait_s: float | None) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=418, headers={"Retry-After": header})

    clock = Clock()
    async with serving(handler) as url, RestClient(SETTINGS, sleep=clock.sleep) as client:
        with pytest.raises(RequestRefused) as caught:
            await client.get(url, REQUEST)
    assert caught.value.retry_after_s == wait_s
    assert sum(clock.slept) < 1, "a long one is not waited for here"


async def test_a_password_in_an_address_is_not_shown() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=404)

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        for base in (url.replace("//", "//me:s3cret@"), "http://me:s3cret@[::1"):
            with pytest.raises(TransportError) as caught:
                await client.get(base, REQUEST)
            assert "s3cret" not in f"{caught.value}{caught.value!r}"


@pytest.mark.parametrize(("temporary", "calls_wanted"), [(True, 2), (False, 1)])
async def test_an_error_inside_an_answer(temporary: bool, calls_wanted: int) -> None:
    calls: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(1)
        return web.Response(body=b"bad" if len(calls) == 1 else b"good")

    def check(body: bytes) -> None:
        if body == b"bad":
            raise VenueError("acme", "7", "busy", temporary=temporary)

    async with serving(handler) as url, RestClient(SETTINGS) as client:
        if temporary:
            assert await client.pages(url, REQUEST, check) == [b"good"]
        else:
            with pytest.raises(VenueError, match="acme: error 7: busy"):
                await client.pages(url, REQUEST, check)
    assert len(calls) == calls_wanted
