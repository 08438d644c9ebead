"""The fuzz target runs: by libFuzzer in CI, here with changes of its corpus and sanitizers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ingestor.native import native
from ingestor.native.build import SOURCES, find_compiler

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler")
@pytest.mark.skipif(native().library is None, reason=native().reason)
@pytest.mark.timeout(300)
def test_the_corpus_and_changes_of_it_do_no_harm(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tests.fuzz.inputs", str(tmp_path)], cwd=ROOT, check=True)
    compiler = find_compiler() or []
    sources = [str(ROOT / "tests/fuzz/target.c"), *map(str, sorted(SOURCES.glob("*.c")))]
    flags = ["-std=c11", "-g", "-O1", "-Wall", "-DWITHOUT_LIBFUZZER"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    target = tmp_path / "target"
    includes = ["-I", str(SOURCES), "-I", str(tmp_path)]
    built = subprocess.run(
        [*compiler, *flags, *includes, "-o", str(target), *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "sanitize" in built.stderr:
        pytest.skip(f"no sanitizers: {built.stderr[:200]}")
    assert built.returncode == 0, built.stderr[-4_000:]
    files = sorted(map(str, (tmp_path / "corpus").iterdir()))
    assert len(files) > 100
    done = subprocess.run([str(target), *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    assert done.stdout == f"{len(files)} files\n"
