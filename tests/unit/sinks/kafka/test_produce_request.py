"""The bytes of produce requests and answers are those that aiokafka's own classes make."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from aiokafka import TopicPartition, errors
from aiokafka.protocol import produce as theirs

from ingestor.sinks.kafka.produce_request import _failure, _Request

BATCHES: dict[TopicPartition, bytes | bytearray] = {
    TopicPartition("md.trades.v1", 3): b"first",
    TopicPartition("md.trades.v1", 5): bytearray(b"second"),
    TopicPartition("md.book.v1", 0): b"third",
}
VERSIONS = range(3, 8)


def prepared(lowest: int, highest: int) -> _Request:
    return _Request(BATCHES, 20_000).prepare({0: (lowest, highest)})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_is_as_theirs(version: int) -> None:
    request = prepared(0, version)
    assert version == request.API_VERSION
    topics = [
        ("md.trades.v1", [(3, b"first"), (5, b"second")]),
        ("md.book.v1", [(0, b"third")]),
    ]
    built: Any = getattr(theirs, f"ProduceRequest_v{version}")(None, -1, 20_000, topics)
    assert request.encode() == built.encode()
    ours, other = (one.build_request_header(7, "me") for one in (request, built))
    assert ours.encode() == other.encode()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_is_read_as_theirs(version: int) -> None:
    rest = (100, -1) if version < 5 else (100, -1, 0)
    topics = [("md.trades.v1", [(3, 0, *rest), (5, 45, *rest)]), ("md.book.v1", [(0, 46, *rest)])]
    answer = getattr(theirs, f"ProduceResponse_v{version}").SCHEMA.encode((topics, 0))
    codes = prepared(3, version).RESPONSE_TYPE.decode(BytesIO(answer))
    assert codes == list(zip(BATCHES, (0, 45, 46), strict=True))


def test_newer_brokers_are_asked_in_the_newest_version_known() -> None:
    assert prepared(3, 13).API_VERSION == 7


@pytest.mark.parametrize("offered", [(0, 2), (8, 13)])
def test_brokers_of_another_age_are_refused(offered: tuple[int, int]) -> None:
    with pytest.raises(errors.IncompatibleBrokerVersion):
        prepared(*offered)


def test_a_batch_that_is_there_already_is_no_failure() -> None:
    assert _failure(0) is None
    assert _failure(46) is None  # DUPLICATE_SEQUENCE_NUMBER
    assert isinstance(_failure(45), errors.OutOfOrderSequenceNumber)
