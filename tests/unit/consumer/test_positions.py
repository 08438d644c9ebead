"""What people write for a start or an end. Brokers' answers are tested in tests/kafka."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from aiokafka import TopicPartition

from ingestor.consumer.positions import EARLIEST, LATEST, Position, Where, position_of
from ingestor.model.errors import ConfigError


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (EARLIEST, Position(0)),
        (LATEST, Position(None)),
        (5, Position(5)),
        ("1970-01-01T00:00:01Z", Position(10**9)),
        ("1970-01-01T02:00:01+02:00", Position(10**9)),
        (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), Position(10**9)),
        ({("t", 1): 7}, Position(0, {TopicPartition("t", 1): 7})),
    ],
)
def test_positions(where: Where, expected: Position) -> None:
    assert position_of(where) == expected


@pytest.mark.parametrize("where", ["beginning", {("t", 0): -1}, {("t", 0): "7"}])
def test_what_is_no_position(where: Where) -> None:
    with pytest.raises(ConfigError):
        position_of(where)
