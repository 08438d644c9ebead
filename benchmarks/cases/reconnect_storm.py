"""All connections cut within a second: how long until they are back, and at what pace.

Measured: 5,000 connections (quick: 1,000) with one message per second each, cut by the venue within
one second; seconds until 99 % are back; the highest number of handshakes that the venue saw in any
second; memory and loop delay while it lasts. The venue allows 100 connects/s from each address, and
the ingestor has two (quick: four).
How to read it: the venue's limit is what sets the time. The limiter saves up one second's worth of
connects, so that the first second may see twice the limit; no other does.
Not measured: a venue that refuses (tests/network has that).
"""

from __future__ import annotations

import time
from typing import Any, Final

from benchmarks.harness.processes import STUB, LoadServer, ingest, stub_broker

TIMEOUT_S: Final = 120.0
LIMIT_PER_ADDRESS: Final = 100


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    connections, addresses = (1_000, 4) if quick else (5_000, 2)
    with (
        stub_broker() as bootstrap,
        LoadServer(connections, 1.0) as server,
        ingest(server, bootstrap, addresses=addresses) as ingestor,
    ):
        connect_s = ingestor.wait_connected(connections)
        time.sleep(1.0)
        before = ingestor.sample()
        accepted = server.statistics()["accepted"]
        started = time.monotonic()
        server.control("cut", "within_s=1")
        time.sleep(1.1)
        lowest = connections
        peaks: list[tuple[float, int]] = [(0.0, accepted)]
        rss_kib = loop_ms = 0.0
        while (elapsed := time.monotonic() - started) < TIMEOUT_S:
            sample = ingestor.sample()
            lowest = min(lowest, sample["connected"])
            rss_kib = max(rss_kib, sample["rss_kib"])
            loop_ms = max(loop_ms, sample["loop_delay_p99_ms"])
            peaks.append((elapsed, server.statistics()["accepted"]))
            if sample["connected"] >= 0.99 * connections:
                break
            time.sleep(0.25)
        last = ingestor.stop()
    row = {
        "connections": connections,
        "connect_limit_per_s": LIMIT_PER_ADDRESS * addresses,
        "first_connect_s": round(connect_s, 1),
        "lowest": lowest,
        "back_s": round(elapsed, 1),
        "connects_per_s_peak": peak(peaks),
        "rss_before_mib": round(before["rss_kib"] / 1024, 1),
        "rss_peak_mib": round(rss_kib / 1024, 1),
        "loop_delay_p99_ms": round(loop_ms, 1),
        "unaccounted": last["unaccounted"],
        "broker": STUB,
    }
    return {
        "results": [row],
        "headline": {
            "storm_back_s_quick" if quick else "storm_back_s": row["back_s"],
            "storm_connects_per_s_peak": row["connects_per_s_peak"],
            "storm_memory_growth_mib": round(row["rss_peak_mib"] - row["rss_before_mib"], 1),
        },
    }


def peak(accepted: list[tuple[float, int]]) -> int:
    """Return the most handshakes in any second, from (time, handshakes so far)."""
    most = 0.0
    for place, (start_s, start) in enumerate(accepted):
        for end_s, end in accepted[place + 1 :]:
            if end_s - start_s >= 1.0:
                most = max(most, (end - start) / (end_s - start_s))
                break
    return round(most)
