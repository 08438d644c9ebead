"""Whether brokers allow a cluster's settings, and in which words they don't."""

from __future__ import annotations

import pytest

from ingestor.cluster.setup import floor_problem
from ingestor.config.model import ClusterConfig

MODERN = {
    "group.consumer.min.session.timeout.ms": "45000",
    "group.consumer.min.heartbeat.interval.ms": "5000",
    "group.min.session.timeout.ms": "6000",
    "group.coordinator.rebalance.protocols": "classic,consumer,streams",
}
LOW = MODERN | {
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
}


@pytest.mark.parametrize(
    ("broker", "cluster", "problem"),
    [
        (LOW, {}, ""),
        (MODERN, {}, "cluster.session_timeout_ms = 6000 is below the brokers' group.consumer.min"),
        (
            LOW | {"group.consumer.min.heartbeat.interval.ms": "5000"},
            {},
            "heartbeat_interval_ms = ",
        ),
        (MODERN, {"session_timeout_ms": 45_000, "heartbeat_interval_ms": 5_000}, ""),
        ({"group.min.session.timeout.ms": "6000"}, {}, 'cluster.protocol = "classic"'),
        (LOW | {"group.coordinator.rebalance.protocols": "classic"}, {}, "KIP-848"),
        ({"group.min.session.timeout.ms": "6000"}, {"protocol": "classic"}, ""),
        (MODERN, {"protocol": "classic", "session_timeout_ms": 3_000}, "= 3000 is below"),
    ],
)
def test_floors(broker: dict[str, str], cluster: dict[str, object], problem: str) -> None:
    found = floor_problem(broker, ClusterConfig.model_validate(cluster))
    assert problem in found
    assert bool(found) == bool(problem)
