"""A transaction coordinator in memory, by the rules of Apache Kafka's `TransactionCoordinator`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aiokafka import TopicPartition, errors

from ingestor.kafka.error_codes import ProducerFencedByBroker
from ingestor.kafka.transactions import NEW, ProducerIdentity


@dataclass
class TransactionalId:
    """What the coordinator knows of one id. last_epoch: of whoever the newest one continued."""

    producer_id: int
    epoch: int = -1
    last_epoch: int = -1
    is_open: bool = False
    places: set[TopicPartition] = field(default_factory=set)
    writing: int = 0  # requests until the markers are written


class Kafka:
    """markers: the epoch that each partition has last seen, by producer."""

    def __init__(
        self,
        places: Iterable[TopicPartition],
        fails: Callable[[], Exception | None] = lambda: None,
    ) -> None:
        """Args:
        places: the partitions that exist.
        fails: asked before each request, and again before its answer.
        """
        self.places = set(places)
        self.ids: dict[str, TransactionalId] = {}
        self.markers: dict[tuple[TopicPartition, int], int] = {}
        self.requests = 0
        self._fails = fails
        self._producers = 0

    def coordinator(self, _client: object, name: str) -> FakeCoordinator:
        """Stand in for `Coordinator`."""
        return FakeCoordinator(self, name)

    async def turn(self) -> None:
        """Fail, or let others have their turn."""
        self.requests += 1
        await asyncio.sleep(0)
        for one in self.ids.values():
            if one.writing:
                one.writing -= 1
                if not one.writing:
                    self.markers |= {
                        (place, one.producer_id): max(
                            one.epoch, self.markers.get((place, one.producer_id), -1)
                        )
                        for place in one.places
                    }
                    one.places = set()
        if (failure := self._fails()) is not None:
            raise failure

    def of(self, name: str) -> TransactionalId:
        found = self.ids.get(name)
        if found is None:
            self._producers += 1
            found = self.ids[name] = TransactionalId(self._producers)
        return found


class FakeCoordinator:
    """`Coordinator`."""

    def __init__(self, kafka: Kafka, name: str) -> None:
        self._kafka = kafka
        self._name = name

    async def init_producer_id(self, continued: ProducerIdentity = NEW) -> ProducerIdentity:
        await self._kafka.turn()
        one = self._kafka.of(self._name)
        if one.writing:
            raise errors.ConcurrentTransactions
        if continued != NEW and continued.producer_id != one.producer_id and one.epoch != -1:
            raise ProducerFencedByBroker
        if one.is_open:
            one.is_open, one.epoch, one.last_epoch, one.writing = False, one.epoch + 1, -1, 2
            raise errors.ConcurrentTransactions
        if continued == NEW:
            one.epoch, one.last_epoch = one.epoch + 1, -1
        elif one.epoch in {-1, continued.epoch}:
            one.epoch, one.last_epoch = one.epoch + 1, one.epoch
        elif continued.epoch != one.last_epoch:
            raise ProducerFencedByBroker
        taken = ProducerIdentity(one.producer_id, one.epoch)
        await self._kafka.turn()  # the answer may be lost
        return taken

    async def add_partitions(
        self, producer: ProducerIdentity, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, errors.KafkaError]:
        await self._kafka.turn()
        wanted, one = list(places), self._kafka.of(self._name)
        failure: errors.KafkaError | None = None
        if producer.epoch != one.epoch:
            failure = errors.InvalidProducerEpoch()
        elif one.writing:
            failure = errors.ConcurrentTransactions()
        if failure is not None:
            return dict.fromkeys(wanted, failure)
        absent = {place for place in wanted if place not in self._kafka.places}
        if absent:
            return {
                place: errors.UnknownTopicOrPartitionError()
                if place in absent
                else errors.OperationNotAttempted()
                for place in wanted
            }
        if wanted:
            one.is_open = True
            one.places |= set(wanted)
        await self._kafka.turn()
        return {}

    async def abort(self, producer: ProducerIdentity) -> None:
        await self._kafka.turn()
        one = self._kafka.of(self._name)
        if producer.epoch != one.epoch:
            raise errors.InvalidProducerEpoch
        if one.is_open:
            one.is_open, one.writing = False, 3
        await self._kafka.turn()
