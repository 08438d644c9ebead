"""An outage of Kafka as operators meet it: the shipped alerts in a real Prometheus."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BrokerFactory
from tests.e2e.processes import Command, command, environment, simulated_venue, until
from tests.e2e.test_prometheus import Prometheus, prometheus
from tests.faults.results import RowRecorder
from tests.kafka.broker import free_ports

AWAY_S = 345.0
MESSAGES_PER_S = 5_000
SYMBOLS = 60
LOG_LINES_MAX = 60
_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[(warning|error|info|critical)", re.MULTILINE)


@dataclass
class Watched:
    """What was seen during an outage. Times in seconds since the broker was killed."""

    series: list[dict[str, Any]] = field(default_factory=list)
    down_after_s: float | None = None
    first_alert_after_s: float | None = None
    first_alerts: list[str] = field(default_factory=list)
    red_after_s: float | None = None
    shed_at_first_alert: int | None = None


def status_of(port: int) -> dict[str, Any]:
    """Return the snapshot that the page shows."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status.json", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def watch(server: Prometheus, running: Command, port: int, away_s: float) -> Watched:
    """Look once a second at what operators have."""
    seen, begun_s = Watched(), time.monotonic()
    while (after_s := time.monotonic() - begun_s) < away_s:
        assert running.process.poll() is None, running.err[-2000:]
        status = status_of(port)
        up = [float(sample["value"][1]) for sample in server.query("ingestor_kafka_up")]
        firing = server.query('ALERTS{alertstate="firing"}')
        alerts = sorted({sample["metric"]["alertname"] for sample in firing})
        if seen.down_after_s is None and up == [0.0]:
            seen.down_after_s = after_s
        if seen.red_after_s is None and status["kafka_up"] is False:
            seen.red_after_s = after_s
        if alerts and seen.first_alert_after_s is None:
            seen.first_alert_after_s, seen.first_alerts = after_s, alerts
            seen.shed_at_first_alert = status["shed"]
        seen.series.append(
            {
                "after_s": round(after_s, 1),
                "kafka_up": up,
                "alerts": alerts,
                "fill": status["queue_fill"],
                "pending": status["pending"],
                "shed": status["shed"],
            }
        )
        time.sleep(max(0.0, 1.0 - (time.monotonic() - begun_s - after_s)))
    return seen


@pytest.mark.kafka
@pytest.mark.long(minutes=8)
@pytest.mark.rows("I12")
def test_an_outage_is_seen_before_anything_is_lost(
    kafka_factory: BrokerFactory, tmp_path: Path, row: RowRecorder
) -> None:
    broker, port = kafka_factory(), free_ports(1)[0]
    env = environment(
        tmp_path,
        INGESTOR__HTTP__PORT=str(port),
        INGESTOR__KAFKA__BOOTSTRAP_SERVERS=broker.bootstrap_servers,
        # Room for the whole outage: what the budget holds must be delivered.
        INGESTOR__BUDGET__BYTES=str(4 << 30),
        INGESTOR__BUDGET__ROWS="80000000",
        INGESTOR__BUDGET__AGE_MAX_S="1200",
    )
    with simulated_venue(symbols=SYMBOLS, rate_per_s=MESSAGES_PER_S / SYMBOLS / 3) as venue:
        config = tmp_path / "outage.toml"
        config.write_text(venue.toml() + "streams_per_connection = 9\n")
        with (
            command("run", str(config), "--json", env=env) as running,
            prometheus(tmp_path, f"127.0.0.1:{port}") as server,
        ):
            until(server.is_up)
            until(lambda: status_of(port)["acked"] > 20 * MESSAGES_PER_S)
            lines_before = len(_LOG_LINE.findall(running.err))
            broker.kill()
            seen = watch(server, running, port, AWAY_S)
            logged = running.err
            broker.start()
            until(lambda: status_of(port)["kafka_up"] is True, 180.0)
            until(lambda: status_of(port)["pending"] < MESSAGES_PER_S, 600.0)
            running.terminate()
            ended = running.end(120.0)
    (Path(__file__).parent / "results" / "outage.json").write_text(
        json.dumps(seen.series, separators=(",", ":")).replace("},{", "},\n{") + "\n"
    )
    assert ended.status == 0, ended.err[-2000:]
    result = ended.result
    assert result["rows_shed"] == result["rows_pending"] == result["unaccounted"] == 0
    assert seen.down_after_s is not None
    assert seen.red_after_s is not None
    assert seen.first_alert_after_s is not None
    assert seen.shed_at_first_alert == 0
    assert seen.first_alert_after_s < 90.0
    lines = len(_LOG_LINE.findall(logged)) - lines_before
    assert lines <= LOG_LINES_MAX, f"{lines} lines of log: {logged[-4000:]}"
    row(
        "I12",
        promised="kafka_up 0 <= 10 s, first alert <= 90 s and before any loss",
        measured=(
            f"kafka_up 0 after {seen.down_after_s:.1f} s, page red after {seen.red_after_s:.1f} s, "
            f"{', '.join(seen.first_alerts)} after {seen.first_alert_after_s:.0f} s, {lines} lines "
            f"of log in {AWAY_S:.0f} s, {result['rows_acked']:,} rows delivered, 0 shed"
        ),
        met=seen.down_after_s <= 10.0,
    )
