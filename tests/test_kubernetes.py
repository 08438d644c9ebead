"""The manifests of deploy/kubernetes: valid by Kubernetes' own schemas, and true of the program."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer.main
import yaml

from ingestor.cli.main import app
from ingestor.config.load import load
from ingestor.config.model import Config
from ingestor.sources.registry import markets
from tests.e2e.processes import environment, ingestor
from tests.test_deploy import exported

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.30", "1.37")
KUSTOMIZATIONS = sorted(path.parent for path in FOLDER.rglob("kustomization.yaml"))
SHARDED = {"shards": "statefulset.yaml", "shards-job": "job.yaml"}
INDEX_OF = {"StatefulSet": "SHARD", "Job": "JOB_COMPLETION_INDEX"}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
_TEXT, _DURATION = {"type": "string"}, {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
# Of https://prometheus-operator.dev/docs/api-reference/api: what is used of it, and no other field.
POD_MONITOR = _object(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "PodMonitor"},
    metadata=_object(("name",), name=_TEXT, labels=_LABELS),
    spec=_object(
        ("selector", "podMetricsEndpoints"),
        jobLabel=_TEXT,
        selector=_object((), matchLabels=_LABELS),
        podMetricsEndpoints={
            "type": "array",
            "minItems": 1,
            "items": _object(
                (), port=_TEXT, path=_TEXT, interval=_DURATION, scrapeTimeout=_DURATION
            ),
        },
    ),
)


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """What the cluster gives a pod: the password of Kafka, in a file."""
    (tmp_path / "password").write_text("secret\n")
    given = {"INGESTOR__KAFKA__SASL_PASSWORD_FILE": str(tmp_path / "password")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


def resources(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text()):
            if one["apiVersion"].partition("/")[0] != "kustomize.config.k8s.io":
                yield one


def pods(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each resource that makes pods, and the pods' spec."""
    for one in resources(folder):
        if (template := one["spec"].get("template") if "spec" in one else None) is not None:
            yield one, template["spec"]


def names(one: dict[str, Any]) -> str:
    return f"{one['kind']}-{one['metadata']['name']}"


def _value(values: Mapping[str, str], name: re.Match[str]) -> str:
    return values[name[1]]


def validate(resource: dict[str, Any], version: str) -> None:
    if resource["kind"] == "PodMonitor":  # not of Kubernetes itself
        jsonschema.validate(resource, POD_MONITOR)
        return
    kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", list(resources(FOLDER)), ids=names)
def test_manifests_are_valid(resource: dict[str, Any], version: str) -> None:
    validate(resource, version)


def test_a_field_that_does_not_exist_is_found() -> None:
    resource = next(one for one in resources(FOLDER) if one["kind"] == "StatefulSet")
    mistaken = copy.deepcopy(resource)
    mistaken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        validate(mistaken, VERSIONS[0])


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_a_kustomization_names_every_file_of_its_folder(folder: Path) -> None:
    """With kubectl, if it is there, which renders without a cluster."""
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text())
    files = {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
    generated = {name for one in wanted.get("configMapGenerator", ()) for name in one["files"]}
    own = {name for name in wanted["resources"] if not name.startswith("../")}
    assert {*own, *generated} == files
    if (kubectl := shutil.which("kubectl")) is not None:
        command = [kubectl, "kustomize", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr
        for one in yaml.safe_load_all(done.stdout):
            validate(one, VERSIONS[-1])


@pytest.mark.parametrize(("folder", "file"), SHARDED.items())
def test_the_shards_of_a_manifest_are_the_plan(
    tmp_path: Path, secrets: dict[str, str], folder: str, file: str
) -> None:
    """The arguments of each pod, filled in as Kubernetes does it, go through our own parser."""
    resource = yaml.safe_load((FOLDER / folder / file).read_text())
    spec = resource["spec"]
    container = spec["template"]["spec"]["containers"][0]
    values = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    count = spec.get("replicas", spec.get("completions"))
    assert values["SHARDS"] == str(count)
    assert count == spec.get("parallelism", count)
    shards = []
    for index in range(count):
        filled = values | {INDEX_OF[resource["kind"]]: str(index)}
        arguments = [
            re.sub(r"\$\((\w+)\)", partial(_value, filled), one) for one in container["args"]
        ]
        assert arguments[0] == "run"
        shard = arguments[arguments.index("--shard") + 1]
        config = str(FOLDER / folder / Path(arguments[1]).name)
        done = ingestor("check", config, "--shard", shard, env=environment(tmp_path, **secrets))
        assert (done.returncode, done.stderr) == (0, "")
        shards.append(done.stdout.split(" of ")[0])
    assert shards == [f"shard {index}/{count}" for index in range(count)]


def test_the_autoscaler_follows_a_metric_and_keeps_what_the_plan_was_checked_for(
    secrets: dict[str, str],
) -> None:
    autoscaled, base = FOLDER / "cluster-autoscaled", FOLDER / "cluster"
    [scaler] = [one for one in resources(autoscaled) if one["kind"] == "HorizontalPodAutoscaler"]
    [deployment] = [one for one in resources(base) if one["kind"] == "Deployment"]
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    config = load(base / "ingestor.toml", markets())
    assert scaler["spec"]["minReplicas"] == config.cluster.workers == deployment["spec"]["replicas"]
    names_used = {one["pods"]["metric"]["name"] for one in scaler["spec"]["metrics"]}
    assert names_used <= exported()
    [monitor] = [one for one in resources(autoscaled) if one["kind"] == "PodMonitor"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["spec"]["jobLabel"]] == "ingestor"
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    ports = {one["name"] for one in container["ports"]}
    assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= ports


def test_the_manifests_name_commands_and_options_that_exist() -> None:
    for _, pod in pods(FOLDER):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            command = typer.main.get_command(app)
            words = [one for one in container["args"] if not one.startswith("/")]
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
            known = {name for parameter in command.params for name in parameter.opts}
            assert not hasattr(command, "commands"), container["args"]
            assert {one for one in words if one.startswith("--")} <= known


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_pods_stop_in_order_and_are_confined(folder: Path) -> None:
    drain_s = Config().limits.drain_s
    for resource, pod in pods(folder):
        containers = [*pod.get("initContainers", ()), *pod["containers"]]
        assert pod["terminationGracePeriodSeconds"] >= drain_s + 20, names(resource)
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        for container in containers:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"]
            assert security["capabilities"]["drop"] == ["ALL"]
            mounted = {one["name"] for one in container["volumeMounts"]}
            claims = resource["spec"].get("volumeClaimTemplates", ())
            made = {one["metadata"]["name"] for one in claims}
            assert mounted == {one["name"] for one in pod["volumes"]} | made


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_probes_ask_what_the_program_answers(folder: Path) -> None:
    server = (ROOT / "ingestor" / "admin" / "server.py").read_text()
    for file in folder.glob("*.toml"):
        config = load(file, markets())
        for _, pod in pods(folder):
            for container in pod["containers"]:
                if "ports" not in container:  # a step of CI
                    continue
                ports = {one["name"]: one["containerPort"] for one in container["ports"]}
                assert ports == {"http": config.http.port}
                probes = [value for name, value in container.items() if name.endswith("Probe")]
                assert probes
                for probe in probes:
                    assert f'("{probe["httpGet"]["path"]}", self.' in server
                    assert probe["httpGet"]["port"] in ports


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_a_policy_guards_the_status_port_of_every_pod(folder: Path) -> None:
    policies = [one["spec"] for one in resources(folder) if one["kind"] == "NetworkPolicy"]
    for resource, pod in pods(folder):
        if not any("ports" in container for container in pod["containers"]):
            continue
        labels = resource["spec"]["template"]["metadata"]["labels"]
        guarding = [
            one for one in policies if one["podSelector"]["matchLabels"].items() <= labels.items()
        ]
        assert guarding, names(resource)
        assert all(rule["from"] for one in guarding for rule in one["ingress"])
