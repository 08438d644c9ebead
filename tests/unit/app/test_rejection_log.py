"""Which refused frames are told."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from ingestor.app.rejection_log import KINDS_MAX, RejectionLog
from ingestor.columns.sealed import Rejected
from ingestor.pipeline.pipeline import FlushResult


class Source:
    """Where frames come from."""

    def instruments(self, _row_class: object) -> list[int]:
        return []

    def count_refused(self, reason: str) -> None: ...


def rejected(reason: str, detail: str) -> Rejected:
    return Rejected(Source(), b"{}", reason, detail, 1)


def tell(log: RejectionLog, frames: list[Rejected]) -> None:
    log.observe(FlushResult(rejected=frames), 0)


@pytest.mark.rows("I5")
def test_the_first_message_of_an_unknown_kind_is_told() -> None:
    told = RejectionLog()
    with capture_logs() as lines:
        for number in range(1_000):
            tell(told, [rejected("unknown_message", f"topic 'candles.{number}'")])
        tell(told, [rejected("unknown_message", "topic 'funding'")])
    assert [line["detail"] for line in lines] == ["topic 'candles.0'", "topic 'funding'"]


def test_kinds_are_bounded() -> None:
    told = RejectionLog()
    with capture_logs() as lines:
        for number in range(3 * KINDS_MAX):
            tell(told, [rejected("unknown_message", "x" * (number % 40) + "y" * (number // 40))])
    assert len(lines) == KINDS_MAX


def test_what_could_not_be_read_is_told_each_time() -> None:
    told = RejectionLog()
    with capture_logs() as lines:
        tell(told, [rejected("malformed", "no JSON")] * 3)
    assert len(lines) == 3
