"""Reads `tests/fixtures/*.jsonl`; tests/feeds/README.md documents the format."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import feeds
from ingestor.adapter import FeedAdapter
from ingestor.codec.fields import Form, json_fields
from ingestor.model.instruments import Instrument, InstrumentTable, instrument
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.sources.registry import discover

FIXTURES = Path(__file__).parents[1] / "fixtures"
OUTCOMES = ("expect", "control", "rejected")
VERBS = ("subscribe", "unsubscribe", "frame", "snapshot", "connect")
Row = dict[str, Any]


def _deflated(text: str) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(text.encode()) + packer.flush()


FORMS: dict[str, Callable[[str], bytes]] = {
    "": str.encode,
    "gzip": lambda text: gzip.compress(text.encode(), mtime=0),
    "deflate": _deflated,
    "hex": bytes.fromhex,
}


@dataclass(frozen=True)
class Step:
    """One line after the second: what is done (`verb`, `value`) and what must come of it."""

    line: int
    verb: str
    value: Any
    outcome: str
    wanted: Any
    symbol: str = ""
    form: str = ""
    is_setup: bool = False

    @property
    def payload(self) -> bytes:
        """The bytes of a frame or snapshot: its text, compressed, or what hex digits say."""
        return FORMS[self.form](self.value)

    @property
    def is_json(self) -> bool:
        """Whether a good frame is a JSON text as it comes."""
        return not self.form


@dataclass(frozen=True)
class Fixture:
    """One file: one market of one venue."""

    adapter: type[FeedAdapter]
    market: str
    about: dict[str, str]
    instruments: list[Instrument]
    rest: list[bytes]
    steps: list[Step] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.adapter.venue}_{self.market}"

    def table(self) -> InstrumentTable:
        return InstrumentTable(self.instruments)

    @property
    def frames(self) -> list[bytes]:
        """Every frame of the file, in order."""
        return [step.payload for step in self.steps if step.verb == "frame"]


@cache
def adapters() -> list[type[FeedAdapter]]:
    """Every adapter of the `feeds` package; a module without one is an error, not a skip."""
    return list(discover(feeds, ()).load_all().values())


def markets() -> Iterator[tuple[type[FeedAdapter], str]]:
    for adapter in adapters():
        for market in adapter.markets:
            yield adapter, market


@cache
def load(adapter: type[FeedAdapter], market: str) -> Fixture:
    """Read a market's fixture. Raises AssertionError, with file and line, for a bad one."""
    path = FIXTURES / f"{adapter.venue}_{market}.jsonl"
    assert path.is_file(), f"{path.name} is missing: every market has a fixture"
    lines = [
        (number, json.loads(line))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if line.strip()
    ]
    about = lines[0][1].get("about", {})
    assert {"document", "section", "read"} <= set(about), f"{path.name}:1 provenance first"
    head = lines[1][1]
    assert set(head) - {"note"} == {"instruments", "rest"}, f"{path.name}:2 instruments second"
    return Fixture(
        adapter=adapter,
        market=market,
        about=about,
        instruments=[_instrument(adapter.venue, market, one) for one in head["instruments"]],
        rest=[body.encode() for body in head["rest"]],
        steps=[_step(path.name, number, line) for number, line in lines[2:]],
    )


def _instrument(venue: str, market: str, fields: dict[str, Any]) -> Instrument:
    exponents = {name: fields[name] for name in ("price_exponent", "size_exponent") & fields.keys()}
    rest = {name: value for name, value in fields.items() if name not in exponents}
    built = instrument(venue, market, **rest)
    return Instrument.from_json(built.to_json() | exponents)


def _step(name: str, number: int, line: dict[str, Any]) -> Step:
    where = f"{name}:{number}"
    verbs = [verb for verb in VERBS if verb in line]
    assert len(verbs) == 1, f"{where} is none of {VERBS}"
    verb = verbs[0]
    unknown = set(line) - {verb, "note", "sent", "symbol", "form", "setup", *OUTCOMES}
    assert not unknown, f"{where} has unknown keys {unknown}"
    if verb in {"frame", "snapshot"}:
        outcomes = [outcome for outcome in OUTCOMES if outcome in line]
        assert len(outcomes) == 1, f"{where} wants one of {OUTCOMES}"
        wanted = line[outcomes[0]]
        if outcomes[0] == "expect":
            wanted = by_kind([normal(row) for row in wanted])
        more = line.get("symbol", ""), line.get("form", ""), line.get("setup", False)
        return Step(number, verb, line[verb], outcomes[0], wanted, *more)
    return Step(number, verb, line[verb], "sent", line.get("sent"))


def _fields(row_class: RowClass) -> list[str]:
    return [field.name for field in json_fields(row_class) if field.name != "exponent"]


def _defaults(row_class: RowClass) -> Row:
    """Return what a row may leave out: numbers that may be absent, and names that say nothing."""
    found: Row = {"sequence": 0, "flags": []}
    for one in json_fields(row_class):
        if one.name in row_class.optional:
            found[one.name] = None
        elif one.form is Form.NAME:
            found[one.name] = one.names[min(one.names)]
    return found


# Classes without words of their own: their rows have the fields of JSON records.
OTHERS = {one.kind_name: one for one in ROW_CLASSES if not one.is_standard}
_NUMBERS = {
    **{kind: tuple(row_class.numbers) for kind, row_class in OTHERS.items()},
    "trade": ("price", "size"),
    "quote": ("bid_price", "bid_size", "ask_price", "ask_size"),
    "update": (),
    "hole": (),
}
_DEFAULTS: dict[str, Row] = {
    **{kind: _defaults(row_class) for kind, row_class in OTHERS.items()},
    "trade": {"sequence": 0, "trade_id": "0", "flags": []},
    "quote": {"sequence": 0, "flags": []},
    "update": {"first": 0, "last": 0, "previous": 0, "checksum": None, "flags": []},
    "hole": {"first": 0, "last": 0, "symbols": None},
}
_MEMBERS = {
    "trade": {"symbol", "ts_event", "side"},
    "quote": {"symbol", "ts_event"},
    "update": {"symbol", "ts_event", "bids", "asks"},
    "hole": {"cause"},
    **{kind: {"symbol", "ts_event", *_fields(row_class)} for kind, row_class in OTHERS.items()},
}


def normal(row: Row) -> Row:
    """Fill in what a row may leave out, and make Decimals of its prices and sizes."""
    kind = row["kind"]
    full = _DEFAULTS[kind] | row
    full.pop("note", None)
    members = {"kind", *_MEMBERS[kind], *_DEFAULTS[kind], *_NUMBERS[kind]}
    assert set(full) == members, f"a {kind} row has {sorted(members)}, not {sorted(full)}"
    for name in _NUMBERS[kind]:
        full[name] = None if full[name] is None else Decimal(full[name])
    for name in ("bids", "asks") if kind == "update" else ():
        full[name] = [[Decimal(price), Decimal(size)] for price, size in full[name]]
    if "flags" in full:
        full["flags"] = sorted(full["flags"])
    for name in {"trade_id", "order_id"} & full.keys():
        full[name] = id_of(full[name])
    return full


def id_of(text: str) -> int:
    return int(text.replace("-", ""), 16) if "-" in text else int(text)


def by_kind(rows: list[Row]) -> list[Row]:
    """Order rows by kind, each kind's order kept: classes have no common order."""
    order = list(_MEMBERS)
    return sorted(rows, key=lambda row: order.index(row["kind"]))
