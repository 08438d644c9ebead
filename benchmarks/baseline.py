"""The ingestor against the pipeline that a user would write in an afternoon.

Measured: messages per CPU-second (and per wall second) of both, with the same frames from the same
load server into the same broker, in turns in the same run. Both hold ten saturated connections.
benchmarks/afternoon.py is the pipeline: websockets `recv`, orjson, exact Decimal fields, orjson,
aiokafka `send` per tick; it does less (no books, ledger, reconnects, metrics).
Not measured here: cryptofeed and bbo-tap; rows say why.
How to read it: the ratio. Of each process the best turn counts.
"""

from __future__ import annotations

from typing import Any

from benchmarks.processes import STUB, stub_broker
from benchmarks.saturated import BOOK_20, CONNECTIONS, TRADES, Load, delivered

PIPELINES = ("afternoon", "json", "binary")


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    turns, seconds = (1, 1.0) if quick else (2, 4.0)
    results: list[dict[str, Any]] = []
    ratios: dict[tuple[Load, str], float] = {}
    with stub_broker() as bootstrap:
        for load in (TRADES, BOOK_20):
            best: dict[str, dict[str, Any]] = {}
            for _ in range(turns):
                for pipeline in PIPELINES:
                    row = _measure(load, bootstrap, pipeline, seconds)
                    held = best.setdefault(pipeline, row)
                    if row["messages_per_cpu_s"] > held["messages_per_cpu_s"]:
                        best[pipeline] = row
            for pipeline, row in best.items():
                for unit in ("cpu_s", "s"):
                    base = best["afternoon"][f"messages_per_{unit}"]
                    row[f"ratio_per_{unit}"] = round(row[f"messages_per_{unit}"] / base, 2)
                ratios[load, pipeline] = row["ratio_per_cpu_s"]
            results += best.values()
    results += [
        {
            "frames": "not run: cryptofeed",
            "pipeline": "installing it was not tried",
        },
        {"frames": "not run: bbo-tap", "pipeline": "installing it was not tried"},
    ]
    return {
        "results": results,
        "headline": {
            "baseline_ratio_trades_json": ratios[TRADES, "json"],
            "baseline_ratio_trades_binary": ratios[TRADES, "binary"],
            "baseline_ratio_books_json": ratios[BOOK_20, "json"],
            "baseline_ratio_books": ratios[BOOK_20, "binary"],
        },
    }


def _measure(load: Load, bootstrap: str, pipeline: str, seconds: float) -> dict[str, Any]:
    with load.server() as server:
        if pipeline == "afternoon":
            process = load.afternoon(server, bootstrap)
        else:
            process = load.ingestor(server, bootstrap, pipeline)
        with process:
            process.wait_connected(CONNECTIONS)
            if pipeline != "afternoon":
                process.wait_flowing()
            window = process.window(seconds)
            process.stop()
    frames = window["frames"] if pipeline == "afternoon" else delivered(window)
    return {
        "frames": load.name,
        "pipeline": pipeline if pipeline == "afternoon" else f"ingestor, {pipeline}",
        "messages_per_cpu_s": round(frames / window["cpu_s"]),
        "messages_per_s": round(frames / window.seconds),
        "core": round(window.core, 2),
        "rss_mib": round(window.last["rss_kib"] / 1024),
        "broker": STUB,
    }
