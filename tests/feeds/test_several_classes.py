"""A message that has rows of several classes gives those that its connection carries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingestor.adapter import FeedAdapter
from ingestor.adapter.contract import Subscription
from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.row_classes import ROW_CLASSES
from tests.feeds.fixtures import load, markets
from tests.feeds.harness import TS_RECV, channels_of


def shared() -> Iterator[tuple[type[FeedAdapter], str, str]]:
    """Yield the channels of market data beside trades, quotes and books that share a stream."""
    for adapter, market in markets():
        feed = adapter(market, {})
        of_stream: dict[str, list[str]] = {}
        for channel in channels_of(adapter, market):
            of_stream.setdefault(feed.stream(channel, "X"), []).append(channel)
        for channels in of_stream.values():
            for channel in channels:
                if len(channels) > 1 and not ROW_CLASSES.of_channel(channel).is_standard:
                    yield adapter, market, channel


CASES = [pytest.param(*case, id=f"{case[0].venue}_{case[1]}_{case[2]}") for case in shared()]


@pytest.mark.parametrize(("adapter", "market", "channel"), CASES)
def test_who_carries_one_class_gets_rows_of_it_alone(
    adapter: type[FeedAdapter], market: str, channel: str
) -> None:
    fixture = load(adapter, market)
    table = fixture.table()
    symbols = table.symbols(adapter.venue, market)
    feed, buffer = adapter(market, symbols), ColumnBuffer(table)
    buffer.carried_only = True  # as in a live process
    streams = [
        Subscription(number, symbol, channel, feed.stream(channel, symbol))
        for symbol, number in symbols.items()
    ]
    session = Session(0, feed, streams, buffer, FrameCounts(), SessionEvents(), market)
    for step in fixture.steps:
        match step.verb:
            case "subscribe" | "unsubscribe":
                assert list(getattr(feed, step.verb)(step.value))
            case "frame" if step.outcome != "rejected":
                session.receive(step.payload, TS_RECV)
    sealed = buffer.seal(table)
    row_class = ROW_CLASSES.of_channel(channel)
    assert {one for one, part in sealed.others.items() if len(part.rows)} == {row_class}
