"""A venue that gives a token over REST before a connection, and one that wants headers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

import orjson
import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from feeds.simulated import Simulated
from ingestor.adapter import Handshake, Market, RestRequest, VenueError
from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_queue import FrameQueues
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.sources.live.plan import Route, TransportName, Wanted, make_plan
from ingestor.sources.live.supervisor import Supervisor
from ingestor.sources.live.tap import FrameTap
from tests.network.harness import Heard, settings, until

TOKEN = "s3cr3tt0ken"
VALID_S = 3_600.0


class Acme(Simulated):
    """Wants a token in the address, and a header."""

    markets: ClassVar[Mapping[str, Market]] = {
        "spot": replace(
            Simulated.markets["spot"],
            endpoints=(
                replace(Simulated.markets["spot"].endpoints[0], headers=(("X-Acme", "decimal"),)),
            ),
        )
    }

    @classmethod
    def handshake_request(cls, market: str) -> RestRequest:
        return RestRequest("/token", body=b"")

    @classmethod
    def read_handshake(cls, market: str, body: bytes) -> Handshake:
        answer = orjson.loads(body)
        if "error" in answer:
            raise VenueError("acme", "1", answer["error"])
        return Handshake(answer["url"], f"token={answer['token']}", answer["valid_s"])


@dataclass
class Place:
    """The venue: its REST side and its sockets."""

    asked: list[str] = field(default_factory=list)  # methods of requests for a token
    answers: list[bytes] = field(default_factory=list)  # the next ones, instead of a good one
    dialed: list[tuple[str, str | None]] = field(default_factory=list)  # paths and headers
    sockets: list[ServerConnection] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # of the next upgrades
    valid_s: float = VALID_S

    async def token(self, request: web.Request) -> web.Response:
        self.asked.append(request.method)
        url = "wss://other.example/endpoint?v=2"
        good = {"url": url, "token": f"{TOKEN}{len(self.asked)}", "valid_s": self.valid_s}
        return web.Response(body=self.answers.pop(0) if self.answers else orjson.dumps(good))

    def upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        self.dialed.append((request.path, request.headers.get("X-Acme")))
        status = self.statuses.pop(0) if self.statuses else 0
        return connection.respond(status, "no") if status else None

    async def serve(self, connection: ServerConnection) -> None:
        self.sockets.append(connection)
        await connection.wait_closed()


@asynccontextmanager
async def supervised(
    place: Place, transport: TransportName, recorder: FrameTap | None = None
) -> AsyncIterator[tuple[Supervisor, Heard]]:
    """Run a supervisor of one stream at a place."""
    app = web.Application()
    app.router.add_route("*", "/token", place.token)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    table = InstrumentTable(
        [instrument("simulated", "spot", "A", "A-USD", "A", "USD", "0.01", "0.01")]
    )
    heard = Heard()
    async with serve(
        place.serve, "127.0.0.1", 0, process_request=place.upgrade, close_timeout=0.1
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        route = Route(
            origins=(f"ws://127.0.0.1:{port}",),
            rest_origin=f"http://127.0.0.1:{runner.addresses[0][1]}",
            transport=transport,
        )
        supervisor = Supervisor(
            make_plan([Wanted(Acme, "spot", [0], ["trades"], route)], table),
            table,
            FrameQueues(table, ColumnBuffer()),
            lambda frame_queue: frame_queue.decode,
            lambda: None,
            tap=recorder,
            settings=settings(),
            listeners=[heard],
        )
        task = asyncio.create_task(supervisor.run())
        try:
            yield supervisor, heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    await runner.cleanup()


both = pytest.mark.parametrize("transport", ["picows", "websockets"])


@both
async def test_a_token_is_asked_for_once_and_opens_connections(transport: TransportName) -> None:
    place = Place()
    async with supervised(place, transport):
        await until(lambda: len(place.sockets) == 1)
        place.sockets[0].transport.abort()
        await until(lambda: len(place.sockets) == 2)
    assert place.asked == ["POST"]
    assert place.dialed == [(f"/endpoint?v=2&token={TOKEN}1", "decimal")] * 2


@both
async def test_a_token_that_expired_is_asked_for_anew(transport: TransportName) -> None:
    place = Place(valid_s=0.0)
    async with supervised(place, transport):
        await until(lambda: len(place.sockets) == 1)
        place.sockets[0].transport.abort()
        await until(lambda: len(place.sockets) == 2)
    assert [path for path, _ in place.dialed] == [
        f"/endpoint?v=2&token={TOKEN}{number}" for number in (1, 2)
    ]


@both
async def test_a_refused_token_is_forgotten(transport: TransportName) -> None:
    place = Place(statuses=[401])
    async with supervised(place, transport):
        await until(lambda: len(place.sockets) == 1)
    assert len(place.asked) == 2


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b'{"error":"busy"}', b'{"url":"http://x","token":"","valid_s":1}']
)
async def test_an_answer_that_gives_no_token_is_asked_for_again(answer: bytes) -> None:
    place = Place(answers=[answer, answer])
    async with supervised(place, "picows") as (_, heard):
        await until(lambda: len(place.sockets) == 1)
    assert len(place.asked) == 3
    assert len(heard.downs) >= 2


@both
async def test_no_error_log_or_recording_shows_the_token(
    transport: TransportName, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    place = Place(statuses=[403, 500])
    recorded = _Notes()
    async with supervised(place, transport, recorded) as (_, heard):  # type: ignore[arg-type]
        await until(lambda: len(place.sockets) == 1)
        place.sockets[0].transport.abort()
        await until(lambda: len(heard.downs) >= 3)
    logged = [one for one in caplog.records if not one.name.startswith("websockets.server")]
    words = [f"{failure} {failure!r} {failure.__cause__!r}" for failure in heard.downs]
    assert words
    assert TOKEN not in " ".join(
        [*words, *map(str, recorded.heard), *(one.getMessage() for one in logged)]
    )


class _Notes:
    """A tap that keeps all it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> object:
        return lambda *facts: self.heard.append((name, *facts))
