"""The catalogue against a real server on loopback and real files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from feeds.bybit import Bybit
from feeds.coinbase import Coinbase
from ingestor.adapter import FeedAdapter
from ingestor.model.backoff import Backoff
from ingestor.model.errors import DecodeError, RequestRefused
from ingestor.model.instruments import Instrument
from ingestor.model.timestamps import SECOND
from ingestor.sources.rest.catalog import Catalog, CatalogSettings
from ingestor.sources.rest.client import RestClient, RestSettings
from tests.feeds.fixtures import load

HOUR_NS = 3_600 * SECOND
FIXTURE = load(Coinbase, "spot")
BYBIT = load(Bybit, "linear")


@dataclass
class Venue:
    """A venue's REST endpoint. `status` is what it answers, `answers` the bodies by path."""

    url: str = ""
    status: int = 200
    answers: dict[str, list[bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        pages = self.answers[request.path]
        body = pages[int(request.query.get("cursor", "0"))]
        return web.Response(status=self.status, body=body)


@dataclass
class Clock:
    now_ns: int = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class Bench:
    venue: Venue
    clock: Clock
    settings: CatalogSettings
    client: RestClient

    def catalogue(self) -> Catalog:
        """A catalogue as after a start of the program: nothing but the disk is remembered."""
        return Catalog(self.settings, self.client, now_ns=self.clock)

    async def load(
        self, adapter: type[FeedAdapter] = Coinbase, market: str = "spot"
    ) -> list[Instrument]:
        return (await self.catalogue().load(adapter, market, self.venue.url)).instruments

    @property
    def file(self) -> Path:
        return self.settings.cache_dir / "instruments" / "coinbase-spot.json"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    venue = Venue(
        answers={
            "/api/v3/brokerage/market/products": FIXTURE.rest,
            "/v5/market/instruments-info": BYBIT.rest,
        }
    )
    app = web.Application()
    app.router.add_get("/{path:.*}", venue.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    venue.url = "http://{}:{}".format(*runner.addresses[0][:2])
    settings = CatalogSettings(tmp_path / "cache", ttl_s=3_600.0)
    rest = RestSettings(timeout_s=5.0, attempts_max=2, backoff=Backoff(base_s=0.001))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        client = await stack.enter_async_context(RestClient(rest))
        yield Bench(venue, Clock(), settings, client)


async def test_the_venue_is_asked_once_while_answers_are_fresh(bench: Bench) -> None:
    assert await bench.load() == FIXTURE.instruments
    assert bench.venue.asked == ["/api/v3/brokerage/market/products?product_type=SPOT"]
    bench.clock.now_ns += HOUR_NS - 1
    bench.venue.status = 503  # the network could as well be gone
    catalogue = bench.catalogue()
    listed = await catalogue.load(Coinbase, "spot", bench.venue.url)
    assert (listed.instruments, listed.fresh) == (FIXTURE.instruments, False)
    assert len(bench.venue.asked) == 1


async def test_old_answers_are_asked_for_again(bench: Bench) -> None:
    await bench.load()
    bench.clock.now_ns += HOUR_NS
    await bench.load()
    assert len(bench.venue.asked) == 2
    bench.clock.now_ns -= 2 * HOUR_NS  # answers from the future: a clock was wrong
    await bench.load()
    assert len(bench.venue.asked) == 3


async def test_stale_answers_serve_with_a_warning(bench: Bench) -> None:
    await bench.load()
    bench.clock.now_ns += 3 * HOUR_NS
    bench.venue.status = 503
    catalogue = bench.catalogue()
    with capture_logs() as logs:
        listed = await catalogue.load(Coinbase, "spot", bench.venue.url)
    assert (listed.instruments, listed.fresh) == (FIXTURE.instruments, False)
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("catalogue.stale", "warning")
    assert (line["venue"], line["age_s"]) == ("coinbase", 10_800)
    assert "HTTP 503" in line["reason"]
    assert len(bench.venue.asked) == 3, "retried first"


async def test_without_any_answer_the_failure_is_told(bench: Bench) -> None:
    bench.venue.status = 404
    with pytest.raises(RequestRefused, match="HTTP 404"):
        await bench.load()
    assert not bench.file.exists()


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"products":[]}', b'{"products":[{}]}'])
async def test_an_answer_that_is_no_list_is_not_kept(bench: Bench, body: bytes) -> None:
    bench.venue.answers["/api/v3/brokerage/market/products"] = [body]
    with pytest.raises(DecodeError, match="coinbase: malformed: instrument list of spot"):
        await bench.load()
    assert not bench.file.exists()


async def test_a_bad_answer_does_not_replace_a_good_one(bench: Bench) -> None:
    await bench.load()
    bench.clock.now_ns += 2 * HOUR_NS
    bench.venue.answers["/api/v3/brokerage/market/products"] = [b'{"products":[]}']
    with capture_logs() as logs:
        assert await bench.load() == FIXTURE.instruments
    assert [line["event"] for line in logs] == ["catalogue.stale"]


async def test_all_pages_are_read_and_kept(bench: Bench) -> None:
    first, second = json.loads(BYBIT.rest[0]), json.loads(BYBIT.rest[0])
    rows = first["result"]["list"]
    first["result"] |= {"list": rows[:1], "nextPageCursor": "1"}
    second["result"] |= {"list": rows[1:], "nextPageCursor": ""}
    bench.venue.answers["/v5/market/instruments-info"] = [
        json.dumps(page).encode() for page in (first, second)
    ]
    for _ in range(2):
        assert await bench.load(Bybit, "linear") == BYBIT.instruments
    assert bench.venue.asked == [
        "/v5/market/instruments-info?category=linear&limit=1000",
        "/v5/market/instruments-info?category=linear&limit=1000&cursor=1",
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":99}', b'{"format":1}', b"\xff"])
async def test_a_file_that_is_no_catalogue_is_ignored(bench: Bench, content: bytes) -> None:
    bench.file.parent.mkdir(parents=True)
    bench.file.write_bytes(content)
    with capture_logs():
        assert await bench.load() == FIXTURE.instruments
    assert await bench.load() == FIXTURE.instruments
    assert len(bench.venue.asked) == 1, "the file was replaced by a good one"


async def test_answers_kept_from_another_server_are_not_used(bench: Bench) -> None:
    """An emulator's symbols must not be taken for the venue's."""
    await bench.load()
    other = bench.venue.url.replace("127.0.0.1", "localhost")
    await bench.catalogue().load(Coinbase, "spot", other)
    assert len(bench.venue.asked) == 2


async def test_a_disk_that_cannot_be_written_costs_nothing(bench: Bench) -> None:
    bench.settings.cache_dir.write_text("a file where the folder should be")
    with capture_logs() as logs:
        assert await bench.load() == FIXTURE.instruments
    assert {line["event"] for line in logs} == {"catalogue.unreadable", "catalogue.not_kept"}


async def test_no_half_written_file_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with capture_logs() as logs:
        await bench.load()
    assert [line["event"] for line in logs] == ["catalogue.not_kept"]
    assert list(bench.file.parent.iterdir()) == []


async def test_a_refresh_asks_anew(bench: Bench) -> None:
    catalogue = bench.catalogue()
    url = bench.venue.url
    await catalogue.load(Coinbase, "spot", url)
    listed = await catalogue.refresh(Coinbase, "spot", url)
    assert listed is not None
    assert (listed.instruments, listed.fresh) == (FIXTURE.instruments, True)
    assert len(bench.venue.asked) == 2
    bench.venue.status = 500
    with capture_logs() as logs:
        assert await catalogue.refresh(Coinbase, "spot", url) is None
    assert [line["event"] for line in logs] == ["catalogue.refresh_failed"]
