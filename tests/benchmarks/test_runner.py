"""The runner: figures against targets, failures, the document."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from benchmarks import __main__ as runner
from benchmarks.harness import report as document
from benchmarks.harness import results as common
from benchmarks.harness import targets

MORE = targets.Target("speed", "how fast", 10, more=True, missed="It is slow")
LESS = targets.Target("cost", "how dear", 1.5, more=False)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results go instead of into the repository."""
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def two_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "TARGETS", (MORE, LESS))


def a_benchmark(name: str, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    module = ModuleType(f"benchmarks.cases.{name}", f"What {name} is.\n\nMeasured: nothing.")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(runner.ALL, name, (1, 1))


def a_result(**more: Any) -> dict[str, Any]:
    return {
        "quick": False,
        "seconds": 90.0,
        "machine": common.machine(),
        "results": [
            {"benchmark": "storm", "frames": "a|b", "per_s": 12_345, "broker": "the stub"},
            {"benchmark": "profile", "stage": "parse", "compiled_ns": 267},
        ],
        "headline": {"speed": 9, "cost": 1.5, "other": 7},
        **more,
    }


@pytest.mark.parametrize(
    ("target", "measured", "verdict"),
    [
        (MORE, 9.99, "missed"),
        (MORE, 10, "reached"),
        (LESS, 1.51, "missed"),
        (LESS, 1.5, "reached"),
        (LESS, None, "not measured"),
    ],
)
def test_verdicts(target: targets.Target, measured: float | None, verdict: str) -> None:
    assert target.verdict(measured) == verdict


def test_names_of_targets_are_different() -> None:
    names = [target.name for target in targets.TARGETS]
    assert len(set(names)) == len(names)


@pytest.mark.usefixtures("two_targets")
def test_figures_with_a_target_come_first() -> None:
    rows = targets.judged({"other": 7, "cost": 2}, complete=False)
    assert [(row["figure"], row["verdict"]) for row in rows] == [("cost", "missed"), ("other", "")]
    rows = targets.judged({"other": 7, "cost": 2}, complete=True)
    assert (rows[0]["figure"], rows[0]["verdict"]) == ("speed", "not measured")


def test_a_table_has_a_column_for_every_key_of_any_row() -> None:
    text = common.table_text([{"a": 1_234}, {"a": "x", "b": 0.5}])
    assert [line.split() for line in text.splitlines()] == [["a", "b"], ["1,234"], ["x", "0.50"]]
    assert len({len(line) for line in text.splitlines()}) == 1


@pytest.mark.usefixtures("results")
def test_an_unknown_name_says_which_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["conections"]) == 2
    assert "'connections'" in capsys.readouterr().err


@pytest.mark.usefixtures("two_targets")
def test_a_failing_benchmark_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> dict[str, Any]:
        raise ValueError("no luck")

    def fine(*, quick: bool) -> dict[str, Any]:
        return {"results": [{"quick": quick}], "headline": {"speed": 11}}

    a_benchmark("broken", monkeypatch, broken)
    a_benchmark("fine", monkeypatch, fine)
    assert runner.main(["broken", "fine", "--quick", "--json"]) == 1
    lines = capsys.readouterr().out.splitlines()
    last = orjson.loads(lines[-1])
    assert last == orjson.loads((results / "all-quick.json").read_bytes())
    assert last["benchmark"] == "broken+fine"
    assert "no luck" in last["results"][0]["failed"]
    assert last["results"][1] == {"benchmark": "fine", "quick": True}
    assert last["headline"] == {"speed": 11}
    assert any(line.split()[:5] == ["speed", ">=", "10", "11", "reached"] for line in lines)
    assert any("fine (2 of 2" in line for line in lines)


@pytest.mark.parametrize("arguments", [["--docs", "--quick"], ["--docs", "decode"]])
def test_the_repositorys_document_needs_a_full_run(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert runner.main(arguments) == 2
    assert "full run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        {},  # of two benchmarks only
        {"quick": True, "results": [{"benchmark": name} for name in runner.ALL]},
        {"results": [{"benchmark": name, "failed": "x"} for name in runner.ALL]},
    ],
)
def test_nor_is_it_written_from_an_incomplete_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(runner, "DOCS", tmp_path)
    saved = tmp_path / "result.json"
    saved.write_bytes(orjson.dumps(a_result(**more)))
    assert runner.main(["--from", str(saved), "--docs"]) == 2
    assert not (tmp_path / "benchmarks.md").exists()


def test_a_document_is_written_from_a_result(tmp_path: Path) -> None:
    saved = tmp_path / "result.json"
    saved.write_bytes(orjson.dumps(a_result()))
    assert runner.main(["--from", str(saved), "--docs-folder", str(tmp_path / "docs")]) == 0
    assert "| parse | 267 |" in (tmp_path / "docs" / "benchmarks.md").read_text()


@pytest.mark.usefixtures("two_targets")
def test_the_document_tells_what_was_missed_and_why() -> None:
    text = document.text(a_result())
    assert "| how fast (`speed`) | >= 10 | 9 | missed |" in text
    assert "- `speed`: It is slow." in text
    assert "| how dear (`cost`) | <= 1.5 | 1.5 | reached |" in text
    assert "`other` 7" in text
    assert "| a\\|b | 12,345 |" in text
    assert "Broker: the stub." in text
    assert "Where the rest" not in text
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("|"))


def test_the_stages_come_before_the_other_sections() -> None:
    figures = {
        "profile_trade_ns_json": 800,
        "profile_trade_ns_binary": 500,
        "profile_trade_ns_json_in_python": 3_300,
        "profile_trade_ns_binary_in_python": 2_000,
    }
    text = document.text(a_result(headline=figures))
    assert "2,000,000 a second" in text
    assert text.index("## profile") < text.index("## storm")
