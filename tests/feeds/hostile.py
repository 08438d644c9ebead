"""Frames of the fixtures with one field at a time replaced by what does not belong there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from ingestor.adapter import FeedAdapter
from ingestor.decode.frame_queue import FrameQueue
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import UPDATE, Kind
from ingestor.pipeline.pipeline import Pipeline
from ingestor.sinks.digest import AuditSink
from tests.feeds.fixtures import Fixture, load
from tests.feeds.harness import TS_RECV, Connection

_MARK = "\x01MARK\x01"
_NUMBER = re.compile(rb'"(sequence_num|message_id)":\d{1,4}(?=[,}])')  # as good frames have it
_QUOTED_MARK = json.dumps(_MARK)

# Tokens of JSON, as they stand in a frame.
HOSTILE = (
    *("9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616"),
    *("-1", "0", "-0", "1.0", "1.5", "1e2", "1e400", "-1e400", "0.000000000000000001"),
    *("123456789012345678901234567890", "90071992547.40993001"),
    *('"9223372036854775808"', '"18446744073709551616"', '"-1"', '"0"', '"0.0"', '"-0.0"'),
    *('"1e400"', '"1e2"', '"0.000000000000000001"', '"1_0"', '" 1"', '"1 "', '"\u0661"', '"NaN"'),
    *('""', '"x"', '"\\ud800"', '"\\u0000"', "null", "true", "{}", "[]", "[[]]", '["1"]'),
    *('[["1"]]', '[["1","2","3"]]', '["1","2","3","4","5"]', '{"a":1}', "NaN", "01"),
)
MISSING = ""  # takes the field out
DOUBLED = "2"  # writes the field twice, a 0 first: the last counts


@dataclass(frozen=True)
class Mutant:
    """A frame with one field replaced."""

    payload: bytes
    field: str
    token: str


def mutants(frame: bytes) -> Iterator[Mutant]:
    """Yield the frame with each field replaced by each token, missing, and doubled."""
    message = json.loads(frame)
    for path in _paths(message):
        name = ".".join(map(str, path))
        marked = json.dumps(_replaced(message, path, _MARK), separators=(",", ":"))
        for token in HOSTILE:
            payload = marked.replace(_QUOTED_MARK, token).encode("utf-8", "surrogatepass")
            yield Mutant(payload, name, token)
        if isinstance(path[-1], str):
            key = json.dumps(path[-1]) + ":"
            without = json.dumps(_replaced(message, path, None, remove=True), separators=(",", ":"))
            yield Mutant(without.encode(), name, MISSING)
            value = json.dumps(_at(message, path), separators=(",", ":"))
            twice = marked.replace(key + _QUOTED_MARK, f"{key}0,{key}{value}")
            yield Mutant(twice.encode(), name, DOUBLED)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in inner:
        yield (*path, key)
        if isinstance(entry, (dict, list)):
            yield from _paths(entry, (*path, key))


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _replaced(
    message: Any, path: tuple[str | int, ...], value: Any, *, remove: bool = False
) -> Any:
    changed = json.loads(json.dumps(message))
    holder = _at(changed, path[:-1])
    if remove:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return changed


@cache
def good_frames(adapter: type[FeedAdapter], market: str) -> tuple[bytes, ...]:
    """The frames of a market's fixture that are fine, and no acknowledgments."""
    return tuple(
        step.payload
        for step in load(adapter, market).steps
        if step.verb == "frame"
        and step.outcome == "expect"
        and step.is_json
        and all(row["kind"] != "hole" for row in step.wanted)
    )


@dataclass
class Outcome:
    """What frames led to. rows: all classes, without the numbers of the frames."""

    rows: list[Any]
    refused: set[int]  # by identity
    bugs: list[Exception]
    unaccounted: int


def received(fixture: Fixture, frames: list[bytes]) -> Outcome:
    """Receive frames on one connection, one by one, and seal them together."""
    connection = Connection(fixture)
    for frame in frames:
        connection.session.receive(frame, TS_RECV)
    sealed = connection.buffer.seal(connection.table)
    for rejected in sealed.rejected:
        if rejected.at_sealing:
            rejected.source.count_refused(rejected.reason)
    connection.counts.seal()
    fields = [name for name in UPDATE.names or () if name not in {"frame", "spare"}]
    columns = (sealed.trades, sealed.quotes, sealed.updates[fields], sealed.prices, sealed.sizes)
    others = [part.rows.tolist() for part in sealed.others.values() if len(part.rows)]
    return Outcome(
        [*(column.tolist() for column in columns), *others],
        {id(rejected.payload) for rejected in sealed.rejected},
        sealed.bugs,
        connection.counts.unaccounted,
    )


def numbered(frames: list[bytes]) -> list[bytes]:
    """Return frames that have an identity, those of a connection that counts them in order."""
    return [
        _NUMBER.sub(rb'"\1":%d' % number, frame, count=1)
        if _NUMBER.search(frame)
        else bytes(bytearray(frame))
        for number, frame in enumerate(frames)
    ]


@dataclass
class Split:
    """What frames led to that came in groups: rows by class, refusals in order, and the digest.

    GAPs are in the digest alone, which takes those of one cause in a row as one.
    """

    rows: dict[RowClass, list[tuple[Any, ...]]]
    rejected: list[tuple[bytes, str]]
    digest: str
    counts: tuple[int, ...]


def in_groups(fixture: Fixture, frames: list[bytes], ends: set[int], seals: set[int]) -> Split:
    """Receive frames; decode those that came before each of `ends`, and flush at each of `seals`.

    Args:
        fixture: of whose market they are.
        frames: in order of arrival.
        ends: numbers of frames before which everything that waits is decoded together.
        seals: numbers of frames before which the columns are sealed.
    """
    table = fixture.table()
    adapter, market = fixture.adapter, fixture.market
    pipeline = Pipeline(table, lambda _: adapter.markets[market].book)
    queue: FrameQueue = pipeline.frame_queues.of(adapter, market)
    connection = Connection(fixture, table, queue.buffer, queue.counts)
    found = Split({row_class: [] for row_class in ROW_CLASSES}, [], "", ())
    sink = AuditSink()

    def flush() -> None:
        result = pipeline.flush(TS_RECV)
        for batch in result.batches:
            sink.submit(batch, TS_RECV)
            is_mark = batch.rows["kind"] == Kind.GAP
            found.rows[batch.row_class] += batch.rows[~is_mark].tolist()
        found.rejected += sorted((one.payload, one.reason) for one in result.rejected)

    for number, frame in enumerate(frames):
        if number in ends:
            queue.decode()
        if number in seals:
            flush()
        queue.arrive((connection.session, frame, TS_RECV + number))
    flush()
    counts = queue.counts
    found.rejected.sort()
    found.digest = sink.digest.hexdigest()
    found.counts = (counts.frames, counts.decoded, counts.rejected, counts.duplicate)
    assert counts.unaccounted == pipeline.ledger().unaccounted == 0
    return found
