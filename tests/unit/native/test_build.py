"""The library is compiled where there is a compiler; sanitizers find nothing in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingestor.native.build import compile_library, find_compiler, sources_digest

ROOT = Path(__file__).parents[3]
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")


def test_without_a_compiler_there_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert compile_library(tmp_path / "library.so") == "no C compiler"
    monkeypatch.setenv("CC", "nosuchcompiler -O9")
    problem = compile_library(tmp_path / "library.so")
    assert problem == "nosuchcompiler does not run: No such file or directory"


@needs_compiler
def test_a_compiler_that_fails_leaves_what_there_was(tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    library.write_bytes(b"before")
    problem = compile_library(library, ["--no-such-option"])
    assert problem is not None
    assert "no-such-option" in problem
    assert library.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [library]


@needs_compiler
def test_a_library_knows_of_which_sources_it_is(tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    assert compile_library(library) is None
    assert sources_digest().encode() in library.read_bytes()


@needs_compiler
@pytest.mark.timeout(300)
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Mutated frames, cut streams and records, on a library with ASAN and UBSAN."""
    library = tmp_path / "library.so"
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    if (problem := compile_library(library, flags)) is not None:
        pytest.skip(f"no sanitizers: {problem}")
    [compiler] = find_compiler() or [""]
    runtime = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {
        **os.environ,
        "INGESTOR_NATIVE": str(library),
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.native.exercise"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    assert "taken" in done.stdout
