"""Rules about the source that neither ruff nor import-linter knows.

Today's exceptions are in tests/tidy_exceptions.toml. Each rule compares what it finds with its
exceptions, both ways: something new fails, and so does an exception that is no longer needed. So
that file can only shrink.
"""

from __future__ import annotations

import ast
import gc
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ingestor", "feeds", "benchmarks", "tests")
EXCEPTIONS: dict[str, Any] = tomllib.loads(
    (ROOT / "tests" / "tidy_exceptions.toml").read_text(encoding="utf-8")
)

FUNCTION_LINES_MAX = 60
SLACK = 10  # docstrings that were mended, and are not taken from the exceptions yet
FILE_CODE_LINES_MAX = 400

# Names of the vocabulary that docs and code left behind, matched as whole names in code; prose is
# free. Only names that mean nothing else here.
# fmt: off
RETIRED = frozenset({
    "AuditImage", "BookImage", "BookImages", "BookTally", "Books", "BurstEnd", "Catalogue",
    "Chain", "ChannelStatistics", "Connected", "Connector", "Desk", "Flight", "Hearer",
    "Hole", "IS_RAW", "Intake", "Intakes", "KEPT", "Ladder", "Lane", "MARK_FIELDS", "Outbox",
    "Patience", "Produce", "Publishing", "Repairs", "Reporter", "Shown", "SideQueue",
    "SideSink", "StaleWatch", "Sweep", "Tap", "TextLadder", "TickBuffer", "Top", "Track",
    "Trail", "Verdict", "Waker", "Witnesses", "burst_end", "burst_end_of", "derives", "hear",
    "intake", "intakes", "is_oracle", "keep_trade", "lane", "lanes", "outbox", "quote_oracle",
    "raw_levels", "reason_of", "renumber", "stalewatch", "tally", "witness", "witnesses",
})
# fmt: on
_RETIRED_WORD = re.compile(rf"\b(?:{'|'.join(sorted(RETIRED))})\b")

# Parts of a library that it doesn't document: where they may be used. Names with an underscore are
# private in any case.
LIBRARIES = {
    "aiokafka": (
        "ingestor/kafka/aiokafka_compat.py",
        {"aiokafka", "aiokafka.abc", "aiokafka.admin", "aiokafka.errors", "aiokafka.structs"},
    ),
    "picows": ("ingestor/sources/websocket/picows.py", {"picows"}),
}
# Documented although they begin with an underscore.
PUBLIC = {
    *("_asdict", "_exit", "_fields", "_make", "_replace"),
    *("_FATAL", "_PARTITION_EOF", "_TRANSPORT"),  # errors of confluent-kafka
}

Functions = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """One file of Python source, parsed when it is first asked for."""

    path: str  # from the root of the checkout, with "/"
    text: str

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def module(path: Path) -> Module:
    return Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def modules() -> Iterator[list[Module]]:
    """All source. The collector pauses: it would search half a million nodes again and again."""
    gc.disable()
    yield [module(path) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    gc.enable()


def check(rule: str, found: Counter[str]) -> None:
    """Compare findings (place -> how many, or how large) with the exceptions of a rule."""
    allowed = EXCEPTIONS[rule]
    if isinstance(allowed, list):
        assert len(allowed) == len(set(allowed)), f"[{rule}] lists a place twice"
        allowed = dict.fromkeys(allowed, 1)
        found = Counter(dict.fromkeys(found, 1))
    new = [f"{place}: {n}" for place, n in sorted(found.items()) if n > allowed.get(place, 0)]
    assert not new, f"new exceptions to {rule!r}"
    gone = [f"{place}: {n}" for place, n in sorted(allowed.items()) if found[place] < n]
    assert not gone, f"{rule!r} in tests/tidy_exceptions.toml must shrink to what is left"


# ---------------------------------------------------------------------- sizes


def code_lines(source: Module) -> int:
    """Return how many lines have code: no blank lines, comments or docstrings."""
    lines = {
        number
        for number, line in enumerate(source.text.split("\n"), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    }
    for node in source.nodes:
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                lines.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def functions(node: ast.AST, names: str = "") -> Iterator[tuple[str, int]]:
    """Give the name of each function below a node, `Class.method`, and its lines.

    The docstring does not count: arguments that are explained make no function long.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):  # a lambda has no lines to speak of
            continue
        if isinstance(child, (*Functions, ast.ClassDef)):
            name = f"{names}.{child.name}".removeprefix(".")
            if not isinstance(child, ast.ClassDef):
                match child.body[0]:
                    case ast.Expr(value=ast.Constant(value=str())) as docstring:
                        explained = (docstring.end_lineno or 0) - docstring.lineno + 1
                    case _:
                        explained = 0
                yield name, (child.end_lineno or 0) - child.lineno + 1 - explained
            yield from functions(child, name)
        else:
            yield from functions(child, names)


def test_functions_are_short(modules: list[Module]) -> None:
    long: Counter[str] = Counter()
    for source in modules:
        for name, lines in functions(source.tree):
            if lines > FUNCTION_LINES_MAX:
                long[f"{source.path}:{name}"] = lines
    check("functions_over_60_lines", long)


def test_files_are_short(modules: list[Module]) -> None:
    sizes = Counter({source.path: code_lines(source) for source in modules})
    long = {path: lines for path, lines in sizes.items() if lines > FILE_CODE_LINES_MAX}
    check("files_over_400_code_lines", Counter(long))


# ---------------------------------------------------------------------- the tree


def is_face(statement: ast.stmt) -> bool:
    """Whether a statement may stand in an `__init__.py`."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__version__")]):
            return True
        case ast.AnnAssign(target=ast.Name(id="__all__" | "__version__")):
            return True
    return False


def test_packages_only_export(modules: list[Module]) -> None:
    found: Counter[str] = Counter()
    for source in modules:
        if source.path.endswith("__init__.py"):
            found[source.path] += sum(not is_face(statement) for statement in source.tree.body)
    check("definitions_in_init", +found)


def feeds() -> list[str]:
    """Return the names of the venues: modules of `feeds`, and of the folders `venues` in it."""
    folders = [ROOT / "feeds", *(ROOT / "feeds").glob("*/venues")]
    paths = [path for folder in folders for path in folder.iterdir()]
    names = (path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists())
    return sorted({*names} - {"__init__"})


@pytest.mark.parametrize("feed", feeds())
def test_each_feed_has_a_fixture_and_an_example_of_its_configuration(feed: str) -> None:
    fixtures = [path.name for path in (ROOT / "tests" / "fixtures").glob(f"{feed}_*.jsonl")]
    assert fixtures, f"no tests/fixtures/{feed}_<market>.jsonl"
    example = ROOT / "config" / ("demo.toml" if feed == "simulated" else f"{feed}.toml")
    content = tomllib.loads(example.read_text(encoding="utf-8"))
    venues = {block["venue"] for block in content["feeds"]}
    assert feed in venues, f"no block of {feed} in {example}"


def test_each_module_has_its_unit_test_module(modules: list[Module]) -> None:
    missing: Counter[str] = Counter()
    for source in modules:
        path = Path(source.path)
        if path.parts[0] == "ingestor" and path.name not in {"__init__.py", "__main__.py"}:
            unit = ROOT / "tests" / "unit" / Path(*path.parts[1:-1]) / f"test_{path.name}"
            missing[source.path] += not unit.exists()
    check("modules_without_unit_test", +missing)


# ---------------------------------------------------------------------- names


def names_in_code(source: Module) -> Iterator[str]:
    """Give each name in code, those inside f-strings too; not the words of strings or comments."""
    for node in source.nodes:
        if not isinstance(node, ast.Constant):
            for _, value in ast.iter_fields(node):
                if isinstance(value, str):
                    yield from value.split(".")  # a dotted one is an import's


def test_no_retired_name_is_used(modules: list[Module]) -> None:
    found: Counter[str] = Counter()
    for source in modules:
        if _RETIRED_WORD.search(source.text):  # most files need no closer look
            for name in names_in_code(source):
                if name in RETIRED:
                    found[f"{source.path}:{name}"] += 1
    check("retired_names", found)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


def own_names(source: Module) -> set[str]:
    """Return the private names that a module defines: it may use them of any object."""
    names: set[str] = set()
    for node in source.nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self" | "cls")):
                names.add(name)
    return names


def private_uses(source: Module) -> Iterator[str]:
    """Give each private name of another module that a module imports or reads."""
    own = own_names(source)
    for node in source.nodes:
        match node:
            case ast.ImportFrom(names=names):
                yield from (alias.name for alias in names if is_private(alias.name))
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))):
                pass
            case ast.Attribute(attr=name) if is_private(name) and name not in own:
                yield name


def path_of_tested(unit_test: str) -> str:
    """Return the path of the module that a unit test module is the own one of, or an empty one."""
    path = Path(unit_test)
    if path.parts[:2] != ("tests", "unit"):
        return ""
    return Path("ingestor", *path.parts[2:-1], path.name.removeprefix("test_")).as_posix()


def test_private_names_stay_in_their_module(modules: list[Module]) -> None:
    by_path = {source.path: source for source in modules}
    found: Counter[str] = Counter()
    for source in modules:
        if source.path in {compat for compat, _ in LIBRARIES.values()}:
            continue
        tested = by_path.get(path_of_tested(source.path))
        allowed = own_names(tested) if tested is not None else set()
        for name in private_uses(source):
            if name not in allowed:
                found[f"{source.path}:{name}"] += 1
    check("private_names", found)


# ---------------------------------------------------------------------- docstrings


def test_the_docstrings_that_are_missing_or_too_long_become_fewer() -> None:
    """All other rules of pydocstyle have no exceptions: `make check` runs them.

    Methods of feeds are documented by the contract that they implement.
    """
    allowed: dict[str, int] = EXCEPTIONS["docstrings"]
    ruff = Path(sys.executable).with_name("ruff")
    command = [str(ruff), "check", "--isolated", "--output-format=json", "--exit-zero"]
    options = [f"--select={','.join(allowed)}", "--config=lint.pydocstyle.convention='google'"]
    checked = ["ingestor", "benchmarks"]
    run = subprocess.run([*command, *options, *checked], cwd=ROOT, capture_output=True, check=True)
    found = Counter(violation["code"] for violation in json.loads(run.stdout))
    new = {rule: found[rule] for rule, count in allowed.items() if found[rule] > count}
    assert not new, f"more than {allowed}: `ruff check --select D` shows where"
    gone = {rule: found[rule] for rule, count in allowed.items() if found[rule] < count - SLACK}
    assert not gone, "lower the numbers in tests/tidy_exceptions.toml"


# ---------------------------------------------------------------------- libraries


def imported(source: Module) -> Iterator[str]:
    """Give the name of each module that a module imports, or imports from."""
    for node in source.nodes:
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name


def is_documented(name: str, documented: set[str]) -> bool:
    return name in documented or name.startswith("aiokafka.admin.")


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_private_parts_of_a_library_are_used_by_one_module(
    modules: list[Module], library: str
) -> None:
    compat, documented = LIBRARIES[library]
    found: Counter[str] = Counter()
    for source in modules:
        for name in imported(source):
            if name.partition(".")[0] == library and not is_documented(name, documented):
                found[f"{source.path}:{name}"] += 1
    inside = [place for place in found if place.startswith(f"{compat}:")]
    assert inside, f"{compat} uses nothing private: it needs no review any more"
    for place in inside:
        del found[place]
    check(f"private_parts_of_{library}", found)
