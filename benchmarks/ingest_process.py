"""The ingestor under measurement: `python -m benchmarks.ingest_process OPTIONS`.

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

from benchmarks.child import answer, options, say, trimmed
from benchmarks.lags import percentiles_ms
from ingestor.app import Ingestor, load_plan
from ingestor.config.model import Config
from ingestor.edge import logs
from ingestor.edge.connections import repairs
from ingestor.metrics import Metrics
from ingestor.rows import RowClass, Rows


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
    return Config.model_validate(
        {
            "kafka": {
                "bootstrap_servers": given["bootstrap"],
                "encoding": given["encoding"],
                "topic_prefix": given["prefix"],
            },
            "batch": {"linger_ms": given["linger_ms"]},
            "budget": {"bytes": given["budget_mib"] << 20},
            "books": {"repairs_per_s": 100},  # the simulated venue allows it
            "http": {"port": 0},
            "catalogue": {"cache_dir": cache, "ttl_s": 0},
            "feeds": [feed],
        }
    )


async def run(given: dict[str, Any], cache: Path) -> None:
    started = time.monotonic()
    chosen = config(given, cache)
    logs.configure(chosen.log)
    repairs._WEIGHT_BURST = 1 << 20  # type: ignore[misc]  # noqa: SLF001
    planned = await load_plan(chosen)
    ingestor = Ingestor(chosen, planned)
    lags = Lags(ingestor.pipeline.metrics) if given["lags"] else None
    delay = ingestor._watch.delay  # noqa: SLF001  # no other way to its buckets
    before = delay.counts.copy()

    def sample() -> dict[str, Any]:
        nonlocal before
        status = ingestor.status()
        since, before = delay.counts - before, delay.counts.copy()
        recent = type(delay)()
        recent.counts = since
        return {
            "connected": status.connected,
            "frames": status.frames - status.control,
            "rows": status.rows_appended,
            "acked": status.acked,
            "reconnects": status.reconnects,
            "resets": status.resets,
            "rejected": status.rejected,
            "shed": status.shed + status.conflated,
            "queue_bytes": status.queue_bytes,
            "flushes": ingestor.flusher.flushes,
            "loop_delay_p99_ms": recent.percentile_ns(0.99) / 1e6 if since.sum() else 0.0,
            "lag_ms": lags.take() if lags is not None else {},
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
