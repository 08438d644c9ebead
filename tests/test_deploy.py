"""Names in deploy/ and docs/ exist: metrics, alerts, links, files, modules, commands."""

from __future__ import annotations

import json
import pkgutil
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ingestor.admin.exposition import STREAM_FAMILIES
from ingestor.cluster.claims import Claim, ClaimState, Life
from ingestor.cluster.families import cluster_families
from ingestor.cluster.shards import ShardMachine
from ingestor.cluster.view import worker_families
from ingestor.config.load import load
from ingestor.sources.registry import GROUP
from tests.unit.admin.test_server import App

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "deploy" / "prometheus-alerts.yaml"
COMPOSE = ROOT / "deploy" / "compose.yaml"
DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"
OPERATIONS = ROOT / "docs" / "operations.md"
NAME = re.compile(r"\bingestor_[a-z_]+")


def exported() -> set[str]:
    """The names under which Prometheus knows what `/metrics` has of our own."""
    suffixes = {"counter": "_total", "info": "_info"}
    machine = ShardMachine(Life("node7", "01"), lambda: 0.0)
    machine.assigned([0])
    machine.read(Claim(0, machine.me, ClaimState.LIVE))
    clustered = cluster_families(machine, 1, 0, {0: 1})
    families = [*App().exposition.families(), *worker_families({}), *clustered]
    names = {family.name + suffixes.get(family.type, "") for family in families}
    return {name for name in names if name.startswith("ingestor_")}


def named_in(path: Path) -> set[str]:
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in NAME.findall(path.read_text())}


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=lambda path: path.name)
def test_every_metric_that_is_used_is_exported(path: Path) -> None:
    assert named_in(path)
    assert named_in(path) - exported() == set()


def test_the_documentation_has_every_metric_and_no_other() -> None:
    streams = {name for name, _, _ in STREAM_FAMILIES}
    assert named_in(OPERATIONS) == exported() | streams


def test_the_documentation_has_every_alert() -> None:
    alerts = set(re.findall(r"alert: (\w+)", ALERTS.read_text()))
    table = OPERATIONS.read_text().split("## Alerts")[1].split("## Overload")[0]
    assert set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE)) - {"alert"} == alerts


def test_every_alert_names_its_runbook() -> None:
    text = ALERTS.read_text()
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    alerts = re.findall(r"alert: (\w+)", text)
    links = re.findall(r"runbook: docs/runbooks.md#(\w+)$", text, re.MULTILINE)
    assert links == [alert.lower() for alert in alerts]
    assert set(sections) == set(alerts)


def test_the_runbooks_name_metrics_that_exist() -> None:
    streams = {name for name, _, _ in STREAM_FAMILIES}
    assert named_in(ROOT / "docs" / "runbooks.md") - exported() - streams == set()


def test_the_dashboard_is_json_that_fits_the_screen() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_what_compose_mounts_exists_and_its_ports_are_of_loopback() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    for mount in mounts:
        if mount.startswith("."):
            assert (COMPOSE.parent / mount.split(":")[0]).exists(), mount
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
    scraped = yaml.safe_load((COMPOSE.parent / "prometheus.yaml").read_text())["scrape_configs"]
    assert {
        target
        for job in scraped
        for static in job["static_configs"]
        for target in static["targets"]
    } == {"ingestor:9464"}


def test_the_settings_of_the_containers_are_settings_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    image = re.findall(r"(INGESTOR__\w+)=(\S+)", (ROOT / "Dockerfile").read_text())
    settings = {**dict(image), **services["ingestor"]["environment"]}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    config = load(ROOT / "config" / "kraken.toml", {"kraken": ["spot"]})
    assert config.http.host == "0.0.0.0"  # of the container
    assert config.http.allowed_hosts == ("ingestor",)
    assert str(config.catalogue.cache_dir) == "/var/lib/ingestor/cache"
    assert services["ingestor"]["command"][1].endswith("/kraken.toml")


@pytest.mark.parametrize(
    "arguments", [["check", "rules", str(ALERTS)], ["test", "rules"]], ids=["check", "test"]
)
def test_promtool_accepts_the_alerts(arguments: list[str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool (Debian package prometheus)")
    if arguments == ["test", "rules"]:
        arguments = [*arguments, str(ALERTS.with_suffix(".test.yaml"))]
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda path: path.name,
)
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    files = re.findall(r"`((?:ingestor|feeds|tests|benchmarks|config|deploy)/[\w./-]*)`", text)
    made_by_the_reader = ("feeds/acme.py", "tests/fixtures/acme_spot.jsonl")
    wanted = [file for file in files if file not in made_by_the_reader]
    assert [file for file in wanted if not (ROOT / file).exists()] == []
    names = set(re.findall(r"\bingestor(?:\.[A-Za-z_]\w*)+", text)) - {GROUP, "ingestor.py"}
    for name in names:
        pkgutil.resolve_name(name)


def test_the_readme_names_commands_that_exist() -> None:
    from tests.unit.cli.test_main import COMMANDS

    used = set(re.findall(r"^ingestor ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert used
    assert used <= set(COMMANDS)


def test_the_security_page_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text())
    assert len(named) > 20
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not re.search(rf"def {test}\(", (ROOT / path).read_text())
    ]
    assert missing == []


def test_every_decision_is_in_the_index() -> None:
    records = {path.name for path in (ROOT / "docs" / "adr").glob("0*.md")}
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    assert set(re.findall(r"^\| \[\d+\]\(([^)]+)\) \|", index, re.MULTILINE)) == records


def test_every_document_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().split("nav:")[1]
    documents = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert documents - set(re.findall(r"[\w-]+\.md", navigation)) == set()
