"""Every error code that a broker may answer has a name, and says whether to try again."""

from __future__ import annotations

import pytest
from aiokafka import errors

from ingestor.kafka.error_codes import error_name, error_of


@pytest.mark.parametrize(
    ("code", "name", "retriable"),
    [
        (3, "UnknownTopicOrPartition", True),
        (10, "MessageSizeTooLarge", False),
        (74, "FencedLeaderEpoch", True),
        (87, "InvalidRecord", False),
        (89, "ThrottlingQuotaExceeded", True),
        (103, "InconsistentTopicId", True),
        (-1, "Unknown", False),
    ],
)
def test_codes_have_names(code: int, name: str, retriable: bool) -> None:
    failure = error_of(code)
    assert error_name(failure) == name
    assert failure.retriable is retriable


@pytest.mark.rows("K6")
def test_no_code_of_the_protocol_is_unknown() -> None:
    named = [code for code in range(1, 130) if type(error_of(code)) is errors.UnknownError]
    assert named == []


def test_a_code_of_the_future_is_in_the_text() -> None:
    failure = error_of(999)
    assert type(failure) is errors.UnknownError
    assert "999" in str(failure)
