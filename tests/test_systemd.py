"""The units of deploy/systemd: as systemd reads them, and true of the program."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from ingestor.cli.main import app
from ingestor.config.model import Config

ROOT = Path(__file__).parents[1]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


class Repeated(dict[str, str]):
    """The last of several assignments counts here; systemd joins those of `Environment`."""


def service(unit: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None, dict_type=Repeated)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return parser["Service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(unit: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("no systemd-analyze (Debian package systemd)")
    done = subprocess.run([tool, "verify", str(unit)], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert [
        line for line in said if "/opt/ingestor/bin/ingestor is not executable" not in line
    ] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_unit_starts_and_stops_as_the_program_does(unit: Path) -> None:
    found = service(unit)
    program, command, config, *options = shlex.split(found["ExecStart"])
    assert (Path(program).name, command, Path(config).name) == ("ingestor", "run", "ingestor.toml")
    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    known = {name for parameter in run.params for name in parameter.opts}
    assert {one for one in options if one.startswith("--")} <= known
    assert float(found["TimeoutStopSec"]) >= Config().limits.drain_s + 20
    assert (found["Type"], found["NotifyAccess"]) == ("notify", "main")
    assert float(found["WatchdogSec"]) > 0
    assert found["RestartPreventExitStatus"] == "2"


def test_the_units_differ_in_the_shard_alone() -> None:
    one, sharded = (dict(service(unit)) for unit in UNITS)
    assert sharded.pop("ExecStart") == f"{one.pop('ExecStart')} --shard %i/${{SHARDS}}"
    assert one == sharded
