"""The status page in a real browser, headless Chromium. Screenshots go to $SCREENSHOTS, if set."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect
from playwright.async_api import TimeoutError as NoAnswer
from prometheus_client.core import Metric

from ingestor.admin import live
from ingestor.admin.exposition import StreamState
from ingestor.admin.server import AdminServer
from ingestor.admin.streams import StreamPage, StreamQuery, page_of
from ingestor.cluster.claims import Claim, ClaimState, Life
from ingestor.cluster.overview import overview
from ingestor.cluster.shards import ShardMachine
from ingestor.config.model import HttpConfig
from ingestor.telemetry.status import FeedStatus, Health, Phase, RecentEvent, Status
from tests.e2e.processes import command, environment

NOW_NS = 1_800_000_000_000_000_000
HOSTILE = '"><img src=x onerror=alert(1)>\u202e</td>' + "W" * 200
PATIENCE_MS = 20_000.0


class Source:
    """What an application of many streams would show; the test changes it."""

    def __init__(self, streams: int = 30) -> None:
        self.snapshot = Status(
            time_ns=NOW_NS,
            uptime_s=93_784.0,
            phase=Phase.RUNNING,
            version="1.2.3",
            connections={"connected": 9, "waiting": 1},
            venues={"okx": {"connected": 5}, "kraken": {"connected": 4, "waiting": 1}},
            rows={"trade": 0},
            books={"valid": 20, "invalid": 1},
            feeds=[FeedStatus("okx", "spot", "trades", 3, 1.5, 2.5, 8.0, -3.0)],
            queue_fill={"bytes": 0.01, "rows": 0.02, "age": 0.001},
            kafka_up=True,
            recorder="recording",
            workers={"0": "up", "1": "down, restarted 2"},
            events=[RecentEvent(NOW_NS, "kraken spot connection 3: down: reset", is_bad=True)],
        )
        self._streams = [
            StreamState(
                "okx", "spot", "trades", f"S{number}-USDT", True, number, NOW_NS, 0.001, number % 7
            )
            for number in range(streams - 1)
        ]
        self._streams.append(StreamState("okx", "spot", "book", HOSTILE, False, 0, 0, 0.0))

    def status(self) -> Status:
        self.snapshot.time_ns += 1_000_000_000
        self.snapshot.rows["trade"] += 1234
        return self.snapshot

    def ready(self) -> Health:
        return Health(True)

    def families(self) -> Iterable[Metric]:
        return ()

    def streams(self) -> Iterable[StreamState]:
        return self._streams

    async def worst_streams(self, query: StreamQuery) -> StreamPage:
        return await page_of(self._streams, query)


@asynccontextmanager
async def browser_page(
    url: str,
    *,
    width: int = 1280,
    height: int = 900,
    dark: bool = False,
    expected: str = "no error is expected",
) -> AsyncIterator[Page]:
    """Open a page; fail if it logs an error or breaks its own policy.

    Args:
        url: Address to open.
        width: Of the window, in CSS pixels.
        height: Of the window, in CSS pixels.
        dark: Prefer the dark scheme.
        expected: Part of the errors that the test brings about.
    """
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no Chromium (Debian package chromium)")
    problems: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox"]
        )
        page = await browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        page.on(
            "console", lambda entry: problems.append(entry.text) if entry.type == "error" else None
        )
        page.on("pageerror", lambda failure: problems.append(str(failure)))
        page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
        await page.goto(url)
        yield page
        await browser.close()
    unexpected = [problem for problem in problems if expected not in problem]
    assert not unexpected


async def picture(page: Page, name: str) -> None:
    """Keep a screenshot where $SCREENSHOTS says."""
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize("dark", [False, True])
async def test_the_page_shows_a_process_that_is_well(dark: bool) -> None:
    source = Source()
    async with (
        AdminServer(HttpConfig(port=0), source) as server,
        browser_page(f"http://127.0.0.1:{server.port}/", dark=dark) as page,
    ):
        state = page.locator("#state")
        await expect(state).to_have_text("all is well", timeout=PATIENCE_MS)
        await expect(state).to_have_class("calm")
        await expect(page.locator("#version")).to_have_text("1.2.3")
        await expect(page.locator("#uptime")).to_have_text("for 1 d 2 h")
        await expect(page.locator("#now")).to_contain_text("1,234", timeout=PATIENCE_MS)
        await expect(page.locator("#venues tr")).to_have_count(2)
        await expect(page.locator("#workers .bad")).to_have_text("down, restarted 2")
        await expect(page.locator("#events .bad")).to_contain_text("kraken spot connection 3")
        await expect(page.locator("#streams tr")).to_have_count(30, timeout=PATIENCE_MS)
        await expect(page.locator("#rate polyline")).to_have_attribute(
            "points", re.compile(r"\d+.*"), timeout=PATIENCE_MS
        )
        await picture(page, f"status-{'dark' if dark else 'light'}")


async def test_trouble_is_red_and_says_why_and_goes_again() -> None:
    source = Source()
    async with (
        AdminServer(HttpConfig(port=0), source) as server,
        browser_page(f"http://127.0.0.1:{server.port}/", expected="ERR_CONNECTION") as page,
    ):
        state = page.locator("#state")
        await expect(state).to_have_class("calm", timeout=PATIENCE_MS)
        source.snapshot.kafka_up, source.snapshot.shed = False, 5
        source.snapshot.queue_fill["age"] = 0.9
        await expect(state).to_have_class("bad", timeout=PATIENCE_MS)
        await expect(state).to_have_text(
            "Kafka acknowledges nothing; queue 90% full (age); since the start: 5 shed"
        )
        await expect(page.locator("#kafka .bad")).to_have_count(2)
        await picture(page, "status-broker-down")
        source.snapshot.kafka_up = True
        source.snapshot.queue_fill["age"] = 0.1
        await expect(state).to_have_class("calm", timeout=PATIENCE_MS)
        await server.stop()
        await expect(state).to_have_text("no answer from the process", timeout=PATIENCE_MS)
        await expect(state).to_have_class("bad")


async def test_ten_thousand_streams_are_searched_and_stay_smooth() -> None:
    async with (
        AdminServer(HttpConfig(port=0), Source(10_000)) as server,
        browser_page(f"http://127.0.0.1:{server.port}/") as page,
    ):
        await expect(page.locator("#found")).to_have_text(
            "50 of 10,000 shown, 10,000 streams", timeout=PATIENCE_MS
        )
        await page.fill("#text", "s4321-")
        await expect(page.locator("#found")).to_have_text(
            "1 of 1 shown, 10,000 streams", timeout=PATIENCE_MS
        )
        await expect(page.locator("#streams tr")).to_contain_text("S4321-USDT")
        await page.fill("#text", "")
        await page.select_option("#order", "gaps")
        await expect(page.locator("#streams tr td:nth-child(5)").first).to_have_text(
            "6", timeout=PATIENCE_MS
        )
        # Less than a page of elements: the browser has little to lay out, whatever the streams.
        assert await page.locator("*").count() < 1000
        await picture(page, "status-10000-streams")


async def test_hostile_names_are_text() -> None:
    async with (
        AdminServer(HttpConfig(port=0), Source()) as server,
        browser_page(f"http://127.0.0.1:{server.port}/") as page,
    ):
        first = page.locator("#streams tr td").first
        await expect(first).to_contain_text('"><img src=x', timeout=PATIENCE_MS)
        assert await page.locator("img").count() == 0
        await page.fill("#text", HOSTILE[:90])
        await expect(page.locator("#found")).to_have_text(
            "1 of 1 shown, 30 streams", timeout=PATIENCE_MS
        )


async def test_a_phone_scrolls_in_one_direction() -> None:
    async with (
        AdminServer(HttpConfig(port=0), Source()) as server,
        browser_page(f"http://127.0.0.1:{server.port}/", width=360, height=740) as page,
    ):
        await expect(page.locator("#streams tr")).to_have_count(30, timeout=PATIENCE_MS)
        widths = await page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1]
        await picture(page, "status-phone")


def cluster_of(shards: int) -> ShardMachine:
    """A machine that has read of two workers, one of which took a shard over."""
    lives = [
        Life(name, f"{number:032x}") for number, name in enumerate(("node1", "node2", HOSTILE))
    ]
    machine = ShardMachine(lives[0], lambda: 0.0)
    now_ms = NOW_NS // 1_000_000
    for shard in range(shards):
        owner = lives[shard % 2]
        where = f"{owner.member}:9464"
        machine.read(Claim(shard, owner, ClaimState.LIVE, 7, where=where), now_ms)
    machine.read(Claim(1, lives[0], ClaimState.LIVE, 7, over=lives[1]), now_ms)
    machine.read(Claim(2, lives[0], ClaimState.OFFERED, 7), now_ms)
    machine.read(Claim(2, lives[2], ClaimState.READY, 7, over=lives[0]), now_ms)
    machine.read(Claim(3, lives[1], ClaimState.REFUSED, 8, reason=HOSTILE), now_ms)
    return machine


@pytest.mark.parametrize("dark", [False, True])
async def test_the_page_of_a_cluster_shows_workers_shards_and_moves(dark: bool) -> None:
    machine = cluster_of(16)
    server = AdminServer(HttpConfig(port=0), Source())
    server.cluster = lambda: overview("prod", machine, 17, 8)
    async with (
        server,
        browser_page(f"http://127.0.0.1:{server.port}/", dark=dark) as page,
    ):
        await page.click("text=cluster")
        state = page.locator("#state")
        await expect(state).to_have_text("14 of 17 shards live; 1 takeovers", timeout=PATIENCE_MS)
        await expect(state).to_have_class("bad")
        await expect(page.locator("#name")).to_have_text("prod")
        await expect(page.locator("#workers tr")).to_have_count(2)
        await expect(page.locator("#workers tr").first).to_contain_text("node1:9464")
        await expect(page.locator("#shards tr")).to_have_count(17)
        await expect(page.locator("#moves .bad")).to_contain_text(
            "shard 1 taken over from node2 to node1"
        )
        assert await page.locator("img").count() == 0
        await picture(page, f"cluster-{'dark' if dark else 'light'}")
        await page.select_option("#which", "odd")
        await expect(page.locator("#shards tr")).to_have_count(3)
        machine.read(Claim(2, machine.me, ClaimState.LIVE, 8, over=machine.me), 1)
        await expect(page.locator("#shards tr")).to_have_count(2, timeout=PATIENCE_MS)


async def test_the_page_of_a_cluster_fits_a_phone() -> None:
    machine = cluster_of(64)
    server = AdminServer(HttpConfig(port=0), Source())
    server.cluster = lambda: overview("prod", machine, 64, 8)
    async with server, browser_page(f"http://127.0.0.1:{server.port}/cluster", width=360) as page:
        await expect(page.locator("#shards tr")).to_have_count(64, timeout=PATIENCE_MS)
        widths = await page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1]
        await picture(page, "cluster-phone")


async def test_only_so_many_pages_are_served_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "VIEWERS_MAX", 1)
    async with AdminServer(HttpConfig(port=0), Source()) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with browser_page(url, expected="503") as first:
            await expect(first.locator("#state")).to_have_class("calm", timeout=PATIENCE_MS)
            # The page may ask for its events later than we do: then ours have no end.
            answer = None
            for _ in range(5):
                with suppress(NoAnswer):
                    answer = await first.request.get(f"{url}events", timeout=2_000)
                    break
            assert answer is not None
            assert answer.status == 503


async def test_the_page_of_a_real_run_turns_red_when_its_broker_is_killed(tmp_path: Path) -> None:
    env = environment(tmp_path)
    with command("dev-broker", env=env) as broker:
        broker.until(lambda: ":" in broker.out)
        address = re.search(r"127\.0\.0\.1:\d+", broker.out + broker.err)
        assert address is not None
        env["INGESTOR__KAFKA__BOOTSTRAP_SERVERS"] = address[0]
        with command("demo", "--symbols", "5", "--json", env=env) as running:
            running.until(lambda: re.search(r"^page +(\S+)", running.err, re.MULTILINE) is not None)
            running.until(lambda: "http.listening" in running.err)
            found = re.search(r"^page +(\S+)", running.err, re.MULTILINE)
            assert found is not None
            async with browser_page(found[1]) as page:
                state = page.locator("#state")
                await expect(state).to_have_text("all is well", timeout=PATIENCE_MS)
                await expect(page.locator("#streams tr")).to_have_count(15, timeout=PATIENCE_MS)
                await picture(page, "status-demo")
                broker.process.kill()
                await expect(state).to_contain_text("Kafka", timeout=PATIENCE_MS)
                await expect(state).to_have_class("bad")
