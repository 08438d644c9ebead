"""Metrics, health and the status page over HTTP, in the program's own loop.

| path | what |
|---|---|
| /metrics | all metrics of the process |
| /metrics/feeds | four series per stream, off the main scrape |
| /livez, /readyz, /startupz | 200 or 503, and why, as JSON |
| /status.json | the snapshot that the terminal shows |
| /events | the same each second, as server-sent events |
| /streams.json | the worst streams, or those of a name: `?text=btc&order=lag&limit=50` |
| /last/KEY | the last rows of an instrument (`last.enabled`) |
| / | the status page, which shows these |
| /cluster, /cluster.json | the page of a cluster's worker: who has which shard |
| /reload (POST) | follows the configuration file, or with `?dry_run=1` says what would change |

Loopback unless configured, no CORS; a request must call us by a name that is ours, so that a web
page which rebinds its DNS name to 127.0.0.1 reads nothing. `/reload` takes nothing but requests of
this machine that no web page can make: it wants a header that a page may not set without our
consent, and refuses what a browser marks as coming from a page.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Protocol, Self

import orjson
from aiohttp import web

from ingestor.admin.connections import KEEPALIVE_S, ConnectionLimits
from ingestor.admin.exposition import MetricSource, StreamState, metrics_text, streams_text
from ingestor.admin.live import LiveView
from ingestor.admin.streams import StreamPage, StreamQuery
from ingestor.config.model import HttpConfig, is_loopback
from ingestor.model.errors import ConfigError, IngestError, ListenFailed
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.status import Health, Status, liveness, startup

HEARTBEAT_S: Final = 1.0
PAGE: Final = Path(__file__).parent / "status_page"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]
RELOAD_HEADER: Final = "X-Ingestor-Reload"


class AdminSource(MetricSource, Protocol):
    """Give the server what it shows; calls that are not coroutines return at once."""

    def status(self) -> Status: ...
    def ready(self) -> Health: ...
    def streams(self) -> Iterable[StreamState]: ...
    async def worst_streams(self, query: StreamQuery) -> StreamPage: ...


class Reload(Protocol):
    """Follows the configuration; returns the difference. Raises IngestError."""

    async def __call__(self, *, dry_run: bool) -> dict[str, Any]: ...


LastOf = Callable[[str], Awaitable[dict[str, Any] | None]]


class AdminServer:
    """The HTTP server; an asynchronous context manager. `port` is known once it is up."""

    def __init__(
        self,
        config: HttpConfig,
        source: AdminSource,
        refresh: Callable[[str], Awaitable[None]] | None = None,
        reload: Reload | None = None,
        last: LastOf | None = None,
    ) -> None:
        """Create the admin server.

        Args:
            config: where to listen.
            source: what is shown.
            refresh: awaited before the source is asked for a page of metrics, with its path.
            reload: follows the configuration; None where nothing does.
            last: returns the last rows of an instrument's key; None where none are kept.
        """
        self._config = config
        self._source = source
        self._refresh = refresh
        self._reload = reload
        self._last = last
        self._runner: web.AppRunner | None = None
        self._limits = ConnectionLimits()
        self._live_view = LiveView(source.status, _HEADERS)
        self._listening: asyncio.Server | None = None
        self._heart: asyncio.Task[None] | None = None
        self._beat_s = time.monotonic()
        self._rendering = asyncio.Lock()  # two scrapes at once would hold the loop twice
        self.port = config.port
        self.cluster: Callable[[], dict[str, Any]] | None = None  # of a cluster's worker

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises ListenFailed."""
        application = web.Application(
            middlewares=[self._limits.track, self._guard], client_max_size=1024
        )
        for path, respond in (
            ("/", _file("index.html", "text/html", cluster=self.cluster is not None)),
            ("/status.js", _file("status.js", "text/javascript")),
            ("/status.css", _file("status.css", "text/css")),
            ("/favicon.svg", _file("favicon.svg", "image/svg+xml")),
            ("/status.json", self._status),
            ("/events", self._events),
            ("/streams.json", self._worst_streams),
            ("/metrics", self._metrics),
            ("/metrics/feeds", self._streams),
            ("/livez", self._live),
            ("/readyz", self._ready),
            ("/startupz", self._started),
        ):
            application.router.add_get(path, respond)
        if self.cluster is not None:
            application.router.add_get("/cluster", _file("cluster.html", "text/html"))
            application.router.add_get("/cluster.js", _file("cluster.js", "text/javascript"))
            application.router.add_get("/cluster.json", partial(self._overview, self.cluster))
        if self._last is not None:
            application.router.add_get("/last/{key:.+}", partial(self._last_values, self._last))
        if self._reload is not None:
            application.router.add_post("/reload", partial(self._reloaded, self._reload))
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
            keepalive_timeout=KEEPALIVE_S,
        )
        await runner.setup()
        assert runner.server is not None, "set up"
        try:
            listening = await self._limits.listen(
                runner.server, self._config.host, self._config.port
            )
        except OSError as failure:
            await runner.cleanup()
            address = f"{self._config.host}:{self._config.port}"
            hint = "set http.port (0 takes a free one)"
            raise ListenFailed("the HTTP server", address, _reason(failure), hint=hint) from None
        self._runner, self._listening = runner, listening
        self.port = int(listening.sockets[0].getsockname()[1])
        self._heart = asyncio.create_task(self._beat(), name="http-heartbeat")

    async def stop(self) -> None:
        """Close the port; may be called twice."""
        self._live_view.stop()
        if self._heart is not None:
            self._heart.cancel()
            self._heart = None
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _beat(self) -> None:
        sweep = bulkheads.guard("HTTP client", self._limits.sweep)
        sample = bulkheads.guard("HTTP client", self._live_view.sample)
        while True:
            self._beat_s = time.monotonic()
            sweep()
            sample(self._beat_s)
            await asyncio.sleep(HEARTBEAT_S)

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Respond) -> web.StreamResponse:
        """Refuse what isn't ours to answer, and put our headers on every answer."""
        if not self._is_ours(request.host):
            response: web.StreamResponse = web.Response(
                status=421, text="unknown host: name it in http.allowed_hosts\n"
            )
        else:
            try:
                response = await handler(request)
            except web.HTTPException as refusal:
                response = web.Response(status=refusal.status, text=f"{refusal.reason}\n")
                if "Allow" in refusal.headers:
                    response.headers["Allow"] = refusal.headers["Allow"]
            except Exception as failure:  # noqa: BLE001  # the boundary: it costs this answer
                bulkheads.bug("HTTP client", failure, path=request.path)
                response = web.Response(status=500, text="a bug: see the log\n")
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    def _is_ours(self, host: str) -> bool:
        """Addresses can't be rebound; names must be loopback's or configured."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.lower()
        if is_loopback(name) or name in self._config.allowed_hosts:
            return True
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    async def _metrics(self, request: web.Request) -> web.Response:
        async with self._rendering:
            if self._refresh is not None:
                await self._refresh(request.path)
            text = await metrics_text(self._source)
        return web.Response(body=text, headers={"Content-Type": _TEXT})

    async def _streams(self, request: web.Request) -> web.Response:
        async with self._rendering:
            if self._refresh is not None:
                await self._refresh(request.path)
            text = await streams_text(self._source.streams())
        return web.Response(body=text, headers={"Content-Type": _TEXT})

    async def _status(self, _: web.Request) -> web.Response:
        return _json(self._source.status().to_json())

    async def _overview(
        self, overview: Callable[[], dict[str, Any]], _: web.Request
    ) -> web.Response:
        return _json(overview())

    async def _reloaded(self, reload: Reload, request: web.Request) -> web.Response:
        if (reason := _why_refused(request)) is not None:
            return _json({"error": reason}, 403)
        try:
            return _json(await reload(dry_run=request.query.get("dry_run") == "1"))
        except ConfigError as failure:
            return _json({"error": str(failure)}, 422)
        except IngestError as failure:
            return _json({"error": str(failure)}, 503)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        return await self._live_view.respond(request, self._limits.renew)

    async def _last_values(self, last: LastOf, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        found = await last(key)
        if found is None:
            return _json({"error": f"nothing came of {key:.200}"}, status=404)
        return _json(found)

    async def _worst_streams(self, request: web.Request) -> web.Response:
        try:
            query = StreamQuery.from_parameters(request.query)
        except ValueError as refusal:
            return _json({"error": str(refusal)}, 400)
        async with self._rendering:
            page = await self._source.worst_streams(query)
        return _json(page.to_json(time.time_ns()))

    async def _live(self, _: web.Request) -> web.Response:
        return _verdict(liveness(time.monotonic() - self._beat_s))

    async def _ready(self, _: web.Request) -> web.Response:
        return _verdict(self._source.ready())

    async def _started(self, _: web.Request) -> web.Response:
        return _verdict(startup(self._source.status()))


def _file(
    name: str, content_type: str, *, cluster: bool = False
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Serve a file of the page. cluster: whether there is a page of a cluster to lead to."""
    content = (PAGE / name).read_bytes()
    if cluster:
        content = content.replace(b"<footer>", b'<footer><a href="cluster">cluster</a> \xc2\xb7 ')

    async def respond(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=content_type, charset="utf-8")

    return respond


def _json(content: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")


def _why_refused(request: web.Request) -> str | None:
    """Return why a request may not change anything; None if it may."""
    transport = request.transport
    peer, own = (
        transport.get_extra_info(name, ("",))[0] if transport is not None else ""
        for name in ("peername", "sockname")
    )
    if not is_loopback(peer) and peer != own:
        return "only from this machine"
    if RELOAD_HEADER not in request.headers:
        return f"the header {RELOAD_HEADER} is missing"
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        return "not from a web page"
    return None


def _verdict(health: Health) -> web.Response:
    return _json({"ok": health.ok, **health.checks}, 200 if health.ok else 503)


def _reason(failure: OSError) -> str:
    """The system's words alone: asyncio wraps them in a sentence of its own."""
    return os.strerror(failure.errno) if failure.errno else str(failure)
