"""Records of plan and claims: back as they went in, and never acted on while half-written."""

from __future__ import annotations

import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.simulated import Simulated
from ingestor.cluster.claims import Claim, ClaimState, Life
from ingestor.cluster.records import (
    PLAN_KEY,
    ShardLog,
    claim_key,
    claim_record,
    closing_record,
    connection_record,
    digest_of,
    key_of,
    read_claim,
    read_connection,
    transactional_id,
)
from ingestor.model.errors import PlanUnusable
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.sources.live.plan import PlannedConnection, Route, Wanted, make_plan

ROUTE = Route(proxy="http://user:secret@proxy:1", source_addresses=("10.0.0.1", "10.0.0.2"))


def planned() -> tuple[PlannedConnection, InstrumentTable]:
    table = InstrumentTable(
        [
            instrument("simulated", "spot", symbol, symbol, symbol, "USD", "0.01", "1")
            for symbol in "AB"
        ]
    )
    wish = Wanted(Simulated, "spot", [0, 1], ["trades", "book"], ROUTE)
    [connection] = make_plan([wish], table)
    return connection, table


def test_a_connection_comes_back_without_what_is_local() -> None:
    connection, table = planned()
    value = connection_record(connection, table)
    assert b"secret" not in value
    assert b"10.0.0" not in value
    other = InstrumentTable()
    routes = {("simulated", "spot"): ROUTE}
    found = read_connection(value, other, routes)
    assert [other[one.instrument] for one in found.subscriptions] == [
        table[one.instrument] for one in connection.subscriptions
    ]
    assert (found.url, found.streams, found.route) == (connection.url, connection.streams, ROUTE)
    assert found.source_address in ROUTE.source_addresses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"venue": "simulatde"}, "simulatde"),
        ({"market": "moon"}, "moon"),
        ({"book": [7, 7]}, "no book of 7 levels at 7 ms"),
        ({"instruments": [{}]}, "can't be run"),
        ({"subscriptions": [["A"]]}, "can't be run"),
    ],
)
def test_what_cannot_be_run_says_why(change: dict[str, object], message: str) -> None:
    connection, table = planned()
    fields = orjson.loads(connection_record(connection, table)) | change
    with pytest.raises(PlanUnusable, match=message):
        read_connection(orjson.dumps(fields), InstrumentTable(), {})
    with pytest.raises(PlanUnusable):
        read_connection(b"\xff", InstrumentTable(), {})


@given(st.dictionaries(st.integers(0, 20), st.binary(max_size=5), max_size=6), st.integers(0, 100))
def test_a_revision_counts_only_when_it_is_whole(found: dict[int, bytes], seed: int) -> None:
    records = {key_of(number): value for number, value in found.items()}
    closing = closing_record(3, records)
    order = list(records.items())
    random.Random(seed).shuffle(order)
    log = ShardLog()
    for key, value in order[1:]:
        log.take(key, value)
    assert log.take(PLAN_KEY, closing) is (not order)
    for key, value in order[:1]:
        log.take(key, value)
    assert log.take(PLAN_KEY, closing)
    assert (log.complete, log.revision) == (records, 3)
    log.take(b"99", b"half")
    assert not log.is_whole
    assert log.complete == records  # the worker keeps what was whole
    log.take(b"99", None)
    assert log.is_whole


def test_a_closing_record_that_cannot_be_read_closes_nothing() -> None:
    log = ShardLog()
    for value in (b"", b"[]", b'{"revision": 1}', None):
        assert not log.take(PLAN_KEY, value)
    assert digest_of({b"1": b"2"}) != digest_of({b"12": b""})


lives = st.builds(Life, st.text(max_size=5), st.text(max_size=5))


@given(
    st.builds(
        Claim,
        st.integers(0, 4_095),
        lives,
        st.sampled_from(ClaimState),
        st.integers(0, 1 << 40),
        st.none() | lives,
        st.text(max_size=20),
    )
)
def test_a_claim_comes_back(claim: Claim) -> None:
    assert read_claim(claim_key(claim.shard), claim_record(claim, "10.0.0.1:9464")) == claim


@pytest.mark.parametrize("value", [None, b"", b"{}", b"[]", b'{"shard": 1, "state": "gone"}'])
def test_other_records_of_the_topic_are_no_claims(value: bytes | None) -> None:
    assert read_claim(b"1", value) is None
    assert read_claim(b"cluster", b"{}") is None


def test_a_life_has_a_transactional_id_of_its_own() -> None:
    assert transactional_id("prod", Life("node7", "ab")) == "prod.node7.ab"
