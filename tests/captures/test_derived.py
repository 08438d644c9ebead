"""Candles and tops of books of every recorded capture, against a direct computation."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from ingestor.derived.settings import DerivedSettings
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import SizeUnit
from ingestor.model.row_classes import RowClass
from ingestor.model.row_values import Origin
from ingestor.sinks.digest import Digest
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from tests.reference.derived import DerivedCheck
from tests.reference.reader import CAPTURES

pytestmark = pytest.mark.captures

MS = 1_000_000
SETTINGS = DerivedSettings(
    candle_intervals_ns=(250 * MS, 1_000 * MS, 7_000 * MS, 60_000 * MS),
    candle_wait_ns=500 * MS,
    top_levels=10,
    top_interval_ns=200 * MS,
)


def derived(captures: Path, name: str, flush_rows: int) -> tuple[DerivedCheck, str]:
    """Replay a capture; return what checks it, and the digest of all rows but foreign candles."""
    venue, market = CAPTURES[name]
    options = ReplayOptions((captures / name,), venue=venue, market=market, flush_rows=flush_rows)
    replay = Replay(options)
    replay.pipeline.derive(lambda _: SETTINGS)
    check, digest = DerivedCheck(SETTINGS, lambda key: worth(replay, key)), Digest()
    for result in replay.results():
        check.add(result.batches)
        for batch in result.batches:
            if batch.row_class is RowClass.CANDLE:  # the venue's own stand between, anywhere
                own = batch.rows[batch.rows["origin"] == Origin.TRADES]
                batch = TickBatch(batch.row_class, own, batch.instruments)
            digest.add(batch)
    assert replay.pipeline.ledger().unaccounted == 0
    return check, digest.hexdigest()


def worth(replay: Replay, key: str) -> Decimal | None:
    """Return what makes price times size the turnover of an instrument, if anything does."""
    [one] = [one for one in replay.table if one.key == key]
    if one.settlement not in {"", one.quote}:
        return None
    return Decimal(one.multiplier) if one.size_unit is SizeUnit.CONTRACT else Decimal(1)


@pytest.mark.parametrize("name", sorted(CAPTURES))
def test_derived_rows_are_those_of_a_direct_computation(captures: Path, name: str) -> None:
    check, digest = derived(captures, name, 1_000)
    candles, tops = check.candles(), check.tops()
    assert candles + tops > 100
    assert derived(captures, name, 37)[1] == digest  # the flushes do not matter
