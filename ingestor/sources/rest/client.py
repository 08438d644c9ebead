"""GETs to a venue's REST endpoint: TLS verified, time and size bounded, what may pass is retried.

Redirects are not followed and the system's proxy is not used: an answer comes from the host that
was asked. A URL in an error has no secrets, since public market data needs none.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote

import aiohttp
import orjson
from yarl import URL

from ingestor.adapter import RestRequest
from ingestor.model.backoff import Backoff
from ingestor.model.errors import RequestRefused, TransportError
from ingestor.sources.resolver import HttpResolver

_OK: Final = 200
_PASSING: Final = frozenset({408, 418, 425, 429, 500, 502, 503, 504})  # 418: some venue's ban
_CHUNK_BYTES: Final = 1 << 16
_PAGES_MAX: Final = 100
_BACKOFF: Final = Backoff(base_s=0.5, cap_s=10.0, retry_after_cap_s=60.0)


@dataclass(frozen=True, slots=True)
class RestSettings:
    """attempts_max counts the first one too. A Retry-After beyond the backoff's cap is not waited
    for: the request fails, and says so."""

    timeout_s: float
    body_bytes_max: int = 64 << 20
    attempts_max: int = 4
    backoff: Backoff = _BACKOFF


class RestClient:
    """One connection pool. Use it as an asynchronous context manager.

    pace: awaited with a request's weight before each attempt (a venue's rate limiter).
    """

    def __init__(
        self,
        settings: RestSettings,
        *,
        ssl_context: ssl.SSLContext | None = None,
        pace: Callable[[int], Awaitable[None]] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._ssl = ssl_context or ssl.create_default_context()
        self._pace = pace
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
            connector=aiohttp.TCPConnector(
                ssl=self._ssl, limit=4, resolver=HttpResolver(), use_dns_cache=False
            ),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
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

    async def get(self, base_url: str, request: RestRequest) -> bytes:
        """Return the body of one answer. base_url: scheme and host.

        Raises TransportError (RequestRefused where the endpoint gave another status than 200)
        after the last attempt, or at once when another attempt can't help.
        """
        return await self._get(_url(base_url, request, {}), request.weight)

    async def pages(self, base_url: str, request: RestRequest) -> list[bytes]:
        """Return the bodies of all pages, in order (one where the request has no cursor).

        Raises TransportError as `get` does, and for pages that never end.
        """
        bodies: list[bytes] = []
        cursor: dict[str, str] = {}
        for _ in range(_PAGES_MAX):
            url = _url(base_url, request, cursor)
            bodies.append(await self._get(url, request.weight))
            following = _next_page(bodies[-1], request.cursor)
            if not following:
                return bodies
            cursor = {"cursor": following}
        raise TransportError(str(url), f"more than {_PAGES_MAX} pages")

    async def _get(self, url: URL, weight: int) -> bytes:
        settings = self._settings
        for attempt in range(settings.attempts_max):
            if self._pace is not None:
                await self._pace(weight)
            try:
                return await self._attempt(url)
            except TransportError as failure:
                wait_s = failure.retry_after_s or 0.0
                if (
                    attempt + 1 == settings.attempts_max
                    or wait_s > settings.backoff.retry_after_cap_s
                    or not _may_pass(failure)
                ):
                    raise
                delay_s = settings.backoff.delay_s(attempt, random.random, failure.retry_after_s)
            await self._sleep(delay_s)
        raise AssertionError("attempts_max is at least 1")

    async def _attempt(self, url: URL) -> bytes:
        assert self._session is not None, "used outside of its context"
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != _OK:
                    retry_after_s = _seconds(response.headers.get("Retry-After"))
                    raise RequestRefused(str(url), response.status, retry_after_s=retry_after_s)
                return await self._body(url, response)
        except TimeoutError:
            reason = f"no answer within {self._settings.timeout_s:g} s"
            raise TransportError(str(url), reason) from None
        except aiohttp.ClientError as failure:
            raise TransportError(str(url), str(failure) or type(failure).__name__) from failure

    async def _body(self, url: URL, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._settings.body_bytes_max:
                response.close()
                raise _TooLarge(str(url), f"body exceeds {self._settings.body_bytes_max} bytes")
        return bytes(body)


class _TooLarge(TransportError):
    """Another attempt would bring the same body."""


def _may_pass(failure: TransportError) -> bool:
    if isinstance(failure, RequestRefused):
        return failure.status in _PASSING
    certificate = isinstance(failure.__cause__, aiohttp.ClientConnectorCertificateError)
    return not certificate and not isinstance(failure, _TooLarge)


def _url(base_url: str, request: RestRequest, more: dict[str, str]) -> URL:
    query = {**request.query, **more}
    url = URL(base_url.rstrip("/") + request.path)
    return url.with_query(query) if query else url


def _next_page(body: bytes, keys: tuple[str, ...]) -> str:
    """Return the cursor at `keys`, "" where there is none: the adapter judges the body."""
    if not keys:
        return ""
    try:
        place: Any = orjson.loads(body)
        for key in keys:
            place = place[key]
    except (LookupError, TypeError, ValueError):
        return ""
    # A venue may percent-encode its cursor; encoding it twice would spoil it.
    return unquote(place) if isinstance(place, str) else ""


def _seconds(retry_after: str | None) -> float | None:
    """Read Retry-After's number of seconds; a date is rare, and the backoff serves for it."""
    return float(retry_after) if retry_after and retry_after.strip().isdecimal() else None
