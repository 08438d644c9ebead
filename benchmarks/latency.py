"""Lag from the load server's send time to the broker's ack, at parts of the capacity.

Measured: capacity first (saturated trades per wall second, as much as ingestor, load server and
broker together reach here); then 10, 50 and 80 % of it over the same ten connections. The broker is
Apache Kafka with acks=all where Maven can bring it (tests/kafka), else the stub; the table says
which.
Not measured: a network, a broker with replicas.
How to read it: the linger (10 ms) and one round trip to the broker are in every figure. Where the
load server and the broker share the ingestor's cores, lag at 80 % is theirs as much as ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from benchmarks.processes import PARTITIONS, STUB, LoadServer, ingest, stub_broker
from benchmarks.saturated import CONNECTIONS, TRADES
from tests.kafka.broker import BrokerError, KafkaBroker, missing_tools

PARTS: Final = (10, 50, 80)
STREAMS: Final = 200
SHOWN: Final = ("p50", "p75", "p90", "p95", "p99", "p99.9", "p100")


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    seconds = 1.5 if quick else 8.0
    with broker() as (bootstrap, name):
        capacity = _capacity(bootstrap, seconds / 2)
        results = [
            {**_measure(bootstrap, capacity, part, seconds), "broker": name}
            for part in ((50,) if quick else PARTS)
        ]
    half = next(row for row in results if row["percent"] == 50)
    return {
        "results": results,
        "headline": {"lag_p99_ms_half_load": half["p99"], "capacity_per_s": round(capacity)},
    }


@contextmanager
def broker() -> Iterator[tuple[str, str]]:
    """Yield address and name of Apache Kafka, or of the stub where there is no Kafka."""
    if missing_tools() is None:
        kafka = KafkaBroker(
            {"num.partitions": f"{PARTITIONS}", "auto.create.topics.enable": "true"}
        )
        try:
            kafka.start()
        except BrokerError:
            kafka.close()
        else:
            with closing(kafka):
                yield kafka.bootstrap_servers, kafka.description
            return
    with stub_broker() as bootstrap:
        yield bootstrap, STUB


def _capacity(bootstrap: str, seconds: float) -> float:
    """Return messages per second that this machine carries with this broker."""
    with TRADES.server() as server, TRADES.ingestor(server, bootstrap, "binary") as ingestor:
        ingestor.wait_connected(CONNECTIONS)
        ingestor.wait_flowing()
        window = ingestor.window(seconds)
        ingestor.stop()
    return window.per_s("acked")


def _measure(bootstrap: str, capacity: float, percent: int, seconds: float) -> dict[str, Any]:
    asked = capacity * percent / 100
    with (
        LoadServer(STREAMS, asked / STREAMS) as server,
        ingest(
            server, bootstrap, streams_per_connection=STREAMS // CONNECTIONS, lags=True
        ) as ingestor,
    ):
        ingestor.wait_connected(CONNECTIONS)
        ingestor.window(1.0, settle_s=2.0)
        window = ingestor.window(seconds, settle_s=0.0)
        ingestor.stop()
    return {
        "percent": percent,
        "asked_per_s": round(asked),
        "messages_per_s": round(window.per_s("frames")),
        "core": round(window.core, 2),
        **{name: window.lag_ms[name] for name in SHOWN},
        "loop_delay_p99_ms": round(window.last["loop_delay_p99_ms"], 1),
    }
