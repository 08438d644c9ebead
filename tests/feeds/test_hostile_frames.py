"""Frames that no venue should send: each costs itself alone and goes to quarantine, whole.

Every hostile frame is received between good ones by a real Session: nothing may be raised, the good
frames must give exactly the rows that they give without it, and a refused frame must be in
`rejected` with its bytes and a documented reason.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import tracemalloc
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import read_list
from ingestor.adapter.shapes import shapes_of
from ingestor.columns.sealed import Rejected
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.frame_queue import FrameQueue
from ingestor.model.errors import (
    BadNumber,
    DecodeError,
    UnknownInstrument,
    UnknownMessage,
    VenueError,
)
from tests.effort import IS_LONG, tried
from tests.feeds.fixtures import Fixture, Row, load, markets
from tests.feeds.harness import TS_RECV, Connection, rows_of

AdapterType = type[FeedAdapter]
MARKETS = [pytest.param(*pair, id=f"{pair[0].venue}_{pair[1]}") for pair in markets()]
REASONS = {kind.reason for kind in (DecodeError, UnknownMessage, UnknownInstrument, BadNumber)}
BOUNDED = tried(20, 400)

each_market = pytest.mark.parametrize(("adapter", "market"), MARKETS)


@cache
def good_frames(adapter: AdapterType, market: str) -> tuple[bytes, ...]:
    """The frames of a market's fixture that give rows and no hole."""
    fixture = load(adapter, market)
    return tuple(
        step.payload
        for step in fixture.steps
        if step.verb == "frame"
        and step.outcome == "expect"
        and all(row["kind"] != "hole" for row in step.wanted)
    )


@cache
def json_frames(adapter: AdapterType, market: str) -> tuple[bytes, ...]:
    """Those of them that come as JSON: a member at a time can be replaced."""
    return tuple(one for one in good_frames(adapter, market) if one[:1] in {b"{", b"["})


def check(adapter: AdapterType, market: str, hostile: list[bytes]) -> int:
    """Receive hostile frames between good ones; return how many of the hostile were refused.

    What is refused must leave no trace but itself: the rows are those of a connection that never
    got it. Two exceptions follow from what a frame says, and there rows may be missing but none may
    differ: the sequence number of a frame refused for a number in it is used up, so the same number
    again is a duplicate; and where quotes are put together from one-sided changes, a side that
    can't be read stays unreadable until it changes.
    """
    fixture = load(adapter, market)
    good = cycle(good_frames(adapter, market))
    frames = [next(good)]
    for frame in hostile:
        frames += [frame, next(good)]
    frames = [bytes(bytearray(frame)) for frame in frames]  # so that each has an identity
    counts, rows, rejected = receive_all(fixture, frames)
    assert {one.reason for one in rejected} <= REASONS
    assert all(one.detail for one in rejected)
    refused = {id(one.payload) for one in rejected}
    assert len(refused) == len(rejected)
    assert counts.frames == len(frames)
    assert counts.unaccounted == 0
    kept = [frame for frame in frames if id(frame) not in refused]
    assert len(kept) == len(frames) - len(refused), "quarantine holds the very bytes"

    unreadable = [one for one in rejected if any(one.payload is frame for frame in frames[::2])]
    assert {one.reason for one in unreadable} <= {BadNumber.reason}, "a good frame was refused"
    wanted_counts, wanted, none = receive_all(fixture, [*kept, *(u.payload for u in unreadable)])
    assert not none, "a good frame was refused for something other than its connection's past"
    assert wanted
    if not unreadable and counts.duplicate == wanted_counts.duplicate:
        assert rows == wanted
    else:
        assert all(row in wanted for row in rows)
    return len(refused) - len(unreadable)


def receive_all(
    fixture: Fixture, frames: list[bytes]
) -> tuple[FrameCounts, list[Row], list[Rejected]]:
    connection = Connection(fixture)
    for frame in frames:
        connection.session.receive(frame, TS_RECV)
    sealed = connection.buffer.seal(connection.table)
    rows = [row for row in rows_of(sealed, connection.table) if row["kind"] != "hole"]
    return connection.counts, rows, sealed.rejected


@pytest.mark.rows("D4")
@each_market
def test_truncated_frames(adapter: AdapterType, market: str) -> None:
    for frame in good_frames(adapter, market):
        cuts = [frame[:length] for length in range(len(frame))]
        assert check(adapter, market, cuts) == len(cuts), "no prefix of a JSON object is JSON"


@pytest.mark.rows("D5")
@each_market
def test_bombs(adapter: AdapterType, market: str) -> None:
    """What must not be read as anything. Digits and depth as RELIABILITY's row D5 has them."""
    nested = [b"[" * depth + b"]" * depth for depth in (1_023, 1_025, 100_000)]
    nested += [b'{"data":' * depth + b"1" + b"}" * depth for depth in (1_023, 1_025, 100_000)]
    texts = [
        b"",
        b" ",
        b"\x00",
        b"null",
        b"true",
        b"1",
        b'"text"',
        b"[]",
        b"[1]",
        b"{}",
        b'{"data":null}',
        b'{"data":[]}',
        b'{"data":[null]}',
        b'{"data":{}}',
        b'{"stream":1,"data":{"e":["trade"]}}',
        b'{"channel":{}}',
        b'{"channel":null,"data":1}',
        b'{"topic":[],"data":{}}',
        b'{"arg":null,"data":[{}]}',
        b'{"event":null}',
        b"NaN",
        b"Infinity",
        b"1e400",
        b"1" * 100_000,
        b'{"a":' + b"1" * 100_000 + b"}",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b"\x1f\x8b\x08\x00",
        b'{"' + b'":1,"'.join(b"k%d" % n for n in range(20_000)) + b'":1}',
    ]
    hostile = nested + texts
    assert check(adapter, market, hostile) == len(hostile)


@pytest.mark.rows("D5")
@each_market
def test_bombs_inside_good_frames(adapter: AdapterType, market: str) -> None:
    """Every leaf of every good frame replaced by what doesn't belong there."""
    bombs: list[Any] = [None, True, [], {}, "", "x", "\x00", "NaN", "1_000", "1e999", -1, 10**30]
    for frame in json_frames(adapter, market):
        hostile = [
            mutated.encode() for bomb in bombs for mutated in replaced(json.loads(frame), bomb)
        ]
        check(adapter, market, hostile)


@pytest.mark.rows("D5")
@pytest.mark.parametrize(
    ("adapter", "market"),
    [
        pytest.param(adapter, market, id=f"{adapter.venue}_{market}")
        for adapter, market in markets()
        if shapes_of(adapter, market)
    ],
)
def test_bombs_among_frames_that_are_decoded_together(adapter: AdapterType, market: str) -> None:
    """One at a time, between good frames of each kind: what comes of all is what comes of them one
    by one."""
    fixture = load(adapter, market)
    good = json_frames(adapter, market)
    bombs: list[Any] = [None, {}, "1e5", -1]
    draw = random.Random(f"{adapter.venue} {market}")
    for frame in good:
        alone, together = Connection(fixture), Connection(fixture)
        symbols = together.table.symbols(adapter.venue, market)
        frame_queue = FrameQueue(adapter, market, symbols, together.buffer)
        frame_queue.counts = together.counts
        for bomb in bombs:
            for mutated in replaced(json.loads(frame), bomb):
                if not IS_LONG and draw.random() > 0.15:
                    continue
                for payload in (*good, frame, mutated.replace(" ", "").encode(), frame, *good):
                    alone.session.receive(payload, TS_RECV)
                    frame_queue.arrive((together.session, payload, TS_RECV))
                frame_queue.decode()
        assert together.counts == alone.counts
        wanted, found = alone.buffer.seal(alone.table), together.buffer.seal(together.table)
        assert rows_of(found, together.table) == rows_of(wanted, alone.table)
        assert [(one.payload, one.reason, one.detail) for one in found.rejected] == [
            (one.payload, one.reason, one.detail) for one in wanted.rejected
        ]


@pytest.mark.rows("D5")
@each_market
@pytest.mark.parametrize(
    "token", [b"NaN", b"-Infinity", b"1e400", b"01", b"1_0", b"0x1", b'"\\ud800"']
)
def test_tokens_that_are_no_json(adapter: AdapterType, market: str, token: bytes) -> None:
    """In the place of any number or text of a frame: refused, or in a member that nobody reads."""
    for frame in json_frames(adapter, market):
        marked = replaced(json.loads(frame), "\x01MARK\x01")
        hostile = [text.encode().replace(b'"\\u0001MARK\\u0001"', token) for text in marked]
        refused = check(adapter, market, hostile)
        assert refused >= 1


@pytest.mark.rows("D5")
@each_market
def test_a_key_given_twice_makes_no_second_row(adapter: AdapterType, market: str) -> None:
    for frame in json_frames(adapter, market):
        check(adapter, market, [b'{"data":1,' + frame[1:], frame[:-1] + b',"data":[]}'])


@pytest.mark.rows("D5")
@each_market
def test_long_text_in_place_of_a_number_costs_no_memory(adapter: AdapterType, market: str) -> None:
    """`"123" * 1_000_000` is a text of three million characters to Python, not an error."""
    fixture = load(adapter, market)
    for frame in json_frames(adapter, market):
        message = json.loads(frame)
        hostile = [text.encode() for text in replaced(message, "1" * 64, (int, str))]
        connection = Connection(fixture)
        tracemalloc.start()
        try:
            for one in hostile:
                connection.session.receive(one, TS_RECV)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 5_000_000 + 4 * sum(map(len, hostile))


@pytest.mark.rows("D4")
@each_market
@BOUNDED
@given(data=st.data())
def test_mutated_bytes(adapter: AdapterType, market: str, data: st.DataObject) -> None:
    frame = bytearray(data.draw(st.sampled_from(good_frames(adapter, market))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(["set", "insert", "delete", "swap"])):
            case "set":
                frame[at] = data.draw(st.integers(0, 255))
            case "insert":
                frame[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case "delete":
                del frame[at : at + data.draw(st.integers(1, 8))]
            case _:
                frame[at:] = frame[at:][::-1]
        if not frame:
            break
    check(adapter, market, [bytes(frame)])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["1.5", "buy", "sell", "update", "snapshot", "0"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.rows("D4")
@each_market
@BOUNDED
@given(data=st.data())
def test_mutated_structure(adapter: AdapterType, market: str, data: st.DataObject) -> None:
    """Members replaced by any JSON value, removed, or added."""
    if not json_frames(adapter, market):
        return
    frame = data.draw(st.sampled_from(json_frames(adapter, market)))
    message = json.loads(frame)
    for _ in range(data.draw(st.integers(1, 3))):
        holders = list(containers(message))
        holder = data.draw(st.sampled_from(holders))
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.booleans()):
            holder[key] = data.draw(json_values)
        elif isinstance(holder, dict):
            del holder[key]
        else:
            holder.insert(key, data.draw(json_values))
    check(adapter, market, [json.dumps(message).encode()])


@pytest.mark.rows("D4", "I5")
@each_market
@BOUNDED
@given(message=json_values, binary=st.binary(max_size=64))
def test_any_message(adapter: AdapterType, market: str, message: object, binary: bytes) -> None:
    check(adapter, market, [json.dumps(message).encode(), binary])


@pytest.mark.rows("D4", "I3")
@each_market
@BOUNDED
@given(body=st.binary(max_size=64) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_rest_answer(adapter: AdapterType, market: str, body: bytes) -> None:
    """A snapshot that can't be read is refused with its bytes; a list is none or empty."""
    fixture = load(adapter, market)
    connection = Connection(fixture)
    assert not connection.session.snapshot(fixture.instruments[0].symbol, body, TS_RECV)
    sealed = connection.buffer.seal(connection.table)
    assert [one.payload for one in sealed.rejected] == [body]
    assert len(sealed.updates) == 0
    bodies = [body] * len(fixture.rest)
    with contextlib.suppress(DecodeError, VenueError):
        assert read_list(adapter, market, bodies).instruments == []


def containers(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from containers(inner)


def replaced(message: Any, bomb: Any, kinds: tuple[type, ...] | None = None) -> Iterator[str]:
    """Yield the message's text with one member at a time replaced, containers included.

    kinds: replace members of these types alone.
    """
    for index, holder in enumerate(containers(message)):
        for key in list(holder) if isinstance(holder, dict) else list(range(len(holder))):
            if kinds is not None and type(holder[key]) not in kinds:
                continue
            changed = copy.deepcopy(message)
            list(containers(changed))[index][key] = bomb
            yield json.dumps(changed)
