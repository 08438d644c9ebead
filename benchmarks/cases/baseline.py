"""The ingestor against what a user would otherwise write or run.

Measured: messages per CPU-second (and per wall second) of each, with the same frames from the same
load server into the same broker, in turns in the same run; all hold ten saturated connections.
- afternoon: benchmarks/peers/naive.py, what a user would write: websockets `recv`, orjson, exact
  Decimal fields, orjson, aiokafka `send` per tick. No books, ledger, reconnects, metrics.
- cryptofeed 3.0.1: its own Binance feed, queue and Kafka backend as they come, with the addresses
  pointed to the load server, the producer's settings of `afternoon`, and a full queue that waits
  instead of dropping (benchmarks/peers/cryptofeed.py).
- bbo-tap 0.3.0: its own runner and sink; it forwards frames as they are, without reading them
  (benchmarks/peers/bbo_tap.py).
The two peers run on Python 3.13 in an environment of their own, made on the first full run; where
that is impossible a row says why, and PEERS_PYTHON may name an interpreter. Quick runs leave them
out, and books in JSON.
How to read it: the ratio, which is over `afternoon`. Of each process the best window counts.
Not measured: latency, many connections (`connections`), cryptofeed's books.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.processes import STUB, Child, ChildFailed, LoadServer, Window, stub_broker
from benchmarks.harness.results import progress
from benchmarks.harness.saturated import BOOK_20, CONNECTIONS, QUOTES, TRADES, Load, delivered
from benchmarks.peers import environment as peers

ENCODINGS: Final = ("json", "binary")
OURS: Final = ("afternoon", *ENCODINGS)
PLAN_QUICK: Final = ((TRADES, OURS), (BOOK_20, ("afternoon", "binary")))
PLAN: Final = (
    (TRADES, (*OURS, "cryptofeed")),
    (BOOK_20, OURS),
    (QUOTES, ("afternoon", "binary", "bbo-tap")),
)
# Seconds before the first window: cryptofeed makes a topic for each symbol.
SETTLE_S: Final = {"cryptofeed": 3.0}
Row = dict[str, Any]


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    turns, windows, seconds = (1, 1, 1.0) if quick else (4, 2, 2.0)
    results: list[Row] = []
    python: Path | None = None
    try:
        python = None if quick else peers.environment()
    except peers.PeersMissing as missing:
        results.append({"frames": "not run", "pipeline": f"cryptofeed, bbo-tap: {missing}"})
    with stub_broker() as bootstrap:
        for load, pipelines in PLAN_QUICK if quick else PLAN:
            best: dict[str, Row] = {}
            for _ in range(1 if load is QUOTES else turns):
                for pipeline in pipelines:
                    if pipeline in OURS or python is not None:
                        row = _measured(load, bootstrap, pipeline, windows, seconds, python)
                        best[pipeline] = _better(row, best.get(pipeline))
            results += with_ratios(best)
    return {"results": results, "headline": headline(results)}


def _better(row: Row, held: Row | None) -> Row:
    if held is None or row.get("messages_per_cpu_s", 0) > held.get("messages_per_cpu_s", 0):
        return row
    return held


def with_ratios(best: dict[str, Row]) -> list[Row]:
    """Return the rows of one kind of frame with their ratios over `afternoon`."""
    base = best["afternoon"]
    for row in best.values():
        for unit in ("cpu_s", "s"):
            name = f"messages_per_{unit}"
            if name in row:
                row[f"ratio_per_{unit}"] = round(row[name] / base[name], 2)
    return list(best.values())


def headline(results: Sequence[Row]) -> dict[str, float]:
    """Return the ratios that have a name. Those over a peer are only there if it ran."""
    ratios: dict[tuple[str, str], float] = {
        (row["frames"], row["pipeline"]): row["ratio_per_cpu_s"]
        for row in results
        if "ratio_per_cpu_s" in row
    }
    named = {
        "baseline_ratio_trades_json": (TRADES, "ingestor, json", "afternoon"),
        "baseline_ratio_trades_binary": (TRADES, "ingestor, binary", "afternoon"),
        "baseline_ratio_books_json": (BOOK_20, "ingestor, json", "afternoon"),
        "baseline_ratio_books": (BOOK_20, "ingestor, binary", "afternoon"),
        "cryptofeed_ratio_trades_json": (TRADES, "ingestor, json", "cryptofeed"),
        "cryptofeed_ratio_trades_binary": (TRADES, "ingestor, binary", "cryptofeed"),
        "bbo_tap_ratio_quotes_binary": (QUOTES, "ingestor, binary", "bbo-tap"),
    }
    return {
        name: round(ratios[load.name, ours] / ratios[load.name, theirs], 2)
        for name, (load, ours, theirs) in named.items()
        if (load.name, ours) in ratios and (load.name, theirs) in ratios
    }


def _measured(
    load: Load, bootstrap: str, pipeline: str, windows: int, seconds: float, python: Path | None
) -> Row:
    """Measure a pipeline. One that is not ours may fail: that is a row."""
    progress(f"{load.name}: {pipeline}")
    try:
        return _measure(load, bootstrap, pipeline, windows, seconds, python)
    except ChildFailed as failure:
        if pipeline in OURS:
            raise
        last = f"{failure}".strip().splitlines()[-1:]
        return {"frames": load.name, "pipeline": f"{pipeline}: {' '.join(last)}"}


def _measure(
    load: Load, bootstrap: str, pipeline: str, windows: int, seconds: float, python: Path | None
) -> Row:
    ours = pipeline in ENCODINGS
    books = ours and load.kind == "book"

    def frames_of(window: Window) -> float:
        return delivered(window) if ours else window["frames"]

    settle_s = SETTLE_S.get(pipeline, 0.5)
    with load.server() as server:
        if books:
            server.hold()
        with _process(load, server, bootstrap, pipeline, python) as process:
            process.wait_connected(CONNECTIONS)
            if books:
                server.synchronise(process, load.symbols)
            taken = [process.window(seconds, 0.0 if k else settle_s) for k in range(windows)]
            if ours and process.stop()["unaccounted"]:
                raise RuntimeError(f"{load.name}, {pipeline}: the ledger doesn't balance")
    window = max(taken, key=lambda one: frames_of(one) / one["cpu_s"])
    return {
        "frames": load.name,
        "pipeline": f"ingestor, {pipeline}" if ours else pipeline,
        "messages_per_cpu_s": round(frames_of(window) / window["cpu_s"]),
        "messages_per_s": round(frames_of(window) / window.seconds),
        "core": round(window.core, 2),
        "rss_mib": round(window.last["rss_kib"] / 1024),
        "broker": STUB,
    }


def _process(
    load: Load, server: LoadServer, bootstrap: str, pipeline: str, python: Path | None
) -> Child:
    if pipeline in ENCODINGS:
        return load.ingestor(server, bootstrap, pipeline)
    if pipeline == "afternoon":
        return load.naive(server, bootstrap)
    assert python is not None
    start = peers.cryptofeed if pipeline == "cryptofeed" else peers.bbo_tap
    return start(server, bootstrap, CONNECTIONS, python)
