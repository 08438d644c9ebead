"""The first thing that anybody runs."""

from __future__ import annotations

import json
import re
import shlex
import socket
import urllib.request
from pathlib import Path

from ingestor.cli.demo import free_port
from tests.e2e.processes import command, environment, ingestor


def test_the_demo_ends_with_one_line_of_json(tmp_path: Path) -> None:
    with command("demo", "--seconds", "3", "--json", env=environment(tmp_path)) as running:
        ended = running.end(60)
    assert ended.status == 0, ended.err
    result = ended.result
    assert result["connections"] == 20
    assert result["frames_received"] > 1_000
    assert result["rows_appended"] == result["rows_acked"] > result["frames_received"]
    assert result["unaccounted"] == result["lost"] == result["rows_shed"] == 0
    assert 0 < result["publish_p99_ms"] < 60_000
    assert 0 < result["lag_p99_ms"] < 60_000
    assert result["lag_p50_ms"] <= result["lag_p99_ms"]
    assert "balanced" in ended.err
    assert "connections" in ended.err  # the live lines
    assert "Traceback" not in ended.err


def test_what_the_demo_prints_can_be_pasted(tmp_path: Path) -> None:
    """The address of the page answers, and the line that reads trades prints some."""
    env = environment(tmp_path)
    with command("demo", "--symbols", "2", "--json", env=env) as running:

        def pointer(name: str) -> str:
            found = re.search(rf"^{name} +(.+)$", running.err, re.MULTILINE)
            return found[1] if found else ""

        running.until(lambda: bool(pointer("trades")))
        running.until(lambda: "http.listening" in running.err)
        with urllib.request.urlopen(pointer("page"), timeout=10) as page:
            assert b"<title>" in page.read()
        seen = ingestor("top", pointer("page"), "--once", "--json", env=env)
        assert json.loads(seen.stdout)["phase"] == "running", seen.stderr
        seen = ingestor("top", pointer("page"), "--once", env=env)
        assert re.match(r"running \d+ s: \d+/\d+ connections", seen.stdout), seen.stderr
        program, *arguments = shlex.split(pointer("trades"))
        done = ingestor(*arguments, "--limit", "3", env=env)
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done.stderr
        assert program.endswith(("ingestor", "__main__.py"))
        running.terminate()
        assert running.end(60).status == 0


def test_a_demo_beside_another_one_takes_another_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) not in {0, port}
    assert free_port("127.0.0.1", port) == port
