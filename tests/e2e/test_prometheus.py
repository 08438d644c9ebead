"""A real Prometheus scrapes a real run: every query of the dashboard and every alert is tried."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ingestor.app import Ingestor, load_plan
from ingestor.cli.demo import free_port
from ingestor.telemetry.bulkheads import UNITS
from tests.e2e.harness import make_config
from tests.e2e.processes import Command, command, environment, simulated_venue, until

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
MAY_BE_EMPTY = {"Recorder"} | {  # without one, and without a cluster
    panel["title"] for panel in DASHBOARD["panels"] if panel["title"].startswith("Cluster")
}
# Before the first message there is no time of one, and no lag.
OF_MESSAGES = re.compile(r"ingestor_(\w+_latency_seconds|last_message_.+|venue_clock_skew_.+)")


class Prometheus:
    """A server that was started for a test."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer."""
        url = f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            content = json.load(answer)
        assert content["status"] == "success", content
        return content["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def is_up(self) -> bool:
        try:
            return bool(self.query('up{job="ingestor"} == 1'))
        except OSError:
            return False


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped rules against one target."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no Prometheus (Debian package prometheus)")
    shipped = json.dumps(str(ROOT / "deploy" / "prometheus-alerts.yaml"))
    (folder / "prometheus.yaml").write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{shipped}]\n"
        f"scrape_configs: [{{job_name: ingestor, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    port = free_port("127.0.0.1", 0)
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(30)


def page_of(running: Command) -> str:
    """Return host and port of a demo's HTTP server, once it answers."""
    running.until(lambda: "http.listening" in running.err)
    found = re.search(r"^page +http://([^/\s]+)", running.err, re.MULTILINE)
    assert found is not None
    return found[1]


async def test_every_family_has_a_value_from_the_start(tmp_path: Path) -> None:
    with simulated_venue(symbols=2, rate_per_s=1.0) as venue:
        config = make_config("127.0.0.1:1", [venue.feed], tmp_path)
        ingestor = Ingestor(config, await load_plan(config))
    async with aclosing(ingestor.rest):
        families = list(ingestor.view.families())
    empty = {family.name for family in families if not family.samples}
    assert {name for name in empty if not OF_MESSAGES.fullmatch(name)} == set()
    [bugs] = [family for family in families if family.name == "ingestor_bugs"]
    # (The count is of the process: tests before this one may have had bugs.)
    assert {sample.labels["unit"] for sample in bugs.samples} == set(UNITS)


def test_dashboard_and_alerts_work_with_a_real_prometheus(tmp_path: Path) -> None:
    with (
        command("demo", "--symbols", "5", "--json", env=environment(tmp_path)) as running,
        prometheus(tmp_path, page_of(running)) as server,
    ):
        until(server.is_up)
        # A rate wants two scrapes with rows between them.
        until(lambda: bool(server.query("sum(rate(ingestor_rows_acked_total[5s])) > 0")))
        for variable in DASHBOARD["templating"]["list"]:
            if found := re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]):
                assert server.query(found[1]), variable["name"]
        empty = set()
        for panel in DASHBOARD["panels"]:
            assert panel["description"].endswith("."), panel["title"]
            for target in panel["targets"]:
                expression = re.sub(r"\$(instance|worker|venue)\b", ".*", target["expr"])
                if not server.query(expression.replace("$__rate_interval", "5s")):
                    empty.add(panel["title"])
        assert empty <= MAY_BE_EMPTY
        # One value a stat panel: several would be several tiles.
        for panel in DASHBOARD["panels"]:
            if panel["type"] == "stat":
                expression = re.sub(
                    r"\$(instance|worker|venue)\b", ".*", panel["targets"][0]["expr"]
                )
                assert len(server.query(expression.replace("$__rate_interval", "5s"))) == 1

        def judged() -> bool:
            rules = [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]
            return bool(rules) and all(rule["health"] == "ok" for rule in rules)

        until(judged)
        assert not server.query('ALERTS{alertstate="firing"}')
        assert server.query("process_resident_memory_bytes")
        assert server.query("python_gc_collections_total")
