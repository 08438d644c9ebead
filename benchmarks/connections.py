"""How many live connections one core carries, and at what latency.

Measured: a ladder of connection counts with 10 messages per second on each, one stream a
connection, binary encoding, default linger. For each step: connect time under the venue's limit
(100/s for each of ten source addresses), CPU of the ingestor and of the load server (two processes;
the latter must not be the bottleneck), resident memory per connection with all that hangs on it,
lag from the load server's send time to the broker's ack, loop delay. A step that misses is tried
once more; if it misses again, the ladder ends there. Then 15,000 connections with one message per
second, and the same total rate over few and over many connections: what a connection costs beyond
its messages.
The step `highest` is the ladder's last, tried even if the ladder ended before it. The step `floor`
is a picows client that only parses (see `floor`), with as many messages: what load server, kernel
and parse alone cost this machine. Its lag ends at the parse.
Not measured: a broker's own latency (a stub; see `latency`), TLS (see `memory`).
How to read it: `connections_per_core` is the largest step at 10 messages per second that carried
them (98 %, since load server and ingestor have the machine in common) with a lag p99 within 100 ms
and without a disconnect; nothing is interpolated. Lag counts what waits in the
kernel too. The machine has two cores: the load server and the broker need one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from benchmarks.common import progress
from benchmarks.processes import STUB, Child, ChildFailed, LoadServer, ingest, stub_broker

Row = dict[str, Any]
Step = tuple[int, float]  # connections, messages per second on each

RATE: Final = 10.0
LADDER: Final = tuple((count, RATE) for count in (100, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000))
LADDER_QUICK: Final = ((1_000, RATE),)
WIDE: Final = (15_000, 1.0)
HIGHEST: Final = LADDER[-1]
GROWTH: Final = ((1_000, 20.0), (10_000, 2.0))
GROWTH_QUICK: Final = ((100, 100.0), LADDER_QUICK[0])
TARGET_P99_MS: Final = 100.0
CARRIED: Final = 0.98  # of the messages asked for, at least
ADDRESSES: Final = 10
SETTLE_S: Final = 1.0


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    seconds = 1.5 if quick else 6.0
    with stub_broker() as bootstrap:

        def attempt(step: Step) -> Row:
            return measure(*step, seconds, bootstrap)

        results = climb(LADDER_QUICK if quick else LADDER, attempt)
        name = "connections_held_quick" if quick else "connections_per_core"
        headline: dict[str, Any] = {name: connections_per_core(results)}
        done = {(row["connections"], row["rate"]): row for row in results if held(row)}
        highest = None
        if not quick:
            highest = done.get(HIGHEST) or _attempted(HIGHEST, attempt) | {"step": "highest"}
            if HIGHEST not in done:
                results.append(highest)
        growth = [
            (done.get(step) or _attempted(step, attempt)) | {"step": "growth"}
            for step in (GROWTH_QUICK if quick else GROWTH)
        ]
        if not quick:
            results.append(_attempted(WIDE, attempt) | {"step": "wide"})
    floor_step = LADDER_QUICK[-1] if quick else HIGHEST
    least = _attempted(floor_step, lambda step: floor(*step, seconds)) | {"step": "floor"}
    results.append(least)
    if highest is not None and "overloaded" not in highest:
        headline["core_at_10000_x_10"] = highest["core"]
        headline["lag_p99_ms_at_10000_x_10"] = highest["lag_p99_ms"]
        if "overloaded" not in least:
            ratio = highest["us_per_message"] / least["us_per_message"]
            headline["cpu_over_floor_at_10000_x_10"] = round(ratio, 2)
    if not any("overloaded" in row for row in growth):
        few, many = (row["us_per_message"] for row in growth)
        headline["cost_growth_quick" if quick else "cost_growth_1k_to_10k"] = round(many / few, 2)
    return {"results": results + growth, "headline": headline}


def climb(ladder: Iterable[Step], attempt: Callable[[Step], Row]) -> list[Row]:
    """Return a row for each attempt, up to the first step that misses twice."""
    rows: list[Row] = []
    for step in ladder:
        rows.append(_attempted(step, attempt))
        if not held(rows[-1]):
            rows.append(_attempted(step, attempt))
            if not held(rows[-1]):
                break
    return rows


def _attempted(step: Step, attempt: Callable[[Step], Row]) -> Row:
    """Measure a step that may be too high for this machine."""
    connections, rate = step
    progress(f"{connections:,} connections x {rate:g}/s")
    try:
        return attempt(step)
    except ChildFailed as failure:
        last = f"{failure}".strip().splitlines()[-1:]
        row = {"step": "ladder", "connections": connections, "rate": rate}
        return {**row, "overloaded": " ".join(last)[:80]}


def held(row: Row) -> bool:
    """Whether a step did what it should: all was sent and read, its lag within the target, nobody
    disconnected."""
    return (
        "overloaded" not in row
        and row["messages_per_s"] >= CARRIED * row["connections"] * row["rate"]
        and row["lag_p99_ms"] <= TARGET_P99_MS
        and row["reconnects"] == 0
    )


def connections_per_core(rows: Sequence[Row]) -> int:
    """Return the largest count that a step of the ladder held, 0 for none."""
    return max((row["connections"] for row in rows if held(row)), default=0)


def floor(connections: int, rate: float, seconds: float) -> Row:
    """Measure a client that parses the same frames and does nothing with them."""
    progress("which a client only parses")
    with LoadServer(connections, rate) as server:
        server.hold()  # it has no limit to connect under: all at once, before anything flows
        given = {"url": server.url, "connections": connections}
        with Child("benchmarks.floor_client", given) as client:
            connect_s = client.wait_connected(connections)
            server.release()
            time.sleep(SETTLE_S)
            served = server.statistics()
            window = client.window(seconds, settle_s=0.0)
            serving = server.statistics()
    return {
        "step": "floor",
        "connections": connections,
        "rate": rate,
        "connect_s": round(connect_s, 1),
        "messages_per_s": round(window.per_s("frames")),
        "core": round(window.core, 3),
        "us_per_message": round(window.us_per("frames"), 2),
        "server_core": server_core(served, serving),
        "lag_p50_ms": window.lag_ms["p50"],
        "lag_p99_ms": window.lag_ms["p99"],
        "lag_p999_ms": window.lag_ms["p99.9"],
    }


def measure(connections: int, rate: float, seconds: float, bootstrap: str) -> Row:
    """Measure one step of the ladder. Raises ChildFailed when it is too high."""
    with (
        LoadServer(connections, rate) as server,
        ingest(server, bootstrap, addresses=ADDRESSES, lags=True) as ingestor,
    ):
        before_kib = ingestor.about["rss_kib"]
        server.hold()  # the step is its messages; `storm` has connecting beside them
        connect_s = ingestor.wait_connected(connections)
        server.release()
        time.sleep(SETTLE_S)
        served = server.statistics()
        window = ingestor.window(seconds, settle_s=0.0)
        serving = server.statistics()
        last = ingestor.stop()
    if last["lost"] or last["unaccounted"]:
        raise RuntimeError(f"{connections} connections: the ledger doesn't balance: {last}")
    if not window.lag_ms:
        raise ChildFailed(f"nothing was acked within {seconds:g} s")
    return {
        "step": "ladder",
        "connections": connections,
        "rate": rate,
        "connect_s": round(connect_s, 1),
        "messages_per_s": round(window.per_s("frames")),
        "core": round(window.core, 3),
        "us_per_message": round(window.us_per("frames"), 2),
        "server_core": server_core(served, serving),
        "kib_per_connection": round((window.last["rss_kib"] - before_kib) / connections, 1),
        "lag_p50_ms": window.lag_ms["p50"],
        "lag_p99_ms": window.lag_ms["p99"],
        "lag_p999_ms": window.lag_ms["p99.9"],
        "loop_delay_p99_ms": round(window.last["loop_delay_p99_ms"], 1),
        "reconnects": window.last["reconnects"],
        "broker": STUB,
    }


def server_core(before: Row, after: Row) -> float:
    """Return the load server's share of a core between two statistics."""
    cpu_s: float = after["cpu_s"] - before["cpu_s"]
    seconds: float = after["uptime_s"] - before["uptime_s"]
    return round(cpu_s / seconds, 3)
