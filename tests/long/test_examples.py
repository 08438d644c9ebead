"""The tests of `make test` that draw examples, with many more of them (`tests.effort`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = (
    "feeds/test_hostile_fields.py",
    "feeds/test_hostile_frames.py",
    "unit/books/test_manager_against_model.py",
    "unit/codec/test_encoder.py",
    "unit/columns/test_buffer.py",
    "unit/model/test_book_side.py",
    "unit/model/test_decimals.py",
    "unit/sinks/kafka/test_queue.py",
    "unit/sinks/kafka/test_sender.py",
)


@pytest.mark.long(minutes=12)
@pytest.mark.rows("D4")
@pytest.mark.parametrize("module", MODULES)
def test_many_examples(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{module}"],
        cwd=ROOT,
        env=os.environ | {"INGESTOR_LONG": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8_000:]
