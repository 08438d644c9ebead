"""Records of any class of rows: the fields, and what compacted topics need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import orjson
import pytest

from ingestor.codec import CodecError, decode, encoder
from ingestor.codec.fields import Form, id_text, json_fields, names_decimals, number_text
from ingestor.model.row_classes import Exponent, RowClass, control_row
from ingestor.model.rows import HEADER, Kind, Rows, Side
from tests.fakes.rows import table_of
from tests.fakes.weather import WEATHER, known

SESSION = bytes(range(16))
TABLE = table_of()
ORDER = RowClass(
    id=200,
    name="ORDER",
    channel="hints",
    kind_name="order",
    dtype=np.dtype([*HEADER, ("high", "<u8"), ("low", "<u8"), ("size", "<i8")]),
    title="An order",
    numbers={"size": Exponent.SIZE},
    ids={"order_id": ("high", "low")},
    names={"side": {Side.BID: "buy", Side.ASK: "sell"}},
)
STATES = RowClass(  # without any decimal number
    id=201,
    name="STATES",
    channel="states",
    kind_name="state",
    dtype=np.dtype([*HEADER, ("since", "<i8"), ("state", "<u8")]),
    title="A state",
    numbers={},
    names={"state": {1: "open", 2: "halted"}},
    is_compacted=True,
)
FORECASTS = replace(WEATHER, id=202, name="FORECASTS", channel="forecasts", is_compacted=True)
MADE = (WEATHER, ORDER, STATES, FORECASTS)


@pytest.fixture(autouse=True, params=MADE, ids=lambda row_class: row_class.name)
def row_class(request: pytest.FixtureRequest) -> Iterator[RowClass]:
    with known(request.param) as row_class:
        yield row_class


def rows_of(row_class: RowClass, count: int) -> Rows:
    """Return rows with every field in use, the last one a GAP."""
    random = np.random.default_rng(7)
    rows = np.zeros(count, row_class.dtype)
    for name in row_class.fields:
        low = -1_000 if row_class.dtype[name].kind == "i" else 0
        rows[name] = random.integers(low, 30_000, count)
    for name in row_class.names:
        rows[name] = random.integers(1, 3, count)
    for name in ("ts_event", "ts_recv"):
        rows[name] = 1_790_000_000_000_000_000 + np.arange(count)
    rows["sequence"] = np.arange(count)
    rows["instrument"] = np.arange(count) % 3
    rows["flags"], rows["kind"] = 1, row_class.id
    if "high" in row_class.fields:
        rows["high"] *= rows["sequence"] % 2
    rows[-1:] = control_row(row_class, Kind.GAP, 2, 5, first=8, last=9)
    return rows


@pytest.mark.parametrize("encoding", ["json", "binary"])
def test_every_field_comes_back(row_class: RowClass, encoding: str) -> None:
    rows = rows_of(row_class, 20)
    records = encoder(encoding, TABLE, SESSION).encode(row_class, rows, 5)
    decoded = [decode(value) for _, value, _, _ in records]
    assert sum(record[3] for record in records) == len(rows)
    found = []
    for one in decoded:
        assert one.batch.row_class is row_class
        part = one.batch.rows.copy()
        places = range(one.first_sequence - 5, one.next_sequence - 5)
        for row, number in zip(part, rows["instrument"][places], strict=True):
            carried = one.batch.instruments[int(row["instrument"])]
            assert carried.key == TABLE[int(number)].key
            assert carried.size_exponent == TABLE[int(number)].size_exponent
            assert carried.price_exponent == TABLE[int(number)].price_exponent
            row["instrument"] = number
        found.append(part)
    assert np.concatenate(found).tobytes() == rows.tobytes()


@pytest.mark.parametrize("encoding", ["json", "binary"])
def test_a_compacted_topic_has_a_key_for_each_row(row_class: RowClass, encoding: str) -> None:
    rows = rows_of(row_class, 4)
    keys = [key for key, *_ in encoder(encoding, TABLE, SESSION).encode(row_class, rows, 0)]
    if not row_class.is_compacted:
        assert (encoding == "json") == all(keys)
        return
    names = [TABLE[number].key for number in (0, 1, 2, 2)]
    if row_class.key_fields:
        stations = rows["station"][:3].tolist()
        names[:3] = [f"{name}:{one}" for name, one in zip(names[:3], stations, strict=True)]
    assert keys == [*(name.encode() for name in names[:3]), f"{names[3]}:control".encode()]


def test_the_fields_follow_the_entry(row_class: RowClass) -> None:
    found = [(field.name, field.form) for field in json_fields(row_class)]
    forecast = [
        *(("rain_price", Form.NUMBER), ("wind", Form.NUMBER), ("change", Form.NUMBER)),
        *(("station", Form.INTEGER), ("state", Form.NAME), ("mast", Form.INTEGER)),
    ]
    expected = {
        WEATHER: forecast,
        FORECASTS: forecast,
        ORDER: [("side", Form.NAME), ("size", Form.NUMBER), ("order_id", Form.ID)],
        STATES: [("since", Form.INTEGER), ("state", Form.NAME)],
    }
    assert found == expected[row_class]
    assert names_decimals(row_class) == (row_class in {ORDER, STATES})


def test_texts_of_numbers_and_ids() -> None:
    assert number_text(Exponent.PRICE, 1205, 2, 3) == "12.05"
    assert number_text(Exponent.SIZE, 1205, 2, 3) == "1.205"
    assert number_text(Exponent.RATE, -5, 2, 3) == "-0.000000000000000005"
    assert id_text(0, 17) == "17"
    assert id_text(1, 2) == "00000000-0000-0001-0000-000000000002"


def test_a_record_among_those_of_another_class_is_refused(row_class: RowClass) -> None:
    [(_, value, _, _), *_] = encoder("json", TABLE, SESSION).encode(
        row_class, rows_of(row_class, 2), 0
    )
    message = orjson.loads(value)
    for wrong in ({"kind": "trade"}, {"channel": "none"}, {"channel": "trades"}):
        with pytest.raises(CodecError):
            decode(orjson.dumps(message | wrong))
