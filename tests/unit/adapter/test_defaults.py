"""What adapters share."""

from __future__ import annotations

from typing import ClassVar

import pytest

from ingestor.adapter import ColumnBuffer, SeededOnSocket, UnknownMessage, chunks


def test_groups_keep_the_order() -> None:
    assert list(chunks("abcde", 2)) == ["ab", "cd", "e"]
    assert list(chunks([], 2)) == []


def test_nothing_is_fetched_for_a_book_of_the_socket() -> None:
    class Acme(SeededOnSocket):
        venue: ClassVar[str] = "acme"

    assert Acme().snapshot_request("BTC") is None
    with pytest.raises(UnknownMessage, match="acme"):
        Acme().decode_snapshot("BTC", b"{}", 0, ColumnBuffer())
