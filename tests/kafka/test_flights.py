"""Several batches of a lane under way to Apache Kafka when something fails in their midst.

Apache Kafka refuses what is behind a failed batch (`tests/fakes/broker.py` is modelled on it)
and knows the last five again; the embedded broker does neither.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from aiokafka import errors

from ingestor.consumer import EARLIEST, Consumer, audit
from ingestor.kafka.aiokafka_compat import CloseReason
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Kind
from ingestor.sinks.kafka import in_flight as in_flight_module
from ingestor.sinks.kafka.produce_request import Batches, Failures, ProduceClient
from ingestor.sinks.kafka.sender import REQUESTS_MAX
from ingestor.sinks.kafka.sink import KafkaSink
from tests.fakes.rows import Ledger, by_key, trades
from tests.kafka.broker import KafkaBroker, KafkaEndpoint
from tests.kafka.test_sink import TABLE, feed, read, running, sink_of, submit

LATE_S = 0.03  # answers come so late that several batches are under way


class Faults:
    """Stands between the sender and the connection, and makes things fail at random.

    lost: batches that are never sent and called refused. kept: batches that the broker has, called
    refused all the same. cut: connections closed. refused: what Kafka itself refused, by name.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *, share: float) -> None:
        self.lost = self.kept = self.cut = 0
        self.under_way_peak = 0
        self.refused: Counter[str] = Counter()
        self._random = random.Random(1)
        self._share = share
        self._under_way: Counter[object] = Counter()
        self._send = ProduceClient.send
        patch.setattr(ProduceClient, "send", lambda *given: self.send(*given))
        patch.setattr(in_flight_module, "BESIDE_S", 0.0)

    async def send(self, produce: ProduceClient, node: int, batches: Batches) -> Failures:
        self._under_way.update(list(batches))
        self.under_way_peak = max(self.under_way_peak, *self._under_way.values())
        try:
            return await self._with_faults(produce, node, batches)
        finally:
            self._under_way.subtract(list(batches))

    async def _with_faults(self, produce: ProduceClient, node: int, batches: Batches) -> Failures:
        lost = {place for place in batches if self._happens()}
        kept = {place for place in batches if self._happens()} - lost
        rest = {place: batch for place, batch in batches.items() if place not in lost}
        failures: Failures = dict.fromkeys(lost, errors.NotLeaderForPartitionError())
        if rest:
            connection = produce.connection(node)
            sending = asyncio.ensure_future(self._send(produce, node, rest))
            await asyncio.sleep(0)  # it is written
            if self._happens() and connection is not None:
                self.cut += 1
                connection.close(reason=CloseReason.CONNECTION_BROKEN)
            answered = await sending
            self.refused.update(type(one).__name__ for one in answered.values() if one is not None)
            failures |= answered
        failures |= {
            place: errors.NotEnoughReplicasAfterAppendError()
            for place in kept
            if failures[place] is None
        }
        self.lost += len(lost)
        self.kept += len(kept)
        await asyncio.sleep(LATE_S)
        return failures

    def _happens(self) -> bool:
        return self._random.random() < self._share


@pytest.mark.rows("K6")
async def test_order_holds_through_failures_in_the_midst(
    kafka: KafkaEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka does refuse what is behind a lost batch, and that costs no producer."""
    ledger, stop = Ledger(), asyncio.Event()
    sink = sink_of(kafka, ledger, encoding="binary", retry_backoff_ms=10)
    faults = Faults(monkeypatch, share=0.03)
    async with running(sink):
        feeding = asyncio.create_task(feed(sink, 10_000, stop))
        await asyncio.sleep(4)
        stop.set()
        submitted = await feeding
        assert await sink.drain(60) == 0
    assert faults.under_way_peak > 1
    assert min(faults.lost, faults.kept, faults.cut) > 0
    assert faults.refused["OutOfOrderSequenceNumber"] > 0
    assert ledger.counts == {"acked": submitted}
    assert not sink.producer_resets
    assert by_key(await read(sink, RowClass.TRADE)) == by_key_of(trades(submitted))


@pytest.mark.rows("K6")
async def test_a_refused_record_with_others_behind_it(
    kafka: KafkaEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found and set aside; what was under way behind it follows in order."""
    table = InstrumentTable(TABLE)
    long_name = "".join(uuid.uuid4().hex for _ in range(40))
    table.add(instrument("acme", "spot", long_name, "X-Y", "X", "Y", "1", "1"))
    prefix = f"t{uuid.uuid4().hex}."
    # Rows of tests are years old: without "retention.ms" Kafka may delete them at any moment.
    kafka.create_topic(f"{prefix}trades.v1", 1, {"max.message.bytes": "900", "retention.ms": "-1"})
    ledger = Ledger()
    sink = KafkaSink(
        KafkaSettings(kafka.bootstrap_servers, topic_prefix=prefix, compression=None),
        table,
        ledger,
        session=uuid.uuid4().bytes,
    )
    faults = Faults(monkeypatch, share=0.0)
    rows = trades(200, instruments=3)
    rows["instrument"][50] = len(table) - 1
    async with running(sink):
        for first in range(0, 200, 4):
            submit(sink, RowClass.TRADE, rows[first : first + 4], table)
            await asyncio.sleep(0.005)
        assert await sink.drain(60) == 0
    assert faults.under_way_peak > 1
    assert faults.refused["MessageSizeTooLargeError"] > 0
    # The mark for the lost row has the same long name: it is refused like the row.
    assert ledger.counts == {"acked": 199, "dead_lettered": 2, "declared": 1}
    topics = [f"{prefix}trades.v1"]
    reading = Consumer(kafka.bootstrap_servers, topics, start=EARLIEST, stop_at_end=True)
    async with asyncio.timeout(60), reading as consumer:
        found = np.concatenate([batch.rows async for batch in consumer])
    found = found[found["kind"] == Kind.TRADE]
    assert found["sequence"].tolist() == [*range(1, 51), *range(52, 201)]
    report = await audit(kafka.bootstrap_servers, topics, f"{prefix}status.v1")
    assert report.complete


@pytest.mark.rows("K1")
@pytest.mark.parametrize("how", ["killed", "silent"])
async def test_a_broker_that_goes_with_all_requests_under_way(
    private_kafka: KafkaBroker, how: str
) -> None:
    """Stopped until five requests wait for it, then killed; or so long that the requests are given
    up, so that it takes them from the old connection and again from the new one."""
    ledger = Ledger()
    sink = sink_of(private_kafka, ledger, partitions=1, request_timeout_ms=3_000)
    first = 1

    async def flush_until(is_so: Callable[[], bool]) -> None:
        nonlocal first
        async with asyncio.timeout(60):
            while not is_so():
                submit(sink, RowClass.TRADE, trades(10, first=first))
                first += 10
                await asyncio.sleep(0.01)

    async with running(sink):
        await flush_until(lambda: "acked" in ledger.counts)
        private_kafka.pause()
        requests = sink._sender._requests
        await flush_until(lambda: requests.total() == REQUESTS_MAX)
        if how == "killed":
            await asyncio.to_thread(private_kafka.kill)
            await flush_until(lambda: not requests.total())
            await asyncio.to_thread(private_kafka.start)
        else:
            await flush_until(lambda: not requests.total())
            private_kafka.resume()
        assert await sink.drain(60) == 0
    assert ledger.counts == {"acked": first - 1}
    assert not sink.producer_resets
    assert by_key(await read(sink, RowClass.TRADE)) == by_key_of(trades(first - 1))


def by_key_of(rows: np.ndarray) -> dict[str, list[tuple[object, ...]]]:
    return by_key([TickBatch(RowClass.TRADE, rows, TABLE)])
