"""Saturated sockets -> Kafka: how much one core carries.

Measured: ten connections on which the load server keeps the buffers full; frames in Binance's form;
the whole ingestor with its defaults but a budget of 64 MiB, in both encodings; trades over TLS too,
with a certificate made for the run (`transport`); then trades with two worker processes, which
share the connections as `run --workers 2` shares them. Nothing slows reading but the ingestor's own
backpressure. On a 2-core machine load server and broker take the second core and part of the first,
so the figure that travels is rows per CPU-second of the ingestor's own processes; the one per wall
second is what was left for it in this run.
Not measured: latency (a saturated socket has none worth naming), the broker (a stub).
How to read it: levels are rows too; rows count when the broker has acked them. `given_up` is the
share of rows conflated or shed, `throttled_per_s` how often reading waited for sending. Two workers
should cost no more CPU for a row than one; how much more they carry depends on free cores.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.harness.processes import (
    STUB,
    Child,
    LoadServer,
    Window,
    make_certificate,
    stub_broker,
)
from benchmarks.harness.results import progress
from benchmarks.harness.saturated import (
    BOOK_20,
    BOOK_200,
    CONNECTIONS,
    QUOTES,
    TRADES,
    Load,
    delivered,
)

Row = dict[str, Any]

ENCODINGS: Final = ("json", "binary")
SETTLE_S: Final = 1.5  # until the queue is as long as it gets


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    windows, seconds = (1, 1.0) if quick else (3, 1.5)
    results: list[Row] = []
    with stub_broker() as bootstrap:
        for load in (TRADES, QUOTES, BOOK_20) if quick else (TRADES, QUOTES, BOOK_20, BOOK_200):
            results += [_measure(load, bootstrap, one, windows, seconds) for one in ENCODINGS]
        results += [
            _measure(TRADES, bootstrap, one, windows, seconds, is_tls=True) for one in ENCODINGS
        ]
        if not quick:
            results.append(_measure(TRADES, bootstrap, "binary", windows, seconds, workers=2))
    return {"results": results, "headline": _headline(results)}


def _headline(results: Sequence[Row]) -> dict[str, float]:
    found = {
        (row["frames"], row["encoding"], row["workers"]): row
        for row in results
        if row["transport"] == "plain"
    }
    over_tls = {
        f"throughput_trades_per_cpu_s_{row['encoding']}_tls": row["rows_per_cpu_s"]
        for row in results
        if row["transport"] == "TLS"
    }
    named = over_tls | {
        f"throughput_{name}_per_cpu_s_{encoding}": found[load.name, encoding, 1]["rows_per_cpu_s"]
        for load, name in ((TRADES, "trades"), (QUOTES, "quotes"), (BOOK_20, "levels"))
        for encoding in ENCODINGS
        if (load.name, encoding, 1) in found
    }
    two, one = (found.get((TRADES.name, "binary", workers)) for workers in (2, 1))
    if two is not None and one is not None:
        for unit in ("cpu_s", "s"):
            ratio = two[f"rows_per_{unit}"] / one[f"rows_per_{unit}"]
            named[f"two_workers_ratio_per_{unit}"] = round(ratio, 2)
    return named


def _measure(
    load: Load,
    bootstrap: str,
    encoding: str,
    windows: int,
    seconds: float,
    *,
    workers: int = 1,
    is_tls: bool = False,
) -> Row:
    """Return the best of some windows in a row; a busy machine only takes."""
    transport = "TLS" if is_tls else "plain"
    progress(f"{load.name}, {encoding}, {transport}, workers: {workers}")
    is_books = load.kind == "book"
    with ExitStack() as stack:
        certificate, environment = None, None
        if is_tls:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            certificate, environment = make_certificate(folder)
        server = stack.enter_context(load.server(certificate))
        if is_books:
            server.hold()
        ingestors = [
            stack.enter_context(
                load.ingestor(server, bootstrap, encoding, (index, workers), environment)
            )
            for index in range(workers)
        ]
        for one in ingestors:
            one.wait_connected(CONNECTIONS // workers)
        if is_books:
            server.synchronise(ingestors[0], load.symbols)
        taken = [
            _window(server, ingestors, seconds, 0.0 if number else SETTLE_S)
            for number in range(windows)
        ]
        last = [one.stop() for one in ingestors]
    if any(one["unaccounted"] for one in last):
        raise RuntimeError(f"{load.name}: the ledger doesn't balance: {last}")
    best = max(taken, key=lambda row: float(row["rows_per_cpu_s"]))
    fixed = {
        "frames": load.name,
        "encoding": encoding,
        "transport": transport,
        "workers": workers,
    }
    return {**fixed, **best, "lost": sum(one["lost"] for one in last), "broker": STUB}


def _window(server: LoadServer, ingestors: Sequence[Child], seconds: float, settle_s: float) -> Row:
    """Measure once, all processes at a time."""
    time.sleep(settle_s)
    before, first = server.statistics(), [one.sample() for one in ingestors]
    time.sleep(seconds)
    windows = [Window(was, one.sample()) for was, one in zip(first, ingestors, strict=True)]
    after = server.statistics()

    def rate(name: str) -> float:
        return sum(one.per_s(name) for one in windows)

    frames_per_s = sum(delivered(one) / one.seconds for one in windows)
    server_core = (after["cpu_s"] - before["cpu_s"]) / (after["uptime_s"] - before["uptime_s"])
    return {
        "rows_per_cpu_s": round(rate("acked") / rate("cpu_s")),
        "rows_per_s": round(rate("acked")),
        "frames_per_cpu_s": round(frames_per_s / rate("cpu_s")),
        "us_per_frame": round(rate("cpu_s") / max(frames_per_s, 1.0) * 1e6, 2),
        "given_up": round(rate("shed") / max(rate("rows"), 1.0), 3),
        "throttled_per_s": round(rate("throttled"), 1),
        "core": round(rate("cpu_s"), 2),
        "server_core": round(server_core, 2),
    }
