"""Kafka behind the real sink: `SequencedBroker` decides what is in the log, timers when."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import orjson
from aiokafka import TopicPartition, errors

from ingestor.codec import Headers, Record, decode
from ingestor.model.batch import TickBatch
from ingestor.sinks.kafka import sink as sink_module
from ingestor.sinks.kafka.produce_request import Failures, Numbering
from tests.fakes.broker import Connection, SequencedBroker, SequencedProduce

_LATENCY_S: Final = 0.03
_TICKS: Final = ("trades.", "quotes.", "book.")


class Broker(SequencedBroker):
    """Answers after a moment, or not at all while it is paused.

    records: of the auxiliary topics. codes: error codes of the next answers.
    """

    def __init__(
        self, partitions: int, deliver: Callable[[TickBatch], None], wrong: Callable[[str], None]
    ) -> None:
        """Args:
        partitions: of each topic.
        deliver: called with new rows, in the order of their log; none comes twice.
        wrong: called when rows are missing in the log.
        """
        super().__init__()
        self.partitions = partitions
        self.records: Counter[str] = Counter()
        self.codes: deque[int] = deque()
        self._deliver = deliver
        self._wrong = wrong
        self._next_row: Counter[TopicPartition] = Counter()
        self._is_paused = False
        self._owed: list[Connection] = []

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        owed, self._owed = self._owed, []
        for connection in owed:
            self.answer_one(connection)

    def lose(self, taken: int = 0) -> None:
        super().lose(taken)
        self._read()

    def answer_one(self, connection: Connection) -> None:
        """Take the oldest request of a connection, if it is still there."""
        if connection is not self.connection or not connection.requests:
            return
        if self._is_paused:
            self._owed.append(connection)
            return
        self.answer(self.codes.popleft() if self.codes else 0)
        self._read()

    def _read(self) -> None:
        """Hand over what is new in the log."""
        log, self.log = self.log, {}
        for place, entries in log.items():
            for _, value in entries:
                if any(f".{tick}" in f".{place.topic}" for tick in _TICKS):
                    self._take_rows(place, b64decode(str(value)))
                else:
                    self.records[place.topic] += 1

    def _take_rows(self, place: TopicPartition, value: bytes) -> None:
        decoded = decode(value)
        known, rows = self._next_row[place], decoded.batch.rows
        if decoded.first_sequence > known:
            self._wrong(f"{place}: {decoded.first_sequence} follows {known - 1}")
        fresh = rows[max(0, known - decoded.first_sequence) :]
        if len(fresh):
            self._next_row[place] = decoded.first_sequence + len(rows)
            self._deliver(TickBatch(decoded.batch.row_class, fresh, decoded.batch.instruments))


class _Produce(SequencedProduce):
    """`ProduceClient` whose batches hold whole records."""

    def __init__(self, broker: Broker, producer: int, timeout_s: float) -> None:
        super().__init__(broker, producer)
        self._kafka = broker
        self._timeout_s = timeout_s

    def partitions(self, _topic: str) -> int:
        return self._kafka.partitions

    def absence(self, _topic: str) -> str:
        return "LeaderNotAvailable"

    def build(
        self,
        numbering: Numbering,
        records: Sequence[Record],
        _headers: Headers,
        bytes_max: int,
        _first: Sequence[tuple[str, bytes]] = (),
    ) -> tuple[bytearray, int, int]:
        values: list[str] = []
        size_bytes = 0
        for _, value, _, _ in records:
            if values and size_bytes + len(value) > bytes_max:
                break
            size_bytes += len(value)
            values.append(b64encode(value).decode())
        batch = {
            "producer": self._producer,
            "epoch": numbering.epoch,
            "base": numbering.sequence,
            "rows": values,
        }
        numbering.advance(len(values))
        return bytearray(orjson.dumps(batch)), len(values), size_bytes

    async def send(self, node: int, batches: Mapping[TopicPartition, bytes]) -> Failures:
        connection = self._kafka.connection
        if connection is not None:
            asyncio.get_running_loop().call_later(_LATENCY_S, self._kafka.answer_one, connection)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await super().send(node, batches)
        except TimeoutError:
            if self._kafka.connection is connection:
                self._kafka.lose()
            raise errors.RequestTimedOutError from None


class _Keeper:
    """`TopicKeeper` of topics that are all there."""

    is_final = False

    def __init__(self, *_about: object) -> None: ...
    def want(self, *_about: object) -> None: ...
    async def prepare(self) -> None: ...
    async def find(self, _producer: object) -> None: ...

    async def run(self, *_about: object) -> None:
        await asyncio.Event().wait()


@contextmanager
def simulated_kafka(broker: Broker) -> Iterator[None]:
    """Put a broker in the place of aiokafka, under the real `KafkaSink`."""

    def produce(_producer: object, *, timeout_ms: int, **_options: Any) -> _Produce:
        broker.producers += 1
        return _Produce(broker, broker.producers, timeout_ms / 1_000)

    async def start(_settings: object) -> SimpleNamespace:
        await asyncio.sleep(_LATENCY_S)
        return SimpleNamespace()

    async def nothing(_producer: object) -> None: ...

    async def nobody(*_about: object) -> None:
        """The model's producers have names of their own."""

    async def forever(_producer: object) -> None:
        await asyncio.Event().wait()

    with mock.patch.multiple(
        sink_module,
        TopicKeeper=_Keeper,
        ProduceClient=produce,
        start_producer=start,
        identify=nobody,
        end_producer=nothing,
        end_quietly=nothing,
        end_of_background_tasks=forever,
    ):
        yield
