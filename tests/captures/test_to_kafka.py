"""Every capture goes emulator -> sockets -> the whole ingestor -> Apache Kafka -> consumer, and
what is read back equals an independent count of the raw frames: to the digit, in order, nothing
missing, and the ledger says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingestor.config.model import Config
from ingestor.model.row_classes import STANDARD_CLASSES, RowClass
from ingestor.model.rows import Kind
from ingestor.sources.registry import adapter_of
from ingestor.telemetry.status import Status
from ingestor.testbed.emulator.server import MAX_SPEED, VenueEmulator
from tests.e2e.harness import Published, Running, make_config, published, running
from tests.kafka.broker import KafkaEndpoint
from tests.reference.reader import CAPTURES, Capture, expected_levels, of, read, tops

BINARY = ("coinbase.jsonl.zst", "binance_usdm_btcusdt_20240808.jsonl.zst", "okx.jsonl.zst")
CASES = [(name, "binary" if name in BINARY else "json") for name in CAPTURES]


def feeds_of(capture: Capture, emulator: VenueEmulator) -> list[dict[str, Any]]:
    """One feed for each market of the capture; OKX has three of them on one connection."""
    by_market: dict[str, list[str]] = {}
    for symbol in capture.symbols:
        by_market.setdefault(capture.market_of(symbol), []).append(symbol)
    return [
        {
            "venue": capture.venue,
            "market": market,
            "symbols": symbols,
            "url": emulator.ws_url,
            "rest_url": emulator.rest_url,
        }
        for market, symbols in by_market.items()
    ]


async def play(run: Running, emulator: VenueEmulator) -> None:
    """Play the capture to its end and wait until all of it went through the books."""
    await run.subscribed()
    emulator.start()
    await run.until(emulator.finished.is_set)
    sent = emulator.statistics.frames_sent
    data = sent.total() - sent["heartbeats:heartbeats"]  # a venue's heartbeats are no data
    pipeline, counts = run.ingestor.pipeline, run.ingestor.supervisor.counts
    await run.until(
        lambda: (
            sum(one.data for one in counts.values()) >= data
            and pipeline.buffer.is_empty
            and not pipeline.ledger().held
        )
    )


@pytest.mark.captures
@pytest.mark.parametrize(("name", "encoding"), CASES)
async def test_a_capture_to_kafka(
    name: str, encoding: str, captures: Path, kafka: KafkaEndpoint, tmp_path: Path
) -> None:
    await check_capture(name, encoding, captures, kafka, tmp_path)


@pytest.mark.long(minutes=1)
@pytest.mark.captures
@pytest.mark.parametrize("name", BINARY)
async def test_a_capture_to_kafka_as_json(
    name: str, captures: Path, kafka: KafkaEndpoint, tmp_path: Path
) -> None:
    await check_capture(name, "json", captures, kafka, tmp_path)


async def check_capture(
    name: str, encoding: str, captures: Path, kafka: KafkaEndpoint, tmp_path: Path
) -> None:
    capture = read(captures / name)
    async with VenueEmulator(
        [captures / name], speed=MAX_SPEED, start_when="manual", snapshots="recorded"
    ) as emulator:
        config = make_config(
            kafka.bootstrap_servers,
            feeds_of(capture, emulator),
            tmp_path,
            kafka={"encoding": encoding},
        )
        async with running(config) as run:
            await play(run, emulator)
            drained = await run.stop()
    found = await published(config)
    assert drained.lost == 0
    assert (found.holes, found.duplicates) == (0, 0)
    check_rows(capture, found)
    check_ledger(capture, config, drained.status, found)


def check_rows(capture: Capture, found: Published) -> None:
    for symbol in capture.symbols:
        market = capture.market_of(symbol)
        key = f"{capture.venue}:{market}:{symbol}"
        rule = adapter_of(capture.venue).markets[market].book
        updates = capture.book(symbol)
        assert found.trades(key) == of(capture.trades, symbol)
        assert found.levels(key) == expected_levels(updates, rule.depth_max)
        if rule.quotes_from_book:
            assert [one[1:5] for one in found.quotes(key)] == tops(updates)
        else:
            assert found.quotes(key) == of(capture.quotes, symbol)
    for row_class in STANDARD_CLASSES:
        assert found.count(row_class, Kind.GAP) == 0
    images = [one for symbol in capture.symbols for one in capture.book(symbol) if one.is_snapshot]
    assert found.count(RowClass.LEVEL, Kind.RESET) == len(images)


def check_ledger(capture: Capture, config: Config, status: Status, found: Published) -> None:
    """Every frame and row is what it is called, and the sums are those of the reference."""
    assert status.unaccounted == 0
    assert status.acked == found.total
    assert (status.rejected, status.gaps, status.reconnects, status.pending) == (0, 0, 0, 0)
    assert (status.conflated, status.shed, status.dead_lettered) == (0, 0, 0)
    snapshots = sum(len(update.levels) for update in capture.snapshots.values())
    assert status.rows["trade"] == len(capture.trades)
    assert status.rows["quote"] == len(capture.quotes)
    assert status.rows["level"] == capture.levels + snapshots
    assert status.duplicates == 0  # nobody reconnected, so nothing was resent
    used = sum(len(update.levels) for one in capture.symbols for update in capture.book(one))
    assert status.filtered == capture.levels + snapshots - used
    assert len(config.feeds) == len({capture.market_of(one) for one in capture.symbols})
