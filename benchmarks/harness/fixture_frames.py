"""Frames of every venue's trades and books, as the fixtures of its documents have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.frames import Connections, receive
from ingestor.adapter import FeedAdapter
from ingestor.columns.sealed import Sealed
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Flag
from tests.feeds.fixtures import FORMS, Fixture, load, markets

_TS_RECV = 1_790_000_000_000_000_000
_PACKED = {"gzip": "gzip", "deflate": "deflate", "hex": "binary"}
CLASSES = (RowClass.TRADE, RowClass.LEVEL)


@dataclass(frozen=True, slots=True)
class _Place:
    venue: str
    market: str


@dataclass(frozen=True, slots=True)
class FixtureFrames:
    """Frames of one market and class that give the same rows each time.

    setup: frames that a connection has first. rows: trades or levels of all frames. packed: how
    they are packed, "" for text.
    """

    adapter: type[FeedAdapter]
    market: str
    table: InstrumentTable
    row_class: RowClass
    setup: list[bytes]
    frames: list[bytes]
    rows: int
    packed: str

    @property
    def venue(self) -> str:
        return self.adapter.venue

    @property
    def name(self) -> str:
        kind = "trade" if self.row_class is RowClass.TRADE else "book"
        return f"{self.adapter.venue} {self.market} {kind}"


def fixture_frames() -> Iterator[FixtureFrames]:
    """Yield the trades and book updates of every market that has some."""
    for adapter, market in markets():
        if adapter.venue == "simulated":
            continue
        fixture = load(adapter, market)
        for row_class in CLASSES:
            found = _of_class(fixture, row_class)
            if found is not None:
                yield found


def _of_class(fixture: Fixture, row_class: RowClass) -> FixtureFrames | None:
    kind = "trade" if row_class is RowClass.TRADE else "update"
    steps = [step for step in fixture.steps if step.verb == "frame"]
    some = [
        step
        for step in steps
        if step.outcome == "expect" and {row["kind"] for row in step.wanted} == {kind}
    ]
    packed = next((step.form for step in steps if step.form), "")
    # A text stands for what the venue sends packed.
    payloads = [FORMS[step.form or packed](step.value) for step in some]
    setup = [step.payload for step in steps if step.is_setup]
    if row_class is RowClass.LEVEL:  # levels that are named by ids need their image before them
        setup += payloads
    table = fixture.table()
    connections = Connections(_Place(fixture.adapter.venue, fixture.market), table)
    session = connections.open()

    def received(frames: Sequence[bytes]) -> Sealed:
        receive(connections.frame_queue, session, frames, _TS_RECV)
        return connections.buffer.seal(table)

    received(setup)
    found: dict[int, list[tuple[bytes, int]]] = {}
    for payload in payloads:
        received([payload])
        taken = _taken(connections)
        sealed = received([payload])  # what it gives every time
        count = _rows(sealed, row_class)
        if count:
            is_image = bool((sealed.updates["flags"] & Flag.SNAPSHOT).any())
            rank = 2 * (_taken(connections) > taken) + (not is_image)
            found.setdefault(rank, []).append((payload, count))
    if not found:
        return None
    # The frequent ones: those that have a shape; and images only where each message is one.
    best = found[max(found)]
    return FixtureFrames(
        *(fixture.adapter, fixture.market, table, row_class),
        *(setup, [payload for payload, _ in best], sum(count for _, count in best)),
        _PACKED.get(packed, ""),
    )


def _taken(connections: Connections) -> int:
    """Return how many frames the compiled library took so far."""
    return sum(connections.frame_queue.counts.by_shape().values())


def _rows(sealed: Sealed, row_class: RowClass) -> int:
    """Return how many rows of the class there are; 0 if there is anything else."""
    if sealed.rejected or sealed.holes or len(sealed.quotes) or sealed.others:
        return 0
    if row_class is RowClass.TRADE:
        return 0 if len(sealed.updates) else len(sealed.trades)
    levels = sealed.updates["bids"].astype(np.int64) + sealed.updates["asks"]
    return 0 if len(sealed.trades) else int(levels.sum())
