"""Reads recordings of a few frames, and what became of them, in short words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ingestor.model.decimals import format_decimal
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Cause, Flag, Kind
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay

FOLDER = Path(__file__).parents[1] / "fixtures" / "truth"


def replayed(path: Path) -> tuple[list[str], Replay]:
    """Replay a file, NAME.VENUE.MARKET.jsonl; return its rows, class by class, and the refusals.

    A row is its kind, its sequence, its numbers as decimals ("!" where it has no venue time), and
    the conditions of a trade; a
    mark is its kind, its cause and the missing numbers; a refusal is its reason.
    """
    _, venue, market, _ = path.name.split(".")
    replay = Replay(ReplayOptions((path,), venue=venue, market=market))
    rows: dict[RowClass, list[str]] = {row_class: [] for row_class in ROW_CLASSES}
    refused = []
    for result in replay.results():
        for batch in result.batches:
            names = batch.rows.dtype.names or ()
            marks = batch.rows.view(batch.row_class.control)[["first", "last"]].tolist()
            for row, mark in zip(batch.rows.tolist(), marks, strict=True):
                fields = dict(zip(names, row, strict=True))
                rows[batch.row_class].append(_text(batch.row_class, fields, mark, replay.table))
        refused += [f"refused {rejected.reason}" for rejected in result.rejected]
    return [row for of_class in rows.values() for row in of_class] + refused, replay


def _text(
    row_class: RowClass, row: dict[str, Any], mark: tuple[int, int], table: InstrumentTable
) -> str:
    """Return one row as text. mark: the missing numbers, where the row is a mark."""
    kind = Kind(row["kind"])
    if kind in {Kind.GAP, Kind.RESET}:
        cause = [Cause(row["side"]).name.lower()] if row["side"] else []
        missing = [str(number) for number in mark if number]
        return " ".join([f"{kind.name.lower()} {row_class.name.lower()}", *cause, *missing])
    one = table[row["instrument"]]
    exponents = (one.price_exponent, one.size_exponent) * 2
    numbers = [
        format_decimal(row[name], exponent)
        for name, exponent in zip(row_class.numbers, exponents, strict=False)
    ]
    untimed = ["!"] if row["flags"] & Flag.NO_VENUE_TIME else []
    side = ["", "bid", "ask"][row["side"]]
    conditions = [str(one.name).lower() for one in Flag(row["flags"]) if one > Flag.CHECKSUM]
    words = [kind.name.lower(), str(row["sequence"]), side, *numbers, *untimed, *conditions]
    return " ".join(word for word in words if word)
