"""What benchmarks decide: where the ladder ends, ratios, growth; and that their processes run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cases import baseline, connections, latency, memory, profile
from benchmarks.cases import reconnect_storm as storm
from benchmarks.harness.processes import Child, ChildFailed, LoadServer
from benchmarks.harness.saturated import BOOK_20, TRADES
from benchmarks.peers import environment as peers

STEPS = tuple((count, 10.0) for count in (100, 1_000, 5_000, 10_000))


def a_row(
    count: int, p99_ms: float = 20.0, reconnects: int = 0, carried: float = 1.0
) -> dict[str, Any]:
    return {
        "connections": count,
        "rate": 10.0,
        "messages_per_s": round(carried * count * 10.0),
        "lag_p99_ms": p99_ms,
        "reconnects": reconnects,
    }


def climbed(*lags_ms: float | None) -> list[dict[str, Any]]:
    """Climb with these lags, one for each attempt; None = the step can't be measured."""
    left: Iterator[float | None] = iter(lags_ms)

    def attempt(step: tuple[int, float]) -> dict[str, Any]:
        lag_ms = next(left)
        if lag_ms is None:
            raise ChildFailed("Traceback\n  somewhere\nit ended")
        return a_row(step[0], lag_ms)

    return connections.climb(STEPS, attempt)


def test_the_ladder_is_climbed_to_its_end() -> None:
    rows = climbed(10, 20, 30, 100.0)
    assert [row["connections"] for row in rows] == [100, 1_000, 5_000, 10_000]
    assert connections.connections_per_core(rows) == 10_000


def test_turns_are_compared_by_their_median() -> None:
    """A slow minute is in both halves of a turn; one that is in one half alone is no median."""
    costs_us = [(10.0, 12.0), (20.0, 26.0), (10.0, 30.0), (30.0, 33.0), (10.0, 12.5)]
    turns = [
        ({"us_per_message": before_us}, {"us_per_message": after_us})
        for before_us, after_us in costs_us
    ]
    middle, ratio = connections.in_the_middle(turns)
    assert ratio == 1.25
    assert [row["us_per_message"] for row in middle] == [10.0, 12.5]


def test_a_step_that_misses_once_is_tried_again() -> None:
    rows = climbed(10, 150, 20, 30, 40)
    assert [row["connections"] for row in rows] == [100, 1_000, 1_000, 5_000, 10_000]
    assert connections.connections_per_core(rows) == 10_000


def test_the_ladder_ends_where_a_step_misses_twice() -> None:
    rows = climbed(10, 20, 100.1, None)
    assert [row["connections"] for row in rows] == [100, 1_000, 5_000, 5_000]
    assert rows[-1]["overloaded"] == "it ended"
    assert connections.connections_per_core(rows) == 1_000
    assert connections.connections_per_core(rows[2:]) == 0


def test_a_disconnect_is_a_miss_and_so_is_what_was_not_sent_or_read() -> None:
    assert connections.held(a_row(100))
    assert not connections.held(a_row(100, reconnects=1))
    assert connections.held(a_row(100, carried=0.98))
    assert not connections.held(a_row(100, carried=0.97))


@pytest.mark.parametrize(
    ("truth", "halvings", "found"),
    [(230_000.0, 3, 225_000.0), (230_000.0, 0, 200_000.0), (30_000.0, 3, 28_125.0)],
)
def test_the_capacity_is_found_by_doubling_and_halving(
    truth: float, halvings: int, found: float
) -> None:
    assert latency.capacity(lambda asked: asked <= truth, halvings) == found


def test_ratios_are_over_the_afternoons_pipeline() -> None:
    rows = baseline.with_ratios(
        {
            "afternoon": {"messages_per_cpu_s": 50, "messages_per_s": 40},
            "json": {"messages_per_cpu_s": 200, "messages_per_s": 100},
            "cryptofeed": {"pipeline": "cryptofeed: it ended"},
        }
    )
    assert [row.get("ratio_per_cpu_s") for row in rows] == [1.0, 4.0, None]
    assert rows[1]["ratio_per_s"] == 2.5


def test_named_ratios_are_of_what_ran() -> None:
    ran = [
        (TRADES, "afternoon", 1.0),
        (TRADES, "ingestor, json", 4.0),
        (TRADES, "ingestor, binary", 9.0),
        (TRADES, "cryptofeed", 0.5),
        (BOOK_20, "afternoon", 1.0),
        (BOOK_20, "ingestor, binary", 3.0),
    ]
    rows = [
        {"frames": load.name, "pipeline": pipeline, "ratio_per_cpu_s": ratio}
        for load, pipeline, ratio in ran
    ]
    assert baseline.headline(rows) == {
        "baseline_ratio_trades_json": 4.0,
        "baseline_ratio_trades_binary": 9.0,
        "baseline_ratio_books": 3.0,
        "cryptofeed_ratio_trades_json": 8.0,
        "cryptofeed_ratio_trades_binary": 18.0,
    }


def test_memory_is_that_of_each_connection_more() -> None:
    few = {"connections": 1_000, "rss_mib": 100.0}
    assert memory.growth_per_connection(few, {"connections": 2_024, "rss_mib": 120.0}) == 20.0


def test_the_highest_pace_is_of_a_whole_second() -> None:
    accepted = [(0.0, 0), (0.5, 300), (1.0, 400), (1.5, 450), (2.0, 460)]
    assert storm.peak(accepted) == 400


# ---------------------------------------------------------------------- the peers' environment


def a_python(path: Path, version: str, otherwise: str = "exit 1") -> Path:
    """Write a program that answers as an interpreter does when asked for its version."""
    path.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then echo {version}; exit; fi\n{otherwise}\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any interpreter; returns a folder that is on its path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}")
    monkeypatch.setenv("HOME", f"{tmp_path}")
    monkeypatch.delenv("PEERS_PYTHON", raising=False)
    return folder


def test_the_first_interpreter_that_is_new_enough_is_taken(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert peers.interpreter() is None
    a_python(bare / "python3.14", "3 12")  # not what its name says
    found = a_python(bare / "python3.13", "3 13")
    assert peers.interpreter() == found
    named = a_python(bare / "mine", "3 15")
    monkeypatch.setenv("PEERS_PYTHON", f"{named}")
    assert peers.interpreter() == named
    monkeypatch.setenv("PEERS_PYTHON", f"{bare / 'absent'}")
    assert peers.interpreter() == found


def test_without_an_interpreter_the_reason_is_told(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(peers.PeersMissing, match=r"Python 3\.13 or newer: none found"):
        peers.environment(tmp_path / "peers")
    assert bare.is_dir()


def test_what_can_not_be_installed_leaves_nothing_behind(bare: Path, tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    a_python(bare / "python3.13", "3 13", f"/bin/mkdir {folder}\necho no network >&2\nexit 1")
    with pytest.raises(peers.PeersMissing, match="can't be installed: no network"):
        peers.environment(folder)
    assert not folder.exists()


# ---------------------------------------------------------------------- processes


def test_the_floor_reads_what_the_load_server_sends() -> None:
    with LoadServer(5, 100.0) as server:
        given = {"url": server.url, "connections": 5}
        with Child("benchmarks.peers.minimum_client", given) as client:
            client.wait_connected(5, timeout_s=30)
            window = client.window(0.5, settle_s=0.2)
            assert window["frames"] > 0
            assert 0 < window.lag_ms["p50"] <= window.lag_ms["p99"]
            assert window["cpu_s"] < window.seconds
            assert client.stop()["frames"] >= window.last["frames"]


def test_a_held_server_sends_nothing() -> None:
    with LoadServer(5, 0.0) as server:
        server.hold()
        given = {"url": server.url, "connections": 5, "parse": False}
        with Child("benchmarks.peers.minimum_client", given) as client:
            client.wait_connected(5, timeout_s=30)
            time.sleep(0.2)
            before = client.sample()["frames"]
            assert client.window(0.2, 0.0)["frames"] == 0
            server.release()
            assert client.window(0.2, 0.2).last["frames"] > before


def test_a_child_that_ends_says_why() -> None:
    with (
        pytest.raises(ChildFailed, match="KeyError: 'connections'"),
        Child("benchmarks.peers.minimum_client", {}),
    ):
        pass


def test_every_stage_of_a_trade_is_timed() -> None:
    stages = profile.measure(2)
    assert {"read", *stages} == set(profile.STAGES)
    assert stages["decode"] > 0
