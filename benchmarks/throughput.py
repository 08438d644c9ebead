"""Saturated sockets -> Kafka: how much one core carries.

Measured: ten connections on which the load server keeps the buffers full; frames in Binance's form;
the whole ingestor with its defaults, in both encodings. On a 2-core machine load server and broker
take the second core and part of the first, so the figure that travels is rows per CPU-second of the
ingestor's own process; the one per wall second is what was left for it in this run.
Not measured: latency (a saturated socket has none worth naming), the broker (a stub).
How to read it: levels are rows too; rows count when the broker has acked them. With more quotes
than the broker takes, those of an instrument give way to its latest (`conflated_share`).
"""

from __future__ import annotations

from typing import Any

from benchmarks.processes import STUB, stub_broker
from benchmarks.saturated import BOOK_20, BOOK_200, CONNECTIONS, QUOTES, TRADES, Load, delivered


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    loads = (TRADES,) if quick else (TRADES, QUOTES, BOOK_20, BOOK_200)
    turns, seconds = (1, 1.0) if quick else (2, 3.0)
    results: list[dict[str, Any]] = []
    with stub_broker() as bootstrap:
        for load in loads:
            runs = [
                _measure(load, bootstrap, encoding, seconds)
                for _ in range(turns)
                for encoding in ("json", "binary")
            ]
            for encoding in ("json", "binary"):
                of_encoding = [one for one in runs if one["encoding"] == encoding]
                results.append(max(of_encoding, key=lambda one: float(one["rows_per_cpu_s"])))
    by_name = {(one["frames"], one["encoding"]): one for one in results}
    headline = {}
    for load, name in ((TRADES, "trades"), (BOOK_20, "levels")):
        for encoding in ("json", "binary") if load in loads else ():
            best = by_name[load.name, encoding]
            headline[f"throughput_{name}_per_cpu_s_{encoding}"] = best["rows_per_cpu_s"]
    return {"results": results, "headline": headline}


def _measure(load: Load, bootstrap: str, encoding: str, seconds: float) -> dict[str, Any]:
    with load.server() as server, load.ingestor(server, bootstrap, encoding) as ingestor:
        ingestor.wait_connected(CONNECTIONS)
        ingestor.wait_flowing()
        before = server.statistics()
        window = ingestor.window(seconds)
        after = server.statistics()
        last = ingestor.stop()
    if last["lost"] or last["unaccounted"]:
        raise RuntimeError(f"{load.name}: the ledger doesn't balance: {last}")
    frames = delivered(window)
    server_core = (after["cpu_s"] - before["cpu_s"]) / (after["uptime_s"] - before["uptime_s"])
    return {
        "frames": load.name,
        "encoding": encoding,
        "frames_per_cpu_s": round(frames / window["cpu_s"]),
        "rows_per_cpu_s": round(window.per_cpu_s("acked")),
        "rows_per_s": round(window.per_s("acked")),
        "us_per_frame": round(window["cpu_s"] / max(frames, 1) * 1e6, 2),
        "conflated_share": round(window["shed"] / max(window["rows"], 1), 3),
        "core": round(window.core, 2),
        "server_core": round(server_core, 2),
        "broker": STUB,
    }
