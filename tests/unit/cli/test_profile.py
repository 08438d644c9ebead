"""ingestor.cli.profile with a real process, a real py-spy and its real flame graph."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from ingestor.cli.profile import make_flame_graph
from ingestor.model.errors import ConfigError, TransportError
from tests.e2e.processes import command, environment, ingestor


def test_a_flame_graph_of_a_running_process(tmp_path: Path) -> None:
    env, output = environment(tmp_path), tmp_path / "flame.svg"
    with command("demo", "--symbols", "5", "--json", env=env) as running:
        running.until(lambda: "http.listening" in running.err)
        page = re.search(r"^page +(\S+)", running.err, re.MULTILINE)
        assert page is not None
        done = ingestor("profile", page[1], "--seconds", "2", "--output", str(output), env=env)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{output}: 2 s of the process\n"
        graph = output.read_text()
        assert graph.startswith("<?xml")
        assert "ingestor/" in graph  # frames of ours
        done = ingestor("profile", page[1], "--worker", "3", env=env)
        assert (done.returncode, done.stderr) == (
            2,
            "ingestor: there is no worker 3; there are 1\n",
        )


async def test_without_py_spy_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="py-spy is not installed") as failure:
        await make_flame_graph("http://127.0.0.1:1", tmp_path / "x.svg", seconds=1, worker=0)
    assert failure.value.hint == "install market-data-ingestor[profile]"


async def test_a_port_that_nobody_has_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="status"):
        await make_flame_graph("http://127.0.0.1:1", tmp_path / "x.svg", seconds=1, worker=0)
