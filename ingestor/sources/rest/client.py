"""Requests to venues over REST: TLS verified, time and size bounded, what may pass is retried.

Redirects are not followed and the system's proxy is not used: an answer comes from the host that
was asked. Whatever the HTTP library raises is a `TransportError` here. A URL in an error has no
user name or password.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote, urlencode

import aiohttp
import orjson
from yarl import URL

from ingestor.adapter import RestRequest
from ingestor.model.backoff import Backoff
from ingestor.model.errors import MALFORMED, RequestRefused, TransportError, VenueError
from ingestor.model.retry_after import retry_after_s
from ingestor.sources.resolver import HttpResolver
from ingestor.sources.rest.budget import RestBudget

_OK: Final = 200
# 418 is some venue's ban; 520 to 530 are what Cloudflare answers for a server behind it.
_PASSING: Final = frozenset({408, 418, 425, 429, 500, 502, 503, 504, *range(520, 531)})
_CHUNK_BYTES: Final = 1 << 16
_ANY_WINDOW: Final = 47  # zlib's code for "gzip or zlib, whichever it is"
_CODINGS: Final = frozenset({"identity", "gzip", "x-gzip", "deflate"})
_EXCERPT_BYTES: Final = 200  # of the body of a refusal
_USER: Final = re.compile(r"//[^/?#]*@")
_PAGES_MAX: Final = 100
_JSON: Final = {"Content-Type": "application/json"}
_BACKOFF: Final = Backoff(base_s=0.5, cap_s=10.0, retry_after_cap_s=60.0)


def address(origin: str, request: RestRequest) -> str:
    """Return a request's address, as a recording has it. origin: scheme and host."""
    query = f"?{urlencode(request.query)}" if request.query else ""
    return f"{origin}{request.path}{query}"


@dataclass(frozen=True, slots=True)
class RestSettings:
    """Bounds of one request.

    timeout_s: seconds for one attempt. body_bytes_max: of all pages together, after inflation.
    attempts_max: counts the first one too. A Retry-After beyond the backoff's cap is not waited
    for: the request fails, and says so.
    """

    timeout_s: float
    body_bytes_max: int = 64 << 20
    attempts_max: int = 4
    backoff: Backoff = _BACKOFF


class RestClient:
    """One connection pool. Use it as an asynchronous context manager.

    settings: of requests that come without their own. budget: what the venue allows.
    """

    def __init__(
        self,
        settings: RestSettings,
        *,
        ssl_context: ssl.SSLContext | None = None,
        budget: RestBudget | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._ssl = ssl_context or ssl.create_default_context()
        self._budget = budget
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # A body is inflated here, so that its size is bounded while it grows.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._ssl,
                limit=0,
                limit_per_host=4,
                resolver=HttpResolver(),
                use_dns_cache=False,
            ),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"Accept-Encoding": "gzip, deflate"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()
        self._session = None

    async def get(
        self, base_url: str, request: RestRequest, settings: RestSettings | None = None
    ) -> bytes:
        """Return the body of one answer.

        Args:
            base_url: scheme and host.
            request: what to ask for.
            settings: instead of the client's.

        Raises:
            TransportError: (RequestRefused where the endpoint gave another status than 200) after
                the last attempt, or at once when another attempt can't help.
        """
        url, settings = _url(base_url, request, {}), settings or self._settings
        return await self._get(url, request, settings, settings.body_bytes_max, None)

    async def pages(
        self,
        base_url: str,
        request: RestRequest,
        check: Callable[[bytes], object] | None = None,
        settings: RestSettings | None = None,
    ) -> list[bytes]:
        """Return the bodies of all pages, in order (one where the request has no cursor).

        Args:
            base_url: scheme and host.
            request: what to ask for.
            check: called with each body; the VenueError that it raises is retried where it is
                temporary. Whatever else it raises comes out.
            settings: instead of the client's.

        Raises:
            TransportError: as `get` does, for pages that never end, and what `check` found.
        """
        settings = settings or self._settings
        bodies: list[bytes] = []
        cursor: dict[str, str] = {}
        room = settings.body_bytes_max
        for _ in range(_PAGES_MAX):
            url = _url(base_url, request, cursor)
            bodies.append(await self._get(url, request, settings, room, check))
            room -= len(bodies[-1])
            following = _next_page(bodies[-1], request)
            if not following:
                return bodies
            cursor = {"cursor": following}
        raise TransportError(_shown(url), f"more than {_PAGES_MAX} pages")

    async def _get(
        self,
        url: URL,
        request: RestRequest,
        settings: RestSettings,
        room: int,
        check: Callable[[bytes], object] | None,
    ) -> bytes:
        for attempt in range(settings.attempts_max):
            if self._budget is not None:
                await self._budget.acquire(request.weight, settings.backoff.retry_after_cap_s)
            try:
                body = await self._attempt(url, request, settings.timeout_s, room)
                if check is not None:
                    check(body)
            except TransportError as failure:
                wait_s = failure.retry_after_s or 0.0
                if (
                    attempt + 1 == settings.attempts_max
                    or wait_s > settings.backoff.retry_after_cap_s
                    or not _may_pass(failure)
                ):
                    raise
                delay_s = settings.backoff.delay_s(attempt, random.random, failure.retry_after_s)
            else:
                return body
            await self._sleep(delay_s)
        raise AssertionError("attempts_max is at least 1")

    async def _attempt(self, url: URL, request: RestRequest, timeout_s: float, room: int) -> bytes:
        session = self._session
        assert session is not None, "used outside of its context"
        try:
            limit = aiohttp.ClientTimeout(total=timeout_s)
            async with session.request(
                "GET" if request.body is None else "POST",
                url,
                data=request.body or None,
                headers=_JSON if request.body else None,
                allow_redirects=False,
                timeout=limit,
            ) as response:
                if self._budget is not None:
                    self._budget.observe(response.status, response.headers)
                return await _read(url, response, room)
        except TransportError:
            raise
        except TimeoutError:
            reason = f"no answer within {timeout_s:g} s"
            raise TransportError(_shown(url), reason) from None
        except Exception as failure:  # whatever the HTTP library lets through
            raise TransportError(_shown(url), _explain(failure)) from failure


async def _read(url: URL, response: aiohttp.ClientResponse, room: int) -> bytes:
    if response.status != _OK:
        raise await _refusal(url, response)
    return await _body(url, response, room)


async def _refusal(url: URL, response: aiohttp.ClientResponse) -> RequestRefused:
    """Read how the body of a refusal begins: it often says why."""
    try:
        begin = await response.content.read(_EXCERPT_BYTES)
        if response.headers.get("Content-Encoding"):
            begin = zlib.decompressobj(_ANY_WINDOW).decompress(begin, _EXCERPT_BYTES)
    except (aiohttp.ClientError, OSError, ValueError, zlib.error):
        begin = b""
    words = begin.decode("utf-8", "replace").split()
    text = "".join(character if character.isprintable() else "?" for character in " ".join(words))
    wait_s = retry_after_s(response.headers.get("Retry-After"))
    return RequestRefused(_shown(url), response.status, text, retry_after_s=wait_s)


async def _body(url: URL, response: aiohttp.ClientResponse, room: int) -> bytes:
    """Read and inflate a body. Raises _TooLarge beyond `room` bytes, inflated."""
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in _CODINGS:
        raise TransportError(_shown(url), f"unknown content coding {coding!r:.40}")
    inflater = None if coding == "identity" else zlib.decompressobj(_ANY_WINDOW)
    body = bytearray()
    async for received in response.content.iter_chunked(_CHUNK_BYTES):
        part = received
        while part:
            if inflater is None:
                body += part
                break
            if inflater.eof:  # the next member of a gzip file
                inflater = zlib.decompressobj(_ANY_WINDOW)
            body += inflater.decompress(part, room + 1 - len(body))
            if len(body) > room:
                break
            part = inflater.unused_data or inflater.unconsumed_tail
        if len(body) > room:
            response.close()
            raise _TooLarge(_shown(url), f"body exceeds {room} bytes")
    if inflater is not None and not inflater.eof:
        raise TransportError(_shown(url), "the compressed body is cut short")
    return bytes(body)


class _TooLarge(TransportError):
    """Another attempt would bring the same body."""


def _may_pass(failure: TransportError) -> bool:
    if isinstance(failure, RequestRefused):
        return failure.status in _PASSING
    if isinstance(failure, VenueError):
        return failure.temporary
    lasting = (aiohttp.ClientConnectorCertificateError, aiohttp.InvalidURL, UnicodeError)
    return not isinstance(failure.__cause__, lasting) and not isinstance(failure, _TooLarge)


def _explain(failure: Exception) -> str:
    """Return an exception's own words, on one line."""
    return " ".join(f"{failure}".split()) or type(failure).__name__


def _shown(url: URL | str) -> str:
    return _USER.sub("//", str(url))


def _url(base_url: str, request: RestRequest, more: dict[str, str]) -> URL:
    """Raises TransportError for what is no URL."""
    query = {**request.query, **more}
    try:
        url = URL(base_url.rstrip("/") + request.path)
        return url.with_query(query) if query else url
    except (ValueError, TypeError) as failure:
        raise TransportError(_shown(base_url), f"no URL: {_explain(failure)}") from failure


def _next_page(body: bytes, request: RestRequest) -> str:
    """Return the cursor of the next page, "" where there is none: the adapter judges the body."""
    if not request.cursor or (request.more and value_at(body, request.more) is False):
        return ""
    found = value_at(body, request.cursor)
    # A venue may percent-encode its cursor; encoding it twice would spoil it.
    return unquote(found) if isinstance(found, str) else ""


def value_at(body: bytes, keys: tuple[str, ...]) -> object:
    """Return what an answer's JSON has at `keys`, None where it has nothing there."""
    try:
        place: Any = orjson.loads(body)
        for key in keys:
            place = place[key]
    except MALFORMED:
        return None
    found: object = place
    return found
