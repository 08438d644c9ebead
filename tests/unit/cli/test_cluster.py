"""Arguments of `ingestor cluster`, which are looked at before anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Call


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no JSON object of numbers"),
        ('{"a": "b"}', "no JSON object of numbers"),
        ('{"a": 0}', "must be a positive number"),
        ("{", "no JSON object of numbers"),
    ],
)
def test_weights_that_cannot_be_read(call: Call, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rates.json").write_text(text)
    done = call("cluster", "plan", "x.toml", "--weights", str(tmp_path / "rates.json"), env={})
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_has_examples(call: Call) -> None:
    for name in ("init", "plan", "apply", "status"):
        assert (
            f"ingestor cluster {name} prod.toml" in call("cluster", name, "--help", env={}).stdout
        )
