"""Who is told of a sink's requests."""

from __future__ import annotations

from collections import Counter

from ingestor.model.row_classes import RowClass
from ingestor.sinks.backpressure import Backpressure


def test_every_follower_is_told_though_one_raises(expected_bugs: Counter[str]) -> None:
    expected_bugs["sink"] = 3
    told: list[object] = []

    def fail(*_given: object) -> None:
        raise ArithmeticError

    backpressure = Backpressure()
    backpressure.add_reader(fail, fail)
    backpressure.observe_shed(fail)
    backpressure.add_reader(lambda: told.append("pause"), lambda: told.append("resume"))
    backpressure.observe_shed(lambda row_class, instrument: told.append((row_class, instrument)))
    backpressure.pause()
    backpressure.resume()
    backpressure.shed(RowClass.QUOTE, 7)
    assert told == ["pause", "resume", (RowClass.QUOTE, 7)]


def test_without_followers_nothing_happens() -> None:
    backpressure = Backpressure()
    backpressure.pause()
    backpressure.shed(RowClass.TRADE, 0)
    backpressure.resume()
