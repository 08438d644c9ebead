"""Whatever is raised inside the sink costs a batch, a topic or a producer, and loses no row."""

from __future__ import annotations

import asyncio
import inspect
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ingestor.codec.json_encoder import JsonEncoder
from ingestor.kafka.aiokafka_compat import AIOKafkaClient
from ingestor.kafka.settings import AUXILIARY_TOPICS, QUARANTINE, STATUS
from ingestor.model.batch import TickBatch
from ingestor.model.errors import LedgerBroken
from ingestor.model.row_classes import RowClass
from ingestor.native import native
from ingestor.sinks.kafka import refusals
from ingestor.sinks.kafka.auxiliary_topic import AuxiliaryTopic
from ingestor.sinks.kafka.batch_maker import BatchMaker
from ingestor.sinks.kafka.overload import Budget
from ingestor.sinks.kafka.produce_request import ProduceClient
from ingestor.sinks.kafka.sender import Sender
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.sinks.kafka.topic_keeper import TopicKeeper
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.testbed.broker import DevBroker
from tests.fakes.rows import MAKERS, Ledger, by_key, trades
from tests.fakes.spans import traced
from tests.unit.sinks.kafka.test_sink import (
    SESSION,
    TABLE,
    TOPICS,
    read,
    running,
    sink_of,
    submit,
)

FAILURES = [
    RuntimeError("injected"),
    OSError(24, "Too many open files"),
    StopIteration("injected"),
    struct.error("injected"),
    ArithmeticError("injected"),
    MemoryError("injected"),
]
SECOND = 1_000_000_000


@pytest.fixture
def broker() -> Iterator[DevBroker]:
    with DevBroker(TOPICS | {f"md.{name}": 1 for name in AUXILIARY_TOPICS}) as broker:
        yield broker


class Injection:
    """Lets a method raise, so many times, before it works again."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.left = 0
        self.raised = 0
        self._works: Callable[..., Any] = getattr(owner, name)
        self._failure: Exception = RuntimeError()
        is_async = inspect.iscoroutinefunction(self._works)
        patch.setattr(owner, name, self._async(self) if is_async else self._sync(self))

    def arm(self, failure: Exception, times: int) -> None:
        self._failure, self.left = failure, times

    def _maybe(self) -> None:
        if self.left:
            self.left -= 1
            self.raised += 1
            if isinstance(self._failure, StopIteration):
                next(iter(()))  # a coroutine can't raise it: it becomes RuntimeError there
            raise self._failure

    @staticmethod
    def _sync(self: Injection) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._maybe()
            return self._works(*arguments, **options)

        return call

    @staticmethod
    def _async(self: Injection) -> Callable[..., Any]:
        async def call(*arguments: Any, **options: Any) -> Any:
            self._maybe()
            return await self._works(*arguments, **options)

        return call


PLACES: list[tuple[type, str, str]] = [
    (ProduceClient, "send", "partition"),
    (ProduceClient, "build", "record"),
    (ProduceClient, "wrap", "record"),
    (ProduceClient, "leader", "partition"),
    (ProduceClient, "connection", "partition"),
    (BatchMaker, "size_bytes", "partition"),
    (Sender, "_settle", "partition"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(("owner", "name", "unit"), PLACES, ids=lambda one: str(one)[-20:])
async def test_an_exception_on_the_way_of_rows_loses_none(
    broker: DevBroker,
    monkeypatch: pytest.MonkeyPatch,
    found_bugs: Callable[[], Counter[str]],
    owner: type,
    name: str,
    unit: str,
    failure: Exception,
    request: pytest.FixtureRequest,
) -> None:
    if name == "wrap" and native().library is None:
        pytest.skip(native().reason)
    if name == "build":
        request.getfixturevalue("python_way")
    injection = Injection(monkeypatch, owner, name)
    ledger = Ledger()
    sink = sink_of(broker, ledger)
    async with running(sink):
        await sink.wait_connected(60)
        submit(sink, RowClass.TRADE, trades(100))
        assert await sink.drain(60) == 0
        injection.arm(failure, 2)
        submit(sink, RowClass.TRADE, trades(100, first=101))
        submit(sink, RowClass.QUOTE, MAKERS[RowClass.QUOTE](100))
        assert await sink.drain(60) == 0
    assert injection.raised == 2
    assert ledger.counts == {"acked": 300}
    batches, _ = await read(broker, "md.trades.v1")
    assert by_key(batches) == by_key([TickBatch(RowClass.TRADE, trades(200), TABLE)])
    assert found_bugs().keys() <= {unit}
    assert found_bugs() or isinstance(failure, OSError)  # a lack of descriptors is foreseen


@pytest.fixture
def found_bugs(expected_bugs: Counter[str]) -> Callable[[], Counter[str]]:
    """Return the bugs of the test so far, by unit, and take them for expected."""
    before = Counter(bulkheads.bugs)

    def found() -> Counter[str]:
        expected_bugs.clear()
        expected_bugs.update(bulkheads.bugs - before)
        return expected_bugs

    return found


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: type(one).__name__)
async def test_an_exception_in_a_side_topic_costs_that_topic_alone(
    broker: DevBroker,
    monkeypatch: pytest.MonkeyPatch,
    found_bugs: Callable[[], Counter[str]],
    failure: Exception,
) -> None:
    injection = Injection(monkeypatch, AuxiliaryTopic, "_send")
    ledger = Ledger()
    sink = sink_of(broker, ledger)
    async with running(sink):
        await sink.wait_connected(60)
        injection.arm(failure, 3)
        for number in range(50):
            sink.publish(STATUS, b"key", b'{"n":%d}' % number, ts_ms=1)
            sink.publish(QUARANTINE, b"key", b'{"n":%d}' % number, ts_ms=1)
        submit(sink, RowClass.TRADE, trades(100))
        assert await sink.drain(60) == 0
        async with asyncio.timeout(60):
            while len(sink.side):
                await asyncio.sleep(0.01)
    assert sink.side.acked == {"md.status.v1": 50, "md.quarantine.v1": 50}
    assert not sink.producer_resets
    assert ledger.counts == {"acked": 100}
    assert found_bugs().keys() <= {"partition"}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(
    ("owner", "name"), [(AIOKafkaClient, "_metadata_update"), (TopicKeeper, "find")]
)
async def test_an_exception_in_metadata_costs_the_producer(
    broker: DevBroker,
    monkeypatch: pytest.MonkeyPatch,
    found_bugs: Callable[[], Counter[str]],
    owner: type,
    name: str,
    failure: Exception,
) -> None:
    """aiokafka's task that reads metadata dies of it, and every wait for metadata is for ever."""
    injection = Injection(monkeypatch, owner, name)
    ledger = Ledger()
    sink = sink_of(broker, ledger)
    with traced() as spans:
        async with running(sink):
            await sink.wait_connected(60)
            submit(sink, RowClass.TRADE, trades(100))
            assert await sink.drain(60) == 0
            injection.arm(failure, 2)
            broker.push_errors([6, 32] if owner is AIOKafkaClient else [31])
            submit(sink, RowClass.TRADE, trades(100, first=101))
            assert await sink.drain(60) == 0
    assert injection.raised == 2
    assert ledger.counts == {"acked": 200}
    assert sink.producer_resets
    assert len(spans.named("start producer")) == 1
    assert spans.named("replace producer")
    found_bugs()


async def test_a_row_that_can_not_be_encoded_is_found(
    broker: DevBroker,
    monkeypatch: pytest.MonkeyPatch,
    found_bugs: Callable[[], Counter[str]],
    python_way: None,
) -> None:
    monkeypatch.setattr(refusals.BACKOFF.__class__, "delay_s", lambda *_given: 0.01)
    ledger = Ledger()
    sink = sink_of(broker, ledger)
    encode_parts = JsonEncoder.encode_parts

    def encode(self: JsonEncoder, row_class: RowClass, parts: Any) -> Any:
        if any((rows["sequence"] == 37).any() for rows, _ in parts):
            raise ArithmeticError("row 37")
        return encode_parts(self, row_class, parts)

    monkeypatch.setattr(JsonEncoder, "encode_parts", encode)
    async with running(sink):
        await sink.wait_connected(60)
        submit(sink, RowClass.TRADE, trades(100))
        assert await sink.drain(60) == 0
    assert ledger.counts == {"acked": 100, "dead_lettered": 1, "declared": 1}
    assert found_bugs().keys() == {"record"}


async def test_a_broken_ledger_ends_the_sink(broker: DevBroker) -> None:
    sink = sink_of(broker, Ledger())
    running_sink = asyncio.create_task(sink.run())
    await sink.wait_connected(60)
    submit(sink, RowClass.TRADE, trades(10, instruments=1))
    [partition_queue] = sink.queue.partition_queues.values()
    partition_queue.rows_in_flight = -5
    with pytest.raises(LedgerBroken):
        async with asyncio.timeout(60):
            await running_sink


async def test_followers_that_raise_stop_nothing(
    broker: DevBroker, found_bugs: Callable[[], Counter[str]]
) -> None:
    ledger = Ledger()
    sink = sink_of(broker, ledger)

    def fail(*_given: object) -> None:
        raise ArithmeticError

    sink.backpressure.add_reader(fail, fail)
    sink.backpressure.observe_shed(fail)
    async with running(sink):
        await sink.wait_connected(60)
        broker.push_errors([10, 10])
        submit(sink, RowClass.TRADE, trades(1))
        assert await sink.drain(60) == 0
    assert found_bugs().keys() <= {"sink"}


@pytest.mark.rows("I8")
@pytest.mark.parametrize("step_s", [-600, 3_600])
async def test_steps_of_the_clock_shed_nothing_and_end_no_pause(
    broker: DevBroker, step_s: int
) -> None:
    """Rows wait for a broker that is away; the wall clock steps meanwhile."""
    ledger, ahead_ns = Ledger(), 0
    settings = sink_of(broker, ledger).settings
    sink = KafkaSink(
        settings,
        TABLE,
        ledger,
        session=SESSION,
        budget=Budget(bytes_max=100_000, age_max_s=30, pause_max_s=2),
        clock=lambda: time.time_ns() + ahead_ns,
    )
    heard: list[str] = []
    sink.backpressure.add_reader(lambda: heard.append("pause"), lambda: heard.append("resume"))
    async with running(sink):
        await sink.wait_connected(60)
        broker.set_down()
        sink.submit(TickBatch(RowClass.TRADE, trades(1_200), TABLE), time.time_ns())
        assert "pause" in heard
        ahead_ns = step_s * SECOND
        for number in range(10):
            more = trades(1, first=1_201 + number)
            sink.submit(TickBatch(RowClass.TRADE, more, TABLE), time.time_ns() + ahead_ns)
            await asyncio.sleep(0.1)
        assert 0 < sink.statistics().age_s < 10
        assert sink.statistics().paused
        assert not ledger.counts["shed"]
        await asyncio.sleep(1.5)
        assert not sink.statistics().paused  # after two seconds, whatever the clock says
        broker.set_up()
        await sink.drain(60)


@pytest.mark.rows("K8")
async def test_records_that_are_refused_are_counted(broker: DevBroker) -> None:
    sink = sink_of(broker, Ledger())
    async with running(sink):
        await sink.wait_connected(60)
        broker.push_errors([10] * 3)
        for number in range(4):
            sink.publish(STATUS, b"key", b'{"n":%d}' % number, ts_ms=1)
        await sink.drain(60)
        async with asyncio.timeout(60):
            while len(sink.side):
                await asyncio.sleep(0.01)
    assert sum(sink.side.outcomes().values()) == 4
    assert sink.side.refused["md.status.v1"] == 2
    assert sink.side.acked["md.status.v1"] == 2


@pytest.mark.rows("K8", "I7")
async def test_a_topic_that_refuses_one_record_after_another_waits(broker: DevBroker) -> None:
    """INVALID_RECORD: at most two records become dead letters before the topic is held."""
    ledger = Ledger()
    sink = sink_of(broker, ledger)
    async with running(sink):
        await sink.wait_connected(60)
        broker.push_errors([87] * 40)
        submit(sink, RowClass.TRADE, trades(16, instruments=1))
        async with asyncio.timeout(60):
            while not sink.queue.apart:
                await asyncio.sleep(0.05)
        held = [text for text in sink.statistics().held if text.startswith("md.trades.v1[")]
        assert len(held) == 1
        assert held[0].endswith(": InvalidRecord")
        assert ledger.counts["dead_lettered"] == 2
        broker.clear_errors()
        assert await sink.drain(60) == 0
    assert ledger.counts == {"acked": 16, "dead_lettered": 2, "declared": 2}
