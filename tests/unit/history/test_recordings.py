"""Parquet and the reading API, on a recording of the live path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ingestor.history as recordings
from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError, RecordingError
from ingestor.model.instruments import Instrument, InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Kind
from ingestor.model.timestamps import iso_text
from ingestor.recording.format import HOUR_NS
from ingestor.recording.layout import SUFFIX
from ingestor.recording.parquet import ParquetSink, duckdb_view
from ingestor.sinks.digest import Digest
from ingestor.sources.replay.compact import CompactReport, compact
from tests.unit.sources.replay.test_replay import MS, T0, Live, adapters, eventful, replay, trade


@pytest.fixture
async def live(tmp_path: Path) -> Live:
    one = Live(tmp_path)
    for _ in eventful(one):
        one.flush()
    await one.stop()
    return one


def compacted(path: Path) -> CompactReport:
    return compact(path, adapters=adapters)


def content(path: Path) -> dict[str, bytes]:
    files = sorted((path / "ticks").rglob("*"))
    return {str(one.relative_to(path)): one.read_bytes() for one in files if one.is_file()}


def digest_by_instrument(batches: Iterable[TickBatch]) -> str:
    digest = Digest()
    for batch in batches:
        digest.add(batch)
    return digest.hexdigest()


async def test_parquet_holds_the_live_rows(tmp_path: Path, live: Live) -> None:
    report = compacted(tmp_path)
    assert (len(report.units), report.unchanged, report.rows) == (2, 0, live.rows)
    assert not report.problems.count
    names = {str(one.relative_to(tmp_path / "ticks")) for one in report.files}
    date = iso_text(T0)[:10]
    hour = iso_text(T0)[11:13]
    assert f"kind=trades/venue=acme/date={date}/{hour}-0.parquet" in names
    found = recordings.open(tmp_path)
    assert digest_by_instrument(found) == live.digest.hexdigest()
    for file in report.files:
        table = pq.read_table(file).to_pydict()
        order = list(zip(table["instrument"], table["ts_recv"], strict=True))
        assert order == sorted(order)


async def test_compacting_again_changes_nothing(tmp_path: Path, live: Live) -> None:
    compacted(tmp_path)
    before = content(tmp_path)
    report = compacted(tmp_path)
    assert (report.units, report.unchanged) == ([], 2)
    (tmp_path / "ticks" / "manifest.json").unlink()
    assert len(compacted(tmp_path).units) == 2
    assert content(tmp_path) == before


async def test_an_hour_more_is_compacted_alone_with_warm_books(tmp_path: Path, live: Live) -> None:
    last = max(tmp_path.rglob(f"*{SUFFIX}"))
    aside = tmp_path / "aside"
    last.rename(aside)
    assert len(compacted(tmp_path).units) == 1
    first = content(tmp_path)
    aside.rename(last)
    report = compacted(tmp_path)
    assert (len(report.units), report.unchanged) == (1, 1)
    files = content(tmp_path)
    assert all(files[name] == first[name] for name in first if name.endswith(".parquet"))
    assert digest_by_instrument(recordings.open(tmp_path)) == live.digest.hexdigest()


async def test_what_retention_took_stays_in_parquet(tmp_path: Path, live: Live) -> None:
    compacted(tmp_path)
    min(tmp_path.rglob(f"*{SUFFIX}")).unlink()
    report = compacted(tmp_path)
    assert not report.units
    assert digest_by_instrument(recordings.open(tmp_path)) == live.digest.hexdigest()


async def test_a_crash_leaves_the_files_of_before(
    tmp_path: Path, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    compacted(tmp_path)
    before = content(tmp_path)
    (tmp_path / "ticks" / "manifest.json").unlink()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("ingestor.sources.replay.compact.UnitWriter.close", fail)
        with pytest.raises(OSError, match="disk full"):
            compacted(tmp_path)
    after = content(tmp_path)
    assert {name: after[name] for name in before if "manifest" not in name} == {
        name: text for name, text in before.items() if "manifest" not in name
    }
    compacted(tmp_path)
    assert content(tmp_path) == before


async def test_ranges_symbols_and_kinds(tmp_path: Path, live: Live) -> None:
    start_ns, end_ns = T0 + 20 * MS, T0 + 90 * MS
    raw_only = tmp_path / "raw"

    def picture(path: Path, **more: object) -> list[tuple[object, ...]]:
        opened = recordings.open(path, **more)  # type: ignore[arg-type]
        return sorted(
            (batch.row_class.id, batch.instruments[row[3]].key, *row[:3], *row[4:])
            for batch in opened
            for row in batch.rows.tolist()
        )

    compacted(tmp_path)
    chosen = {"start": start_ns, "end": iso_text(end_ns), "symbols": ["BBB"]}
    for kinds in (["trades"], ["book"], []):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ingestor.history.recordings.Replay", _with_acme)
            raw = picture(raw_only, kinds=kinds, **chosen)
        assert picture(tmp_path, kinds=kinds, **chosen) == raw
        assert raw
        assert all(str(one[1]).endswith(":BBB") and start_ns <= one[3] < end_ns for one in raw)  # type: ignore[operator]
    assert picture(tmp_path, start=T0 + 50 * HOUR_NS) == []


def _with_acme(options: object, *, problems: object) -> object:
    from ingestor.sources.replay.replay import Replay

    return Replay(options, adapters=adapters, problems=problems)  # type: ignore[arg-type]


async def test_frames_of_the_libraries(tmp_path: Path, live: Live) -> None:
    compacted(tmp_path)
    opened = recordings.open(tmp_path, kinds=["trades"])
    table = opened.to_arrow(prices="raw", control_rows=True)
    ticks = np.concatenate([batch.rows for batch in opened])
    assert table.num_rows == len(ticks)
    data = (ticks["kind"] == Kind.TRADE).tolist()
    prices = zip(ticks["price"].tolist(), data, strict=True)
    assert table.column("price").to_pylist() == [
        one if is_data else None for one, is_data in prices
    ]
    frame = opened.to_polars(prices="raw")
    assert frame["price_exponent"].unique().to_list() == [2]
    assert len(opened.to_pandas()) == len(frame) == (ticks["kind"] == Kind.TRADE).sum()
    several = recordings.open(tmp_path)
    with pytest.raises(ConfigError, match="several kinds"):
        several.to_arrow()
    quotes = several.to_arrow("quotes")
    assert quotes.num_rows == sum(len(one) for one in recordings.open(tmp_path, kinds=["quotes"]))
    assert "bid_price" in quotes.column_names


async def test_duckdb_reads_exact_decimals(tmp_path: Path, live: Live) -> None:
    compacted(tmp_path)
    query = (
        f"SELECT instrument, venue, count(*), min(price), max(size) FROM"
        f" ({duckdb_view(tmp_path, 'trades')}) GROUP BY ALL ORDER BY ALL"
    )
    with duckdb.connect() as connection:
        rows = connection.execute(query).fetchall()
    assert rows == [
        ("acme:spot:AAA", "acme", 39, Decimal("10.25"), Decimal("1.5")),
        ("acme:spot:BBB", "acme", 40, Decimal("10.25"), Decimal("1.5")),
    ]
    for kind in ("quotes", "book"):
        with duckdb.connect() as connection:
            if list((tmp_path / "ticks").glob(f"kind={kind}")):
                connection.execute(duckdb_view(tmp_path, kind)).fetchall()
            else:
                with pytest.raises(RecordingError, match="nothing was compacted here"):
                    duckdb_view(tmp_path, kind)


async def test_the_view_is_what_its_page_says(tmp_path: Path, live: Live) -> None:
    """Exact products and sums, symbols, names of sides, times of the nanosecond; no GAP rows."""
    compacted(tmp_path)
    with duckdb.connect() as connection:
        view = duckdb_view(tmp_path, "trades")
        rows = connection.execute(
            "SELECT symbol, market, side, ts_recv::VARCHAR, price * size,"
            f" sum(price * size) OVER () FROM ({view}) ORDER BY ts_recv, symbol"
        ).fetchall()
        types = dict(
            connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {view})").fetchall()
        )
    frame = recordings.open(tmp_path, kinds="trades").to_polars().sort("ts_recv", "symbol")
    assert [row[0] for row in rows] == frame["symbol"].to_list()
    assert {row[1] for row in rows} == {"spot"}
    assert [row[2] for row in rows] == frame["side"].to_list()
    products = [p * s for p, s in frame.select("price", "size").rows()]
    assert [row[4] for row in rows] == products
    assert {row[5] for row in rows} == {sum(products)}
    assert types["price"] == "DECIMAL(38,2)"
    assert types["ts_recv"] == "TIMESTAMP_NS"


async def test_the_queries_of_the_docs(tmp_path: Path, live: Live) -> None:
    compacted(tmp_path)
    page = (Path(__file__).parents[3] / "docs" / "recording.md").read_text()
    queries = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    trades = recordings.open(tmp_path, kinds="trades").to_polars()
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW trades AS {duckdb_view(tmp_path, 'trades')}")
        found = [
            connection.execute(query.replace("'recordings/", f"'{tmp_path}/")).fetchall()
            for query in queries
        ]
    assert len(found) == 2
    turnover = trades.group_by("instrument").agg(pl.len(), (pl.col("price") * pl.col("size")).sum())
    exact = sorted(turnover.rows())
    assert [(name, rows) for name, rows, _ in exact] == [
        ("acme:spot:AAA", 39),
        ("acme:spot:BBB", 40),
    ]
    assert sorted(found[1]) == exact
    for (name, rows, rough), (key, count, total) in zip(sorted(found[0]), exact, strict=True):
        assert (name, rows) == (key, count)
        assert rough == pytest.approx(float(total))


async def test_a_replay_can_go_to_parquet(tmp_path: Path, live: Live) -> None:
    sink = ParquetSink(tmp_path / "copy")
    run = replay(tmp_path)
    await run.run(sink)
    await sink.drain(1.0)
    assert len(sink.files) >= 3
    found = recordings.open(tmp_path / "copy")
    assert digest_by_instrument(found) == live.digest.hexdigest()


def test_two_revisions_of_one_instrument_keep_their_exponents(tmp_path: Path) -> None:
    from ingestor.model.rows import TRADE
    from ingestor.recording.parquet import Unit, UnitWriter

    fields = {"venue": "acme", "market": "spot", "symbol": "AAA", "canonical": "AAA"}
    more = {"base": "AAA", "quote": "USD", "lot_size": "1", "size_exponent": 0}
    table = InstrumentTable(
        [
            Instrument(**fields, **more, tick_size="0.1", price_exponent=1),  # type: ignore[arg-type]
            Instrument(**fields, **more, tick_size="0.01", price_exponent=2),  # type: ignore[arg-type]
        ]
    )
    rows = np.zeros(4, TRADE)
    rows["instrument"] = [0, 0, 1, 1]
    rows["ts_recv"] = T0 + np.arange(4)
    rows["kind"] = Kind.TRADE
    writer = UnitWriter(tmp_path, Unit("acme", T0 // HOUR_NS), table)
    writer.add(RowClass.TRADE, rows)
    writer.close()
    (batch,) = recordings.open(tmp_path)
    exponents = [batch.instruments[int(one)].price_exponent for one in batch.rows["instrument"]]
    assert exponents == [1, 1, 2, 2]


def test_files_are_cut_by_rows_and_older_parts_go(tmp_path: Path) -> None:
    from ingestor.model.rows import TRADE
    from ingestor.recording.parquet import Unit, UnitWriter

    table = InstrumentTable([Instrument("acme", "spot", "A", "A", "A", "USD", "1", "1", 0, 0)])
    rows = np.zeros(250, TRADE)
    rows["ts_recv"] = T0 + np.arange(250)
    for rows_max, parts in ((100, 3), (1_000, 1)):
        writer = UnitWriter(tmp_path, Unit("acme", T0 // HOUR_NS), table, rows_max)
        for chunk in np.split(rows, 25):
            writer.add(RowClass.TRADE, chunk)
        assert len(writer.close()) == parts
        assert len(list(tmp_path.rglob("*.parquet"))) == parts
        assert sum(len(batch) for batch in recordings.open(tmp_path)) == 250


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (5, 5),
        ("1790000000000000000", 1_790_000_000_000_000_000),
        ("1970-01-02", 86_400 * 10**9),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T00:00:01", 10**9),
        (datetime(1970, 1, 1, 0, 0, 1, 250_000, UTC), 1_250_000_000),
    ],
)
def test_times(time: recordings.Time, expected: int) -> None:
    assert recordings.time_ns(time) == expected


def test_what_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        recordings.open(tmp_path / "absent")
    with pytest.raises(ConfigError, match="no kind 'songs'"):
        recordings.open(tmp_path, kinds=["songs"])
    with pytest.raises(ConfigError, match="is no time"):
        recordings.open(tmp_path, start="yesterday")
    with pytest.raises(ConfigError, match="no zone"):
        recordings.time_ns(datetime(2026, 1, 1))  # noqa: DTZ001  # that is the point
    with pytest.raises(ConfigError, match="nothing to replay"):
        list(recordings.open(tmp_path))
    with pytest.raises(ConfigError, match="no folder of raw segments"):
        compact(tmp_path)


async def test_trades_of_many_hours_come_by_hour(tmp_path: Path) -> None:
    live = Live(tmp_path)
    live.open(1)
    for n in range(5):
        live.frame(1, trade("AAA", n))
        live.ts_ns += HOUR_NS
    await live.stop()
    compacted(tmp_path)
    sequences = [
        int(number) for batch in recordings.open(tmp_path) for number in batch.rows["sequence"]
    ]
    assert sequences == list(range(5))
    part = recordings.open(tmp_path, start=T0 + 2 * HOUR_NS, end=T0 + 4 * HOUR_NS)
    assert [int(number) for batch in part for number in batch.rows["sequence"]] == [2, 3]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(1_000) + b"PAR1", b"foreign"])
def test_a_parquet_file_that_is_none_of_ours_is_named(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "ticks" / "kind=trades" / "venue=x" / "date=2026-11-29"
    folder.mkdir(parents=True)
    (folder / "notes.parquet").write_bytes(b"not named like ours: left alone")
    (folder / "01-0.parquet").symlink_to("/dev/zero")
    os.mkfifo(folder / "02-0.parquet")
    assert not list(recordings.open(tmp_path, kinds=["trades"]))
    path = folder / "00-0.parquet"
    if content == b"foreign":
        pq.write_table(pa.table({"a": [1]}), path)
    else:
        path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        list(recordings.open(tmp_path, kinds=["trades"]))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_parquet_row_group_above_the_limit_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ticks" / "kind=trades" / "venue=x" / "date=2026-11-29"
    folder.mkdir(parents=True)
    zeros = pa.array(np.zeros(9 << 20, np.int64))
    names = pa.array(["x"]).take(pa.array(np.zeros(9 << 20, np.int32)))
    table = pa.table({"instrument": names, "price": zeros}).replace_schema_metadata(
        {b"ingestor.instruments": b"[]"}
    )
    pq.write_table(
        table, folder / "00-0.parquet", row_group_size=9 << 20, use_dictionary=False,
        compression="zstd",
    )  # fmt: skip
    with pytest.raises(RecordingError, match="row group 0 takes"):
        list(recordings.open(tmp_path, kinds=["trades"]))
