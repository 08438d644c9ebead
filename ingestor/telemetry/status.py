"""Describe what the program is doing right now: one snapshot of its counters.

The application fills it about once a second; the terminal display, the status page and the last
line of `ingestor demo --json` show it. Counts run from the start of the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from operator import attrgetter, itemgetter
from typing import Any, Final, Self

EVENTS_MAX: Final = 50


class Phase(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"  # sockets are not read: the sink is behind
    DRAINING = "draining"  # stopping: what was read is being published
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of a health endpoint: the verdict, and what led to it."""

    ok: bool
    checks: dict[str, bool | float | int | str] = field(default_factory=dict)


@dataclass(slots=True)
class FeedStatus:
    """One feed: (venue, market, channel). Lags over the last seconds, None = no data in them.

    lag: socket -> acked by the sink, our clock alone. venue_lag_p99_ms: venue's event time ->
    socket, by the venue's clock; skew_ms is the clock difference that was taken out of it.
    """

    venue: str
    market: str
    channel: str
    rows: int = 0
    lag_p50_ms: float | None = None
    lag_p99_ms: float | None = None
    venue_lag_p99_ms: float | None = None
    skew_ms: float | None = None

    @property
    def name(self) -> str:
        return f"{self.venue}:{self.market}:{self.channel}"


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """Something that befell a connection or stream. time_ns: ns since the epoch."""

    time_ns: int
    text: str
    is_bad: bool = False


@dataclass(slots=True)
class Status:
    """A snapshot of the whole process.

    time_ns: when it was taken, ns since the epoch. connections: by state (`connected`,
    `connecting`, `waiting`, ...). rows: decoded, by class (`trade`, `quote`, `level`, and `mark`
    for GAP and RESET rows). pending: rows read but not yet acked. rejected, duplicate_frames,
    filtered_frames, control: frames. duplicates, filtered: rows left out by a named rule.
    kafka_up: acknowledgements come while rows wait; None where no Kafka is wanted. queue_fill: how
    full each bound of the budget is (`bytes`, `rows`, `age`); 1 = full.
    held: topics and partitions that Kafka refuses now, each with the reason. auxiliary: records of
    the auxiliary topics by what became of them (`acked`, `refused`, `dropped`, `pending`).
    loop_delay_p99_ms: how late the event loop runs its callbacks. loop_busy_ratio: how much of its
    time it computes. unaccounted: the ledger's difference, rows and frames; 0 unless the program is
    wrong.
    venues: connections by venue and state. books: by `valid` and `invalid`. recorder: its state,
    "" where nothing is recorded. workers: the state of each worker process by its number; empty
    where there is one process. events: the newest of what befell connections, oldest first. pids:
    the processes that have an event loop, in the order of the workers.
    """

    time_ns: int = 0
    uptime_s: float = 0.0
    phase: Phase = Phase.STARTING
    connections: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    bytes_received: int = 0
    control: int = 0
    rejected: int = 0
    duplicate_frames: int = 0
    filtered_frames: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    acked: int = 0
    conflated: int = 0
    shed: int = 0
    dead_lettered: int = 0
    fenced: int = 0
    pending: int = 0
    duplicates: int = 0
    filtered: int = 0
    gaps: int = 0
    resets: int = 0
    reconnects: int = 0
    feeds: list[FeedStatus] = field(default_factory=list)
    lag_p50_ms: float | None = None
    lag_p99_ms: float | None = None
    publish_p50_ms: float | None = None
    publish_p99_ms: float | None = None
    queue_bytes: int = 0
    queue_limit_bytes: int = 0
    queue_fill: dict[str, float] = field(default_factory=dict)
    kafka_up: bool | None = None
    held: list[str] = field(default_factory=list)
    auxiliary: dict[str, int] = field(default_factory=dict)
    loop_delay_p99_ms: float | None = None
    loop_busy_ratio: float = 0.0
    unaccounted: int = 0
    notes: list[str] = field(default_factory=list)
    version: str = ""
    venues: dict[str, dict[str, int]] = field(default_factory=dict)
    books: dict[str, int] = field(default_factory=dict)
    recorder: str = ""
    recorder_reason: str = ""
    workers: dict[str, str] = field(default_factory=dict)
    events: list[RecentEvent] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)

    @property
    def connected(self) -> int:
        return self.connections.get("connected", 0)

    @property
    def fullest(self) -> tuple[str, float]:
        """Return the name and the fill of the budget's fullest bound."""
        return max(self.queue_fill.items(), key=itemgetter(1), default=("bytes", 0.0))

    @property
    def rows_appended(self) -> int:
        return sum(self.rows.values())

    def to_json(self) -> dict[str, Any]:
        """Return every field, and the sums, as JSON types."""
        return {
            **asdict(self),
            "connected": self.connected,
            "rows_appended": self.rows_appended,
            "fullest": self.fullest,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what `to_json` was made of. Raises KeyError, TypeError, ValueError."""
        known = {field.name: content[field.name] for field in fields(cls)}
        known["phase"] = Phase(known["phase"])
        known["feeds"] = [FeedStatus(**feed) for feed in known["feeds"]]
        known["events"] = [RecentEvent(**event) for event in known["events"]]
        return cls(**known)

    def summary(self) -> dict[str, Any]:
        """Return the flat result of a run: the last line of `ingestor demo --json`."""
        return {
            "connections": sum(self.connections.values()),
            "seconds": round(self.uptime_s, 3),
            "frames_received": self.frames,
            "frames_control": self.control,
            "frames_rejected": self.rejected,
            "frames_duplicate": self.duplicate_frames,
            "frames_filtered": self.filtered_frames,
            "rows_appended": self.rows_appended,
            "rows_acked": self.acked,
            "rows_conflated": self.conflated,
            "rows_shed": self.shed,
            "rows_dead_lettered": self.dead_lettered,
            "rows_fenced": self.fenced,
            "rows_duplicate": self.duplicates,
            "rows_filtered": self.filtered,
            "rows_pending": self.pending,
            "auxiliary_refused": self.auxiliary.get("refused", 0),
            "auxiliary_dropped": self.auxiliary.get("dropped", 0),
            "gaps": self.gaps,
            "reconnects": self.reconnects,
            "lag_p50_ms": self.lag_p50_ms,
            "lag_p99_ms": self.lag_p99_ms,
            "publish_p99_ms": self.publish_p99_ms,
            "loop_delay_p99_ms": self.loop_delay_p99_ms,
            "loop_busy_ratio": self.loop_busy_ratio,
            "unaccounted": self.unaccounted,
        }


_SUMMED: Final = (
    *("frames", "bytes_received", "control", "rejected", "duplicate_frames", "filtered_frames"),
    *("acked", "conflated", "shed", "dead_lettered", "fenced", "pending"),
    *("duplicates", "filtered"),
    *("gaps", "resets", "reconnects", "queue_bytes", "queue_limit_bytes", "unaccounted"),
)
_LARGEST: Final = (
    *("time_ns", "uptime_s", "lag_p50_ms", "lag_p99_ms", "publish_p50_ms", "publish_p99_ms"),
    *("loop_delay_p99_ms", "loop_busy_ratio"),
)
_WORST_LAST: Final = list(map(Phase, ("running", "paused", "starting", "stopped", "draining")))


def merged(statuses: Iterable[Status]) -> Status:
    """Return one snapshot of several processes that share a plan: counts summed, lags the worst.

    phase: the one furthest from running; draining while any of them drains.
    """
    every = list(statuses)
    if not every:
        return Status()
    whole = Status(phase=max((status.phase for status in every), key=_WORST_LAST.index))
    for name in _SUMMED:
        setattr(whole, name, sum(getattr(status, name) for status in every))
    for name in _LARGEST:
        setattr(whole, name, _largest(getattr(status, name) for status in every))
    for total, parts in (
        (whole.connections, [status.connections for status in every]),
        (whole.rows, [status.rows for status in every]),
        (whole.auxiliary, [status.auxiliary for status in every]),
        (whole.books, [status.books for status in every]),
    ):
        _add_up(total, parts)
    for venue in dict.fromkeys(venue for status in every for venue in status.venues):
        _add_up(
            whole.venues.setdefault(venue, {}), [status.venues.get(venue, {}) for status in every]
        )
    whole.version = every[0].version
    whole.pids = [pid for status in every for pid in status.pids]
    recorders = [(status.recorder, status.recorder_reason) for status in every if status.recorder]
    whole.recorder, whole.recorder_reason = max(
        recorders, key=lambda recorder: recorder[0] == "failed", default=("", "")
    )
    events = sorted(
        (event for status in every for event in status.events), key=attrgetter("time_ns")
    )
    whole.events = events[-EVENTS_MAX:]
    for status in every:
        for name, fill in status.queue_fill.items():
            whole.queue_fill[name] = max(whole.queue_fill.get(name, 0.0), fill)
    known = [status.kafka_up for status in every if status.kafka_up is not None]
    whole.kafka_up = all(known) if known else None
    whole.feeds = _merged_feeds(feed for status in every for feed in status.feeds)
    whole.held = list(dict.fromkeys(text for status in every for text in status.held))
    whole.notes = list(dict.fromkeys(note for status in every for note in status.notes))
    return whole


def _add_up(total: dict[str, int], parts: list[dict[str, int]]) -> None:
    for name in dict.fromkeys(name for part in parts for name in part):
        total[name] = sum(part.get(name, 0) for part in parts)


def _merged_feeds(feeds: Iterable[FeedStatus]) -> list[FeedStatus]:
    by_name: dict[str, list[FeedStatus]] = {}
    for feed in feeds:
        by_name.setdefault(feed.name, []).append(feed)
    return [
        FeedStatus(
            parts[0].venue,
            parts[0].market,
            parts[0].channel,
            rows=sum(part.rows for part in parts),
            lag_p50_ms=_largest(part.lag_p50_ms for part in parts),
            lag_p99_ms=_largest(part.lag_p99_ms for part in parts),
            venue_lag_p99_ms=_largest(part.venue_lag_p99_ms for part in parts),
            skew_ms=max(
                (part.skew_ms for part in parts if part.skew_ms is not None), key=abs, default=None
            ),
        )
        for parts in by_name.values()
    ]


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


READY_SHARE: Final = 0.9  # of the planned connections must be connected
HEARTBEAT_MAX_S: Final = 30.0


def liveness(heartbeat_age_s: float) -> Health:
    """Restart me?

    Only when the loop stands still: never for Kafka's or a venue's sake, since restarting during a
    broker outage multiplies it.
    """
    alive = heartbeat_age_s < HEARTBEAT_MAX_S
    return Health(alive, {"heartbeat_age_s": round(heartbeat_age_s, 3)})


def readiness(status: Status, *, kafka_seen: bool, startup_grace_s: float) -> Health:
    """Judge whether the program is up enough to go on with a rolling upgrade.

    Args:
        status: The newest snapshot.
        kafka_seen: Kafka takes rows; True where no Kafka is wanted. A topic or partition that
            Kafka refuses is named, and is a no: its rows are not delivered.
        startup_grace_s: How long after the start connections may be missing.
    """
    planned = sum(status.connections.values())
    enough = planned > 0 and status.connected >= READY_SHARE * planned
    grace_over = status.uptime_s >= startup_grace_s
    running = status.phase in {Phase.RUNNING, Phase.PAUSED}
    return Health(
        running and kafka_seen and not status.held and (enough or grace_over),
        {
            "phase": status.phase.value,
            "kafka_seen": kafka_seen,
            "queue_share": round(status.fullest[1], 4),
            "queue_fullest": status.fullest[0],
            **({"kafka_held": "; ".join(status.held)} if status.held else {}),
            "connected": status.connected,
            "planned": planned,
            "grace_over": grace_over,
        },
    )


def startup(status: Status) -> Health:
    """Has the start-up ended (in success, or in draining)?"""
    return Health(status.phase is not Phase.STARTING, {"phase": status.phase.value})
