"""The wheel: which names it puts into an environment, and that it runs from there alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from ingestor.sources.registry import registry

ROOT = Path(__file__).parents[1]
DECOY = "raise RuntimeError('a package of somebody else was imported')"
TIMEOUT_S = 60


def run(*arguments: str, cwd: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with `path` as its only PYTHONPATH."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("INGESTOR_")}
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
    done = run("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT, path=ROOT)
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("*.whl")
    return built


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
