"""Requests are cut to size, and their streams are known again by their numbers."""

from __future__ import annotations

from typing import Any

from ingestor.adapter import Requests


def test_requests_are_cut_and_numbered() -> None:
    requests = Requests(2)
    assert list(requests.parts(["a", "b", "c"])) == [(1, ("a", "b")), (2, ("c",))]
    assert list(requests.parts(["d"])) == [(3, ("d",))]
    assert requests.answered(2) == ("c",)
    assert requests.answered("3") == ("d",)


def test_an_answer_counts_once_and_may_be_of_nobody() -> None:
    requests = Requests(5)
    assert list(requests.parts(["a"])) == [(1, ("a",))]
    assert list(requests.parts(["b"], keep=False)) == [(2, ("b",))]
    assert requests.answered(1) == ("a",)
    numbers: list[Any] = [1, 2, 77, None, [], True, "x"]
    for number in numbers:
        assert requests.answered(number) == ()


def test_a_text_may_name_streams() -> None:
    requests = Requests(5)
    assert len(list(requests.parts(["trades:X", "book:X"]))) == 1
    assert requests.named("no such stream book:X") == ("book:X",)
    assert requests.answered(1) == ("trades:X",)
    assert len(list(requests.parts(["trades:Y", "book:Z"]))) == 1
    assert requests.named("no such market: Y", ":") == ("trades:Y",)


def test_requests_that_nobody_answers_are_forgotten() -> None:
    requests = Requests(1)
    assert len(list(requests.parts([f"s{number}" for number in range(10_001)]))) == 10_001
    assert requests.answered(1) == ()
    assert requests.answered(2) == ("s1",)
