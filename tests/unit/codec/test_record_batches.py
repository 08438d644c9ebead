"""Records of whole batches come back as the rows that were written, by either way."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import pytest

from ingestor.codec import CodecError, Decoded, decode, encoder
from ingestor.codec.record_batches import RecordBatch, RecordBatchReader, RecordRun, RefusedRecord
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import Cause, Flag, Kind, Rows
from ingestor.native import native
from tests.fakes.rows import MAKERS, levels, quotes, table_of, trades

SESSION, OTHER_SESSION = bytes(range(16)), bytes(16)
TABLE = table_of(12)
MADE = {one: MAKERS[one] for one in (RowClass.TRADE, RowClass.QUOTE, RowClass.LEVEL)}
KeyValue = tuple[bytes | None, bytes | None]

pytestmark = pytest.mark.skipif(native().library is None, reason=native().reason)


def varint(number: int) -> bytes:
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest >= 128:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest])


def field(value: bytes | None) -> bytes:
    return varint(-1) if value is None else varint(len(value)) + value


def records_of(pairs: Sequence[KeyValue], deltas: Sequence[int] | None = None) -> bytes:
    """Return records as Kafka's format has them, with one header each."""
    out = []
    for delta, (key, value) in zip(deltas or range(len(pairs)), pairs, strict=True):
        body = b"\0" + varint(3) + varint(delta) + field(key) + field(value)
        body += varint(1) + field(b"schema") + field(b"x")
        out += [varint(len(body)), body]
    return b"".join(out)


def batch_of(pairs: Sequence[KeyValue], base_offset: int = 100) -> RecordBatch:
    return RecordBatch(records_of(pairs), len(pairs), base_offset)


def json_pairs(
    row_class: RowClass, rows: Rows, first: int = 0, session: bytes = SESSION
) -> list[KeyValue]:
    records = encoder("json", TABLE, session).encode(row_class, rows, first)
    return [(key, value) for key, value, _, _ in records]


def same(found: RecordRun, expected: Sequence[Decoded]) -> None:
    """Compare a run with its records as Python reads them: rows but for `instrument`, names,
    numbers and where each record ends."""
    batch = found.decoded.batch
    assert found.decoded.session == expected[0].session
    assert found.decoded.first_sequence == expected[0].first_sequence
    assert found.ends.tolist() == np.cumsum([len(one.batch) for one in expected]).tolist()
    rows = np.concatenate([one.batch.rows for one in expected])
    names = [
        one.batch.instruments[number] for one in expected for number in one.batch.rows["instrument"]
    ]
    assert [batch.instruments[number] for number in batch.rows["instrument"]] == names
    for name in batch.rows.dtype.names or ():
        if name != "instrument":
            assert np.array_equal(batch.rows[name], rows[name]), name


def python_runs(pairs: Sequence[KeyValue]) -> Iterator[list[Decoded]]:
    """Yield runs as they must be found: of one class and session, numbers without a hole."""
    run: list[Decoded] = []
    for _, value in pairs:
        one = decode(value or b"")
        last = run[-1] if run else None
        is_next = (
            last is not None
            and last.session == one.session
            and last.next_sequence == one.first_sequence
            and last.batch.row_class is one.batch.row_class
        )
        if run and not is_next:
            yield run
            run = []
        run.append(one)
    yield run


def taught(pairs: Sequence[KeyValue]) -> RecordBatchReader:
    """Return a reader that knows how these records begin."""
    reader = RecordBatchReader()
    for _ in range(8):  # the table is made anew only when enough were read in Python
        reader.read(batch_of(pairs))
    return reader


@pytest.mark.parametrize("row_class", [*MADE], ids=lambda one: one.name)
def test_a_batch_that_is_known_is_one_run(row_class: RowClass) -> None:
    pairs = json_pairs(row_class, MADE[row_class](300), 7)
    reader = taught(pairs)
    [run] = reader.read(batch_of(pairs))
    assert isinstance(run, RecordRun)
    [expected] = python_runs(pairs)
    same(run, expected)
    assert run.next_offsets.tolist() == [*range(101, 101 + len(pairs))]


def test_what_is_met_for_the_first_time_is_read_in_python_once() -> None:
    pairs = json_pairs(RowClass.TRADE, trades(48))
    reader = RecordBatchReader()
    found = reader.read(batch_of(pairs))
    assert [len(one.ends) for one in found if isinstance(one, RecordRun)] == [1] * 12 + [36]
    assert len(reader.read(batch_of(pairs))) == 1


def test_uuids_negative_numbers_and_control_rows_come_in_order() -> None:
    rows = trades(60)
    rows["trade_id_high"][10:20] = 2**63 + 5
    rows["price"][30] = -5
    rows["trade_id_low"][40] = 2**64 - 1
    gap = control_row(RowClass.TRADE, Kind.GAP, 3, 1_700_000_000_000_000_000, cause=Cause.STALE)
    rows = np.concatenate([rows[:25], gap, rows[25:]])
    pairs = json_pairs(RowClass.TRADE, rows, 1_000)
    runs = taught(json_pairs(RowClass.TRADE, trades(60))).read(batch_of(pairs))
    lengths, at = [], 0
    for run in runs:
        assert isinstance(run, RecordRun)
        count = len(run.ends)
        same(run, [decode(value or b"") for _, value in pairs[at : at + count]])
        lengths.append(count)
        at += count
    assert lengths == [25, 1, 5, 1, 9, 1, 19], "the gap, the negative price, and the huge id"


def test_sessions_holes_and_classes_begin_runs() -> None:
    first, second = trades(20), quotes(20)
    pairs = [
        *json_pairs(RowClass.TRADE, first, 5),
        *json_pairs(RowClass.TRADE, first, 26),
        *json_pairs(RowClass.TRADE, first, 46, OTHER_SESSION),
        *json_pairs(RowClass.QUOTE, second, 66, OTHER_SESSION),
    ]
    runs = taught(pairs).read(batch_of(pairs))
    expected = [*python_runs(pairs)]
    assert len(runs) == len(expected) == 4
    for run, one in zip(runs, expected, strict=True):
        assert isinstance(run, RecordRun)
        same(run, one)


def test_another_revision_or_other_decimals_are_another_instrument() -> None:
    pairs = json_pairs(RowClass.TRADE, trades(12, instruments=3))
    other = [
        (key, (value or b"").replace(b'"revision":1', b'"revision":2')) for key, value in pairs
    ]
    finer = [(key, (value or b"").replace(b'","size"', b'5","size"')) for key, value in pairs]
    everything = [*pairs, *other, *[one for one in finer if b"." in (one[1] or b"")]]
    reader = taught(everything)
    found = [run for run in reader.read(batch_of(everything)) if isinstance(run, RecordRun)]
    expected = [*python_runs(everything)]
    assert len(found) == len(expected)
    for run, one in zip(found, expected, strict=True):
        same(run, one)


def test_offsets_before_and_behind_what_is_wanted_are_left_out() -> None:
    pairs = json_pairs(RowClass.TRADE, trades(10))
    reader = taught(pairs)
    [run] = reader.read(batch_of(pairs), 103, 107)
    assert isinstance(run, RecordRun)
    assert run.next_offsets.tolist() == [104, 105, 106, 107]
    assert run.decoded.first_sequence == 3
    assert reader.read(batch_of(pairs), 110) == []


def test_tombstones_are_left_out_and_others_refused() -> None:
    pairs = json_pairs(RowClass.TRADE, trades(4))
    strange: list[KeyValue] = [(b"k", None), (None, b"{}"), (b"k", b""), *pairs]
    found = taught(pairs).read(batch_of(strange))
    refused = [one for one in found if isinstance(one, RefusedRecord)]
    assert [one.offset for one in refused] == [101, 102]
    assert isinstance(found[-1], RecordRun)


def test_offsets_of_a_compacted_batch_have_holes() -> None:
    pairs = json_pairs(RowClass.TRADE, trades(4))
    batch = RecordBatch(records_of(pairs, [0, 3, 7, 9]), 4, 50)
    [run] = taught(pairs).read(batch)
    assert isinstance(run, RecordRun)
    assert run.next_offsets.tolist() == [51, 54, 58, 60]


def check_cut(row_class: RowClass, random_: random.Random) -> None:
    """Refuse records that end too soon; read whatever else they are without harm."""
    pairs = json_pairs(row_class, MADE[row_class](4))
    whole, reader = records_of(pairs), taught(pairs)
    for size in range(len(whole)):
        with pytest.raises(CodecError):
            reader.read(RecordBatch(whole[:size], len(pairs), 0))
        changed = bytearray(whole)
        changed[random_.randrange(len(whole))] = random_.randrange(256)
        with suppress(CodecError):
            reader.read(RecordBatch(bytes(changed), len(pairs), 0))


@pytest.mark.parametrize("row_class", [*MADE], ids=lambda one: one.name)
def test_what_are_no_records_is_refused(row_class: RowClass) -> None:
    check_cut(row_class, random.Random(4))


def test_more_records_than_a_run_has_room_for() -> None:
    pairs = json_pairs(RowClass.TRADE, trades(20_000))
    reader = taught(pairs[:24])
    runs = reader.read(batch_of(pairs))
    assert sum(len(one.ends) for one in runs if isinstance(one, RecordRun)) == 20_000


def test_a_record_of_more_levels_than_there_is_room_for_makes_room() -> None:
    rows = np.repeat(levels(1)[:1], 9_000)
    rows["flags"] = 0
    rows["flags"][-1] = Flag.LAST
    rows["price"] = np.arange(1, 9_001)
    value = encoder("json", TABLE, SESSION).encode(RowClass.LEVEL, rows[:4_000], 0)[0]
    pairs: list[KeyValue] = [(value[0], value[1])] * 5
    reader = taught(pairs[:1])
    runs = reader.read(batch_of(pairs))
    assert [len(one.decoded.batch) for one in runs if isinstance(one, RecordRun)] == [4_000] * 5


def mutated(value: bytes, random_: random.Random) -> bytes:
    """Return a value with a few bytes changed, put in, left out or moved."""
    out = bytearray(value)
    for _ in range(random_.choice([1, 1, 1, 2, 3])):
        at = (
            random_.randrange(len(out))
            if random_.random() < 0.3
            else random_.randrange(150, len(out))
        )
        match random_.randrange(6):
            case 0:
                out[at] = random_.choice(b"0123456789")
            case 1:
                out[at] = random_.choice(b'0123456789-+.eE"\\ ,:[]{}\0\xffabc')
            case 2:
                out.insert(at, random_.choice(b'0123456789-+.eE"\\ ,:[]{}nul'))
            case 3:
                del out[at]
            case 4:
                del out[at : at + random_.randrange(1, 20)]
            case _:
                out[at:at] = out[at : at + random_.randrange(1, 20)]
    return bytes(out)


def check_mutated(row_class: RowClass, rounds: int, seed: int) -> None:
    """Hold what the library takes to what Python reads; what it leaves, Python judges."""
    random_ = random.Random(seed)
    pairs = json_pairs(row_class, MADE[row_class](36), 10**9)
    reader, taken = taught(pairs), 0
    for _ in range(rounds):
        changed = [(key, mutated(value or b"", random_)) for key, value in pairs]
        for found in reader.read(batch_of(changed)):
            if isinstance(found, RefusedRecord):
                with pytest.raises(CodecError):
                    decode(changed[found.offset - 100][1])
                continue
            count, end = len(found.ends), int(found.next_offsets[-1]) - 100
            same(found, [decode(value) for _, value in changed[end - count : end]])
            taken += count
    assert taken > rounds


@pytest.mark.parametrize("row_class", [*MADE], ids=lambda one: one.name)
def test_mutated_records_give_the_same_both_ways(row_class: RowClass) -> None:
    check_mutated(row_class, 400, 1)


@pytest.mark.long(minutes=3)
@pytest.mark.parametrize("row_class", [*MADE], ids=lambda one: one.name)
def test_many_mutated_records_give_the_same_both_ways(row_class: RowClass) -> None:
    check_mutated(row_class, 5_000, 2)
