"""The Kafka sink against the embedded broker: delivery, routing, and every way to be refused."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import orjson
import pytest
from aiokafka import errors

from ingestor.config.model import LogConfig
from ingestor.consumer import EARLIEST, Consumer, audit
from ingestor.kafka.diagnosis import Reason, explain_connection_failure
from ingestor.kafka.partitions import partition_of_key
from ingestor.kafka.settings import AUXILIARY_TOPICS, DEAD_LETTER, STATUS, KafkaSettings
from ingestor.model.batch import TickBatch
from ingestor.model.errors import SinkUnavailable, TopicAbsent
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Cause, Kind
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.telemetry.logs import configure
from ingestor.testbed.broker import DISCONNECT, DevBroker
from tests.fakes.rows import MAKERS, Ledger, by_key, table_of, trades

TOPICS = {"md.trades.v1": 4, "md.quotes.v1": 4, "md.book.v1": 4}
SESSION = bytes(range(16))
TABLE = table_of()
MESSAGE_TOO_LARGE, NOT_AUTHORISED, UNKNOWN_SERVER_ERROR = 10, 29, -1


@pytest.fixture
def broker() -> Iterator[DevBroker]:
    with DevBroker(TOPICS | {f"md.{name}": 1 for name in AUXILIARY_TOPICS}) as broker:
        yield broker


@asynccontextmanager
async def running(sink: KafkaSink) -> AsyncIterator[None]:
    task = asyncio.create_task(sink.run())
    try:
        yield
    finally:
        await sink.close()
        with suppress(asyncio.CancelledError):
            await task


def sink_of(broker: DevBroker, ledger: Ledger, **settings: Any) -> KafkaSink:
    options = {"create_topics": False, "retry_backoff_ms": 20, "request_timeout_ms": 5_000}
    return KafkaSink(
        KafkaSettings(broker.bootstrap_servers, **(options | settings)),
        TABLE,
        ledger,
        session=SESSION,
    )


def submit(sink: KafkaSink, row_class: RowClass, rows: np.ndarray) -> None:
    sink.submit(TickBatch(row_class, rows, TABLE), time.time_ns())


async def read(broker: DevBroker, *topics: str) -> tuple[list[TickBatch], Consumer]:
    async with (
        asyncio.timeout(60),
        Consumer(broker.bootstrap_servers, topics, start=EARLIEST, stop_at_end=True) as consumer,
    ):
        return [batch async for batch in consumer], consumer


async def raw(broker: DevBroker, topic: str) -> list[dict[str, Any]]:
    async with (
        asyncio.timeout(60),
        Consumer(broker.bootstrap_servers, [topic], start=EARLIEST, stop_at_end=True) as consumer,
    ):
        return [orjson.loads(value) async for _, _, value in consumer.records()]


@pytest.mark.parametrize("encoding", ["json", "binary"])
@pytest.mark.parametrize("row_class", tuple(ROW_CLASSES))
async def test_rows_come_back_as_they_went_in(
    broker: DevBroker, row_class: RowClass, encoding: str
) -> None:
    ledger = Ledger()
    sink = sink_of(broker, ledger, encoding=encoding)
    rows = MAKERS[row_class](1_000)
    submit(sink, row_class, rows[:300])  # before there is any connection
    async with running(sink):
        await sink.wait_connected(60)
        submit(sink, row_class, rows[300:301])
        submit(sink, row_class, rows[301:])
        assert await sink.drain(60) == 0
    batches, consumer = await read(broker, sink.settings.tick_topic(row_class))
    assert by_key(batches) == by_key([TickBatch(row_class, rows, TABLE)])
    assert not consumer.holes
    assert ledger.unexplained(len(rows), 0) == 0
    assert ledger.counts["acked"] == len(rows)


async def test_an_instrument_has_the_partition_of_its_key(broker: DevBroker) -> None:
    sink = sink_of(broker, Ledger(), encoding="json")
    submit(sink, RowClass.TRADE, trades(60))
    async with (
        running(sink),
        Consumer(broker.bootstrap_servers, ["md.trades.v1"], start=EARLIEST) as consumer,
        asyncio.timeout(60),
    ):
        seen = 0
        async for partition, key, _ in consumer.records():
            assert key is not None
            assert partition.partition == partition_of_key(key, 4)
            seen += 1
            if seen == 60:
                break


@pytest.mark.rows("K6")
@pytest.mark.parametrize("code", [2, 10, 29, 32, 45, 59, 87, 89, 3, 5, 6, 7, 19, 20, 56])
async def test_one_refusal_costs_no_row(broker: DevBroker, code: int) -> None:
    """K6: retriable codes have no effect; others cost the partition an epoch at most."""
    ledger = Ledger()
    sink = sink_of(broker, ledger, encoding="binary")
    async with running(sink):
        await sink.wait_connected(60)
        submit(sink, RowClass.TRADE, trades(100, instruments=1))
        await sink.drain(60)
        broker.push_errors([code])
        submit(sink, RowClass.TRADE, trades(100, first=101, instruments=1))
        await asyncio.sleep(0.02)
        submit(sink, RowClass.TRADE, trades(100, first=201, instruments=1))
        assert await sink.drain(60) == 0
    batches, consumer = await read(broker, "md.trades.v1")
    rows = trades(300, instruments=1)
    assert by_key(batches) == by_key([TickBatch(RowClass.TRADE, rows, TABLE)])
    assert not consumer.holes
    assert ledger.counts == {"acked": 300}
    fatal = code in {2, 10, 29, 32, 45, 59, 87}
    assert sum(sink.refused.values()) == fatal
    assert not sink.producer_resets


@pytest.mark.rows("K6")
async def test_a_record_that_is_refused_for_ever_is_found(broker: DevBroker) -> None:
    """Eight records: the batch, its first half, quarter and first record are refused."""
    ledger = Ledger()
    sink = sink_of(broker, ledger)
    shed: list[tuple[RowClass, int]] = []
    sink.backpressure.observe_shed(
        lambda row_class, instrument: shed.append((row_class, instrument))
    )
    async with running(sink):
        await sink.wait_connected(60)
        broker.push_errors([MESSAGE_TOO_LARGE] * 4)
        submit(sink, RowClass.TRADE, trades(8, instruments=1))
        assert await sink.drain(60) == 0
    batches, consumer = await read(broker, "md.trades.v1")
    found = np.concatenate([batch.rows for batch in batches])
    assert found["sequence"].tolist() == [2, 3, 4, 5, 6, 7, 8, 0]
    assert found["kind"][-1] == Kind.GAP
    assert found["side"][-1] == Cause.DEAD_LETTER
    assert shed == [(RowClass.TRADE, 0)]
    assert ledger.counts == {"acked": 8, "dead_lettered": 1, "declared": 1}
    assert ledger.unexplained(8, 0) == 0
    [letter] = await raw(broker, f"md.{DEAD_LETTER}")
    assert (letter["topic"], letter["seq"], letter["rows"]) == ("md.trades.v1", 0, 1)
    assert orjson.loads(base64.b64decode(letter["value_base64"]))["sequence"] == 1
    assert letter["reason"] == "MessageSizeTooLarge"
    [void] = await raw(broker, f"md.{STATUS}")
    assert (void["kind"], void["first"], void["last"]) == ("void", 0, 0)
    # The consumer met the session at number 1, behind the void range: nothing is missing.
    assert not consumer.holes


async def test_audit_tells_void_from_missing(broker: DevBroker) -> None:
    sink = sink_of(broker, Ledger())
    async with running(sink):
        await sink.wait_connected(60)
        submit(sink, RowClass.TRADE, trades(4, instruments=1))
        await sink.drain(60)
        broker.push_errors([MESSAGE_TOO_LARGE])
        submit(sink, RowClass.TRADE, trades(1, first=5, instruments=1))
        await sink.drain(60)
    servers = broker.bootstrap_servers
    report = await audit(servers, ["md.trades.v1"], "md.status.v1")
    assert report.complete
    assert (report.rows, report.duplicates, report.sessions) == (5, 0, {SESSION.hex()})
    without_status = await audit(servers, ["md.trades.v1"])
    [hole] = without_status.holes
    assert (hole.first, hole.last) == (4, 4)


@pytest.mark.rows("K8")
async def test_a_forbidden_topic_holds_its_rows_until_it_is_allowed(broker: DevBroker) -> None:
    ledger = Ledger()
    sink = sink_of(broker, ledger)
    async with running(sink):
        await sink.wait_connected(60)
        broker.push_errors([NOT_AUTHORISED] * 3)
        submit(sink, RowClass.TRADE, trades(5, instruments=1))
        async with asyncio.timeout(60):
            while not sink.refused["TopicAuthorizationFailed"]:
                await asyncio.sleep(0.001)
        assert sink.queue.rows == 5, "two more refusals are to come"
        assert await sink.drain(60) == 0
    assert ledger.counts == {"acked": 5}
    assert sink.refused["TopicAuthorizationFailed"] == 3
    assert not sink.producer_resets


@pytest.mark.rows("K1")
async def test_an_outage_costs_nothing(broker: DevBroker) -> None:
    ledger = Ledger()
    sink = sink_of(broker, ledger)
    async with running(sink):
        await sink.wait_connected(60)
        submit(sink, RowClass.QUOTE, MAKERS[RowClass.QUOTE](500))
        broker.set_down()
        for first in range(501, 1_500, 100):
            submit(sink, RowClass.QUOTE, MAKERS[RowClass.QUOTE](100, first=first))
            await asyncio.sleep(0.05)
        assert await sink.drain(0.1) > 0
        broker.set_up()
        assert await sink.drain(60) == 0
    batches, _ = await read(broker, "md.quotes.v1")
    rows = MAKERS[RowClass.QUOTE](1_500)
    assert by_key(batches) == by_key([TickBatch(RowClass.QUOTE, rows, TABLE)])
    assert ledger.counts == {"acked": 1_500}


@pytest.mark.rows("K1")
async def test_dropped_connections_cost_nothing(broker: DevBroker) -> None:
    ledger = Ledger()
    sink = sink_of(broker, ledger, encoding="binary")
    async with running(sink):
        await sink.wait_connected(60)
        broker.push_errors([0, DISCONNECT, 0, DISCONNECT, DISCONNECT])
        for first in range(1, 1_000, 50):
            submit(sink, RowClass.TRADE, trades(50, first=first))
            await asyncio.sleep(0.01)
        assert await sink.drain(60) == 0
    batches, consumer = await read(broker, "md.trades.v1")
    assert by_key(batches) == by_key([TickBatch(RowClass.TRADE, trades(1_000), TABLE)])
    assert not consumer.holes


async def test_side_records_survive_a_replaced_producer(broker: DevBroker) -> None:
    sink = sink_of(broker, Ledger())
    async with running(sink):
        await sink.wait_connected(60)
        broker.push_errors([45])
        for number in range(10):
            sink.publish(STATUS, b"key", b'{"n":%d}' % number, ts_ms=1_700_000_000_000)
        await sink.drain(60)
    numbers = [message["n"] for message in await raw(broker, "md.status.v1")]
    assert list(dict.fromkeys(numbers)) == list(range(10))


async def test_a_topic_may_have_other_partitions_than_configured(broker: DevBroker) -> None:
    """Rows that were queued before the first connection move to where their key belongs."""
    sink = sink_of(broker, Ledger(), partitions=7)
    submit(sink, RowClass.TRADE, trades(500))
    async with running(sink):
        assert await sink.drain(60) == 0
    batches, _ = await read(broker, "md.trades.v1")
    assert by_key(batches) == by_key([TickBatch(RowClass.TRADE, trades(500), TABLE)])
    assert {
        partition_queue.partition for partition_queue in sink.queue.partition_queues.values()
    } <= set(range(4))


async def test_no_broker_is_one_clear_line() -> None:
    settings = KafkaSettings("127.0.0.1:1", request_timeout_ms=1_000)
    sink = KafkaSink(settings, TABLE, Ledger(), session=SESSION)
    async with running(sink):
        with pytest.raises(SinkUnavailable, match=r"Kafka at 127\.0\.0\.1:1 is unavailable: .+"):
            await sink.wait_connected(0.5)


@pytest.mark.rows("K9")
@pytest.mark.usefixtures("own_logging")
async def test_an_outage_logs_ten_lines_a_minute_and_cause(broker: DevBroker) -> None:
    stream, config = io.BytesIO(), LogConfig(format="json")
    configure(config, stream=stream)
    sink = sink_of(broker, Ledger())
    async with running(sink):
        await sink.wait_connected(60)
        broker.set_down()
        submit(sink, RowClass.TRADE, trades(100))
        await asyncio.sleep(2.2)
        broker.set_up()
        await sink.drain(60)
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    causes = Counter(line["cause"] for line in lines if line["event"] == "library")
    assert causes
    assert max(causes.values()) == config.per_cause_per_minute


@pytest.mark.rows("K8")
async def test_a_topic_that_is_not_there_is_said_and_not_created(broker: DevBroker) -> None:
    servers = broker.bootstrap_servers
    for _ in range(2):  # asking for it has not made it
        with pytest.raises(TopicAbsent, match=f"Kafka at {servers} has no topic absent.trades.v1"):
            async with Consumer(servers, ["md.trades.v1", "absent.trades.v1"]):
                pass
    with pytest.raises(TopicAbsent):
        await audit(servers, ["absent.trades.v1"])
    report = await audit(servers, ["md.trades.v1"], "absent.status.v1")
    assert (report.rows, report.void, report.complete) == (0, [], True)


@pytest.mark.parametrize(
    ("failure", "text", "is_final"),
    [
        (errors.SaslAuthenticationFailed("no such user"), "no such user", True),
        (errors.SaslAuthenticationFailed(), "authentication failed", True),
        (
            errors.UnsupportedSaslMechanismError(),
            "the broker doesn't offer the SASL mechanism PLAIN",
            True,
        ),
        (TimeoutError(), "no answer in time", False),
        (ConnectionRefusedError(111, "x"), "Connection refused", False),
        (errors.TopicAuthorizationFailedError(), "TopicAuthorizationFailedError", False),
    ],
    ids=lambda one: type(one).__name__,
)
async def test_failures_to_connect_in_words(failure: Exception, text: str, is_final: bool) -> None:
    found = await explain_connection_failure(failure, {"sasl_mechanism": "PLAIN"})
    assert text in found.text
    assert found.is_final is is_final


async def test_where_aiokafka_gives_no_reason_the_brokers_are_asked() -> None:
    failure = errors.KafkaConnectionError("Unable to bootstrap")
    found = await explain_connection_failure(failure, {"bootstrap_servers": "127.0.0.1:9"})
    assert found == Reason("Connection refused")
