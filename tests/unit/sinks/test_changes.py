"""Keys that changed wait in order, each once."""

from __future__ import annotations

from ingestor.sinks.changes import Changes


def test_a_key_waits_once_however_often_it_changes() -> None:
    changes = Changes(["a"])
    for key in "bcab":
        changes.add(key)
    assert (len(changes), changes.replaced) == (3, 2)
    assert changes.take(2) == ["a", "b"]
    changes.add("b")
    assert changes.take(9) == ["c", "b"]
    assert not changes
