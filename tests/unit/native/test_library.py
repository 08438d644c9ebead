"""Which way is in force, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.model.errors import ConfigError
from ingestor.native import library
from ingestor.native.build import compile_library, find_compiler
from ingestor.native.library import VARIABLE, load, native

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    native.cache_clear()
    yield
    native.cache_clear()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "none.so")


def test_without_a_library_frames_are_read_in_python(
    monkeypatch: pytest.MonkeyPatch, nowhere: None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert native().way == "python"
    assert native().reason == "it was not compiled when the project was installed"


def test_a_required_library_must_be_there(monkeypatch: pytest.MonkeyPatch, nowhere: None) -> None:
    monkeypatch.setenv(VARIABLE, "required")
    with pytest.raises(ConfigError, match=r"INGESTOR_NATIVE=required: .* make native"):
        native()


def test_the_library_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    assert (native().way, native().reason) == ("python", "INGESTOR_NATIVE is off")


def test_a_file_that_is_no_library_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(b"no library")
    assert load(path).library is None
    assert "can't be loaded" in load(path).reason


@needs_compiler
def test_another_file_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    assert compile_library(path) is None
    monkeypatch.setenv(VARIABLE, str(path))
    assert (native().way, native().reason) == ("compiled", str(path))


@needs_compiler
def test_a_library_of_other_sources_or_structures_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "library.so"
    assert compile_library(path) is None
    with monkeypatch.context() as patch:
        patch.setattr(library, "SIZES", (1, 2))
        assert load(path).reason == "its structures have other sizes"
    monkeypatch.setattr(library, "sources_digest", lambda: "others")
    assert "other sources" in load(path).reason


def test_big_endian_machines_have_no_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "library.so").touch()
    monkeypatch.setattr("sys.byteorder", "big")
    assert "little-endian" in load(tmp_path / "library.so").reason
