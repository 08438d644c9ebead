"""What the group's client is told, and what its messages mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from confluent_kafka import KafkaError, KafkaException

from ingestor.cluster.membership import Group
from ingestor.config.model import Config


class Member:
    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    async def assigned(self, shards: Sequence[int]) -> None:
        self.events.append(("assigned", *shards))

    async def revoked(self, shards: Sequence[int]) -> None:
        raise RuntimeError("a bug")

    async def lost(self, shards: Sequence[int]) -> None:
        self.events.append(("lost", *shards))

    def record(self, shard: int, key: bytes, value: bytes | None) -> None:
        self.events.append((shard, key, value))

    def at_end(self, shard: int) -> None:
        self.events.append(("end", shard))


class Message:
    def __init__(self, error: KafkaError | None = None, value: bytes | None = b"v") -> None:
        self._error, self._value = error, value

    def error(self) -> KafkaError | None:
        return self._error

    def partition(self) -> int:
        return 3

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes | None:
        return self._value


def config(**cluster: object) -> Config:
    return Config.model_validate({"cluster": {"name": "prod", **cluster}})


def test_the_new_protocol_leaves_sessions_to_the_broker() -> None:
    options = Group(config(), "md.shards.v1", "node7")._options
    assert (options["group.id"], options["client.id"]) == ("prod", "node7")
    assert options["group.protocol"] == "consumer"
    assert "session.timeout.ms" not in options  # librdkafka refuses it there
    assert "group.instance.id" not in options


def test_the_old_protocol_moves_few() -> None:
    options = Group(config(protocol="classic"), "md.shards.v1", "node7")._options
    assert options["partition.assignment.strategy"] == "cooperative-sticky"
    assert options["session.timeout.ms"] == 6_000
    assert "group.protocol" not in options


def test_messages_are_records_ends_or_failures() -> None:
    member, group = Member(), Group(config(), "t", "node7")
    group._take(member, None)
    group._take(member, Message())
    group._take(member, Message(value=None))
    group._take(member, Message(KafkaError(KafkaError._PARTITION_EOF)))
    assert member.events == [(3, b"k", b"v"), (3, b"k", None), ("end", 3)]
    group._take(member, Message(KafkaError(KafkaError._TRANSPORT)))
    assert group.failure
    with pytest.raises(KafkaException):
        group._take(member, Message(KafkaError(KafkaError._FATAL)))


async def test_a_bug_in_a_callback_ends_no_membership(expected_bugs: Counter[str]) -> None:
    expected_bugs["cluster"] += 1
    member, group = Member(), Group(config(), "t", "node7")
    await group._tell(member.revoked, [1])
    await group._tell(member.assigned, [1, 2])
    assert member.events == [("assigned", 1, 2)]


async def test_a_group_that_is_left_before_it_was_joined_ends() -> None:
    group = Group(config(), "t", "node7")
    group.leave()
    await group.run(Member())
