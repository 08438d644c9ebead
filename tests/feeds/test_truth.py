"""Small recordings of odd frames, and the rows that are right."""

from __future__ import annotations

import pytest

from ingestor.sinks.digest import AuditSink
from ingestor.sources.replay.report import report
from tests.feeds.truth import FOLDER, replayed

# What each file of tests/fixtures/truth leads to, class by class, then what was refused. Books that
# a GAP ends get no snapshot here, so nothing follows it.
RIGHT = {
    "bare_number.binance.spot": [
        "trade 7 bid 90071992547.40993001 1.50000000",
        "quote 400 90071992547.40993001 2.00000000 90071992547.50000000 10.00000000 !",
        "reset level",
        "level 40 bid 20.50000000 90071992547.40993002 !",
        "level 40 ask 21.00000000 4.00000000 !",
        "level 42 bid 20.50000000 90071992547.40993001",
    ],
    "bare_number.bybit.spot": [
        "trade 3 bid 20.5 90071992547.40993001",
        "quote 8 20.5 90071992547.40993001 21.0 4.00000000",
        "reset level",
        "level 8 bid 20.5 90071992547.40993001",
        "level 8 ask 21.0 4.00000000",
    ],
    "bare_number.coinbase.spot": [
        "trade 5 ask 90071992547.40993001 2",
    ],
    "bare_number.okx.spot": [
        "trade 12 ask 90071992547.40993001 2.00000000",
        "reset level",
        "level 8 bid 20.50000000 90071992547.40993001",
        "level 8 ask 21.00000000 4.00000000",
    ],
    "book_without_quotes.coinbase.spot": [
        "reset level",
        "level 0 bid 20.5 2",
        "level 0 ask 21.0 4",
        "level 1 bid 20.4 1",
        "gap level sequence 2 2",
        "reset level",
        "level 5 bid 20.5 2",
        "level 5 ask 21.0 4",
        "level 6 bid 20.6 1",
    ],
    "checksum.okx.spot": [
        "reset level",
        "level 0 bid 20.50 2.00",
        "level 0 bid 20.00 0.08",
        "level 0 ask 21.00 4.00",
        "level 0 ask 21.25 1.00",
        "level 0 bid 20.50 3.00",
        "gap level checksum",
        "reset level",
        "level 0 bid 20.50 2.00",
        "level 0 bid 20.00 0.08",
        "level 0 ask 21.00 4.00",
        "level 0 ask 21.25 1.00",
    ],
    "conditions.binance.usdm": [
        "trade 1 bid 20.5 1.50",
        "trade 2 bid 20.5 1.50",
        "trade 3 bid 20.5 1.50 rpi",
        "trade 4 bid 20.5 1.50 rpi",
        "gap trade rejected",
        "gap trade sequence 5 5",
        "trade 6 bid 20.5 1.50",
        "refused malformed",
    ],
    "conditions.bybit.linear": [
        "trade 1 bid 20.5 1.5",
        "trade 2 bid 20.5 1.5 block",
        "trade 3 bid 20.5 1.5 rpi",
        "trade 4 bid 20.5 1.5 block rpi",
        "trade 5 20.5 1.5",
    ],
    "conditions.okx.spot": [
        "trade 1 bid 20.5 1.5",
        "trade 2 bid 20.5 1.5 rpi",
        "trade 3 bid 20.5 1.5",
        "trade 4 20.5 1.5",
    ],
    "crossed_book.coinbase.spot": [
        "quote 0 20.5 2 21.0 4",
        "gap quote crossed",
        "quote 3 20.5 2 21.0 4",
        "reset level",
        "level 0 bid 20.5 2",
        "level 0 ask 21.0 4",
        "gap level crossed",
        "reset level",
        "level 3 bid 20.5 2",
        "level 3 ask 21.0 4",
    ],
    "empty_side.binance.spot": [
        "reset level",
        "level 40 bid 20.5 2 !",
        "level 40 ask 21.0 4 !",
        "level 42 bid 20.5 3",
        "gap level rejected",
        "refused malformed",
    ],
    "empty_side.bybit.linear": [
        "reset level",
        "level 8 bid 20.5 2",
        "level 8 ask 21.0 4",
        "gap level rejected",
        "refused malformed",
    ],
    "empty_side.okx.spot": [
        "reset level",
        "level 8 bid 20.5 2",
        "level 8 ask 21.0 4",
        "gap level rejected",
        "refused malformed",
    ],
    "large_number.binance.spot": [
        "reset level",
        "level 40 bid 20.5 2 !",
        "level 40 ask 21.0 4 !",
        "level 42 bid 20.5 3",
        "gap level rejected",
        "refused malformed",
    ],
    "large_number.binance.usdm": [
        "reset level",
        "level 40 bid 20.5 2",
        "level 40 ask 21.0 4",
        "level 42 bid 20.5 3",
        "gap level rejected",
        "refused malformed",
    ],
    "large_number.bybit.linear": [
        "reset level",
        "level 8 bid 20.5 2",
        "level 8 ask 21.0 4",
        "level 9 bid 20.5 3",
        "gap level rejected",
        "refused malformed",
    ],
    "large_number.okx.spot": [
        "reset level",
        "level 8 bid 20.5 2",
        "level 8 ask 21.0 4",
        "level 9 bid 20.5 3",
        "gap level rejected",
        "refused malformed",
    ],
    "last_quote.bybit.inverse": [
        "quote 1 20.5 3 21.0 4",
        "gap quote rejected",
        "quote 3 20.5 3 21.0 5",
        "refused bad_number",
        "refused bad_number",
    ],
    "last_quote.bybit.linear": [
        "quote 1 20.5 3 21.0 4",
        "gap quote rejected",
        "quote 3 20.5 3 21.0 5",
        "quote 4 20.5 3 21.0 6",
        "refused bad_number",
    ],
    "last_quote.bybit.spot": [
        "quote 1 20.5 3 21.0 4",
        "gap quote rejected",
        "quote 3 0.0 0 21.0 4",
        "quote 4 20.4 1 21.0 5",
        "refused bad_number",
    ],
    "number_0.binance.spot": [
        "reset level",
        "level 40 bid 20.5 2 !",
        "level 40 ask 21.0 4 !",
        "level 42 bid 20.5 3",
        "gap level rejected",
        "refused malformed",
    ],
    "number_0.bybit.linear": [
        "reset level",
        "level 8 bid 20.5 2",
        "level 8 ask 21.0 4",
        "gap level rejected",
        "refused malformed",
    ],
    "number_0.okx.spot": [
        "reset level",
        "level 8 bid 20.5 2",
        "level 8 ask 21.0 4",
        "gap level sequence",
    ],
    "quote_of_1970.kraken.spot": [
        "quote 0 20.5 3.00000000 21.0 4.00000000 !",
        "quote 0 20.5 3.00000000 21.0 4.00000000",
        "gap quote rejected",
        "quote 0 20.5 3.00000000 21.0 4.00000000",
        "refused malformed",
    ],
    "quotes_and_book.coinbase.spot": [
        "quote 0 20.5 2 21.0 4",
        "gap quote sequence 2 2",
        "quote 5 20.5 2 21.0 4",
        "quote 6 20.6 1 21.0 4",
        "reset level",
        "level 0 bid 20.5 2",
        "level 0 ask 21.0 4",
        "level 1 bid 20.4 1",
        "gap level sequence 2 2",
        "reset level",
        "level 5 bid 20.5 2",
        "level 5 ask 21.0 4",
        "level 6 bid 20.6 1",
    ],
    "quotes_of_a_book.coinbase.spot": [
        "quote 0 20.5 2 21.0 4",
        "gap quote sequence 2 2",
        "quote 5 20.5 2 21.0 4",
        "quote 6 20.6 1 21.0 4",
    ],
    "raw_trades.binance.usdm": [
        "trade 1 ask 20.5 1.5",
        "trade 2 ask 20.5 1.5 insurance",
        "trade 3 ask 20.5 1.5 adl",
        "trade 5 ask 20.5 1.5",
    ],
    "refused_level.coinbase.spot": [
        "quote 0 20.5 2 21.0 4",
        "gap quote rejected",
        "quote 3 20.6 7 0.0 0",
        "refused bad_number",
    ],
    "refused_snapshot.binance.spot": [
        "gap level rejected",
        "refused snapshot",
    ],
    "refused_snapshot.binance.usdm": [
        "gap level rejected",
        "refused snapshot",
    ],
    "unknown_kind.binance.spot": [
        "reset level",
        "level 40 bid 20.5 2 !",
        "level 40 ask 21.0 4 !",
        "level 42 bid 20.5 3",
        "level 44 bid 20.5 3",
        "refused unknown_message",
    ],
    "unknown_kind.bybit.linear": [
        "reset level",
        "level 8 bid 20.5 2",
        "level 8 ask 21.0 4",
        "level 9 bid 20.5 3",
        "refused unknown_message",
    ],
    "unknown_kind.coinbase.spot": [
        "quote 0 20.5 2 21.0 4",
        "quote 2 20.5 3 21.0 4",
        "reset level",
        "level 0 bid 20.5 2",
        "level 0 ask 21.0 4",
        "level 2 bid 20.5 3",
        "refused unknown_message",
    ],
    "unknown_kind.okx.spot": [
        "reset level",
        "level 8 bid 20.5 2",
        "level 8 ask 21.0 4",
        "level 9 bid 20.5 3",
        "refused unknown_message",
    ],
    "unknown_shape.bybit.linear": [
        "trade 3 bid 20.5 1",
        "gap trade rejected",
        "quote 1 20.5 3 21.0 4",
        "quote 2 20.6 3 21.0 4",
        "reset level",
        "level 8 bid 20.5 2",
        "level 8 ask 21.0 4",
        "level 9 bid 20.5 3",
        "refused malformed",
    ],
    "unknown_shape.coinbase.spot": [
        "trade 5 ask 20.5 1",
        "gap trade rejected",
        "quote 0 20.5 2 21.0 4",
        "quote 3 20.5 3 21.0 4",
        "reset level",
        "level 0 bid 20.5 2",
        "level 0 ask 21.0 4",
        "level 3 bid 20.5 3",
        "refused malformed",
    ],
    "unknown_side.coinbase.spot": [
        "trade 1 ask 20.5 1.5",
        "trade 2 20.5 1.5",
        "trade 3 bid 20.5 1.5",
    ],
    "unknown_side.kraken.spot": [
        "trade 1 bid 20.5 1.5",
        "trade 2 20.5 1.5",
        "trade 3 ask 20.5 1.5",
    ],
    "unread_float.binance.spot": [
        "trade 1 ask 20.5 1.5",
        "trade 2 ask 20.5 1.5",
        "trade 3 ask 20.5 1.5",
        "trade 4 ask 20.5 1.5",
        "trade 5 ask 20.5 1.5",
        "trade 6 ask 20.5 1.5",
        "trade 7 ask 20.5 1.5",
        "trade 8 ask 20.5 1.5",
    ],
    "unread_float.binance.usdm": [
        "trade 1 ask 20.5 1.5",
        "trade 2 ask 20.5 1.5",
        "trade 3 ask 20.5 1.5",
        "trade 4 ask 20.5 1.5",
        "trade 5 ask 20.5 1.5",
        "trade 6 ask 20.5 1.5",
        "trade 7 ask 20.5 1.5",
        "trade 8 ask 20.5 1.5",
    ],
    "wrong_checksum.okx.spot": [
        "gap level checksum",
        "reset level",
        "level 0 bid 20.50 2.00",
        "level 0 bid 20.00 0.08",
        "level 0 ask 21.00 4.00",
        "level 0 ask 21.25 1.00",
    ],
    "zero_checksum.okx.spot": [
        "reset level",
        "level 8 bid 20.50 2.00",
        "level 8 bid 20.00 0.08",
        "level 8 ask 21.00 4.00",
        "level 8 ask 21.25 1.00",
        "level 9 bid 20.50 3.00",
    ],
}


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_the_rows_are_right(name: str) -> None:
    rows, replay = replayed(FOLDER / f"{name}.jsonl")
    assert rows == RIGHT[name]
    assert sum(one.unaccounted for one in replay.counts.values()) == 0
    assert replay.pipeline.ledger().unaccounted == 0


def test_every_file_is_tried() -> None:
    assert {path.name.removesuffix(".jsonl") for path in FOLDER.iterdir()} == RIGHT.keys()


@pytest.mark.parametrize(
    ("name", "frames", "decoded", "rejected"),
    [
        ("refused_snapshot.binance.spot", 1, 1, 0),
        ("large_number.bybit.linear", 4, 3, 1),
        ("unknown_kind.okx.spot", 3, 2, 1),
    ],
)
def test_the_ledger_counts_a_frame_once(
    name: str, frames: int, decoded: int, rejected: int
) -> None:
    _, replay = replayed(FOLDER / f"{name}.jsonl")
    sums = report(replay, AuditSink())
    assert (sums["frames"], sums["decoded"], sums["control"]) == (frames, decoded, 0)
    assert (sums["rejected"], sums["unaccounted"]) == (rejected, 0)


def test_what_has_no_price_is_counted_as_filtered() -> None:
    _, replay = replayed(FOLDER / "raw_trades.binance.usdm.jsonl")
    assert replay.counts["binance", "usdm"].filtered_by_rule == {"no_trade": 1}
