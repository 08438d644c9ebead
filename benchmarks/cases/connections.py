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
What is compared, few connections with many and the highest step with its floor, is connected at the
same time and takes turns in being sent to, since a shared machine changes by the minute: the ratio
is the median of the turns', and a row shows the turn in the middle.
Not measured: a broker's own latency (a stub; see `latency`), TLS (see `memory`).
How to read it: `connections_per_core` is the largest step at 10 messages per second that carried
them (98 %, since load server and ingestor have the machine in common) with a lag p99 within 100 ms
and without a disconnect; nothing is interpolated. Lag counts what waits in the
kernel too. The machine has two cores: the load server and the broker need one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.harness.processes import (
    STUB,
    Child,
    ChildFailed,
    LoadServer,
    Window,
    ingest,
    stub_broker,
)
from benchmarks.harness.results import progress

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
TURNS: Final = 7
TURN_S: Final = 2.0


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
            results.append(_attempted(WIDE, attempt) | {"step": "wide"})
        turns = (1, 1.0) if quick else (TURNS, TURN_S)
        growth, ratio = growth_of(GROWTH_QUICK if quick else GROWTH, *turns, bootstrap)
        if ratio is not None:
            headline["cost_growth_quick" if quick else "cost_growth_1k_to_10k"] = ratio
        least, ratio = over_floor(LADDER_QUICK[-1] if quick else HIGHEST, *turns, bootstrap)
    if highest is not None and "overloaded" not in highest:
        headline["core_at_10000_x_10"] = highest["core"]
        headline["lag_p99_ms_at_10000_x_10"] = highest["lag_p99_ms"]
        if ratio is not None:
            headline["cpu_over_floor_at_10000_x_10"] = ratio
    return {"results": [*results, least, *growth], "headline": headline}


def growth_of(
    steps: tuple[Step, Step], turns: int, seconds: float, bootstrap: str
) -> tuple[list[Row], float | None]:
    """Return a row for few and one for many connections, and what a message costs over many."""
    few, many = steps
    try:
        with _Site.ingesting(few, bootstrap) as one, _Site.ingesting(many, bootstrap) as other:
            rows, ratio = compare(one, other, turns, seconds)
    except ChildFailed as failure:
        return [_overloaded(step, failure) | {"step": "growth"} for step in steps], None
    return [row | {"step": "growth"} for row in rows], ratio


def over_floor(step: Step, turns: int, seconds: float, bootstrap: str) -> tuple[Row, float | None]:
    """Return a row for a client that only parses, and what a message costs over that."""
    try:
        with _Site.parsing(step) as least, _Site.ingesting(step, bootstrap) as whole:
            rows, ratio = compare(least, whole, turns, seconds)
    except ChildFailed as failure:
        return _overloaded(step, failure) | {"step": "floor"}, None
    return rows[0] | {"step": "floor"}, ratio


def compare(base: _Site, other: _Site, turns: int, seconds: float) -> tuple[tuple[Row, Row], float]:
    """Send to two sites by turns.

    Return a row of each, and CPU per message of the other over the base (see `in_the_middle`).
    Raises ChildFailed.
    """
    taken: list[tuple[Row, Row]] = []
    for turn in range(turns):
        progress(f"turn {turn + 1} of {turns}: {base}, {other}")
        order = (other, base) if turn % 2 else (base, other)
        rows = {site: site.row(*site.take(seconds)) for site in order}
        taken.append((rows[base], rows[other]))
    return in_the_middle(taken)


def in_the_middle(turns: Sequence[tuple[Row, Row]]) -> tuple[tuple[Row, Row], float]:
    """Return the turn whose ratio, CPU per message of the second over the first, is the median, and
    that ratio.
    """

    def ratio(turn: tuple[Row, Row]) -> float:
        base_us, other_us = (row["us_per_message"] for row in turn)
        return float(other_us / base_us)

    middle = sorted(turns, key=ratio)[len(turns) // 2]
    return middle, round(ratio(middle), 2)


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
        return _overloaded(step, failure)


def _overloaded(step: Step, failure: ChildFailed) -> Row:
    connections, rate = step
    last = f"{failure}".strip().splitlines()[-1:]
    row = {"step": "ladder", "connections": connections, "rate": rate}
    return {**row, "overloaded": " ".join(last)[:80]}


def held(row: Row) -> bool:
    """Whether a step did what it should: all was sent and read, its lag within the target, nobody
    disconnected.
    """
    return (
        "overloaded" not in row
        and row["messages_per_s"] >= CARRIED * row["connections"] * row["rate"]
        and row["lag_p99_ms"] <= TARGET_P99_MS
        and row["reconnects"] == 0
    )


def connections_per_core(rows: Sequence[Row]) -> int:
    """Return the largest count that a step of the ladder held, 0 for none."""
    return max((row["connections"] for row in rows if held(row)), default=0)


def measure(connections: int, rate: float, seconds: float, bootstrap: str) -> Row:
    """Measure one step of the ladder. Raises ChildFailed when it is too high."""
    with _Site.ingesting((connections, rate), bootstrap) as site:
        taken = site.take(seconds)
        last = site.client.stop()
    if last["lost"] or last["unaccounted"]:
        raise RuntimeError(f"{connections} connections: the ledger doesn't balance: {last}")
    return site.row(*taken)


@dataclass(frozen=True, eq=False)
class _Site:
    """A load server and what is connected to it, an ingestor or a client that only parses the
    frames. Nothing is sent but while it is measured.
    """

    step: Step
    server: LoadServer
    client: Child
    connect_s: float
    before_kib: float
    is_ingestor: bool

    @classmethod
    @contextmanager
    def ingesting(cls, step: Step, bootstrap: str) -> Iterator[_Site]:
        with (
            LoadServer(*step) as server,
            ingest(server, bootstrap, addresses=ADDRESSES, lags=True) as ingestor,
        ):
            before_kib = ingestor.about["rss_kib"]
            server.hold()  # the step is its messages; `storm` has connecting beside them
            connect_s = ingestor.wait_connected(step[0])
            yield cls(step, server, ingestor, connect_s, before_kib, True)

    @classmethod
    @contextmanager
    def parsing(cls, step: Step) -> Iterator[_Site]:
        with LoadServer(*step) as server:
            server.hold()  # it has no limit to connect under: all at once, before anything flows
            given = {"url": server.url, "connections": step[0]}
            with Child("benchmarks.peers.minimum_client", given) as client:
                yield cls(step, server, client, client.wait_connected(step[0]), 0.0, False)

    def __str__(self) -> str:
        connections, rate = self.step
        what = "" if self.is_ingestor else ", which a client only parses"
        return f"{connections:,} connections x {rate:g}/s{what}"

    def take(self, seconds: float) -> tuple[Window, float]:
        """Let messages flow, and measure for so long, with the load server's share of a core.

        Raises ChildFailed.
        """
        self.server.release()
        time.sleep(SETTLE_S)
        before = self.server.statistics()
        window = self.client.window(seconds, settle_s=0.0)
        after = self.server.statistics()
        self.server.hold()
        if not window.lag_ms:
            raise ChildFailed(f"nothing came through within {seconds:g} s")
        return window, server_core(before, after)

    def row(self, window: Window, serving: float) -> Row:
        """serving: the load server's share of a core."""
        connections, rate = self.step
        row: Row = {
            "step": "ladder",
            "connections": connections,
            "rate": rate,
            "connect_s": round(self.connect_s, 1),
            "messages_per_s": round(window.per_s("frames")),
            "core": round(window.core, 3),
            "us_per_message": round(window.us_per("frames"), 2),
            "server_core": serving,
        }
        lags_ms = {
            "lag_p50_ms": window.lag_ms["p50"],
            "lag_p99_ms": window.lag_ms["p99"],
            "lag_p999_ms": window.lag_ms["p99.9"],
        }
        if not self.is_ingestor:
            return row | lags_ms
        grown_kib = window.last["rss_kib"] - self.before_kib
        return {
            **row,
            "kib_per_connection": round(grown_kib / connections, 1),
            **lags_ms,
            "loop_delay_p99_ms": round(window.last["loop_delay_p99_ms"], 1),
            "reconnects": window.last["reconnects"],
            "broker": STUB,
        }


def server_core(before: Row, after: Row) -> float:
    """Return the load server's share of a core between two statistics."""
    cpu_s: float = after["cpu_s"] - before["cpu_s"]
    seconds: float = after["uptime_s"] - before["uptime_s"]
    return round(cpu_s / seconds, 3)
