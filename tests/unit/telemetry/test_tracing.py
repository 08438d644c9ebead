"""Spans: nothing when off, a sample of batches, failures told, the end bounded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from ingestor.telemetry.tracing import NO_SPAN, TRACEPARENT, Tracing, TracingSettings


def context_of(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Iterator[Tracing]:
    one = Tracing()
    assert one.begin(TracingSettings(CLOSED, share=0.25))
    one.listen(SimpleSpanProcessor(exporter))
    yield one
    one.end(0.01)


def test_off_a_span_is_one_object_that_does_nothing() -> None:
    off = Tracing()
    with off.span("connect", venue="acme") as span:
        span.note(rows=1)
    assert span is NO_SPAN
    off.tell("take over", 1.0, shard=1)
    off.end()


def test_it_begins_once(tracing: Tracing) -> None:
    assert not tracing.begin(TracingSettings(CLOSED))


def _fail(tracing: Tracing) -> None:
    with tracing.span("repair", symbol="A") as span:
        span.note(by="rest")
        with tracing.span("snapshot"):
            raise OSError("no way")


def test_spans_nest_and_a_failure_is_told(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(OSError, match="no way"):
        _fail(tracing)
    inner, outer = exporter.get_finished_spans()
    assert inner.parent is not None
    assert inner.parent.span_id == context_of(outer).span_id
    assert outer.attributes == {"symbol": "A", "by": "rest"}
    assert [one.status.description for one in (inner, outer)] == ["OSError: no way"] * 2


def test_what_is_over_is_told_with_its_length(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    tracing.tell("take over", 2.0, shard=3)
    [span] = exporter.get_finished_spans()
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time >= 2_000_000_000


def test_every_fourth_batch_has_a_span(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    asked = [tracing.batch("md.trades.v1", 2, 10) for _ in range(12)]
    spans = [span for span in asked if span is not None]
    assert [index for index, span in enumerate(asked) if span] == [3, 7, 11]
    name, value = spans[0].header
    assert name == TRACEPARENT
    spans[0].end()
    spans[1].end(OSError("refused"))
    good, bad = exporter.get_finished_spans()
    context = context_of(good)
    version, *ids, flags = value.decode().split("-")
    assert (version, ids) == ("00", [f"{context.trace_id:032x}", f"{context.span_id:016x}"])
    assert int(flags, 16) & 1  # sampled
    assert good.parent is None
    assert bad.status.description == "OSError: refused"


def test_no_batch_has_one_where_the_share_is_nothing() -> None:
    one = Tracing()
    one.begin(TracingSettings(CLOSED, share=0.0))
    assert not any(one.batch("t", 0, 1) for _ in range(100))
    one.end(0.01)
