"""The catalogue against a real server on loopback and real files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from feeds.bybit import Bybit
from feeds.coinbase import Coinbase
from ingestor.adapter import FeedAdapter
from ingestor.model.backoff import Backoff
from ingestor.model.errors import DecodeError, RequestRefused, TransportError, VenueError
from ingestor.model.instruments import Instrument
from ingestor.model.timestamps import SECOND
from ingestor.sources.rate_limiter import holds
from ingestor.sources.rest.catalog import Catalog, CatalogSettings
from ingestor.sources.rest.client import RestSettings
from ingestor.sources.rest.pool import RestPools
from ingestor.sources.rest.statistics import ListStatistics
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
    headers: dict[str, str] = field(default_factory=dict)
    answer_instead: Callable[[web.Request], Awaitable[web.Response]] | None = None

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if self.answer_instead is not None:
            return await self.answer_instead(request)
        pages = self.answers[request.path]
        body = pages[int(request.query.get("cursor", "0"))]
        return web.Response(status=self.status, body=body, headers=self.headers)


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
    pools: RestPools

    def catalogue(self) -> Catalog:
        """A catalogue as after a start of the program: nothing but the disk is remembered."""
        return Catalog(self.settings, self.pools, now_ns=self.clock)

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
    rest = RestSettings(
        timeout_s=5.0, attempts_max=2, backoff=Backoff(0.001, retry_after_cap_s=1.0)
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        pools = RestPools(rest)
        stack.push_async_callback(pools.aclose)
        yield Bench(venue, Clock(), settings, pools)


async def test_the_venue_is_asked_once_while_answers_are_fresh(bench: Bench) -> None:
    assert await bench.load() == FIXTURE.instruments
    assert bench.venue.asked == ["/api/v3/brokerage/market/products?product_type=SPOT"]
    bench.clock.now_ns += HOUR_NS - 1
    bench.venue.status = 503  # the network could as well be gone
    catalogue = bench.catalogue()
    listed = await catalogue.load(Coinbase, "spot", bench.venue.url)
    assert (listed.instruments, listed.fresh) == (FIXTURE.instruments, False)
    assert len(bench.venue.asked) == 1


async def test_a_list_shorter_than_it_says_is_reported(bench: Bench) -> None:
    """Coinbase's answers say how many products all pages have together."""
    whole = orjson.loads(bench.venue.answers["/api/v3/brokerage/market/products"][0])
    count = len(whole["products"])
    for promised, warned in ((count, 0), (count + 1, 1)):
        body = orjson.dumps(whole | {"num_products": promised})
        bench.venue.answers["/api/v3/brokerage/market/products"] = [body]
        with capture_logs() as logs:
            await bench.catalogue().refresh(Coinbase, "spot", bench.venue.url)
        found = [line for line in logs if line["event"] == "catalogue.incomplete"]
        assert len(found) == warned


async def test_old_answers_are_asked_for_again(bench: Bench) -> None:
    await bench.load()
    bench.clock.now_ns += HOUR_NS
    await bench.load()
    assert len(bench.venue.asked) == 2
    bench.clock.now_ns -= 2 * HOUR_NS  # answers from the future: a clock was wrong
    await bench.load()
    assert len(bench.venue.asked) == 3


@pytest.mark.rows("I3")
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


@pytest.mark.rows("I3")
@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"products":[]}', b'{"products":[{}]}'])
async def test_an_answer_that_is_no_list_is_not_kept(bench: Bench, body: bytes) -> None:
    bench.venue.answers["/api/v3/brokerage/market/products"] = [body]
    with pytest.raises(DecodeError, match="coinbase: malformed: instrument list of spot"):
        await bench.load()
    assert not bench.file.exists()


@pytest.mark.rows("I3")
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


def products(*changes: Mapping[str, object], count: int = 0) -> bytes:
    """Return a list of Coinbase: the fixture's, `count` more, and its first changed each way."""
    answer = json.loads(FIXTURE.rest[0])
    first = answer["products"][0]
    answer["products"] += [first | {"product_id": f"N{one}-USD"} for one in range(count)]
    answer["products"] += [first | change for change in changes]
    return json.dumps(answer).encode()


PATH = "/api/v3/brokerage/market/products"
ODD = {"product_id": "ODD-USD", "price_increment": ""}


async def test_an_odd_entry_is_left_out_alone_and_told_once(bench: Bench) -> None:
    bench.venue.answers[PATH] = [products(ODD)]
    statistics = ListStatistics()
    with capture_logs() as logs, patch("ingestor.sources.rest.catalog.lists", statistics):
        for _ in range(3):
            assert await bench.load() == FIXTURE.instruments
            await bench.catalogue().refresh(Coinbase, "spot", bench.venue.url)
    (line,) = logs
    assert line["event"] == "catalogue.entry_unreadable"
    assert (line["venue"], line["market"], line["symbol"]) == ("coinbase", "spot", "ODD-USD")
    assert "ValueError" in line["reason"]
    assert statistics.unreadable == {("coinbase", "spot"): 1}
    assert statistics.reads == {("coinbase", "spot", "fetched"): 4}


async def test_many_odd_entries_are_few_lines(bench: Bench) -> None:
    odd = [{"product_id": f"O{one}-USD", "base_increment": None} for one in range(500)]
    bench.venue.answers[PATH] = [products(*odd)]
    statistics = ListStatistics()
    with capture_logs() as logs, patch("ingestor.sources.rest.catalog.lists", statistics):
        assert await bench.load() == FIXTURE.instruments
    assert len(logs) == 21
    assert logs[-1]["count"] == 500
    assert statistics.unreadable == {("coinbase", "spot"): 500}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"products":[]}', "has no entry that can be read"),
        (b"<html>", "JSONDecodeError"),
        (b'{"error":"UNAVAILABLE","message":"later"}', "error UNAVAILABLE: later"),
        (b'{"products":7}', "TypeError"),
        (json.dumps({"products": [{"product_id": "X"}] * 9}).encode(), "KeyError"),
        (FIXTURE.rest[0], "symbols, and had"),
    ],
    ids=["empty", "html", "error", "wrong type", "all odd", "much smaller"],
)
async def test_the_kept_list_serves_when_the_new_one_is_worse(
    bench: Bench, body: bytes, reason: str
) -> None:
    bench.venue.answers[PATH] = [products(count=40)]
    before = await bench.load()
    kept = bench.file.read_bytes()
    bench.venue.answers[PATH] = [body]
    bench.clock.now_ns += 2 * HOUR_NS
    with capture_logs() as logs:
        assert await bench.load() == before
        assert await bench.catalogue().refresh(Coinbase, "spot", bench.venue.url) is None
    assert [line["event"] for line in logs] == ["catalogue.stale", "catalogue.refresh_failed"]
    assert all(reason in line["reason"] for line in logs)
    assert bench.file.read_bytes() == kept


async def test_a_smaller_list_is_believed_in_the_end(bench: Bench) -> None:
    bench.venue.answers[PATH] = [products(count=40)]
    await bench.load()
    bench.venue.answers[PATH] = FIXTURE.rest
    bench.clock.now_ns += 25 * HOUR_NS
    assert await bench.load() == FIXTURE.instruments


async def test_a_few_delistings_of_a_small_list_are_believed(bench: Bench) -> None:
    bench.venue.answers[PATH] = [products(count=5)]
    await bench.load()
    bench.venue.answers[PATH] = FIXTURE.rest
    listed = await bench.catalogue().refresh(Coinbase, "spot", bench.venue.url)
    assert listed is not None
    assert listed.instruments == FIXTURE.instruments


async def test_metadata_of_an_entry_that_became_odd_are_kept_through_restarts(bench: Bench) -> None:
    good = {"product_id": "ODD-USD", "base_currency_id": "ODD", "base_name": "x"}
    bench.venue.answers[PATH] = [products(good)]
    before = await bench.load()
    assert before[-1].symbol == "ODD-USD"
    bench.venue.answers[PATH] = [products(good | ODD)]
    for _ in range(3):  # a start, with the list of the start before on disk
        bench.clock.now_ns += 2 * HOUR_NS
        with capture_logs():
            listed = await bench.catalogue().load(Coinbase, "spot", bench.venue.url)
        assert listed.instruments == before
        assert listed.carried == {"ODD-USD"}
    bench.venue.answers[PATH] = [products(good | {"price_increment": "0.5"})]
    bench.clock.now_ns += 2 * HOUR_NS
    listed = await bench.catalogue().load(Coinbase, "spot", bench.venue.url)
    assert listed.trading["ODD-USD"].tick_size == "0.5"
    assert not listed.carried


async def test_a_temporary_error_inside_an_answer_is_tried_again(bench: Bench) -> None:
    bench.venue.answers[PATH] = [b'{"error":"UNAVAILABLE","message":"later"}']

    async def good_later() -> None:
        while not bench.venue.asked:
            await asyncio.sleep(0)
        bench.venue.answers[PATH] = FIXTURE.rest

    changing = asyncio.create_task(good_later())
    assert await bench.load() == FIXTURE.instruments
    await changing
    assert len(bench.venue.asked) == 2


async def test_a_lasting_error_inside_an_answer_is_told_at_once(bench: Bench) -> None:
    bench.venue.answers[PATH] = [b'{"error":"NOT_FOUND","message":"no such product type"}']
    with pytest.raises(VenueError, match="coinbase: error NOT_FOUND: no such product type"):
        await bench.load()
    assert len(bench.venue.asked) == 1


@pytest.mark.parametrize("status", [418, 429])
async def test_a_venue_that_holds_us_off_is_left_alone(bench: Bench, status: int) -> None:
    bench.venue.status = status
    bench.venue.headers = {"Retry-After": "9" * 30}
    with capture_logs() as logs, pytest.raises(RequestRefused):
        await bench.load()
    (line,) = logs
    assert (line["event"], line["venue"], line["seconds"]) == ("venue.held", "coinbase", 3_600.0)
    assert 3_500 < holds.longest_s()["coinbase", "rest"] <= 3_600
    bench.venue.status = 200
    with pytest.raises(TransportError, match="wants no request for 3600 s more"):
        await bench.load()
    assert len(bench.venue.asked) == 1


async def test_a_list_that_does_not_come_ends_at_the_deadline(bench: Bench) -> None:
    release = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    bench.venue.answer_instead = hang
    settings = replace(bench.settings, deadline_s=0.1)
    with pytest.raises(TransportError, match=r"no list within 0\.1 s"):
        await Catalog(settings, bench.pools).load(Coinbase, "spot", bench.venue.url)
    release.set()


async def test_an_adapter_whose_requests_fail_has_no_list(bench: Bench) -> None:
    class Acme(Coinbase):
        @classmethod
        def instrument_requests(cls, market: str) -> list[Any]:
            raise RuntimeError(market)

    with pytest.raises(DecodeError, match="instrument list of spot: RuntimeError"):
        await bench.catalogue().load(Acme, "spot", bench.venue.url)
