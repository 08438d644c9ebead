"""Books against REST images: a venue's own words prove a book right, or wrong and repaired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType, web

from ingestor.books.statistics import BookCounters, BookStatistics
from tests.e2e.harness import Running, make_config, running
from tests.e2e.test_digest import Seen, decisions, replayed

SYMBOL = "BTCUSDT"
MS = 1_790_000_000_000  # a time of the venue, ms since the epoch
TOPIC = f"orderbook.200.{SYMBOL}"
INSTRUMENT = {
    "symbol": SYMBOL,
    "baseCoin": "BTC",
    "quoteCoin": "USDT",
    "status": "Trading",
    "priceFilter": {"tickSize": "0.1"},
    "lotSizeFilter": {"basePrecision": "0.001"},
}


class Venue:
    """A venue that speaks Bybit's spot dialect: one book, on a socket and over REST.

    wrong: images show a size that the book doesn't have. unnamed: they name no update.
    refuses: there are none. images: how many were given.
    """

    def __init__(self) -> None:
        self.wrong = self.unnamed = self.refuses = False
        self.images = self.snapshots = 0
        self._number = self._seq = 1_000
        self._bids = {100.0 - step / 10: 1.0 + step for step in range(40)}
        self._asks = {100.1 + step / 10: 2.0 + step for step in range(40)}

    def routes(self) -> list[web.RouteDef]:
        get: list[tuple[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]] = [
            ("/v5/public/spot", self._socket),
            ("/v5/market/instruments-info", self._instruments),
            ("/v5/market/orderbook", self._image),
        ]
        return [web.get(path, handler) for path, handler in get]

    async def _instruments(self, _request: web.Request) -> web.Response:
        result = {"list": [INSTRUMENT], "nextPageCursor": ""}
        return web.json_response({"retCode": 0, "result": result})

    async def _image(self, request: web.Request) -> web.Response:
        assert request.query["category"] == "spot"
        assert request.query["symbol"] == SYMBOL
        limit = int(request.query["limit"])
        if self.refuses:
            raise web.HTTPForbidden
        self.images += 1
        bids, asks = self._sides(limit)
        if self.wrong:
            bids[3][1] = "77.777"
        seq = 1 if self.unnamed else self._seq
        result = {"s": SYMBOL, "b": bids, "a": asks, "ts": MS, "u": 5, "seq": seq}
        return web.json_response({"retCode": 0, "result": result})

    def _sides(self, limit: int) -> tuple[list[list[str]], list[list[str]]]:
        best = sorted(self._bids.items(), reverse=True)[:limit], sorted(self._asks.items())[:limit]
        bids, asks = ([[f"{one:.1f}", f"{size:.3f}"] for one, size in side] for side in best)
        return bids, asks

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        moving: asyncio.Task[None] | None = None
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            said = orjson.loads(message.data)
            if moving is not None:
                moving.cancel()
                moving = None
            answer = {"op": said["op"], "success": True, "req_id": said["req_id"], "ret_msg": ""}
            await socket.send_json(answer)
            if said["op"] == "subscribe":
                self.snapshots += 1
                await self._say(socket, "snapshot", *self._sides(200))
                moving = asyncio.create_task(self._move(socket))
        if moving is not None:
            moving.cancel()
        return socket

    async def _move(self, socket: web.WebSocketResponse) -> None:
        while True:
            await asyncio.sleep(0.02)
            self._number += 1
            self._seq += 3
            size = float(self._number % 50 + 1)
            self._bids[99.8] = size
            await self._say(socket, "delta", [["99.8", f"{size:.3f}"]], [])

    async def _say(
        self, socket: web.WebSocketResponse, kind: str, bids: list[Any], asks: list[Any]
    ) -> None:
        data = {"s": SYMBOL, "b": bids, "a": asks, "u": self._number, "seq": self._seq}
        message = {"topic": TOPIC, "type": kind, "ts": MS, "cts": MS, "data": data}
        await socket.send_json(message)


@asynccontextmanager
async def audited(tmp_path: Path, venue: Venue, seen: Seen | None = None) -> AsyncIterator[Running]:
    """An ingestor that records, without Kafka, and audits the venue's book all the time."""
    application = web.Application()
    application.add_routes(venue.routes())
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    feed = {
        "venue": "bybit",
        "market": "spot",
        "symbols": [SYMBOL],
        "channels": ["book"],
        "url": f"ws://127.0.0.1:{port}",
        "rest_url": f"http://127.0.0.1:{port}",
    }
    books = {"audit_interval_s": 0.1, "repair_backoff_s": 0.1}
    recorder = {"path": tmp_path / "recording"}
    config = make_config("127.0.0.1:9", [feed], tmp_path, books=books, recorder=recorder)
    try:
        async with running(config, publish=False) as run:
            if seen is not None:
                run.ingestor.flusher.observe(seen.observe)
            await run.subscribed()
            yield run
            await run.stop()
    finally:
        await runner.cleanup()


def books_of(run: Running) -> BookStatistics:
    found = run.ingestor.pipeline.books.statistics()
    return found.get(("bybit", "spot")) or BookCounters().reading(0, 0, 0, 0)


async def test_right_images_verify_the_book(tmp_path: Path) -> None:
    venue = Venue()
    async with audited(tmp_path, venue) as run:
        await run.until(lambda: venue.images >= 1 and books_of(run).audits.get("verified", 0) >= 2)
        found = books_of(run)
    assert found.audits.keys() == {"verified"}
    assert found.verified == found.audits["verified"]
    assert (found.mismatched, found.gaps, found.resets, venue.snapshots) == (0, 0, 1, 1)


async def test_a_wrong_image_of_a_named_update_breaks_the_book_which_is_repaired(
    tmp_path: Path,
) -> None:
    venue = Venue()
    venue.wrong = True
    live = Seen()
    async with audited(tmp_path, venue, live) as run:
        await run.until(lambda: books_of(run).mismatched > 0)
        venue.wrong = False
        await run.until(lambda: books_of(run).resets >= 2)
        await run.until(lambda: books_of(run).audits.get("verified", 0) >= 1)
        found = books_of(run)
    assert found.valid == 1
    assert found.repairs.get("checksum", 0) >= 1
    again = Seen()
    replayed(tmp_path / "recording", again)
    assert again.digest.by_stream() == live.digest.by_stream()
    assert decisions(tmp_path / "recording")["invalidate"] == found.gaps
    assert found.gaps == found.audits["mismatched"] == venue.snapshots - 1


@pytest.mark.parametrize("wrong", [False, True])
async def test_an_image_that_names_nothing_is_no_proof_against_a_book(
    tmp_path: Path, wrong: bool
) -> None:
    venue = Venue()
    venue.unnamed, venue.wrong = True, wrong
    outcome = "unverifiable" if wrong else "verified"
    async with audited(tmp_path, venue) as run:
        await run.until(lambda: books_of(run).audits.get(outcome, 0) >= 1)
        found = books_of(run)
    assert found.audits.keys() == {outcome}
    assert (found.valid, found.mismatched, found.gaps, venue.snapshots) == (1, 0, 0, 1)


async def test_a_venue_that_refuses_images_costs_no_book(tmp_path: Path) -> None:
    venue = Venue()
    venue.refuses = True
    async with audited(tmp_path, venue) as run:
        await run.until(lambda: books_of(run).audits.get("failed", 0) >= 1)
        found = books_of(run)
    assert found.audits.keys() == {"failed"}
    assert (found.valid, found.verified, found.mismatched, found.gaps) == (1, 0, 0, 0)
