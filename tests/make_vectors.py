"""Writes tests/vectors/*.json: records of both encodings and the rows they decode to.

For whoever reads the topics in another language. `python -m tests.make_vectors` writes them anew,
which only a new version of an encoding may need; a test holds the files against the code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ingestor.codec import encoder
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import (
    OWN_EXPONENT_MAX,
    ROW_CLASSES,
    Exponent,
    RowClass,
    control_row,
)
from ingestor.model.rows import Cause, Flag, Kind, Rows
from tests.fakes.rows import MAKERS, levels, quotes, trades

FOLDER = Path(__file__).parent / "vectors"
SESSION = bytes(range(16))
FIRST_SEQUENCE = 1_000
TS = 1_700_000_000_123_456_789


def table() -> InstrumentTable:
    return InstrumentTable(
        [
            instrument("acme", "spot", "BTC-USDT", "BTC-USDT", "BTC", "USDT", "0.01", "0.00001"),
            instrument("acme", "linear", 'A"%b', "A-USD-PERP", "A", "USD", "5", "1"),
            instrument("acme", "spot", "PEPEUSD", "PEPE-USD", "PEPE", "USD", "1e-13", "0.1"),
        ]
    )


def cases() -> dict[str, tuple[RowClass, Rows]]:
    some_trades = trades(4, instruments=3)
    some_trades["flags"][2] = Flag.LAST | Flag.SNAPSHOT | Flag.NO_VENUE_TIME
    some_trades["trade_id_high"][1] = 0x0123456789ABCDEF
    some_trades["price"][3] = -37
    some_trades["price"][0] = 2**63 - 1
    book = levels(3, instruments=3)
    book["flags"][3:6] += np.uint16(Flag.SNAPSHOT)
    gaps = {
        cls: control_row(cls, Kind.GAP, 1, TS, cause=Cause.SEQUENCE, first=7, last=9)
        for cls in ROW_CLASSES
    }
    reset = control_row(RowClass.LEVEL, Kind.RESET, 2, TS)
    return {
        "trades": (RowClass.TRADE, np.concatenate([some_trades, gaps[RowClass.TRADE]])),
        "quotes": (
            RowClass.QUOTE,
            np.concatenate([quotes(3, instruments=3), gaps[RowClass.QUOTE]]),
        ),
        "book": (RowClass.LEVEL, np.concatenate([gaps[RowClass.LEVEL], reset, book])),
        **{
            row_class.channel: (row_class, np.concatenate([_others(row_class), gaps[row_class]]))
            for row_class in ROW_CLASSES
            if not row_class.is_standard
        },
    }


def _others(row_class: RowClass) -> Rows:
    rows = MAKERS[row_class](4, instruments=3)
    for name, unit in row_class.numbers.items():
        if unit is Exponent.OWN:
            rows[name][1] = -5
            rows["exponent"][1] = OWN_EXPONENT_MAX
    return rows


def vectors(encoding: str) -> list[dict[str, Any]]:
    """Return the content of one file."""
    instruments = table()
    return [
        {
            "name": name,
            "records": [
                {
                    "key": None if key is None else key.decode(),
                    "value": value.decode() if encoding == "json" else value.hex(),
                    "timestamp_ms": ts_ms,
                    "rows": count,
                }
                for key, value, ts_ms, count in encoder(encoding, instruments, SESSION).encode(
                    row_class, rows, FIRST_SEQUENCE
                )
            ],
            "decoded": [
                {
                    "key": instruments[number].key,
                    "price_exponent": instruments[number].price_exponent,
                    "size_exponent": instruments[number].size_exponent,
                    "seq": FIRST_SEQUENCE + index,
                    **{
                        field: int(row[field])
                        for field in rows.dtype.names or ()
                        if field != "instrument"
                    },
                }
                for index, (number, row) in enumerate(
                    zip(rows["instrument"].tolist(), rows, strict=True)
                )
            ],
        }
        for name, (row_class, rows) in cases().items()
    ]


if __name__ == "__main__":
    for one in ("json", "binary"):
        text = json.dumps(vectors(one), indent=1) + "\n"
        (FOLDER / f"{one}.json").write_text(text, encoding="utf-8")
