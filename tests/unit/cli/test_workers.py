"""`--shard`: what is no part of a plan, and what the parts are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli import test_main

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "config" / "binance.toml")
MISTAKES = {
    "4/4": "'4/4' is no I/N with I from 0 and below N: 0/4 is the first of four, 3/4 the last",
    "0/0": "'0/0' is no I/N",
    "-1/2": "'-1/2' is no I/N",
    "1": "'1' is no I/N",
    "": "'' is no I/N",
    "/": "'/' is no I/N",
    "1/2/3": "'1/2/3' is no I/N",
    "\u0661/\u0662": "is no I/N",
    f"0/{'9' * 5000}": "'0/999999999999999999' is no I/N",
}

run = test_main.run
Run = Callable[..., tuple[int, str, str]]


pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INGESTOR__CATALOGUE__CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("command", [["run"], ["run", "--workers", "2"], ["check"]], ids=" ".join)
@pytest.mark.parametrize("shard", MISTAKES, ids=lambda one: ascii(one[:8]))
def test_what_is_no_shard_is_one_line_and_status_2(
    run: Run, command: list[str], shard: str
) -> None:
    status, out, err = run(*command, CONFIG, "--shard", shard)
    assert (status, out) == (2, "")
    assert err.startswith("ingestor: Invalid value for --shard: ")
    assert err.count("\n") == 1
    assert MISTAKES[shard] in err


def test_the_shards_of_check_are_the_plan(run: Run) -> None:
    whole = json.loads(run("check", CONFIG, "--json")[1])
    shards = [json.loads(run("check", CONFIG, "--json", "--shard", f"{i}/3")[1]) for i in range(3)]
    streams = [
        sorted(stream for one in each["connections"] for stream in one["streams"])
        for each in (whole, *shards)
    ]
    assert sorted(stream for each in streams[1:] for stream in each) == streams[0]
    assert {shard["plan"] for shard in shards} == {whole["plan"]}
    assert [shard["shard"] for shard in shards] == [
        {"index": index, "of": 3, "planned": len(whole["connections"])} for index in range(3)
    ]
    status, text, _ = run("check", CONFIG, "--shard", "1/3")
    count = len(shards[1]["connections"])
    assert status == 0
    of = len(whole["connections"])
    assert text.startswith(f"shard 1/3 of {of} connections: {count} connections, ")
    assert text.count("why: ") == count
