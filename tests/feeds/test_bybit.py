"""Bybit: trade ids are numbers on spot, UUIDs elsewhere, and a flush may hold both; levels are
read in whichever form of JSON they come."""

from __future__ import annotations

from uuid import UUID

import pytest

from feeds.bybit import Bybit
from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.rows import Rows

TRADE_FRAME = (
    b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":[{"T":1700000000000,'
    b'"s":"BTCUSDT","S":"Buy","v":"1","p":"2","i":"%s","seq":3}]}'
)
IDS = [
    "2290000000007764263",
    "2ad9abbb-8ab2-57d0-9e3c-7a5cf1b0a001",
    "7",
    "18446744073709551615",
    "ffffffff-ffff-5fff-8000-000000000001",
]


def buffer_of(frames: list[bytes]) -> tuple[ColumnBuffer, InstrumentTable]:
    table = InstrumentTable(
        [instrument("bybit", "spot", "BTCUSDT", "BTC-USDT", "BTC", "USDT", "1", "1")]
    )
    buffer = ColumnBuffer()
    feed = Bybit("spot", table.symbols("bybit", "spot"))
    session = Session(0, feed, (), buffer, FrameCounts(), SessionEvents())
    for frame in frames:
        session.receive(frame, 1)
    return buffer, table


def trades(ids: list[str]) -> list[bytes]:
    return [TRADE_FRAME % one.encode() for one in ids]


def as_integers(rows: Rows) -> list[int]:
    high, low = rows["trade_id_high"].tolist(), rows["trade_id_low"].tolist()
    return [one << 64 | other for one, other in zip(high, low, strict=True)]


def integer(text: str) -> int:
    return int(text) if text.isdecimal() else UUID(text).int


def test_both_forms_are_read_as_one_column() -> None:
    buffer, table = buffer_of(trades(IDS))
    assert as_integers(buffer.seal(table).trades) == [integer(one) for one in IDS]


@pytest.mark.parametrize("odd", ["18446744073709551616", "", "x", "-7", IDS[1][:-1], IDS[1] + "0"])
@pytest.mark.parametrize("company", [[], IDS[:1], IDS[1:2], IDS])
def test_an_id_of_neither_form_costs_its_frame_alone(odd: str, company: list[str]) -> None:
    buffer, table = buffer_of(trades([*company, odd, *company]))
    sealed = buffer.seal(table)
    assert [one.payload for one in sealed.rejected] == trades([odd])
    assert as_integers(sealed.trades) == [integer(one) for one in company * 2]


BOOK = (
    b'{"topic":"orderbook.200.BTCUSDT","type":"%s","ts":1,"data":{"s":"BTCUSDT","b":%s,"a":[],'
    b'"u":5,"seq":6},"cts":1700000000000}'
)


@pytest.mark.parametrize("kind", [b"snapshot", b"delta"])
@pytest.mark.parametrize(
    "levels",
    [b'[ ["4","2"], ["3", "1"] ]', b'[[4,"2"],["3",1]]', b'[["4","2"],["3e0","1"]]'],
)
def test_levels_may_come_in_another_form(kind: bytes, levels: bytes) -> None:
    buffer, table = buffer_of([BOOK % (kind, levels), BOOK % (kind, b'[["4","2"],["3","1"]]')])
    sealed = buffer.seal(table)
    assert not sealed.rejected
    assert sealed.prices.tolist() == [4, 3] * 2
    assert sealed.sizes.tolist() == [2, 1] * 2
    fields = ["ts_event", "first", "last", "bids", "asks", "check_value", "flags"]
    assert sealed.updates[0][fields].tolist() == sealed.updates[1][fields].tolist()
