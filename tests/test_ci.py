"""`.ci/run`: few failed tests run again, alone; what passes then is named, what fails, fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = f"""
check coverage docs run:
\t@true
test:
\t@{sys.executable} -m pytest -q -p xdist -p tests.failures -n 1 $(PYTEST_ARGS)
"""
# Fails the first time, passes from then on.
UNSTEADY = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("n", range({count}))
def test_unsteady(n):
    seen = Path(__file__).with_name(f"seen {{n}}")
    assert seen.exists() or seen.touch()

def test_steady():
    ran = Path(__file__).with_name("steady")
    ran.write_text(ran.read_text() + "x" if ran.exists() else "x")
"""


@pytest.fixture
def ci(tmp_path: Path) -> Path:
    """A folder with `.ci/run`, a Makefile and tools that need no installing."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / "pytest.ini").touch()
    for tool in ("promtool", "gcc"):
        (tmp_path / "bin" / tool).touch(0o755)
    return tmp_path


def run(folder: Path) -> tuple[int, list[str]]:
    """Run it: exit status, and the lines of its summary."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [folder / ".ci" / "run"],
        env=os.environ
        | {"PATH": path, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout.split("=== demo: ok, ")[1].splitlines()[1:]


def test_three_unsteady_tests_are_named_and_fail_nothing(ci: Path) -> None:
    (ci / "test_some.py").write_text(UNSTEADY.format(count=3))
    status, (unsteady, end) = run(ci)
    assert status == 0
    assert sorted(unsteady.split()) == sorted(
        ["===", "unsteady:", *(f"test_some.py::test_unsteady[{n}]" for n in range(3))]
    )
    assert end == "=== all sections passed"
    assert (ci / "steady").read_text() == "x"  # what passed did not run again


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(UNSTEADY.format(count=4), id="four"),
        pytest.param(UNSTEADY.format(count=1) + "def test_bad(): assert False", id="fails twice"),
        pytest.param(UNSTEADY.format(count=1) + "import absent", id="cannot be collected"),
    ],
)
def test_what_else_fails_fails(ci: Path, more: str) -> None:
    (ci / "test_some.py").write_text(UNSTEADY.format(count=0))
    (ci / "test_more.py").write_text(more)
    assert run(ci) == (1, ["=== failed: test"])
