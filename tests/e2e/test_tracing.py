"""Spans as a collector gets them: OTLP over HTTP, of a whole run, its consumer and a replay."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from ingestor.app.reload import Configuration
from ingestor.consumer import Consumer
from ingestor.model.rows import Cause
from ingestor.telemetry.tracing import tracing
from tests.e2e.harness import make_config, running, until
from tests.e2e.processes import environment, ingestor, simulated_venue
from tests.kafka.broker import KafkaEndpoint


@dataclass
class Collector:
    """Takes spans as any OpenTelemetry collector does."""

    url: str
    spans: list[Any] = field(default_factory=list)
    instances: set[str] = field(default_factory=set)
    tokens: set[str | None] = field(default_factory=set)

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.instances.add(about.get("service.name", ""))
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            found.take(body)
            found.tokens.add(self.headers.get("X-Token"))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_a_collector_gets_the_spans_of_a_run(
    kafka: KafkaEndpoint, tmp_path: Path, collector: Collector, encoding: str
) -> None:
    with simulated_venue(symbols=2, rate_per_s=20) as venue:
        config = make_config(
            kafka.bootstrap_servers,
            [venue.feed],
            tmp_path,
            kafka={"encoding": encoding},
            tracing={"endpoint": collector.url, "share": 0.5, "headers": {"X-Token": "secret"}},
            recorder={"path": tmp_path / "recording"},
        )
        configuration = Configuration(lambda: config, "", lambda *_: None)
        async with running(config, configuration=configuration) as run:
            await run.subscribed()
            await run.until(lambda: run.status.acked > 500)
            run.ingestor.pipeline.books.invalidate(0, Cause.CHECKSUM, run.ingestor.clocks.wall_ns())
            run.ingestor.flusher.flush()
            counts = run.ingestor.supervisor.repair_worker.counts
            await run.until(lambda: counts.total() > 0)
            await run.ingestor.reloads.reload()
            await run.stop()
    assert not tracing.is_on  # what waited is sent
    assert collector.instances == {"ingestor"}
    assert collector.tokens == {"secret"}
    for name in ("connect", "subscribe", "start producer", "repair", "reload", "drain"):
        assert collector.named(name), name
    [drain] = collector.named("drain")
    assert attributes(drain) == {"rows_lost": 0}
    assert attributes(collector.named("connect")[0])["venue"] == "simulated"
    assert all(span.status.code != span.status.STATUS_CODE_ERROR for span in collector.spans)

    published = {span.span_id: span for span in collector.named("publish")}
    batches = len(published)
    assert batches > 5
    assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in published.values())
    await check_links(kafka, config.kafka.topic_prefix, collector, published)

    replayed = ingestor(
        *("replay", str(tmp_path / "recording"), "--audit"),
        env=environment(tmp_path, INGESTOR__TRACING__ENDPOINT=collector.url),
    )
    assert replayed.returncode == 0, replayed.stderr
    assert len(collector.named("replay")) == 1


async def check_links(
    kafka: KafkaEndpoint, prefix: str, collector: Collector, published: dict[bytes, Any]
) -> None:
    """A consumer finds a header in one record of each sampled batch, and links to its span."""
    provider = TracerProvider()
    provider.add_span_processor(
        SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces"))
    )
    topics = [f"{prefix}{name}.v1" for name in ("trades", "quotes", "book")]
    rows = 0
    with pytest.MonkeyPatch.context() as patched:  # the program's own provider
        patched.setattr(trace, "get_tracer", provider.get_tracer)
        async with Consumer(
            kafka.bootstrap_servers, topics, start="earliest", stop_at_end=True, links=True
        ) as consumer:
            async for batch in consumer:
                rows += len(batch)
    provider.shutdown()
    assert rows > 500
    links = [link for span in collector.named("receive") for link in span.links]
    assert {link.span_id for link in links} == set(published)
    assert all(link.trace_id == published[link.span_id].trace_id for link in links)
    for span in collector.named("receive"):
        about, sent = attributes(span), attributes(published[span.links[0].span_id])
        assert about["messaging.destination.name"] == sent["messaging.destination.name"]


async def test_a_collector_that_is_away_costs_spans_alone(
    kafka: KafkaEndpoint, tmp_path: Path
) -> None:
    with simulated_venue(symbols=1, rate_per_s=50) as venue:
        away = {"endpoint": "http://127.0.0.1:9", "share": 1.0}
        config = make_config(kafka.bootstrap_servers, [venue.feed], tmp_path, tracing=away)
        async with running(config) as run:
            await run.subscribed()
            await run.until(lambda: run.status.acked > 100)
            drained = await run.stop()
    assert (drained.lost, drained.status.unaccounted) == (0, 0)
    await until(lambda: tracing.exports["failed"] > 0)
