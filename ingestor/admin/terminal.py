"""The terminal's view of a run: a live table, or a line a second where there is no terminal.

At the end the ledger is printed: every row that was read, and what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ingestor.telemetry.output import printable
from ingestor.telemetry.status import Phase, Status
from ingestor.telemetry.trouble import losses, wrong_now

INTERVAL_S: Final = 1.0
_FEEDS_SHOWN: Final = 20
_NOTABLE: Final = 0.01
_STYLE_OF_PHASE: Final = {Phase.RUNNING: "green", Phase.PAUSED: "yellow", Phase.DRAINING: "cyan"}


async def show(
    status: Callable[[], Status], console: Console, interval_s: float = INTERVAL_S
) -> None:
    """Show a snapshot each interval until cancelled.

    Args:
        status: Gives the snapshot.
        console: Where to show it.
        interval_s: Seconds between two.
    """
    before = status()
    if not console.is_terminal:
        while True:
            await asyncio.sleep(interval_s)
            now = status()
            console.print(line(now, before), markup=False, highlight=False, soft_wrap=True)
            before = now
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            now = status()
            live.update(picture(now, before), refresh=True)
            before = now
            await asyncio.sleep(interval_s)


def line(now: Status, before: Status) -> str:
    """Return one second's news as one line."""
    return (
        f"{now.phase} {now.uptime_s:.0f} s: {now.connected}/{sum(now.connections.values())} "
        f"connections, {_per_s(now, before, 'frames')} frames/s, "
        f"{_per_s(now, before, 'rows_appended')} ticks/s, lag p50 {_ms(now.lag_p50_ms)} "
        f"p99 {_ms(now.lag_p99_ms)} ms, publish p99 {_ms(now.publish_p99_ms)} ms, "
        f"queue {_queue(now)}" + "".join(f", {text}" for text in _trouble(now))
    )


def picture(now: Status, before: Status) -> RenderableType:
    """Return what the terminal shows."""
    states = ", ".join(f"{count:,} {state}" for state, count in now.connections.items() if count)
    head = Text.assemble(
        (now.phase.value, _STYLE_OF_PHASE.get(now.phase, "bold")),
        f" {now.uptime_s:.0f} s   connections: {states or 'none'}",
    )
    numbers = Table.grid(padding=(0, 2))
    for _ in range(3):
        numbers.add_column(justify="right", no_wrap=True)
        numbers.add_column(no_wrap=True)
    rates = (_per_s(now, before, "frames"), _per_s(now, before, "rows_appended"))
    for row in (
        (rates[0], "frames/s", rates[1], "ticks/s", _ms(now.lag_p99_ms), "ms lag p99"),
        (
            f"{now.frames:,}", "frames", f"{now.acked:,}", "acked",
            _ms(now.publish_p99_ms), "ms publish p99",
        ),
        ("", "", _queue(now), "of the queue", _ms(now.loop_delay_p99_ms), "ms loop delay p99"),
    ):  # fmt: skip
        numbers.add_row(*row)
    trouble = Text(", ".join(_trouble(now)) or "nothing lost", "red" if _trouble(now) else "green")
    return Group(head, numbers, _feed_table(now, before), trouble)


def _feed_table(now: Status, before: Status) -> Table:
    """Return the feeds by name. Where it is narrow, names are cut and numbers stay whole."""
    earlier = {feed.name: feed.rows for feed in before.feeds}
    seconds = (now.time_ns - before.time_ns) / 1e9
    worst_first = sorted(now.feeds, key=lambda feed: -(feed.lag_p99_ms or 0.0))
    shown = sorted(worst_first[:_FEEDS_SHOWN], key=attrgetter("name"))
    columns = {
        "ticks/s": [_rate(feed.rows - earlier.get(feed.name, 0), seconds) for feed in shown],
        "ticks": [f"{feed.rows:,}" for feed in shown],
        "lag p50 ms": [_ms(feed.lag_p50_ms) for feed in shown],
        "p99 ms": [_ms(feed.lag_p99_ms) for feed in shown],
        "venue p99": [_ms(feed.venue_lag_p99_ms) for feed in shown],
    }
    table = Table(box=None, padding=(0, 1))
    table.add_column("feed", min_width=12)
    for title, cells in columns.items():
        width = max(map(len, (title, *cells)))
        table.add_column(title, justify="right", no_wrap=True, min_width=width)
    for feed, *cells in zip(shown, *columns.values(), strict=True):
        # A Text, since rich would read emoji out of `a:m:b`.
        name = Text(printable(feed.name), no_wrap=True, overflow="ellipsis")
        table.add_row(name, *cells)
    if len(now.feeds) > _FEEDS_SHOWN:
        table.add_row(f"... {len(now.feeds) - _FEEDS_SHOWN} more")
    return table


def ledger(status: Status) -> str:
    """Return what became of every frame and row, as text of a few lines."""
    data = status.frames - status.control
    decoded = data - status.rejected - status.duplicate_frames - status.filtered_frames
    by_class = ", ".join(f"{count:,} {name}" for name, count in status.rows.items() if count)
    rows = (
        ("acknowledged", status.acked),
        ("duplicate", status.duplicates),
        ("filtered", status.filtered),
        ("conflated", status.conflated),
        ("shed", status.shed),
        ("dead-lettered", status.dead_lettered),
        ("fenced", status.fenced),
        ("pending", status.pending),
    )
    frames = (
        ("control", status.control),
        ("decoded", decoded),
        ("rejected", status.rejected),
        ("duplicate", status.duplicate_frames),
        ("filtered", status.filtered_frames),
    )
    outcomes = ("acked", "refused", "dropped", "fenced", "pending")
    side = {outcome: status.auxiliary.get(outcome, 0) for outcome in outcomes}
    lines = (
        f"ledger after {status.uptime_s:.1f} s",
        f"  frames {status.frames:>14,} = {_sum(frames)}",
        f"  rows   {status.rows_appended:>14,} = {_sum(rows)}",
        f"         {'of which':>14}   {by_class or 'none'}",
        f"  side   {sum(side.values()):>14,} = {_sum(tuple(side.items()))}",
        f"  declared: {status.gaps:,} gaps, {status.resets:,} books begun anew",
        f"  reconnects: {status.reconnects:,}",
        _verdict(status),
    )
    return "\n".join(lines)


def _verdict(status: Status) -> str:
    if status.unaccounted:
        return f"  UNACCOUNTED: {status.unaccounted:,}"
    undelivered = status.pending + status.shed + status.dead_lettered
    if undelivered:
        return f"  balanced, but {undelivered:,} rows were not delivered"
    return "  balanced"


def _sum(terms: Sequence[tuple[str, int]]) -> str:
    return " + ".join(f"{count:,} {name}" for name, count in terms)


def _trouble(now: Status) -> list[str]:
    """Return what an operator should see at once."""
    return [printable(text) for text in (*wrong_now(now), *losses(now))]


def _queue(now: Status) -> str:
    """Return the fill of the fullest bound, with its name once it is worth a look."""
    fullest, share = now.fullest
    return f"{share:.1%}" + (f" ({fullest})" if share >= _NOTABLE else "")


def _per_s(now: Status, before: Status, name: str) -> str:
    difference: int = getattr(now, name) - getattr(before, name)
    return _rate(difference, (now.time_ns - before.time_ns) / 1e9)


def _rate(difference: int, seconds: float) -> str:
    return f"{difference / seconds:,.0f}" if seconds > 0 else "-"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
