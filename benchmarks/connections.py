"""How many live connections one core carries, and at what latency.

Measured: a ladder of connection counts with 10 messages per second on each, one stream a
connection, binary encoding, default linger. For each step: connect time under the venue's limit
(100/s for each of ten source addresses), CPU of the ingestor and of the load server (two processes;
the latter must not be the bottleneck), resident memory per connection with all that hangs on it,
lag from the load server's send time to the broker's ack, loop delay. Then the same total rate over
few and over many connections: what a connection costs beyond its messages.
The step `floor` is a picows client that only parses (see `floor`), at 10,000 connections.
Not measured: a broker's own latency (a stub; see `latency`), TLS (see `memory`).
How to read it: `connections_per_core` is the largest step whose lag p99 stays within 100 ms without
a disconnect, at no more than 0.9 of a core. Lag counts what waits in the kernel too.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks.processes import STUB, Child, ChildFailed, LoadServer, ingest, stub_broker

LADDER: Final = ((100, 10.0), (1_000, 10.0), (5_000, 10.0), (10_000, 10.0), (15_000, 1.0))
LADDER_QUICK: Final = ((1_000, 10.0),)
GROWTH: Final = ((1_000, 20.0), (10_000, 2.0))
GROWTH_QUICK: Final = ((200, 20.0), (1_000, 4.0))
TARGET_P99_MS: Final = 100.0
CORE_MAX: Final = 0.9
ADDRESSES: Final = 10


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    seconds = 1.5 if quick else 10.0
    ladder = LADDER_QUICK if quick else LADDER
    results = [_step(count, rate, seconds) for count, rate in ladder]
    held = [
        row["connections"]
        for row in results
        if row["rate"] == 10.0
        and "overloaded" not in row
        and row["lag_p99_ms"] <= TARGET_P99_MS
        and row["core"] <= CORE_MAX
        and not row["reconnects"]
    ]
    results.append(floor(*max(step for step in ladder if step[1] == 10.0), seconds / 2))
    costs = []
    for count, rate in GROWTH_QUICK if quick else GROWTH:
        turns = [measure(count, rate, seconds / 2) for _ in range(1 if quick else 2)]
        best = min(turns, key=lambda row: float(row["us_per_message"]))
        results.append({**best, "step": "growth"})
        costs.append(best["us_per_message"])
    name = "cost_growth_quick" if quick else "cost_growth_1k_to_10k"
    return {
        "results": results,
        "headline": {
            "connections_per_core": max(held, default=0),
            name: round(costs[1] / costs[0], 2),
        },
    }


def _step(connections: int, rate: float, seconds: float) -> dict[str, Any]:
    """Measure a step that may be too high."""
    try:
        return measure(connections, rate, seconds)
    except ChildFailed as failure:
        row = {"step": "ladder", "connections": connections, "rate": rate}
        return {**row, "overloaded": f"{failure}"[:80]}


def floor(connections: int, rate: float, seconds: float) -> dict[str, Any]:
    """Measure a client that parses the same frames and does nothing with them."""
    with LoadServer(connections, rate) as server:
        given = {"url": server.url, "connections": connections}
        with Child("benchmarks.floor_client", given) as client:
            client.wait_connected(connections)
            window = client.window(seconds, settle_s=2.0)
            client.stop()
    return {
        "step": "floor",
        "connections": connections,
        "rate": rate,
        "messages_per_s": round(window.per_s("frames")),
        "core": round(window.core, 3),
        "us_per_message": round(window.us_per("frames"), 2),
    }


def measure(connections: int, rate: float, seconds: float) -> dict[str, Any]:
    """Measure one step of the ladder."""
    with (
        stub_broker() as bootstrap,
        LoadServer(connections, rate) as server,
        ingest(server, bootstrap, addresses=ADDRESSES, lags=True) as ingestor,
    ):
        before_kib = ingestor.about["rss_kib"]
        connect_s = ingestor.wait_connected(connections)
        ingestor.window(1.0)  # takes what the start left behind out of the lags
        served = server.statistics()
        window = ingestor.window(seconds, settle_s=0.0)
        serving = server.statistics()
        last = ingestor.stop()
    if last["lost"] or last["unaccounted"]:
        raise RuntimeError(f"{connections} connections: the ledger doesn't balance: {last}")
    server_s = serving["uptime_s"] - served["uptime_s"]
    return {
        "step": "ladder",
        "connections": connections,
        "rate": rate,
        "connect_s": round(connect_s, 1),
        "messages_per_s": round(window.per_s("frames")),
        "core": round(window.core, 3),
        "us_per_message": round(window.us_per("frames"), 2),
        "server_core": round((serving["cpu_s"] - served["cpu_s"]) / server_s, 3),
        "kib_per_connection": round((window.last["rss_kib"] - before_kib) / connections, 1),
        "lag_p50_ms": window.lag_ms["p50"],
        "lag_p99_ms": window.lag_ms["p99"],
        "lag_p999_ms": window.lag_ms["p99.9"],
        "loop_delay_p99_ms": round(window.last["loop_delay_p99_ms"], 1),
        "reconnects": window.last["reconnects"],
        "broker": STUB,
    }
