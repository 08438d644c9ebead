"""Both encodings give back the rows they were given; their layout is what is documented."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.codec import (
    RECORD_BYTES_MAX,
    CodecError,
    decode,
    encoder,
    headers,
    position,
    schema_name,
)
from ingestor.codec import binary as codec_binary
from ingestor.codec.record import LEVELS_PER_RECORD, WireInstrument
from ingestor.kafka.partitions import Partitions, partition_of_key
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import OWN_EXPONENT_MAX, ROW_CLASSES, RowClass
from ingestor.model.rows import ABSENT, Cause, Kind, Rows, Side
from tests.effort import tried
from tests.fakes.rows import MAKERS, levels, table_of, trades
from tests.fakes.schemas import validator
from tests.make_vectors import FIRST_SEQUENCE, FOLDER, SESSION, cases, table, vectors

ENCODINGS = ("json", "binary")
INT64 = st.integers(-(2**63), 2**63 - 1)
COUNT = st.integers(0, 2**64 - 1)
TABLE = table()


def decoded(records: list[Any]) -> tuple[list[tuple[Any, ...]], list[WireInstrument]]:
    """Each row of the records as a tuple, the instrument apart."""
    rows: list[tuple[Any, ...]] = []
    instruments: list[Any] = []
    for _, value, _, count in records:
        batch = decode(value).batch
        assert len(batch) == count
        names = [name for name in batch.rows.dtype.names or () if name != "instrument"]
        rows += batch.rows[names].tolist()
        instruments += [batch.instruments[number] for number in batch.rows["instrument"].tolist()]
    return rows, instruments


def check_round_trip(row_class: RowClass, rows: Rows, instruments: InstrumentTable) -> None:
    names = [name for name in rows.dtype.names or () if name != "instrument"]
    for encoding in ENCODINGS:
        records = encoder(encoding, instruments, SESSION).encode(row_class, rows, FIRST_SEQUENCE)
        found, carried = decoded(records)
        assert found == rows[names].tolist()
        assert carried == [
            WireInstrument.of(instruments[number]) for number in rows["instrument"].tolist()
        ]
        sequence = FIRST_SEQUENCE
        for _, value, _, count in records:
            assert position(value) == (SESSION, sequence, count)
            assert decode(value).next_sequence == sequence + count
            sequence += count


def head(kind: int) -> dict[str, st.SearchStrategy[int]]:
    return {
        "ts_event": INT64,
        "ts_recv": st.integers(0, 2**63 - 1),
        "sequence": COUNT,
        "instrument": st.integers(0, 2),
        "flags": st.integers(0, 2**16 - 1),
        "kind": st.just(kind),
    }


def levels_of(row_class: RowClass) -> st.SearchStrategy[dict[str, int]]:
    """Levels: events come about where consecutive rows agree, and few values make that likely."""
    return st.fixed_dictionaries(
        head(row_class.id)
        | {"ts_event": st.integers(1, 2), "ts_recv": st.just(5), "sequence": st.integers(0, 1)}
        | {"flags": st.integers(0, 3), "side": st.sampled_from([Side.BID, Side.ASK])}
        | {"price": INT64, "size": INT64}
    )


TICKS: dict[RowClass, st.SearchStrategy[dict[str, int]]] = {
    RowClass.TRADE: st.fixed_dictionaries(
        head(Kind.TRADE)
        | {"side": st.integers(0, 2), "price": INT64, "size": INT64}
        | {"trade_id_high": st.just(0) | COUNT, "trade_id_low": COUNT}
    ),
    RowClass.QUOTE: st.fixed_dictionaries(
        head(Kind.QUOTE) | dict.fromkeys(("bid_price", "bid_size", "ask_price", "ask_size"), INT64)
    ),
    **{row_class: levels_of(row_class) for row_class in ROW_CLASSES if row_class.has_levels},
}


def others_of(row_class: RowClass) -> st.SearchStrategy[dict[str, int]]:
    """Rows of a class without a form of its own: any number, absent ones too."""
    fields = {"side": st.sampled_from(sorted(row_class.names.get("side", {0: ""})))}
    for name in row_class.fields:
        kind, size = row_class.dtype[name].kind, row_class.dtype[name].itemsize
        if name in row_class.names:
            fields[name] = st.sampled_from(sorted(row_class.names[name]))
        elif name == "exponent":
            fields[name] = st.integers(0, OWN_EXPONENT_MAX)
        elif kind == "u":
            fields[name] = st.integers(0, 2 ** (8 * size) - 1)
        else:
            fields[name] = INT64 if name not in row_class.optional else st.just(ABSENT) | INT64
    return st.fixed_dictionaries(head(row_class.id) | fields)


TICKS |= {row_class: others_of(row_class) for row_class in ROW_CLASSES if row_class not in TICKS}
MARKS = st.fixed_dictionaries(
    head(Kind.GAP) | {"side": st.sampled_from(list(Cause)), "first": INT64, "last": INT64}
)


def rows_of(row_class: RowClass, values: list[dict[str, int]]) -> Rows:
    rows = np.zeros(len(values), row_class.dtype)
    control = rows.view(row_class.control)
    for row, mark, one in zip(rows, control, values, strict=True):
        for name, value in one.items():
            if name in ("first", "last"):
                mark[name] = value
            else:
                row[name] = value
    return rows


@pytest.mark.parametrize("row_class", tuple(ROW_CLASSES))
@given(data=st.data())
def test_every_row_survives(row_class: RowClass, data: st.DataObject) -> None:
    values = data.draw(st.lists(TICKS[row_class] | MARKS, min_size=1, max_size=12))
    check_round_trip(row_class, rows_of(row_class, values), TABLE)


@pytest.mark.parametrize("row_class", tuple(ROW_CLASSES))
def test_many_rows_survive(row_class: RowClass) -> None:
    """More rows than the small-batch path of the binary encoder takes."""
    check_round_trip(row_class, MAKERS[row_class](500), table_of())


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("row_class", tuple(ROW_CLASSES))
@given(counts=st.lists(st.integers(1, 700), min_size=1, max_size=4), same=st.booleans())
@tried(10, 300)
def test_parts_are_encoded_together_as_one_by_one(
    row_class: RowClass, encoding: str, counts: list[int], same: bool
) -> None:
    """Up to 1,024 rows and above; `same`: the parts join in the midst of one event."""
    codec, parts = encoder(encoding, table_of(), SESSION), []
    for place, count in enumerate(counts):
        rows = MAKERS[row_class](count, first=1 if same else count)[:count]
        if same:
            rows[["ts_event", "ts_recv", "sequence"]] = rows[["ts_event", "ts_recv", "sequence"]][0]
            rows["instrument"] = rows["flags"] = 0
        parts.append((rows, place * 10_000))
    alone = [codec.encode(row_class, *part) for part in parts]
    assert codec.encode_parts(row_class, parts) == alone
    assert [sum(record[3] for record in records) for records in alone] == counts


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_instruments_added_later_are_known(encoding: str) -> None:
    instruments = table_of(3)
    encode = encoder(encoding, instruments, SESSION).encode
    encode(RowClass.TRADE, trades(100, instruments=3), 0)
    number = instruments.add(instrument("z", "spot", "Z", "Z-Y", "Z", "Y", "0.001", "1"))
    rows = trades(100, instruments=1)
    rows["instrument"] = number
    found, carried = decoded(encode(RowClass.TRADE, rows, 0))
    assert len(found) == 100
    assert {one.key for one in carried} == {"z:spot:Z"}


def test_binary_head_is_as_documented() -> None:
    rows = trades(2, instruments=1)
    [(key, value, ts_ms, count)] = encoder("binary", TABLE, SESSION).encode(
        RowClass.TRADE, rows, 77
    )
    assert (key, count, ts_ms) == (None, 2, int(rows["ts_recv"][-1]) // 1_000_000)
    assert value[:8] == b"MDR" + bytes([1, 1, 64, 0, 0])
    assert value[8:24] == SESSION
    assert struct.unpack_from("<QIIII", value, 24) == (77, 2, 1, 32, 0)
    assert struct.unpack_from("<HBBI", value, 48) == (18, 2, 5, 1)
    assert value[56:80] == b"acme:spot:BTC-USDT".ljust(24, b"\0")
    assert value[80:] == rows.tobytes()
    found = decode(value).batch.rows
    assert not found.flags.owndata
    assert found.__array_interface__["data"][0] % 8 == 0


def test_binary_records_are_cut() -> None:
    rows = levels(20_000)
    records = encoder("binary", table_of(), SESSION).encode(RowClass.LEVEL, rows, 0)
    sizes = [len(value) for _, value, _, _ in records]
    assert len(sizes) > 1
    assert max(sizes) <= RECORD_BYTES_MAX
    assert decoded(records)[0] == decoded_rows(rows)


def decoded_rows(rows: Rows) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = rows[
        [name for name in rows.dtype.names or () if name != "instrument"]
    ].tolist()
    return found


def test_json_snapshots_are_cut_and_end_with_last() -> None:
    rows = np.repeat(levels(1), 5_000)
    rows["side"] = Side.BID
    rows["flags"] = 2
    rows["flags"][-1] = 3
    records = encoder("json", table_of(), SESSION).encode(RowClass.LEVEL, rows, 0)
    assert [count for *_, count in records] == [4_096] * 3 + [15_000 - 3 * 4_096]
    assert LEVELS_PER_RECORD == 4_096
    assert [json.loads(value)["flags"] for _, value, _, _ in records] == [2, 2, 2, 3]


def test_json_is_one_record_an_event() -> None:
    records = encoder("json", table_of(), SESSION).encode(RowClass.LEVEL, levels(4), 0)
    assert [count for *_, count in records] == [3, 3, 3, 3]
    first = json.loads(records[0][1])
    assert (len(first["bids"]), len(first["asks"])) == (2, 1)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_vectors_are_what_the_code_writes(encoding: str) -> None:
    stored = json.loads((FOLDER / f"{encoding}.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(vectors(encoding)))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_vectors_decode_to_their_rows(encoding: str) -> None:
    for case in json.loads((FOLDER / f"{encoding}.json").read_text(encoding="utf-8")):
        found = []
        for record in case["records"]:
            text = record["value"]
            one = decode(text.encode() if encoding == "json" else bytes.fromhex(text))
            for index, row in enumerate(one.batch.rows):
                carried = one.batch.instruments[int(row["instrument"])]
                found.append(
                    {
                        "key": carried.key,
                        "price_exponent": carried.price_exponent,
                        "size_exponent": carried.size_exponent,
                        "seq": one.first_sequence + index,
                        **{
                            name: int(row[name])
                            for name in row.dtype.names or ()
                            if name != "instrument"
                        },
                    }
                )
        assert found == case["decoded"], case["name"]


@pytest.mark.parametrize("row_class", tuple(ROW_CLASSES))
def test_json_follows_its_schema(row_class: RowClass) -> None:
    assert headers(row_class, "json") == [("schema", schema_name(row_class.schema).encode())]
    judge = validator(row_class.schema)
    written, rows = cases()[row_class.channel]
    for _, value, _, _ in encoder("json", TABLE, SESSION).encode(written, rows, 0):
        message = json.loads(value)
        judge.validate(message)
        assert not judge.is_valid(message | {"surprise": 1})
        assert not judge.is_valid(message | {"session": "x"})


def test_what_is_no_record_is_refused() -> None:
    [(_, good, _, _)] = encoder("binary", TABLE, SESSION).encode(
        RowClass.TRADE, trades(2, instruments=1), 0
    )
    outside = bytearray(good)
    outside[80 + 24] = 9  # the first row's instrument
    bad = [
        b"",
        b"MDR",
        b"{}",
        b"[1]",
        b'{"session":"zz"}',
        good[:-1],
        good[:3] + b"\2" + good[4:],
        good[:4] + b"\7" + good[5:],
        good[:5] + b"\1" + good[6:],
        good[:48] + b"\xff\xff" + good[50:],
        bytes(outside),
    ]
    for value in bad:
        with pytest.raises(CodecError):
            decode(value)
    with pytest.raises(CodecError):
        position(b"{}")
    with pytest.raises(CodecError):
        codec_binary.position(b"x" * 48)


@pytest.mark.rows("D4")
@given(st.data())
def test_mutated_records_raise_documented_errors_alone(data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from(ENCODINGS))
    records = encoder(encoding, TABLE, SESSION).encode(RowClass.LEVEL, levels(2, instruments=3), 0)
    value = bytearray(records[0][1])
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(value)))
    for attempt in (bytes(value), bytes(value[:cut])):
        with suppress(CodecError):
            decode(attempt)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_partition_is_that_of_the_java_client(key: bytes, hashed: int) -> None:
    """The hashes that Kafka's own UtilsTest expects; toPositive clears the sign bit."""
    for partitions in (1, 3, 8, 64):
        assert partition_of_key(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


def test_rows_are_split_by_partition_in_order() -> None:
    instruments = table_of()
    partitions = Partitions(instruments, 5)
    rows = trades(1_000)
    found = dict(partitions.split(rows))
    assert sum(map(len, found.values())) == 1_000
    for partition, part in found.items():
        keys = {instruments[number].key for number in part["instrument"].tolist()}
        assert {partition_of_key(key.encode(), 5) for key in keys} == {partition}
        assert (np.diff(part["sequence"].astype(np.int64)) > 0).all()
    [(partition, same)] = partitions.split(rows[:1])
    assert same.tolist() == rows[:1].tolist()
    assert partition == partition_of_key(instruments[1].key.encode(), 5)
    assert [number for number, _ in Partitions(instruments, 1).split(rows)] == [0]
