"""bbo-tap as a user would run it: `python -m benchmarks.peers.bbo_tap OPTIONS`.

Its runner, its connections and its Kafka sink with their own settings (acks of one replica, zstd,
50 ms linger); the address of its Binance venue is the load server's on loopback, and it may connect
ten times a second instead of once. It forwards frames as they came, unparsed. Runs in an
environment of its own, see `peers.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bbo_tap import config, runner  # type: ignore[import-not-found]
from bbo_tap.exchanges import Binance  # type: ignore[import-not-found]

from benchmarks.harness.child_process import answer, options, say


async def run(given: dict[str, Any]) -> None:
    """given: url, bootstrap, symbols (a list), streams_per_connection."""
    Binance.url = given["url"]
    Binance.max_symbols_per_conn = given["streams_per_connection"]
    runner.CONNECT_SPACING = 0.1
    settings = config.parse(
        {
            "redpanda": {"brokers": given["bootstrap"].split(",")},
            "exchanges": {"binance": {"enabled": True, "partition": 0}},
            "symbols": {name: {"binance": name} for name in given["symbols"]},
        }
    )
    make_sink = runner.make_sink
    sinks: list[Any] = []

    def kept(chosen: Any) -> Any:
        sinks.append(make_sink(chosen))
        return sinks[-1]

    runner.make_sink = kept
    running = asyncio.create_task(runner.run(settings))

    def sample() -> dict[str, Any]:
        if running.done():
            running.result()
        connected = sum(
            value.value for metric in runner.metrics.CONNECTED.collect() for value in metric.samples
        )
        queued = len(sinks[0]._producer) if sinks else 0  # noqa: SLF001  # nothing else says
        return {"frames": sinks[0].sent - queued if sinks else 0, "connected": connected}

    say({})
    await answer(sample)
    running.cancel()


if __name__ == "__main__":
    asyncio.run(run(options()))
