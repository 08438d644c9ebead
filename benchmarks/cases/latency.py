"""Lag from the load server's send time to the broker's ack, at parts of the capacity.

Measured: capacity first, the highest rate of trades that ingestor, load server and broker together
carry here as a step of `connections` has to: 98 % of what is asked for is acked, with a lag p99
within 100 ms; then 10, 50 and 80 % of it over the same ten connections.
The broker is Apache Kafka with acks=all where Maven can bring it (tests/kafka), else, and with
--quick, the stub; the table says which.
Not measured: a network, a broker with replicas.
How to read it: the linger (the loop's turn at light load, up to 32 ms at full load) and one round
trip to the broker are in every figure. `seal` is
socket read to sealed, `publish` sealed to acknowledged, both as the ingestor's own metrics have
them; `round_trip` is one produce request, from written to answered; `loop_delay` how late the
ingestor's loop runs a timer. `bystander` is the round trip of a request of one row, every 50 ms,
by a process that does nothing else: what broker and machine take while the load is on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from benchmarks.cases.connections import CARRIED, TARGET_P99_MS, server_core
from benchmarks.harness.processes import PARTITIONS, STUB, Child, LoadServer, ingest, stub_broker
from benchmarks.harness.results import progress
from benchmarks.harness.saturated import CONNECTIONS
from tests.kafka.broker import BrokerError, KafkaBroker, missing_tools

PARTS: Final = (10, 50, 80)
STREAMS: Final = 200
FIRST_PER_S: Final = 50_000.0
HALVINGS: Final = 3
SHOWN: Final = ("p50", "p75", "p90", "p95", "p99", "p99.9", "p100")


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    seconds = 1.5 if quick else 8.0
    with stub() if quick else broker() as (bootstrap, name):

        def carries(asked: float) -> bool:
            progress(f"capacity: {asked:,.0f} messages per second")
            with _loaded(bootstrap, asked) as (_, ingestor):
                window = ingestor.window(seconds / 2, settle_s=1.0)
                ingestor.stop()
            is_carried = window.per_s("acked") >= CARRIED * asked
            return is_carried and window.lag_ms["p99"] <= TARGET_P99_MS

        most = capacity(carries, 0 if quick else HALVINGS)
        results = [
            {**_measure(bootstrap, most, part, seconds), "broker": name}
            for part in ((50,) if quick else PARTS)
        ]
    half = next(row for row in results if row["percent"] == 50)
    return {
        "results": results,
        "headline": {
            "lag_p99_ms_half_load": half["p99"],
            "round_trip_p99_ms_half_load": half["round_trip_p99"],
            "bystander_p99_ms_half_load": half["bystander_p99"],
            "capacity_per_s": round(most),
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


def capacity(carries: Callable[[float], bool], halvings: int) -> float:
    """Return the highest rate that is carried: doubled until one is not, then by so many halves.

    carries: whether so many messages per second are. What arrives when more is asked for than
    anybody can carry would be no measure: it comes in bulk, which costs all three far less.
    """
    least, most = FIRST_PER_S / 2, FIRST_PER_S
    while carries(most):
        least, most = most, 2 * most
    for _ in range(halvings):
        middle = (least + most) / 2
        least, most = (middle, most) if carries(middle) else (least, middle)
    return least


@contextmanager
def _loaded(bootstrap: str, messages_per_s: float) -> Iterator[tuple[LoadServer, Child]]:
    """Yield a load server whose streams send so many messages a second together, and the ingestor
    that reads them.
    """
    with (
        LoadServer(STREAMS, messages_per_s / STREAMS) as server,
        ingest(
            server, bootstrap, streams_per_connection=STREAMS // CONNECTIONS, lags=True
        ) as ingestor,
    ):
        ingestor.wait_connected(CONNECTIONS)
        yield server, ingestor


def _measure(bootstrap: str, capacity: float, percent: int, seconds: float) -> dict[str, Any]:
    progress(f"{percent} %")
    asked = capacity * percent / 100
    with (
        _loaded(bootstrap, asked) as (server, ingestor),
        Child(
            "benchmarks.peers.probe_producer", {"bootstrap": bootstrap, "topic": "md.status.v1"}
        ) as other,
    ):
        ingestor.window(0.5, settle_s=seconds / 4)
        other.sample()
        served = server.statistics()
        window = ingestor.window(seconds, settle_s=0.0)
        serving = server.statistics()
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
        "server_core": server_core(served, serving),
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
