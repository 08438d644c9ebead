"""The session before this one: named, and marked before each instrument's first row."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from ingestor.adapter import BookRule, Continuity
from ingestor.adapter.contract import Subscription
from ingestor.app.session_history import RestartMarks, SessionHistory, history_path
from ingestor.decode.session import Session
from ingestor.model.clocks import Clocks
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Kind, Side
from ingestor.pipeline.pipeline import Pipeline
from ingestor.sources.live.plan import PlannedConnection

PLANNED = cast("PlannedConnection", None)  # the marks don't look at it


def ended(path: Path, **more: bool) -> SessionHistory:
    history = SessionHistory(path)
    history.begin()
    history.save({"md.trades.v1": {"0": 41, "3": 7}}, ended=more.get("ended", True))
    history.close()
    return history


def test_the_very_first_session_has_no_previous(tmp_path: Path) -> None:
    history = SessionHistory(tmp_path / "a" / "b.json")
    history.begin()
    assert history.previous is None


def test_the_next_session_knows_the_last_numbers(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first = ended(path)
    second = SessionHistory(path)
    second.begin()
    assert second.previous is not None
    assert second.previous.session == first.session.hex() != second.session.hex()
    assert second.previous.ended
    assert second.previous.sequences == {"md.trades.v1": {"0": 41, "3": 7}}


@pytest.mark.rows("I14")
def test_a_killed_process_leaves_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    code = (
        "import os, pathlib, signal, sys, time\n"
        "from ingestor.app.session_history import SessionHistory\n"
        "history = SessionHistory(pathlib.Path(sys.argv[1]))\n"
        "history.begin()\n"
        "history.save({'md.book.v1': {'1': 5}})\n"
        "time.sleep(0.3)\n"
        "print(history.session.hex(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9
    history = SessionHistory(path)
    history.begin()
    assert history.previous is not None
    assert history.previous.session == done.stdout.strip()
    assert not history.previous.ended
    assert history.previous.sequences == {"md.book.v1": {"1": 5}}


def test_a_second_process_of_the_same_feeds_has_no_history(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    ended(path)
    first, second = SessionHistory(path), SessionHistory(path)
    first.begin()
    second.begin()
    assert first.previous is not None
    assert second.previous is None
    before = path.read_bytes()
    second.save({}, ended=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'{"session":1}', b"[" * 100_000, b" " * (2 << 20), b"\xff"],
)
def test_a_file_that_is_none_of_ours_is_no_history(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    history = SessionHistory(path)
    history.begin()
    assert history.previous is None
    history.save({}, ended=True)
    history.close()
    again = SessionHistory(path)
    again.begin()
    assert again.previous is not None


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "file above"])
def test_a_path_that_cannot_be_used_stops_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "state.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        (tmp_path / "x").write_text("")
        path = tmp_path / "x" / "state.json"
    history = SessionHistory(path)
    history.begin()
    assert history.previous is None
    history.save({}, ended=True)


def test_each_set_of_feeds_has_a_file() -> None:
    feeds = [("okx", "spot"), ("okx", "swap")]
    root = Path("x")
    assert history_path(root, "md.", feeds) == history_path(root, "md.", feeds[::-1] * 2)
    others = {history_path(root, "md.", feeds[:1]), history_path(root, "", feeds)}
    assert history_path(root, "md.", feeds) not in others


# Marks -------------------------------------------------------------------------------------------


class Connection:
    """Has what the marks and the pipeline use of a session."""

    def __init__(self, number: int, *subscriptions: Subscription) -> None:
        self.connection = number
        self.subscriptions = subscriptions

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        channel = row_class.channel
        return [one.instrument for one in self.subscriptions if one.channel == channel]


class Rows:
    """A pipeline, and what it gave."""

    def __init__(self, tmp_path: Path, *, restarted: bool) -> None:
        self.table = InstrumentTable(
            instrument("acme", "spot", name, f"{name}-USD", name, "USD", "0.01", "0.01")
            for name in ("A", "B")
        )
        self.pipeline = Pipeline(self.table, lambda _: BookRule(Continuity.INCREMENT))
        path = tmp_path / "state.json"
        if restarted:
            ended(path)
        history = SessionHistory(path)
        history.begin()
        self.marks = RestartMarks(history, self.table, self.pipeline.buffer, None, Clocks())

    def up(self, connection: Connection) -> None:
        self.marks.up(PLANNED, cast("Session", connection))

    def rows(self) -> list[tuple[str, int, int]]:
        """Flush; return kind, instrument and cause or side of each row."""
        result = self.pipeline.flush(1_000)
        assert self.pipeline.ledger().unaccounted == 0
        return [
            (Kind(row["kind"]).name, int(row["instrument"]), int(row["side"]))
            for batch in result.batches
            for row in batch.rows
        ]


def channels(instrument_number: int, symbol: str) -> list[Subscription]:
    return [
        Subscription(instrument_number, symbol, channel, f"{channel}.{symbol}")
        for channel in ("trades", "quotes", "book")
    ]


def speak(rows: Rows, connection: Connection, number: int) -> None:
    buffer = rows.pipeline.buffer
    buffer.begin(cast("Session", connection), b"")
    buffer.add_trade(number, 1, 1, 1, "1", "1", Side.BID, 1, flags=1)
    buffer.add_quote(number, 1, 1, 1, "1", "1", "2", "1")
    buffer.add_book_update(number, 1, 1, [("1", "1")], [("2", "1")], first=1, last=1, flags=3)


@pytest.mark.rows("I14")
def test_every_class_of_every_instrument_is_marked_once(tmp_path: Path) -> None:
    rows = Rows(tmp_path, restarted=True)
    both = Connection(1, *channels(0, "A"), *channels(1, "B"))
    rows.up(both)
    speak(rows, both, 0)
    speak(rows, both, 1)
    found = rows.rows()
    gaps = [("GAP", number, int(Cause.RESTART)) for number in (0, 1)]
    trades, quotes, levels = found[:4], found[4:8], found[8:]
    assert trades[:2] == quotes[:2] == gaps
    assert [row for row in levels if row[0] == "GAP"] == gaps
    for number in (0, 1):
        kinds = [kind for kind, one, _ in levels if one == number]
        assert kinds[:2] == ["GAP", "RESET"]
    rows.up(both)  # after a reconnect: DISCONNECT said what was to be said
    speak(rows, both, 0)
    assert not [row for row in rows.rows() if row[2] == Cause.RESTART and row[0] == "GAP"]


def test_an_instrument_that_comes_later_is_marked_then(tmp_path: Path) -> None:
    rows = Rows(tmp_path, restarted=True)
    first, second = Connection(1, *channels(0, "A")[:1]), Connection(2, *channels(1, "B")[:1])
    rows.up(first)
    assert rows.rows() == [("GAP", 0, Cause.RESTART)]
    rows.up(second)
    assert rows.rows() == [("GAP", 1, Cause.RESTART)]


def test_a_class_on_another_connection_is_marked_there(tmp_path: Path) -> None:
    rows = Rows(tmp_path, restarted=True)
    trades, quotes, _ = channels(0, "A")
    rows.up(Connection(1, trades))
    rows.up(Connection(2, quotes))
    result = rows.pipeline.flush(1_000)
    assert Counter(batch.row_class for batch in result.batches) == {
        RowClass.TRADE: 1,
        RowClass.QUOTE: 1,
    }


def test_a_stream_that_is_added_to_an_open_connection_is_marked(tmp_path: Path) -> None:
    rows = Rows(tmp_path, restarted=True)
    carried, added = channels(0, "A"), channels(1, "B")
    one = Connection(1, *carried)
    rows.up(one)
    rows.rows()
    one.subscriptions = (*carried, *added)
    for _ in range(2):
        rows.marks.changed(PLANNED, cast("Session", one), added, [])
        rows.marks.changed(PLANNED, cast("Session", one), carried, [])
    assert rows.rows() == [("GAP", 1, Cause.RESTART)] * 3


def test_the_very_first_start_marks_nothing(tmp_path: Path) -> None:
    rows = Rows(tmp_path, restarted=False)
    one = Connection(1, *channels(0, "A"))
    rows.up(one)
    speak(rows, one, 0)
    assert "GAP" not in {kind for kind, _, _ in rows.rows()}
