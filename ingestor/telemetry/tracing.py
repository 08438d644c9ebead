"""Spans of rare events and of sampled batches: the one seam to OpenTelemetry (extra `otel`).

`tracing` is the tracer of this process, as `bulkheads` has its boundaries. Off, which is the
default, a span is one object that does nothing, and nothing of OpenTelemetry is imported. On, spans
go to a collector by OTLP over HTTP, from a thread of the SDK with a bounded queue: a collector that
is slow or away costs spans and nothing else.

A span may begin inside another one, which is then its parent, as far as both run in one task.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

import structlog

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

Value = str | int | float | bool

TRACEPARENT: Final = "traceparent"  # W3C Trace Context, level 1
END_S: Final = 2.0  # how long the end of a process waits for the collector
_QUEUE_SPANS: Final = 2_048
_EXPORT_S: Final = 2.0

log = structlog.get_logger(__name__)


class Span(Protocol):
    """A span in a `with` block: an exception that leaves it makes it a failed one."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *failure: object) -> None: ...
    def note(self, **attributes: Value) -> None: ...


class _NoSpan:
    """The span of a process that traces nothing."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        pass

    def note(self, **attributes: Value) -> None:
        pass


NO_SPAN: Final = _NoSpan()


class _Span:
    def __init__(self, span: trace.Span, entered: AbstractContextManager[object]) -> None:
        self._span = span
        self._entered = entered

    def __enter__(self) -> Self:
        self._entered.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        kind, value, traceback = failure
        self._entered.__exit__(kind, value, traceback)  # type: ignore[arg-type]  # as given
        if isinstance(value, BaseException):
            _fail(self._span, value)
        self._span.end()

    def note(self, **attributes: Value) -> None:
        self._span.set_attributes(attributes)


class BatchSpan:
    """The span of one batch, from the moment that its rows are taken to its acknowledgment."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def header(self) -> tuple[str, bytes]:
        """The header by which a consumer finds the span."""
        context = self._span.get_span_context()
        text = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        return TRACEPARENT, text.encode()

    def end(self, failure: Exception | None = None) -> None:
        """End it; it failed where a failure is given."""
        if failure is not None:
            _fail(self._span, failure)
        self._span.end()


def _fail(span: trace.Span, failure: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415  # an extra

    span.set_status(Status(StatusCode.ERROR, f"{type(failure).__name__}: {failure}"))


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """endpoint: of the collector, without `/v1/traces`. share: of the batches that get a span.

    headers: of each request, such as a token.
    """

    endpoint: str
    share: float = 0.001
    service: str = "ingestor"
    instance: str = ""
    headers: Mapping[str, str] | None = None


class Tracing:
    """Gives spans. exports: requests to the collector by outcome."""

    def __init__(self) -> None:
        self.is_on = False
        self.exports: Counter[str] = Counter(sent=0, failed=0)
        self._tracer: trace.Tracer | None = None
        self._provider: TracerProvider | None = None
        self._every = 0
        self._until_sampled = 0

    def begin(self, settings: TracingSettings) -> bool:
        """Send spans to a collector from now on; return False if that is so already.

        Raises:
            ModuleNotFoundError: The extra `otel` is not installed.
        """
        if self.is_on:
            return False
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we count, and tell once
        attributes = {"service.name": settings.service}
        if settings.instance:
            attributes["service.instance.id"] = settings.instance
        exporter = OTLPSpanExporter(
            endpoint=f"{settings.endpoint.rstrip('/')}/v1/traces",
            headers=dict(settings.headers or {}),
            timeout=_EXPORT_S,
        )
        provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        provider.add_span_processor(
            BatchSpanProcessor(self._counted(exporter), max_queue_size=_QUEUE_SPANS)
        )
        self._provider = provider
        self._tracer = provider.get_tracer("ingestor")
        self._every = round(1 / settings.share) if settings.share > 0 else 0
        self._until_sampled = self._every
        self.is_on = True
        return True

    def listen(self, processor: SpanProcessor) -> None:
        """Let another processor have the spans, beside the collector."""
        if self._provider is not None:
            self._provider.add_span_processor(processor)

    def end(self, timeout_s: float = END_S) -> None:
        """Send what waits, for a limited time, and trace nothing more. It blocks."""
        provider, self._provider = self._provider, None
        self.is_on, self._tracer = False, None
        if provider is not None:
            provider.force_flush(int(timeout_s * 1e3))
            provider.shutdown()

    def span(self, name: str, **attributes: Value) -> Span:
        """Return a span to enter.

        Args:
            name: What is done, a verb.
            attributes: What it is done with.
        """
        return self._span(name, None, attributes)

    def _span(self, name: str, since_ns: int | None, attributes: Mapping[str, Value]) -> Span:
        if self._tracer is None:
            return NO_SPAN
        from opentelemetry import trace  # noqa: PLC0415  # an extra

        span = self._tracer.start_span(name, attributes=attributes, start_time=since_ns)
        return _Span(span, trace.use_span(span, record_exception=False))

    def tell(self, name: str, took_s: float, **attributes: Value) -> None:
        """Report what has ended just now.

        Args:
            name: What was done, a verb.
            took_s: How long it took.
            attributes: What it was done with.
        """
        if self.is_on:
            since_ns = time.time_ns() - int(took_s * 1e9)
            with self._span(name, since_ns, attributes):
                pass

    def batch(self, topic: str, partition: int, rows: int) -> BatchSpan | None:
        """Return the span of a batch if it is one of the sample; ask only while `is_on`.

        Args:
            topic: Where it goes.
            partition: Where it goes.
            rows: How many it has.
        """
        self._until_sampled -= 1
        if self._until_sampled or self._tracer is None:
            return None
        self._until_sampled = self._every
        from opentelemetry.context import Context  # noqa: PLC0415  # an extra
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        attributes: dict[str, Value] = {
            "messaging.system": "kafka",
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": str(partition),
            "rows": rows,
        }
        span = self._tracer.start_span(
            "publish", Context(), kind=SpanKind.PRODUCER, attributes=attributes
        )
        return BatchSpan(span)

    def _counted(self, exporter: SpanExporter) -> SpanExporter:
        """Count what becomes of requests, and tell the first that fails."""
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415  # an extra

        export, exports = exporter.export, self.exports

        def counted(spans: object) -> SpanExportResult:
            result = export(spans)  # type: ignore[arg-type]  # as given
            is_sent = result is SpanExportResult.SUCCESS
            if not is_sent and not exports["failed"]:
                log.warning("tracing.failed", reason="the collector takes no spans; they are lost")
            exports["sent" if is_sent else "failed"] += 1
            return result

        exporter.export = counted  # type: ignore[method-assign]
        return exporter


# The tracer of this process: see `bulkheads` for why there is one for all.
tracing: Final = Tracing()
