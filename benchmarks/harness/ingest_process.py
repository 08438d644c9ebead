"""The ingestor under measurement: `python -m benchmarks.harness.ingest_process OPTIONS`.

It is the program itself, from configuration to drained sink. Added from outside is lag from the
load server's send time (ts_event of the simulated venue) to the broker's ack, since ts_recv can't
see what waits in the kernel. Taken away is the pace at which Binance gives snapshots, which would
only make benchmarks wait for their books.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks.harness.child_process import answer, options, say, trimmed
from benchmarks.harness.lags import percentiles_ms
from ingestor.app import Ingestor, load_plan
from ingestor.app.planning import Planned
from ingestor.config.model import Config
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from ingestor.sinks.kafka.produce_request import Batches, Failures, ProduceClient
from ingestor.telemetry import logs
from ingestor.telemetry.histogram import Histogram, percentile_ns
from ingestor.telemetry.metrics import Metrics
from ingestor.telemetry.row_lags import Stage


class Lags:
    """Hears of every ack. Keeps lags in ns until they are asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._acked = metrics.acked
        self._parts: list[NDArray[np.int64]] = []
        metrics.acked = self.acked  # type: ignore[method-assign]

    def acked(self, row_class: RowClass, rows: Rows, now_ns: int, since_ns: int) -> None:
        self._acked(row_class, rows, now_ns, since_ns)
        self._parts.append(now_ns - rows["ts_event"])

    def take(self) -> dict[str, float]:
        """Return percentiles in ms since the last call, by their names."""
        parts, self._parts = self._parts, []
        return percentiles_ms(np.concatenate(parts)) if parts else {}


class RoundTrips:
    """Hears of every produce request. Keeps what they took, in ns, until they are asked for."""

    def __init__(self) -> None:
        self._took_ns: list[int] = []
        send = ProduceClient.send

        async def timed(produce: ProduceClient, node: int, batches: Batches) -> Failures:
            started_ns = time.perf_counter_ns()
            failures = await send(produce, node, batches)
            self._took_ns.append(time.perf_counter_ns() - started_ns)
            return failures

        ProduceClient.send = timed  # type: ignore[method-assign,assignment]

    def take(self) -> dict[str, float]:
        took_ns, self._took_ns = self._took_ns, []
        return percentiles_ms(took_ns)


class Recent:
    """The percentiles of a histogram since they were last asked for."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._before = histogram.counts.sum(axis=0)

    def take_ms(self) -> dict[str, float]:
        now = self._histogram.counts.sum(axis=0)
        since, self._before = now - self._before, now
        return {
            f"p{fraction * 100:g}": percentile_ns(since, fraction) / 1e6 if since.any() else 0.0
            for fraction in (0.5, 0.99)
        }


def config(given: dict[str, Any], cache: Path) -> Config:
    """Return a configuration with the defaults but for what the benchmark sets."""
    feed = {
        "venue": given["venue"],
        "symbols": ["*"],
        "channels": given["channels"],
        "url": given["url"],
        "rest_url": given["rest"],
        "streams_per_connection": given["streams_per_connection"],
        "source_addresses": given["source_addresses"],
    }
    linger_ms = given["linger_ms"]
    batch = {} if linger_ms is None else {"linger_ms": linger_ms, "linger_min_ms": linger_ms}
    return Config.model_validate(
        {
            "kafka": {
                "bootstrap_servers": given["bootstrap"],
                "encoding": given["encoding"],
                "topic_prefix": given["prefix"],
            },
            "batch": batch,
            "budget": {"bytes": given["budget_mib"] << 20},
            "books": {"repairs_per_s": 100},  # the simulated venue allows it
            "http": {"port": 0},
            "limits": {"rest_weight_per_s": 1e6},
            "catalogue": {"cache_dir": cache, "ttl_s": 0},
            "feeds": [feed],
        }
    )


async def run(given: dict[str, Any], cache: Path) -> None:
    started = time.monotonic()
    chosen = config(given, cache)
    logs.configure(chosen.log)
    planned = await load_plan(chosen)
    index, workers = given["share"]
    planned = Planned(planned.table, planned.plan.share(index, workers))
    ingestor = Ingestor(chosen, planned)
    metrics, sink = ingestor.pipeline.metrics, ingestor.sink
    assert sink is not None
    lags = Lags(metrics) if given["lags"] else None
    round_trips = RoundTrips() if given["lags"] else None
    stages = {
        stage.name.lower(): Recent(metrics.lag[stage]) for stage in (Stage.SEAL, Stage.PUBLISH)
    }
    stages["loop_delay"] = Recent(ingestor.loop_lag.delay)

    def sample() -> dict[str, Any]:
        status = ingestor.status()
        return {
            "connected": status.connected,
            "frames": status.frames - status.control,
            "rows": status.rows_appended,
            "acked": status.acked,
            "reconnects": status.reconnects,
            "resets": status.resets,
            "rejected": status.rejected,
            "shed": status.shed + status.conflated,
            "throttled": sink.queue.throttle.taken,
            "queue_bytes": status.queue_bytes,
            "flushes": ingestor.flusher.flushes,
            **{
                f"{name}_{at}_ms": value
                for name, recent in stages.items()
                for at, value in recent.take_ms().items()
            },
            "lag_ms": lags.take() if lags is not None else {},
            "round_trip_ms": round_trips.take() if round_trips is not None else {},
        }

    def ready() -> None:
        say(
            {**trimmed(), "connections": len(planned.plan), "startup_s": time.monotonic() - started}
        )

    async def control() -> None:
        await answer(sample)
        ingestor.stop()

    controlling = asyncio.create_task(control())
    drained = await ingestor.run(ready)
    await controlling
    say({"lost": drained.lost, "unaccounted": drained.status.unaccounted})


def main() -> None:
    with TemporaryDirectory() as cache:
        uvloop.run(run(options(), Path(cache)))


if __name__ == "__main__":
    main()
