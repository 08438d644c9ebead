"""Rows as tables: exact decimals, UTC times, and names where rows have numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.types import is_decimal

from ingestor.codec.record import WireInstrument
from ingestor.history.frames import to_arrow
from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import ROW_CLASSES, RowClass, control_row
from ingestor.model.rows import TRADE, Cause, Kind, Rows, Side
from tests.fakes.rows import MAKERS, START_NS, levels, quotes, table_of, trades

TABLE = table_of()
NAMES = ["instrument", "venue", "market", "symbol", "canonical"]


def batch_of(row_class: RowClass, rows: Rows, table: Any = TABLE) -> TickBatch:
    return TickBatch(row_class, rows, table)


def exact(batch: TickBatch, name: str, unit: str) -> list[Decimal]:
    return [
        Decimal(int(row[name])).scaleb(-getattr(batch.instruments[int(row["instrument"])], unit))
        for row in batch.rows
    ]


@pytest.mark.parametrize("row_class", tuple(ROW_CLASSES))
def test_every_class_has_its_columns_in_every_form(row_class: RowClass) -> None:
    maker = MAKERS.get(row_class)
    rows = maker(24) if maker else np.zeros(3, row_class.dtype)
    if maker is None:
        rows["kind"] = row_class.id
    gap = control_row(row_class, Kind.GAP, 0, START_NS, cause=Cause.SEQUENCE, first=3, last=4)
    batch = batch_of(row_class, np.concatenate([rows, gap]))
    for prices in ("decimal", "float", "raw"):
        for times in ("utc", "ns"):
            table = to_arrow([batch], row_class, prices=prices, times=times)
            assert table.num_rows == len(rows)
            table.validate(full=True)
            assert {*NAMES, "ts_event", "ts_recv", *row_class.numbers, *row_class.ids} <= {
                *table.column_names
            }
    table = to_arrow([batch], row_class, control_rows=True)
    table.validate(full=True)
    last = table.slice(len(rows)).to_pylist()[0]
    assert {name: last[name] for name in ("kind", "cause", "first", "last")} == {
        "kind": "gap",
        "cause": "sequence",
        "first": 3,
        "last": 4,
    }
    assert all(last[name] is None for name in (*row_class.numbers, *row_class.ids))
    assert table["kind"].to_pylist()[0] == row_class.kind_name


def test_trades_as_people_expect_them() -> None:
    batch = batch_of(RowClass.TRADE, trades(24))
    table = to_arrow([batch], "trades")
    assert table["price"].to_pylist() == exact(batch, "price", "price_exponent")
    assert table["size"].to_pylist() == exact(batch, "size", "size_exponent")
    row = table.slice(0, 1).to_pylist()[0]
    assert {name: row[name] for name in (*NAMES, "side", "trade_id")} == {
        "instrument": "acme:spot:S1USDT",
        "venue": "acme",
        "market": "spot",
        "symbol": "S1USDT",
        "canonical": "S1-USDT",
        "side": "sell",
        "trade_id": "1",
    }
    assert table.schema.field("ts_recv").type == pa.timestamp("ns", "UTC")
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    first = frame["ts_event"][0]
    assert first == datetime.fromtimestamp(START_NS // 10**9, UTC).replace(microsecond=1)
    floats = to_arrow([batch], "trades", prices="float")["price"].to_pylist()
    assert floats == [float(one) for one in table["price"].to_pylist()]
    assert (
        to_arrow([batch], "trades", times="ns")["ts_recv"].to_pylist()
        == batch.rows["ts_recv"].tolist()
    )


def test_sums_of_products_are_exact() -> None:
    batch = batch_of(RowClass.TRADE, trades(2_000))
    table = to_arrow([batch], RowClass.TRADE)
    with localcontext(prec=80):
        pairs = zip(
            exact(batch, "price", "price_exponent"),
            exact(batch, "size", "size_exponent"),
            strict=True,
        )
        expected = sum((price * size for price, size in pairs), Decimal(0))
    with duckdb.connect() as connection:
        connection.register("trades", table)
        assert connection.execute("SELECT sum(price * size) FROM trades").fetchone() == (expected,)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    rounded = frame.select((pl.col("price") * pl.col("size")).sum()).item()
    assert abs(rounded - expected) < Decimal("2e-5")  # Polars rounds a product to the longer scale

    def dtype_of(arrow: pa.DataType) -> pd.ArrowDtype | None:
        return pd.ArrowDtype(arrow) if is_decimal(arrow) else None

    pandas = table.to_pandas(types_mapper=dtype_of)
    assert (pandas["price"] * pandas["size"]).sum() == expected


def test_books_and_quotes_have_their_sides() -> None:
    book = to_arrow([batch_of(RowClass.LEVEL, levels(5))], "book")
    assert book["side"].to_pylist()[:3] == ["bid", "bid", "ask"]
    assert "side" not in to_arrow([batch_of(RowClass.QUOTE, quotes(5))], "quotes").column_names
    reset = control_row(RowClass.LEVEL, Kind.RESET, 0, START_NS)
    both = np.concatenate([reset, levels(1)])
    kinds = to_arrow([batch_of(RowClass.LEVEL, both)], "book", control_rows=True)
    assert kinds["kind"].to_pylist() == ["reset", "book", "book", "book"]
    assert kinds["cause"].to_pylist() == [None] * 4
    assert kinds["side"].to_pylist() == [None, "bid", "bid", "ask"]


def test_ids_are_decimals_or_uuids_or_null() -> None:
    rows = trades(3)
    rows["trade_id_high"] = [0, 0x0123456789ABCDEF, 0]
    rows["trade_id_low"] = [2**64 - 1, 0xFEDCBA9876543210, 0]
    assert to_arrow([batch_of(RowClass.TRADE, rows)], "trades")["trade_id"].to_pylist() == [
        "18446744073709551615",
        "01234567-89ab-cdef-fedc-ba9876543210",
        None,
    ]


def test_canonical_symbols_come_from_metadata_where_records_have_none() -> None:
    wire = [WireInstrument.of(TABLE[number]) for number in range(2)]
    rows = trades(4, instruments=2)
    batch = batch_of(RowClass.TRADE, rows, wire)
    assert to_arrow([batch], "trades")["canonical"].to_pylist() == [None] * 4
    table = to_arrow([batch], "trades", metadata={TABLE[0].key: TABLE[0]})
    assert table["canonical"].to_pylist() == [None, "S0-USDT", None, "S0-USDT"]


def test_two_revisions_of_an_instrument_have_one_name_and_exact_prices() -> None:
    table = InstrumentTable(
        instrument("acme", "spot", "AAA", "AAA", "AAA", "USD", tick, "1") for tick in ("1", "0.001")
    )
    rows = trades(2, instruments=1)
    rows["price"], rows["instrument"] = [5, 5_001], [0, 1]
    found = to_arrow([batch_of(RowClass.TRADE, rows, table)], "trades")
    assert found["price"].to_pylist() == [Decimal("5.000"), Decimal("5.001")]
    names = found["symbol"].combine_chunks()
    assert names.dictionary.to_pylist() == ["AAA"]


def one_instrument(exponent: int) -> WireInstrument:
    return WireInstrument(f"acme:spot:E{exponent}", exponent, 0)


values = st.lists(
    st.tuples(st.integers(0, 18), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=20
)


@given(values)
def test_decimals_are_exact_whatever_the_exponents(values: list[tuple[int, int]]) -> None:
    rows = np.zeros(len(values), TRADE)
    rows["kind"], rows["side"] = Kind.TRADE, Side.BID
    rows["instrument"] = [exponent for exponent, _ in values]
    rows["price"] = [value for _, value in values]
    table = [one_instrument(exponent) for exponent in range(19)]
    found = to_arrow([batch_of(RowClass.TRADE, rows, table)], "trades")
    with localcontext(prec=80):
        assert found["price"].to_pylist() == [
            Decimal(value).scaleb(-exponent) for exponent, value in values
        ]


def test_a_table_of_nothing_has_the_columns() -> None:
    empty = to_arrow([], "trades")
    full = to_arrow([batch_of(RowClass.TRADE, trades(3))], "trades")
    assert empty.num_rows == 0
    assert empty.column_names == full.column_names


@pytest.mark.parametrize("form", [{"prices": "exact"}, {"times": "local"}])
def test_a_form_that_there_is_not(form: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"say one of '(decimal|utc)'"):
        to_arrow([], "trades", **form)  # type: ignore[arg-type]
