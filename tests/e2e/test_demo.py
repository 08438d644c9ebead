"""The first thing that anybody runs."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.processes import command, environment


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
