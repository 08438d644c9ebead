"""Lag from the load server's send time to the broker's ack, at parts of the capacity.

Measured: capacity first (trades per second that arrive when more are asked for than ingestor, load
server and broker together carry here); then 10, 50 and 80 % of it over the same ten connections.
The broker is Apache Kafka with acks=all where Maven can bring it (tests/kafka), else, and with
--quick, the stub; the table says which.
Not measured: a network, a broker with replicas.
How to read it: the linger (8 ms) and one round trip to the broker are in every figure. `seal` is
socket read to sealed, `publish` sealed to acknowledged, both as the ingestor's own metrics have
them; `round_trip` is one produce request, from written to answered; `loop_delay` how late the
ingestor's loop runs a timer. `bystander` is the round trip of a request of one row, every 50 ms,
by a process that does nothing else: what broker and machine take while the load is on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from benchmarks.common import progress
from benchmarks.processes import PARTITIONS, STUB, Child, LoadServer, ingest, stub_broker
from benchmarks.saturated import CONNECTIONS
from tests.kafka.broker import BrokerError, KafkaBroker, missing_tools

PARTS: Final = (10, 50, 80)
STREAMS: Final = 200
ASKED_PER_S: Final = 1_000_000  # more than any of them can
SHOWN: Final = ("p50", "p75", "p90", "p95", "p99", "p99.9", "p100")


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    seconds = 1.5 if quick else 8.0
    with stub() if quick else broker() as (bootstrap, name):
        progress("capacity")
        capacity = _capacity(bootstrap, seconds / 2)
        results = [
            {**_measure(bootstrap, capacity, part, seconds), "broker": name}
            for part in ((50,) if quick else PARTS)
        ]
    half = next(row for row in results if row["percent"] == 50)
    return {
        "results": results,
        "headline": {
            "lag_p99_ms_half_load": half["p99"],
            "round_trip_p99_ms_half_load": half["round_trip_p99"],
            "bystander_p99_ms_half_load": half["bystander_p99"],
            "capacity_per_s": round(capacity),
        },
    }


@contextmanager
def stub() -> Iterator[tuple[str, str]]:
    with stub_broker() as bootstrap:
        yield bootstrap, STUB


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
    with stub() as address_and_name:
        yield address_and_name


def _capacity(bootstrap: str, seconds: float) -> float:
    """Return the messages per second that arrive when the load server is asked for more than it,
    the broker and the ingestor carry together. It paces them as it does below: frames that come in
    bulk cost all three far less, and half of what they carry then is more than they carry paced."""
    with _loaded(bootstrap, ASKED_PER_S) as ingestor:
        window = ingestor.window(seconds, settle_s=1.0)
        ingestor.stop()
    return window.per_s("acked")


@contextmanager
def _loaded(bootstrap: str, messages_per_s: float) -> Iterator[Child]:
    """Yield an ingestor whose streams send so many messages a second together."""
    with (
        LoadServer(STREAMS, messages_per_s / STREAMS) as server,
        ingest(
            server, bootstrap, streams_per_connection=STREAMS // CONNECTIONS, lags=True
        ) as ingestor,
    ):
        ingestor.wait_connected(CONNECTIONS)
        yield ingestor


def _measure(bootstrap: str, capacity: float, percent: int, seconds: float) -> dict[str, Any]:
    progress(f"{percent} %")
    asked = capacity * percent / 100
    with (
        _loaded(bootstrap, asked) as ingestor,
        Child("benchmarks.bystander", {"bootstrap": bootstrap, "topic": "md.status.v1"}) as other,
    ):
        ingestor.window(0.5, settle_s=seconds / 4)
        other.sample()
        window = ingestor.window(seconds, settle_s=0.0)
        bystander_ms = other.sample()["round_trip_ms"]
        other.stop()
        ingestor.stop()
    last = window.last
    round_trip_ms = last["round_trip_ms"]
    return {
        "percent": percent,
        "asked_per_s": round(asked),
        "messages_per_s": round(window.per_s("frames")),
        "core": round(window.core, 2),
        **{name: window.lag_ms[name] for name in SHOWN},
        **{
            f"{stage}_{at}": round(last[f"{stage}_{at}_ms"], 1)
            for stage in ("seal", "publish")
            for at in ("p50", "p99")
        },
        **{f"round_trip_{name}": round_trip_ms[name] for name in ("p50", "p99")},
        **{f"bystander_{name}": bystander_ms[name] for name in ("p50", "p99")},
        "loop_delay_p99_ms": round(last["loop_delay_p99_ms"], 1),
    }
