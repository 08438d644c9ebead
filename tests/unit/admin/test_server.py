"""ingestor.admin.server and exposition: real requests on loopback, and promtool's verdict."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from ingestor.admin import exposition
from ingestor.admin.exposition import Exposition, StreamState, metrics_text, streams_text
from ingestor.admin.families import (
    book_families,
    bug_families,
    connection_families,
    kafka_families,
    last_value_families,
    list_families,
    output_families,
    recorder_families,
    refill_families,
    reload_families,
    trace_families,
    trade_families,
)
from ingestor.admin.server import RELOAD_HEADER, AdminServer
from ingestor.admin.streams import StreamPage, StreamQuery, page_of
from ingestor.books.statistics import BookCounters
from ingestor.config.model import HttpConfig
from ingestor.decode.frame_counts import FrameCounts
from ingestor.model.errors import ConfigError, ListenFailed
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import TRADE, Flag, Kind
from ingestor.pipeline.trade_gaps import TradeGaps
from ingestor.recording.recorder import RecorderStatistics
from ingestor.recording.writer_thread import RecorderState
from ingestor.sinks.kafka.queue import QueueStatistics
from ingestor.sources.live.statistics import SupervisorStatistics
from ingestor.sources.rest.statistics import ListStatistics
from ingestor.telemetry.metrics import Metrics
from ingestor.telemetry.status import FeedStatus, Health, Phase, Status

Answer = tuple[int, Any, str]  # status, headers, body
Get = Callable[..., Awaitable[Answer]]
NOW_NS = 1_800_000_000_000_000_000
PATHS = [
    "/",
    "/status.js",
    "/status.css",
    "/status.json",
    "/streams.json",
    "/favicon.svg",
    "/metrics",
    "/metrics/feeds",
    "/livez",
    "/readyz",
    "/startupz",
]


def make_metrics() -> Metrics:
    table = InstrumentTable(
        [instrument("kraken", "spot", "BTC/USD", "BTC-USD", "BTC", "USD", "0.1", "0.00000001")]
    )
    metrics = Metrics(table)
    rows = np.zeros(3, TRADE)
    rows["kind"], rows["flags"] = Kind.TRADE, Flag.LAST
    rows["ts_event"] = NOW_NS - np.array([9_000_000, 8_000_000, 7_000_000])
    rows["ts_recv"] = NOW_NS - np.array([4_000_000, 2_000_000, 0])
    metrics.count_rows("decoded", RowClass.TRADE, rows["instrument"])
    metrics.sealed(RowClass.TRADE, rows, NOW_NS + 1_000_000)
    metrics.acked(RowClass.TRADE, rows[:2], NOW_NS + 5_000_000, NOW_NS + 1_000_000)
    return metrics


class App:
    """What the application will be: a source of everything the server shows."""

    def __init__(self) -> None:
        self.health = Health(True, {"kafka_seen": True})
        self.snapshot = Status(
            phase=Phase.RUNNING,
            connections={"connected": 9, "waiting": 1},
            rows={"trade": 3},
            feeds=[FeedStatus("kraken", "spot", "trades", 3, 1.5, 2.5)],
            queue_bytes=10,
            queue_limit_bytes=100,
            loop_delay_p99_ms=2.0,
        )
        counts = FrameCounts(frames=5, control=1)
        counts.rejected_by_reason["bad_number"] = 2
        counts.filtered_by_rule["one-sided"] = 1
        self.exposition = Exposition(
            make_metrics(), {("kraken", "spot"): counts}, self.status, [self.more]
        )
        self.all_streams = [
            StreamState("kraken", "spot", "trades", 'BTC"\n', True, 3, NOW_NS, 0.25)
        ]

    def status(self) -> Status:
        return self.snapshot

    def ready(self) -> Health:
        return self.health

    def families(self) -> Iterable[Metric]:
        return self.exposition.families()

    def streams(self) -> Iterable[StreamState]:
        return self.all_streams

    async def worst_streams(self, query: StreamQuery) -> StreamPage:
        return await page_of(self.all_streams, query)

    def more(self) -> Iterator[Metric]:
        yield from connection_families(
            SupervisorStatistics(
                Counter({("kraken", "connected"): 9, ("kraken", "waiting"): 1}),
                Counter({("kraken", "close_1006"): 2}),
            )
        )
        channel = QueueStatistics(
            *(1, 2, 3, 4, 5, 6, 0.5, 1.5),
            paused=True,
            steps={"pause": 3},
            fill={"bytes": 0.1, "rows": 0.2, "age": 0.3},
            held_partitions={"md.trades.v1": 2},
            side={("md.status.v1", "acked"): 4},
        )
        yield from bug_families({"book": 2})
        yield from reload_families({"applied": 3, "refused": 1})
        yield from last_value_families({("topic", "written"): 2, ("redis", "failed"): 1})
        yield from refill_families({"trades": 5}, {"filled": 1})
        yield from trace_families({"sent": 3})
        lists = ListStatistics(waiting={("okx", "swap", "unreadable"): 1})
        lists.reads["okx", "swap", "kept"] += 1
        lists.unreadable["okx", "swap"] += 1
        yield from list_families(lists, {("okx", "rest"): 12.5}, [("okx", "swap")])
        lost = TradeGaps(InstrumentTable(()), None)
        lost.lost["okx", "spot"] += 3
        yield from trade_families(lost, {("okx", "spot", "answered"): 1}, [])
        yield from output_families(2)
        yield from kafka_families(channel, {"OutOfOrder": 1}, connected=True)
        counters = BookCounters(updates=9, verified=7, repairs={"checksum": 4})
        reading = counters.reading(3, 2, 0, 1_000_000_000)
        yield from book_families({("kraken", "spot"): reading}, [])
        yield from recorder_families(
            RecorderStatistics(RecorderState.FAILED, "disk full", 1, 2, 3, 4, 6, 7, 8, 9)
        )


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def server(app: App) -> AsyncIterator[AdminServer]:
    async with AdminServer(HttpConfig(port=0, allowed_hosts=("ingest.example",)), app) as one:
        yield one


@pytest.fixture
async def get(server: AdminServer) -> AsyncIterator[Get]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:

        async def get(path: str, method: str = "GET", **headers: str) -> Answer:
            async with session.request(method, path, headers=headers) as answer:
                return answer.status, answer.headers, await answer.text()

        yield get


@pytest.mark.parametrize("path", PATHS)
async def test_every_page_is_there_with_its_headers(get: Get, path: str) -> None:
    status, headers, body = await get(path)
    assert status == 200
    assert body
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.rows("D6")
async def test_the_page_keeps_its_own_policy(get: Get) -> None:
    _, _, page = await get("/")
    _, _, script = await get("/status.js")
    assert "<style" not in page
    assert "style=" not in page
    assert "onclick" not in page
    assert page.count("<script") == page.count('<script src="status.js"') == 1
    assert "innerHTML" not in script
    assert "textContent" in script


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_only_get_is_answered(get: Get, method: str) -> None:
    status, headers, _ = await get("/metrics", method)
    assert status == 405
    assert "GET" in headers["Allow"]


async def test_unknown_paths_are_404(get: Get) -> None:
    assert (await get("/../etc/passwd"))[0] == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:9464", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:9464", 200),
        ("[::1]", 200),
        ("10.1.2.3", 200),
        ("ingest.example:80", 200),
        ("evil.example", 421),
        ("evil.example:9464", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
    ],
)
async def test_a_rebound_name_reads_nothing(get: Get, host: str, status: int) -> None:
    got, _, body = await get("/status.json", Host=host)
    assert got == status
    assert ("phase" in body) is (status == 200)


async def test_readiness_and_startup_follow_the_application(get: Get, app: App) -> None:
    assert (await get("/readyz"))[0] == 200
    app.health = Health(False, {"kafka_seen": False})
    app.snapshot.phase = Phase.STARTING
    status, _, body = await get("/readyz")
    assert (status, body) == (503, '{"ok":false,"kafka_seen":false}')
    assert (await get("/startupz"))[0] == 503


@pytest.mark.rows("P4")
async def test_liveness_is_the_heartbeat_alone(get: Get, app: App, server: AdminServer) -> None:
    app.health = Health(False, {})
    assert (await get("/livez"))[0] == 200
    server._beat_s -= 31
    assert (await get("/livez"))[0] == 503


async def test_a_port_in_use_is_one_line(server: AdminServer, app: App) -> None:
    with pytest.raises(ListenFailed) as failure:
        await AdminServer(HttpConfig(port=server.port), app).start()
    assert str(failure.value) == (
        f"the HTTP server can't listen on 127.0.0.1:{server.port}: Address already in use; "
        "set http.port (0 takes a free one)"
    )


async def test_stop_closes_the_port(server: AdminServer, app: App) -> None:
    port = server.port
    await server.stop()
    await server.stop()
    async with AdminServer(HttpConfig(port=port), app) as again:
        assert again.port == port


async def test_the_metrics_say_what_was_counted(get: Get) -> None:
    _, headers, text = await get("/metrics")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    spot = (("market", "spot"), ("venue", "kraken"))
    trades = (("channel", "trades"), *spot)
    assert samples["ingestor_frames_received_total", spot] == 5
    assert (
        samples["ingestor_messages_rejected_total", (spot[0], ("reason", "bad_number"), spot[1])]
        == 2
    )
    assert samples["ingestor_rows_decoded_total", trades] == 3
    assert samples["ingestor_rows_acked_total", trades] == 2
    assert samples["ingestor_ingest_latency_seconds_count", trades] == 3
    assert samples["ingestor_ingest_latency_seconds_sum", trades] == pytest.approx(0.009)
    assert samples["ingestor_delivery_latency_seconds_count", trades] == 2
    assert samples["ingestor_publish_latency_seconds_sum", trades] == pytest.approx(0.008)
    assert samples["ingestor_venue_clock_skew_seconds", trades] == pytest.approx(0.005)
    assert samples["ingestor_last_message_timestamp_seconds", trades] == NOW_NS / 1e9
    connected = (("state", "connected"), ("venue", "kraken"))
    assert samples["ingestor_connections", connected] == 9
    closed = (("cause", "close_1006"), ("venue", "kraken"))
    assert samples["ingestor_reconnects_total", closed] == 2
    assert samples["ingestor_producer_resets_total", (("cause", "OutOfOrder"),)] == 1
    assert samples["ingestor_overload_steps_total", (("step", "pause"),)] == 3
    assert samples["ingestor_kafka_up", ()] == 1
    assert samples["ingestor_book_verified_total", spot] == 7
    assert samples["ingestor_books", (spot[0], ("state", "invalid"), spot[1])] == 1
    repairs = (("cause", "checksum"), *spot)
    assert samples["ingestor_book_repairs_total", repairs] == 4
    assert samples["ingestor_event_loop_lag_seconds", ()] == 0.002
    assert samples["ingestor_recorder_state", (("state", "failed"),)] == 1
    assert samples["ingestor_recorder_state", (("state", "recording"),)] == 0
    assert samples["ingestor_recorder_lost_lines_total", ()] == 6


async def test_histograms_are_cumulative_and_complete(get: Get) -> None:
    _, _, text = await get("/metrics")
    family = next(
        one
        for one in text_string_to_metric_families(text)
        if one.name == "ingestor_ingest_latency_seconds"
    )
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for sample in family.samples
        if sample.name.endswith("_bucket") and sample.labels["channel"] == "trades"
    ]
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == (float("inf"), 3)
    inside = [count for edge, count in buckets if 0.0005 < edge < 0.02]
    assert inside == [0, 1, 2, 3, 3]  # of 1, 3 and 5 ms at 0.8, 1.6, 3.2, 6.4 and 12.8 ms


def promtool() -> str:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool (Debian package prometheus)")
    return tool


@pytest.mark.rows("D6")
@pytest.mark.parametrize("path", ["/metrics", "/metrics/feeds"])
async def test_promtool_is_content(get: Get, path: str) -> None:
    tool = promtool()
    _, _, text = await get(path)
    done = await asyncio.to_thread(
        subprocess.run,
        [tool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.rows("D6")
async def test_streams_have_four_series_each_and_escaped_labels(get: Get) -> None:
    _, _, text = await get("/metrics/feeds")
    labels = r'{venue="kraken",market="spot",channel="trades",symbol="BTC\"\n"}'
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        f"ingestor_feed_up{labels} 1",
        f"ingestor_feed_messages_total{labels} 3",
        f"ingestor_feed_last_message_timestamp_seconds{labels} {NOW_NS / 1e9}",
        f"ingestor_feed_lag_seconds{labels} 0.25",
    ]


async def test_streams_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "STREAMS_MAX", 3)
    one = StreamState("okx", "spot", "book", "BTC-USDT", False, 0, 0, 0.0)
    text = await streams_text([one] * 10)
    assert text.count(b"ingestor_feed_up{") == 3


class Large:
    """A family as large as 10,000 series, in which every cut shows."""

    count = 10_000

    def families(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("ingestor_large", "Large.", labels=("number",))
        for number in range(self.count):
            family.add_metric((str(number),), number)
        yield family


async def test_a_large_page_is_complete_and_lets_the_loop_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exposition, "SLICE_S", 0.0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    text = (await metrics_text(Large())).decode()
    turns_of_metrics, turns = turns, 0
    one = StreamState("okx", "spot", "book", "BTC-USDT", True, 0, 0, 0.0)
    await streams_text([one] * 5_000)
    task.cancel()
    assert turns_of_metrics >= Large.count // exposition.SAMPLES_A_SLICE
    assert turns >= 5_000 // exposition.SAMPLES_A_SLICE
    lines = text.splitlines()
    assert lines[:2] == ["# HELP ingestor_large Large.", "# TYPE ingestor_large gauge"]
    assert lines[2:] == [
        f'ingestor_large{{number="{number}"}} {float(number)}' for number in range(Large.count)
    ]


async def reloading(app: App) -> AdminServer:
    async def reload(*, dry_run: bool) -> dict[str, object]:
        if not dry_run:
            raise ConfigError("is wrong", where="c.toml")
        return {"applied": False}

    return AdminServer(HttpConfig(port=0), app, reload=reload)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({RELOAD_HEADER: "1"}, 200),
        ({}, 403),
        ({RELOAD_HEADER: "1", "Origin": "https://evil.example"}, 403),
        ({RELOAD_HEADER: "1", "Origin": "null"}, 403),
        ({RELOAD_HEADER: "1", "Sec-Fetch-Site": "cross-site"}, 403),
        ({RELOAD_HEADER: "1", "Sec-Fetch-Site": "same-origin"}, 403),
        ({RELOAD_HEADER: "1", "Sec-Fetch-Site": "none"}, 200),
        ({RELOAD_HEADER: "1", "Host": "evil.example"}, 421),
    ],
)
async def test_no_web_page_can_reload(app: App, headers: dict[str, str], status: int) -> None:
    async with await reloading(app) as one, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{one.port}/reload?dry_run=1"
        async with client.post(url, headers=headers) as answer:
            assert answer.status == status
            assert "Access-Control-Allow-Origin" not in answer.headers
        preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        async with client.options(url, headers=preflight) as answer:
            assert answer.status == 405
            assert not [name for name in answer.headers if name.startswith("Access-Control")]
        async with client.get(url) as answer:
            assert answer.status == 405


async def test_a_wrong_configuration_is_a_sentence(app: App) -> None:
    async with await reloading(app) as one, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{one.port}/reload"
        async with client.post(url, headers={RELOAD_HEADER: "1"}) as answer:
            assert (answer.status, await answer.json()) == (422, {"error": "c.toml: is wrong"})


async def test_a_server_without_a_configuration_has_no_such_path(server: AdminServer) -> None:
    async with aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{server.port}/reload"
        async with client.post(url, headers={RELOAD_HEADER: "1"}) as answer:
            assert answer.status == 404
