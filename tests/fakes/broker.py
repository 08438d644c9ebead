"""A model of what Apache Kafka does with the batches of idempotent producers, for tests of order.

It takes the place of `ProduceClient`: requests of one connection are taken one after another, in
the order in which they were sent, when the test says so and with the outcome that it says. A batch
is appended when its sequence number follows the last one of its producer and partition, or when it
is the first of them, whatever its number, or number 0 of a higher epoch; answered again when it is
one of the last five; and refused (OUT_OF_ORDER_SEQUENCE_NUMBER) else. `tests/kafka/test_flights.py`
asks Apache Kafka itself for the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiokafka import TopicPartition, errors

from ingestor.codec import Headers, Record
from ingestor.sinks.kafka.produce_request import Batches, Failures, Numbering

TOO_LARGE, NOT_LEADER, NOT_ENOUGH_AFTER_APPEND, OUT_OF_ORDER, UNKNOWN_PRODUCER = 10, 6, 20, 45, 59
FENCED = 47
CACHED = 5


@dataclass
class Connection:
    requests: deque[tuple[Batches, asyncio.Future[Failures]]] = field(default_factory=deque)


class SequencedBroker:
    """One broker that leads every partition.

    log: ((producer, epoch), venue sequence number) of each row that was appended. poison: numbers
    of rows whose batch is refused as too large. checks_order: False is a broker without
    idempotence.
    """

    def __init__(self, *, checks_order: bool = True) -> None:
        self.checks_order = checks_order
        self.connection: Connection | None = None
        self.is_down = False
        self.log: dict[TopicPartition, list[tuple[tuple[int, int], int]]] = {}
        self.poison: set[int] = set()
        self.producers = 0
        self.under_way_peak = 0  # batches of one lane, at the same time
        self._next: Counter[tuple[TopicPartition, tuple[int, int]]] = Counter()
        self._last: dict[tuple[TopicPartition, tuple[int, int]], deque[int]] = {}
        self._epoch: dict[tuple[TopicPartition, int], int] = {}

    def produce(self) -> SequencedProduce:
        self.producers += 1
        return SequencedProduce(self, self.producers)

    @property
    def requests(self) -> list[list[list[int]]]:
        """The rows' numbers in each batch of each request that is not answered yet."""
        waiting = self.connection.requests if self.connection is not None else ()
        return [[orjson.loads(one)["rows"] for one in batches.values()] for batches, _ in waiting]

    def answer(self, code: int = 0, places: Iterable[TopicPartition] | None = None) -> None:
        """Take the oldest request. code: what becomes of its batches, or those of `places`."""
        assert self.connection is not None
        batches, answer = self.connection.requests.popleft()
        forced = dict.fromkeys(batches if places is None else places, code)
        codes = {
            place: self._take(place, one, forced.get(place, 0)) for place, one in batches.items()
        }
        if not answer.done():
            answer.set_result(
                {place: errors.for_code(code)() if code else None for place, code in codes.items()}
            )

    def lose(self, taken: int = 0) -> None:
        """The connection breaks, after so many requests were taken whose answers are lost."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        for number, (batches, answer) in enumerate(connection.requests):
            if number < taken:
                for place, batch in batches.items():
                    self._take(place, batch, 0)
            if not answer.done():
                answer.set_exception(errors.KafkaConnectionError("lost"))

    def _take(self, place: TopicPartition, batch: bytes | bytearray, forced: int) -> int:
        """Return the error code for a batch."""
        read: dict[str, Any] = orjson.loads(batch)
        if self.poison.intersection(read["rows"]):
            return TOO_LARGE
        if forced and forced != NOT_ENOUGH_AFTER_APPEND:
            return forced
        known, base = (place, read["producer"]), read["base"]
        epoch = self._epoch.get(known)
        if self.checks_order and epoch is not None and epoch != read["epoch"]:
            if read["epoch"] < epoch:
                return FENCED
            if base:
                return OUT_OF_ORDER
        self._epoch[known] = read["epoch"]
        key = (place, (read["producer"], read["epoch"]))
        last = self._last.setdefault(key, deque(maxlen=CACHED))
        if self.checks_order and base in last:
            return forced
        if self.checks_order and base != self._next.get(key, base):
            return OUT_OF_ORDER
        last.append(base)
        self._next[key] = base + len(read["rows"])
        self.log.setdefault(place, []).extend((key[1], row) for row in read["rows"])
        return forced


class SequencedProduce:
    """`ProduceClient`, in the name of one producer."""

    in_doubt = False

    def __init__(self, broker: SequencedBroker, producer: int) -> None:
        self._broker = broker
        self._producer = producer

    def partitions(self, _topic: str) -> int:
        return 1

    def leader(self, _place: TopicPartition) -> int:
        return 1

    def connection(self, _node: int) -> Connection | None:
        return self._broker.connection

    async def connect(self, _node: int) -> bool:
        await asyncio.sleep(0)
        if self._broker.connection is None and not self._broker.is_down:
            self._broker.connection = Connection()
        return self._broker.connection is not None

    def build(
        self,
        numbering: Numbering,
        records: Sequence[Record],
        _headers: Headers,
        bytes_max: int,
        _first: Sequence[tuple[str, bytes]] = (),
    ) -> tuple[bytearray, int, int]:
        rows: list[int] = []
        size_bytes = 0
        for _, value, _, _ in records:
            if rows and size_bytes + len(value) > bytes_max:
                break
            size_bytes += len(value)
            rows.append(orjson.loads(value)["sequence"])
        batch = {
            "producer": self._producer,
            "epoch": numbering.epoch,
            "base": numbering.sequence,
            "rows": rows,
        }
        numbering.advance(len(rows))
        return bytearray(orjson.dumps(batch)), len(rows), size_bytes

    async def send(self, _node: int, batches: Mapping[TopicPartition, bytes]) -> Failures:
        connection = self._broker.connection
        if connection is None:
            raise errors.NodeNotReadyError
        answer: asyncio.Future[Failures] = asyncio.get_running_loop().create_future()
        connection.requests.append((dict(batches), answer))
        under_way = Counter(place for batches, _ in connection.requests for place in batches)
        self._broker.under_way_peak = max(self._broker.under_way_peak, *under_way.values())
        return await answer

    async def renew(self, numbering: Numbering) -> None:
        numbering.renew()

    async def refresh(self) -> None:
        await asyncio.sleep(0)
