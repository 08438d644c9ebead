"""ingestor.cli.books; tests/e2e/test_books_verify.py runs it beside an emulated venue."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ingestor.cli import main as cli


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('[[feeds]]\nvenue = "krakn"\nsymbols = ["A"]\n', "did you mean kraken?"),
        ('[[feeds]]\nvenue = "kraken"\nsymbols = ["A"]\ndepth = 20\n', "the nearest is 25"),
        ("", "names no feeds"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_status_2(
    tmp_path: Path,
    content: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "venue.toml"
    path.write_text(content)
    monkeypatch.setattr(sys, "argv", ["ingestor", "books", "verify", str(path)])
    assert cli.main() == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert complaint in err
