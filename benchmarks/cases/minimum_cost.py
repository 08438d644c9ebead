"""What a message costs over the least it can cost.

Measured: CPU of a process that holds 1,000 connections with 20 messages per second each, so that
every message is a wake-up of its own; 20 ms linger. The floor is a picows client on uvloop's own
transport, the libraries alone, that does nothing but `orjson.loads`. Both read the same frames from
the same load server in the same run, in turns, each in several windows; of each the best window
counts, since a busy machine only adds.
Not measured: latency (`connections`, `latency`) and saturation (`throughput`).
How to read it: 1.8 means that exact numbers, books, ledger, metrics, encoding and Kafka together
cost 80 % of what the socket and the parse cost.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks.harness.processes import STUB, Child, LoadServer, ingest, stub_broker
from benchmarks.harness.results import progress

CONNECTIONS: Final = 1_000
RATE: Final = 20.0
LINGER_MS: Final = 20.0  # fixed
NAMES: Final = {
    "floor": "picows and orjson only",
    "binary": "ingestor, binary",
    "json": "ingestor, json",
}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    turns, windows, seconds = (1, 1, 1.0) if quick else (2, 2, 3.0)
    best = dict.fromkeys(NAMES, float("inf"))
    results = []
    with stub_broker() as bootstrap, LoadServer(CONNECTIONS, RATE) as server:
        for turn in range(turns):
            for what, name in NAMES.items():
                progress(name)
                with _process(what, server, bootstrap) as process:
                    process.wait_connected(CONNECTIONS)
                    taken = [process.window(seconds, 0.0 if k else 1.0) for k in range(windows)]
                window = min(taken, key=lambda one: one.us_per("frames"))
                best[what] = min(best[what], window.us_per("frames"))
                results.append(
                    {
                        "process": name,
                        "turn": turn + 1,
                        "messages_per_s": round(window.per_s("frames")),
                        "cpu_us_per_message": round(window.us_per("frames"), 2),
                        "core": round(window.core, 3),
                        "broker": "" if what == "floor" else STUB,
                    }
                )
    return {
        "results": results,
        "headline": {
            "floor_us_per_message": round(best["floor"], 2),
            "cpu_per_message_over_floor": round(best["binary"] / best["floor"], 2),
            "cpu_per_message_over_floor_json": round(best["json"] / best["floor"], 2),
        },
    }


def _process(what: str, server: LoadServer, bootstrap: str) -> Child:
    if what == "floor":
        given = {"url": server.url, "connections": CONNECTIONS}
        return Child("benchmarks.peers.minimum_client", given)
    return ingest(server, bootstrap, encoding=what, linger_ms=LINGER_MS, addresses=10)
