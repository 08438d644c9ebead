"""Books without numbers of their own: what their venues prove is less, and an image heals them.

dYdX counts the messages of a connection, and whatever is lost of them is found. Nothing tells of a
lost difference of Bitstamp and Phemex: one that is doubled or older than an image makes no wrong
book, Phemex's image of each minute heals what is lacking, and Bitstamp's needs an audit over REST.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import Continuity, SnapshotSource
from tests.effort import tried
from tests.feeds.book_speakers import NOW_MS, Change, Levels, Speaker
from tests.feeds.test_book_proofs import LEVELS, UPDATES, Venue, broken

STREAM = "v4_orderbook"


def _dydx(change: Change) -> Any:
    bids, asks = change.sides()
    head = {"channel": STREAM, "id": change.symbol, "message_id": change.number}
    contents: Any = {"bids": bids, "asks": asks}
    if not change.is_snapshot:
        return {"type": "channel_data", **head, "contents": contents}
    image = {
        side: [{"price": price, "size": size} for price, size in levels]
        for side, levels in contents.items()
    }
    return {"type": "subscribed", **head, "contents": image}


def _bitstamp(change: Change) -> Any:
    bids, asks = change.sides()
    levels = {"microtimestamp": str(NOW_MS * 1_000 + change.number), "bids": bids, "asks": asks}
    if change.is_snapshot:
        return levels
    return {"event": "data", "channel": f"diff_order_book_{change.symbol}", "data": levels}


def _phemex(places: tuple[int, int] | None, name: str) -> Any:
    def speak(change: Change) -> Any:
        sides: list[Any] = list(change.sides())
        if places is not None:
            ones = (10 ** places[0], 10 ** places[1])
            sides = [
                [[int(price) * ones[0], int(size) * ones[1]] for price, size in side]
                for side in sides
            ]
        kind = "snapshot" if change.is_snapshot else "incremental"
        book = {"asks": sides[1], "bids": sides[0]}
        numbers = {"sequence": change.number, "timestamp": NOW_MS * 1_000_000, "type": kind}
        return {name: book, "depth": 30, "symbol": change.symbol, **numbers}

    return speak


UNPROVED = {
    ("bitstamp", "spot"): Speaker(_bitstamp, step=7),
    ("phemex", "spot"): Speaker(_phemex((8, 8), "book"), step=3),
    ("phemex", "inverse"): Speaker(_phemex((4, 0), "book"), step=3),
    ("phemex", "linear"): Speaker(_phemex(None, "orderbook_p"), step=3),
}
each_unproved = pytest.mark.parametrize(("venue", "market"), UNPROVED)


class Unproved(Venue):
    """A book whose answers may lack what was lost: the test says when they must be right."""

    def check(self) -> None:
        pass


class OfConnection(Venue):
    """dYdX: each message of the connection has the next number, images too."""

    def __init__(self) -> None:
        super().__init__("dydx", "perpetual", Speaker(_dydx))
        self.number = 0
        self.deliver(orjson.dumps({"type": "connected", "message_id": 0}))

    def deliver_image(self) -> None:
        self.number += 1
        self.remember()
        super().deliver_image()


@tried(60, 2_000)
@given(updates=UPDATES)
def test_whatever_becomes_of_messages_of_dydx_no_answer_is_wrong(
    updates: list[tuple[Levels, Levels, str]],
) -> None:
    speaking = OfConnection()
    assert speaking.rule.continuity is Continuity.CONNECTION
    speaking.deliver_image()
    assert speaking.answer() == (speaking.bids, speaking.asks)
    frames = [(speaking.update(bids, asks), fate) for bids, asks, fate in updates]
    for frame in broken(frames):
        speaking.deliver(frame)
    speaking.deliver(speaking.update({1: 1}, {}))
    if speaking.answer() is None:
        assert speaking.repairs, "a broken book asks for an image"
        assert any(fate in {"lost", "swapped"} for _, fate in frames)
    speaking.deliver_image()
    assert speaking.answer() == (speaking.bids, speaking.asks)
    assert speaking.counts.rejected == 0


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_each_lost_message_of_dydx_is_found(missing: int) -> None:
    speaking = OfConnection()
    speaking.deliver_image()
    for number in range(1, 5):
        frame = speaking.update({number: number}, {})
        if number != missing:
            speaking.deliver(frame)
        assert (speaking.answer() is None) == (number > missing)
    assert speaking.repairs == 1


@each_unproved
@tried(30, 1_000)
@given(updates=UPDATES)
def test_an_image_heals_what_nothing_proves(
    venue: str, market: str, updates: list[tuple[Levels, Levels, str]]
) -> None:
    speaking = Unproved(venue, market, UNPROVED[venue, market])
    assert speaking.rule.continuity is Continuity.NONE
    speaking.deliver_image()
    frames = [(speaking.update(bids, asks), fate) for bids, asks, fate in updates]
    for frame in broken(frames):
        speaking.deliver(frame)
    if all(fate in {"arrives", "doubled"} for _, fate in frames):
        assert speaking.answer() == (speaking.bids, speaking.asks)
    if speaking.rule.snapshot is SnapshotSource.SOCKET:  # one that nobody asked for
        speaking.number += 1
        speaking.deliver_image()
        assert speaking.answer() == (speaking.bids, speaking.asks)
    assert speaking.counts.rejected == 0


@tried(60, 2_000)
@given(
    before=st.lists(st.tuples(LEVELS, LEVELS), max_size=5),
    after=st.lists(st.tuples(LEVELS, LEVELS), max_size=5),
)
def test_differences_that_came_before_their_image_are_in_it(
    before: list[tuple[Levels, Levels]], after: list[tuple[Levels, Levels]]
) -> None:
    """Bitstamp's image is of a time between differences that came already."""
    speaking = Unproved("bitstamp", "spot", UNPROVED["bitstamp", "spot"])
    assert speaking.rule.snapshot is SnapshotSource.REST
    frames = [speaking.update(*change) for change in before]
    change = Change(
        speaking.symbol, 0, speaking.number, speaking.bids, speaking.asks, is_snapshot=True
    )
    image = speaking.speaker.frame(change)
    frames += [speaking.update(*change) for change in after]
    for frame in frames:
        speaking.deliver(frame)
    assert speaking.answer() is None
    assert speaking.session.snapshot(speaking.symbol, image, speaking.now_ns)
    speaking.flush()
    assert speaking.answer() == (speaking.bids, speaking.asks)
