"""A class of rows that is a dtype and an entry in the table goes all the way, without more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from ingestor import history as recordings
from ingestor.adapter import FeedAdapter
from ingestor.adapter.contract import Subscription
from ingestor.cli.topic_text import rows_of as consumed
from ingestor.codec.json_schema import json_schema
from ingestor.config.model import FeedConfig
from ingestor.consumer import EARLIEST, Consumer
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.kafka.settings import AUXILIARY_TOPICS, KafkaSettings
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.model.rows import Cause, Kind
from ingestor.pipeline.pipeline import Pipeline
from ingestor.recording.parquet import ParquetSink, duckdb_view
from ingestor.recording.recorder import Recorder
from ingestor.recording.segments import RecorderSettings
from ingestor.sinks.digest import AuditSink
from ingestor.sinks.interface import Tee
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.sources.live.staleness import Staleness
from ingestor.sources.live.staleness_monitor import StalenessMonitor
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.testbed.broker import DevBroker
from tests.fakes.acme import MARKET, MS
from tests.fakes.weather import WEATHER, WeatherVenue, forecast, known

T0 = 1_790_000_000_000_000_000
VENUE: type[FeedAdapter] = WeatherVenue
SYMBOLS = ("AAA", "BBB")
TRADE = b'{"s":"AAA","i":1,"p":"10.25","q":"1.5"}'
FRAMES = [
    forecast("AAA", 1),
    forecast("BBB", 1),
    TRADE,
    forecast("AAA", 2, change="0.5"),
    forecast("AAA", 2, again=True),  # a row that was sent before
    forecast("BBB", 2, change="a storm"),  # costs the frame, and declares a gap
    forecast("BBB", 3),
    forecast("AAA", 3),
]
NUMBERS = {"AAA": [1, 2, 3], "BBB": [1, 0, 3]}  # 0: the gap
KEYS = {symbol: f"acme:spot:{symbol}" for symbol in SYMBOLS}


@pytest.fixture(autouse=True)
def weather() -> Iterator[None]:
    with known():
        yield


class Feed:
    """The way from the frames of the made-up venue to a sink, without sockets; recorded."""

    def __init__(self, folder: Path) -> None:
        self.table = InstrumentTable(
            instrument("acme", "spot", one, one, one, "USD", "0.01", "0.001") for one in SYMBOLS
        )
        self.pipeline = Pipeline(self.table, lambda number: MARKET.book)
        subscriptions = [
            Subscription(number, symbol, channel, f"{channel}:{symbol}")
            for number, symbol in enumerate(SYMBOLS)
            for channel in ("trades", "weather")
        ]
        self.recorder = Recorder(
            RecorderSettings(folder), "made", self.table, lambda _: subscriptions
        )
        self.recorder.start()
        self.session = Session(
            1,
            WeatherVenue("spot", self.table.symbols("acme", "spot")),
            subscriptions,
            self.pipeline.buffer,
            FrameCounts(),
            SessionEvents(),
            "spot",
        )
        self.recorder.connected(1, T0, "acme", "spot", "wss://acme.example")
        for frame in self.session.opened():
            self.recorder.sent(1, T0, frame)

    def flushes(self, size: int = 3) -> Iterator[TickBatch]:
        """Take all frames, and flush after so many of them."""
        for number, payload in enumerate(FRAMES, 1):
            ts_ns = T0 + number * MS
            self.recorder.received(1, ts_ns, payload)
            self.session.receive(payload, ts_ns)
            if number % size == 0:
                yield from self.pipeline.flush(ts_ns).batches
        yield from self.pipeline.flush(T0 + 100 * MS).batches


def by_key(batches: Iterable[TickBatch]) -> dict[str, bytes]:
    """Return the rows of the made-up class, in order, by instrument."""
    found: dict[str, bytes] = {}
    for batch in batches:
        if batch.row_class is not WEATHER:
            continue
        for number in np.unique(batch.rows["instrument"]).tolist():
            rows = batch.rows[batch.rows["instrument"] == number].copy()
            rows["instrument"] = 0
            key = batch.instruments[number].key
            found[key] = found.get(key, b"") + rows.tobytes()
    return found


def numbers(rows: bytes) -> list[int]:
    found: list[int] = np.frombuffer(rows, WEATHER.dtype)["sequence"].tolist()
    return found


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_a_made_up_class_goes_through_kafka_and_parquet(
    tmp_path: Path, encoding: str
) -> None:
    feed = Feed(tmp_path / "recording")
    topics = {f"md.{row_class.topic}": 2 for row_class in ROW_CLASSES}
    with DevBroker(topics | {f"md.{name}": 1 for name in AUXILIARY_TOPICS}) as broker:
        settings = KafkaSettings(broker.bootstrap_servers, encoding=encoding, create_topics=False)
        kafka = KafkaSink(settings, feed.table, feed.pipeline.metrics, session=bytes(16))
        live = AuditSink()
        parquet = ParquetSink(tmp_path / "parquet")
        running = asyncio.create_task(kafka.run())
        batches = []
        for batch in feed.flushes():
            batches.append(batch)
            Tee(kafka, live, parquet).submit(batch, T0)
        assert await kafka.drain(20) == 0
        await parquet.drain(20)
        await kafka.close()
        await asyncio.gather(running, return_exceptions=True)
        published = by_key(batches)
        assert {key: numbers(rows) for key, rows in published.items()} == {
            KEYS[symbol]: expected for symbol, expected in NUMBERS.items()
        }
        async with (
            asyncio.timeout(20),
            Consumer(
                broker.bootstrap_servers, ["md.weather.v1"], start=EARLIEST, stop_at_end=True
            ) as consumer,
        ):
            read = [batch async for batch in consumer]
            assert not consumer.holes
        assert by_key(read) == published
        check_records(await raw(broker), encoding)
    check_counts(feed, live)
    check_consumed(read)

    # The files that were written, and the recording through the same pipeline, have the same rows.
    assert by_key(recordings.open(tmp_path / "parquet", kinds=["weather"])) == published
    await feed.recorder.stop()
    replayed = AuditSink()
    options = ReplayOptions((tmp_path / "recording",))
    for result in Replay(options, adapters=lambda _: VENUE).results():
        for batch in result.batches:
            replayed.submit(batch, T0)
    assert replayed.digest.hexdigest() == live.digest.hexdigest()


async def raw(broker: DevBroker) -> list[tuple[bytes | None, bytes]]:
    async with (
        asyncio.timeout(20),
        Consumer(
            broker.bootstrap_servers, ["md.weather.v1"], start=EARLIEST, stop_at_end=True
        ) as consumer,
    ):
        return [(key, value) async for _, key, value in consumer.records()]


def check_records(records: list[tuple[bytes | None, bytes]], encoding: str) -> None:
    if encoding == "binary":
        assert {key for key, _ in records} == {None}
        return
    schema = json_schema(WEATHER)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    messages: list[dict[str, Any]] = [json.loads(value) for _, value in records]
    for message in messages:
        validator.validate(message)
        assert not validator.is_valid(message | {"surprise": 1})
    [first] = [one for one in messages if (one["symbol"], one["sequence"]) == ("AAA", 1)]
    assert (first["kind"], first["rain_price"], first["wind"]) == ("forecast", "1.50", "2.250")
    assert (first["change"], first["state"]) == ("-0.012500000000000000", "sunny")
    assert (first["station"], first["mast"]) == (71, -1)
    assert {key for key, _ in records} == {
        b"acme:spot:AAA:70",
        *(f"{key}:71".encode() for key in KEYS.values()),
        b"acme:spot:BBB:0",  # the gap
    }


def check_counts(feed: Feed, live: AuditSink) -> None:
    """The metrics, the ledger and the staleness monitor know the class."""
    metrics = feed.pipeline.metrics
    place = [key.channel for key in metrics.feeds.all].index("weather")
    found = {name: int(metrics.counter(name)[place]) for name in metrics.COUNTERS}
    expected = {"decoded": 6, "duplicate": 1, "published": 5, "marks": 1, "gaps": 1, "acked": 6}
    assert found == dict.fromkeys(metrics.COUNTERS, 0) | expected
    assert feed.pipeline.ledger().unaccounted == 0
    assert metrics.unsettled == 0
    assert (live.rows["weather"], live.rows["trade"], live.rows["gap"]) == (5, 1, 1)
    staleness = Staleness()
    monitor = StalenessMonitor(staleness, metrics.last_seen)
    staleness.watch(1, WEATHER, [0, 1], T0)
    assert monitor.silent_streams == []
    assert metrics.last_seen.of(WEATHER, 0)[:2] == (3, T0 + 8 * MS)


def check_consumed(batches: list[TickBatch]) -> None:
    """`ingestor consume` prints it."""
    lines = [row for batch in batches for row in consumed(batch)]
    [gap] = [row for row in lines if row["kind"] == "gap"]
    assert (gap["instrument"], gap["cause"]) == ("acme:spot:BBB", "rejected")
    [second] = [row for row in lines if (row["instrument"], row["sequence"]) == (KEYS["AAA"], 2)]
    assert (second["rain_price"], second["change"]) == ("2.50", "0.500000000000000000")


def test_a_configuration_may_name_it() -> None:
    feed = FeedConfig(venue="acme", symbols=("AAA",), channels=("trades", "weather"))
    assert feed.channels == ("trades", "weather")
    choices = FeedConfig.model_json_schema()["properties"]["channels"]["items"]["enum"]
    assert choices == [*ROW_CLASSES.channels]
    assert choices[-1] == "weather"


def test_duckdb_reads_it_as_exact_numbers(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    feed = Feed(tmp_path / "recording")
    parquet = ParquetSink(tmp_path)
    for batch in feed.flushes():
        parquet.submit(batch, T0)
    asyncio.run(parquet.drain(20))
    asyncio.run(feed.recorder.stop())
    text = f"SELECT rain_price, change, station FROM ({duckdb_view(tmp_path, 'weather')})"
    found = duckdb.sql(f"{text} ORDER BY sequence, instrument").fetchall()
    assert [(float(price), float(change), station) for price, change, station in found] == [
        (1.5, -0.0125, 71),
        (1.5, -0.0125, 71),
        (2.5, 0.5, 70),
        (3.5, -0.0125, 71),
        (3.5, -0.0125, 71),
    ]


def test_a_gap_and_its_cause_have_names(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "recording")
    [gap] = [
        row
        for batch in feed.flushes()
        if batch.row_class is WEATHER
        for row in batch.rows.view(WEATHER.control)
        if row["kind"] == Kind.GAP
    ]
    assert (gap["instrument"], gap["cause"]) == (1, Cause.REJECTED)
    asyncio.run(feed.recorder.stop())
