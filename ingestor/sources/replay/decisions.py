"""Which instruments a recorded decision is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingestor.decode.session import Session
from ingestor.model.instruments import InstrumentTable


def number_of(table: InstrumentTable, key: str) -> int | None:
    """Return the number of the instrument with a key, None where it is not known."""
    venue, market, symbol = (*key.split(":", 2), "", "")[:3]
    return table.symbols(venue, market).get(symbol)


def named(table: InstrumentTable, decision: Mapping[str, Any]) -> list[int]:
    """Return the numbers of the instruments that a decision names by `keys`, if known."""
    numbers = (number_of(table, str(key)) for key in decision.get("keys", ()))
    return [number for number in numbers if number is not None]


def concerned(
    table: InstrumentTable, decision: Mapping[str, Any], session: Session
) -> list[int] | None:
    """Return the instruments of a session that a decision names; None where it names none.

    Args:
        table: The instruments.
        decision: The decision's members as JSON values.
        session: Its session, None before there is one.
    """
    keys = decision.get("keys")
    if not isinstance(keys, list):
        return None
    numbers = dict.fromkeys(subscription.instrument for subscription in session.subscriptions)
    wanted = set(map(str, keys))
    return [number for number in numbers if table[number].key in wanted]
