"""A made-up class of rows, and the made-up venue that sends them.

The class is a dtype and an entry in the table, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import orjson

from ingestor.adapter import ColumnBuffer, Control, Endpoint, Market, Rows, set_column
from ingestor.model.row_classes import ROW_CLASSES, Exponent, RowClass
from ingestor.model.rows import HEADER
from tests.fakes.acme import MARKET, MS, Acme

WEATHER_DTYPE = np.dtype(
    [
        *HEADER,
        ("rain_price", "<i8"),  # what insurance against rain costs
        ("wind", "<i8"),
        ("change", "<i8"),
        ("station", "<u4"),
        ("state", "<u2"),
        ("mast", "<i2"),
    ]
)
WEATHER = RowClass(
    id=200,  # far from those that are taken
    name="WEATHER",
    channel="weather",
    kind_name="forecast",
    dtype=WEATHER_DTYPE,
    title="A forecast, or a gap",
    numbers={"rain_price": Exponent.PRICE, "wind": Exponent.SIZE, "change": Exponent.RATE},
    names={"state": {0: "unknown", 1: "sunny", 2: "stormy"}},
    notes={"station": "Number of the station."},
    key_fields=("station",),
    resent_by="sequence",
    is_conflatable=True,
)


@contextmanager
def known(row_class: RowClass = WEATHER) -> Iterator[RowClass]:
    """Have a class in the table for a while."""
    ROW_CLASSES.add(row_class)
    try:
        yield row_class
    finally:
        ROW_CLASSES.remove(row_class)


class WeatherVenue(Acme):
    """{"s": symbol, "w": [number, rain price, wind, change, station, state], "again": bool}."""

    markets: ClassVar[Mapping[str, Market]] = {
        "spot": replace(
            MARKET, endpoints=(Endpoint("wss://acme.example", frozenset({"trades", "weather"})),)
        )
    }

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        message = orjson.loads(payload)
        if "w" not in message:
            return super().decode(payload, ts_recv, out)
        number = self._symbols[message["s"]]
        out.add_row(WEATHER, _read, (ts_recv - MS, message), number, ts_recv)
        return None


def _read(events: list[Any], rows: Rows) -> Sequence[Sequence[object]]:
    messages = [message["w"] for _, message in events]
    again = [3 if message.get("again") else 1 for _, message in events]  # SNAPSHOT | LAST, LAST
    set_column(rows, "ts_event", [ts_event for ts_event, _ in events])
    set_column(rows, "flags", again)
    sequence, rain_price, wind, change, station, state = zip(*messages, strict=True)
    set_column(rows, "sequence", sequence)
    set_column(rows, "station", station)
    set_column(rows, "state", state)
    set_column(rows, "mast", [-1] * len(events))
    return rain_price, wind, change


def forecast(symbol: str, number: int, change: str = "-0.0125", **more: object) -> bytes:
    state = number % 3
    message = [number, f"{number}.50", "2.250", change, 70 + number % 2, state]
    return orjson.dumps({"s": symbol, "w": message, **more})
