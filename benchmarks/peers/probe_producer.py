"""A producer that does next to nothing: `python -m benchmarks.peers.probe_producer OPTIONS`.

One small record every 50 ms, acks=all, and how long its answer takes. Beside an ingestor under load
it tells what broker and machine take by themselves.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

import uvloop
from aiokafka import AIOKafkaProducer

from benchmarks.harness.child_process import answer, options, say
from benchmarks.harness.lags import percentiles_ms

EVERY_S: Final = 0.05


async def run(given: dict[str, Any]) -> None:
    """given: bootstrap, topic."""
    took_ns: list[int] = []
    producer = AIOKafkaProducer(bootstrap_servers=given["bootstrap"], acks="all", linger_ms=0)
    await producer.start()

    async def ask() -> None:
        while True:
            started_ns = time.perf_counter_ns()
            await producer.send_and_wait(given["topic"], b"x" * 100)
            took_ns.append(time.perf_counter_ns() - started_ns)
            await asyncio.sleep(EVERY_S)

    def sample() -> dict[str, Any]:
        found = percentiles_ms(took_ns)
        took_ns.clear()
        return {"round_trip_ms": found}

    asking = asyncio.create_task(ask())
    say({})
    await answer(sample)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    await producer.stop()
    say({})


if __name__ == "__main__":
    uvloop.run(run(options()))
