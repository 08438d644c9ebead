"""The wheel: which names it puts into an environment, and that it runs from there alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from ingestor.native.build import find_compiler
from ingestor.sources.registry import registry

ROOT = Path(__file__).parents[1]
DECOY = "raise RuntimeError('a package of somebody else was imported')"
TIMEOUT_S = 60


LIBRARY = "ingestor/native/libingestor.so"


def run(*arguments: str, cwd: Path, path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with `path` as its only PYTHONPATH. more: of the environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("INGESTOR_")}
    clean |= more
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("*.whl")
    return built


def build(folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    arguments = ("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    return run(*arguments, cwd=ROOT, path=ROOT, **more)


@pytest.fixture
def no_compiler(tmp_path: Path) -> dict[str, str]:
    """An environment in which no C compiler is found."""
    (tmp_path / "bin").mkdir()
    return {"PATH": str(tmp_path / "bin"), "CC": ""}


def test_without_a_compiler_the_wheel_is_pure_and_reads_frames_in_python(
    tmp_path: Path, no_compiler: dict[str, str]
) -> None:
    done = build(tmp_path, **no_compiler)
    assert done.returncode == 0, done.stderr
    assert "no C compiler: frames are read in Python" in done.stdout + done.stderr
    [built] = tmp_path.glob("*-py3-none-any.whl")
    assert LIBRARY not in ZipFile(built).namelist()
    installed = tmp_path / "installed"
    ZipFile(built).extractall(installed)
    probe = "from ingestor.native import native; print(native().way)"
    assert run("-c", probe, cwd=tmp_path, path=installed).stdout == "python\n"
    demo = ("-m", "ingestor", "demo", "--seconds", "3", "--symbols", "20", "--json")
    done = run(*demo, cwd=tmp_path, path=installed, **no_compiler)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["rows_acked"] > 0


def test_a_required_library_without_a_compiler_is_an_error(
    tmp_path: Path, no_compiler: dict[str, str]
) -> None:
    done = build(tmp_path, **no_compiler, INGESTOR_NATIVE="required")
    assert done.returncode != 0
    assert "INGESTOR_NATIVE=required: no C compiler" in done.stdout + done.stderr


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler")
def test_with_a_compiler_the_wheel_has_the_library_and_uses_it(wheel: Path, tmp_path: Path) -> None:
    assert not wheel.name.endswith("-none-any.whl"), "it is of a platform"
    assert LIBRARY in ZipFile(wheel).namelist()
    installed = tmp_path / "installed"
    ZipFile(wheel).extractall(installed)
    probe = "from ingestor.native import native; print(native().way, native().reason)"
    found = run("-c", probe, cwd=tmp_path, path=installed).stdout.split()
    assert found == ["compiled", str(installed / LIBRARY)]
    off = run("-c", probe, cwd=tmp_path, path=installed, INGESTOR_NATIVE="off").stdout
    assert off == "python INGESTOR_NATIVE is off\n"


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler")
def test_the_library_is_left_out_where_nobody_wants_it(tmp_path: Path) -> None:
    assert build(tmp_path, INGESTOR_NATIVE="off").returncode == 0
    [built] = tmp_path.glob("*-py3-none-any.whl")
    assert LIBRARY not in ZipFile(built).namelist()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory with a package `feeds` that is not this program's."""
    decoy = tmp_path / "elsewhere" / "feeds"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text(DECOY)
    return decoy.parent


def test_the_wheel_has_two_packages_and_its_metadata(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {
        "ingestor",
        "ingestor_feeds",
        f"market_data_ingestor-{version}.dist-info",
    }
    packages = {file.relative_to(ROOT) for file in ROOT.glob("feeds/**/*.py")}
    assert {f"ingestor_{file}" for file in packages} <= set(names)


def test_the_wheel_finds_its_venues_beside_a_foreign_package(
    wheel: Path, elsewhere: Path, tmp_path: Path
) -> None:
    installed = tmp_path / "installed"
    ZipFile(wheel).extractall(installed)
    done = run("-m", "ingestor", "feeds", "--json", cwd=elsewhere, path=installed)
    assert done.returncode == 0, done.stderr
    assert {feed["venue"] for feed in json.loads(done.stdout)} == set(registry().sources)

    made = run("-m", "ingestor", "config", "init", "kraken", cwd=elsewhere, path=installed)
    assert made.returncode == 0, made.stderr
    example = (ROOT / "config" / "kraken.toml").read_text("utf-8")
    assert (elsewhere / "kraken.toml").read_text("utf-8") == example
    schemas = {path.name for path in (ROOT / "schemas").glob("*.json")}
    assert {path.name for path in (installed / "ingestor/data/schemas").iterdir()} == schemas

    probe = (
        "from ingestor.sources import registry as found; "
        "print(*{found.adapter_of(name).__module__.split('.')[0] for name in found.markets()})"
    )
    modules = run("-c", probe, cwd=elsewhere, path=installed)
    assert (modules.stdout.strip(), modules.stderr) == ("ingestor_feeds", "")


def test_a_checkout_says_that_a_foreign_package_hides_its_venues(elsewhere: Path) -> None:
    done = run("-m", "ingestor", "feeds", cwd=elsewhere, path=ROOT)
    assert done.returncode == 2
    assert done.stderr == (
        f"ingestor: the venues in {ROOT / 'feeds'} can't be imported: `import feeds` finds "
        f"{elsewhere / 'feeds/__init__.py'}; start in another folder, or rename the other package\n"
    )
