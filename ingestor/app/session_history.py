"""Remembers the last session of these feeds, so that the next one can name it and mark its rows.

A process that was killed says nothing. What it had published, and that rows are missing since, is
said by the next session: `session_start` names the previous one and its last numbers, and a GAP
(cause `restart`) precedes each instrument's first row. docs/adr/0022 says why a file remembers.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from ingestor.adapter.contract import Subscription
from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.session import Session
from ingestor.model.clocks import Clocks
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import Cause
from ingestor.recording.files import create_exclusively, open_regular
from ingestor.recording.format import RESTART
from ingestor.recording.recorder import Recorder
from ingestor.sources.live.events import SupervisorEvents
from ingestor.sources.live.plan import PlannedConnection

BYTES_MAX: Final = 1 << 20
CLOSE_S: Final = 1.0

log = structlog.get_logger(__name__)


class LastNumbers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold what is kept of a session.

    session: its id, hexadecimal. ts: ns since the epoch, when this was last written, at most two
    seconds before the end. ended: whether it drained in order. sequences: the last number that
    was given to a row, by topic and partition.
    """

    session: str
    ts: int
    ended: bool
    sequences: dict[str, dict[str, int]]


class SessionHistory:
    """The file of one set of feeds. A file that can't be read or written is reported, no more."""

    def __init__(self, path: Path) -> None:
        """path: of the file, in a folder that survives the process."""
        self.session = os.urandom(16)
        self.previous: LastNumbers | None = None
        self._path = path
        self._lock = -1
        self._writing: threading.Thread | None = None
        self._has_failed = False

    def begin(self) -> None:
        """Read what the previous session left. Keeps off while another process uses the file."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = _locked(self._path)
            except BlockingIOError:
                log.info("session.shared", path=str(self._path))
                return
            with open_regular(self._path) as file:
                self.previous = msgspec.json.decode(file.read(BYTES_MAX), type=LastNumbers)
        except FileNotFoundError:
            return  # the very first session
        except Exception as failure:  # noqa: BLE001  # whatever is in the file, or became of it
            self._failed(failure)

    def move(self, path: Path) -> None:
        """Go on in another file, since the feeds changed; `previous` stays what it was.

        Where another process uses that file, this one is kept: the next start with these feeds
        then takes the other process's session for the one before it, as it would have anyway.
        """
        if self._lock < 0 or path == self._path:
            return
        old, old_lock = self._path, self._lock
        try:
            self._lock = _locked(path)
        except OSError as failure:
            log.info("session.shared", path=str(path), reason=str(failure))
            return
        self._path = path
        if self._writing is not None:
            self._writing.join(CLOSE_S)
        os.close(old_lock)
        with suppress(OSError):
            old.unlink(missing_ok=True)  # or a later start with those feeds would name it

    def save(self, sequences: Mapping[str, Mapping[str, int]], *, ended: bool = False) -> None:
        """Write this session's numbers, from a thread: a disk that hangs holds nothing up.

        Args:
            sequences: as in `LastNumbers`.
            ended: whether the session ends here; then it is waited for, a second at most.
        """
        if self._lock < 0:
            return
        if self._writing is not None and ended:
            self._writing.join(CLOSE_S)
        if self._writing is not None and self._writing.is_alive():
            return
        numbers = LastNumbers(
            self.session.hex(),
            time.time_ns(),
            ended,
            {topic: dict(partitions) for topic, partitions in sequences.items()},
        )
        content = msgspec.json.encode(numbers)
        self._writing = threading.Thread(target=self._write, args=(content,), daemon=True)
        self._writing.start()
        if ended:
            self._writing.join(CLOSE_S)

    def close(self) -> None:
        """Let another process have the file."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _write(self, content: bytes) -> None:
        temporary = self._path.with_name(self._path.name + ".tmp")
        try:
            with create_exclusively(temporary) as file:
                file.write(content)
            temporary.replace(self._path)
        except Exception as failure:  # noqa: BLE001  # a thread has nobody else to tell
            self._failed(failure)

    def _failed(self, failure: Exception) -> None:
        if not self._has_failed:
            log.warning("session.not_kept", path=str(self._path), cause=repr(failure))
        self._has_failed = True


def _locked(path: Path) -> int:
    """Return the descriptor that holds the lock of a file. Raises OSError."""
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


class RestartMarks(SupervisorEvents):
    """Declares, as streams are first subscribed to, that an earlier session may have lost rows.

    Costs nothing once every instrument was marked: connections that open again bring none.
    """

    def __init__(
        self,
        history: SessionHistory,
        table: InstrumentTable,
        buffer: ColumnBuffer,
        recorder: Recorder | None,
        clocks: Clocks,
    ) -> None:
        self._history = history
        self._table = table
        self._buffer = buffer
        self._recorder = recorder
        self._clocks = clocks
        self._marked: set[tuple[str, str]] = set()  # channel, instrument key

    def up(self, planned: PlannedConnection, session: Session) -> None:
        self._mark(session, session.subscriptions)

    def changed(
        self,
        planned: PlannedConnection,
        session: Session,
        added: Sequence[Subscription],
        removed: Sequence[Subscription],
    ) -> None:
        """Take note that an open connection carries other streams.

        Args:
            planned: The planned connection.
            session: Its session, None before there is one.
            added: Streams that are new.
            removed: Streams that ended.
        """
        self._mark(session, added)

    def _mark(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        """Declare a hole for the instruments that are subscribed to for the first time."""
        if self._history.previous is None:
            return
        new: dict[int, str] = {}
        for subscription in subscriptions:
            key = self._table[subscription.instrument].key
            if (subscription.channel, key) not in self._marked:
                self._marked.add((subscription.channel, key))
                new[subscription.instrument] = key
        if not new:
            return
        now_ns = self._clocks.wall_ns()
        if self._recorder is not None:
            decision = {"action": RESTART, "keys": list(new.values())}
            self._recorder.record_decision(session.connection, now_ns, decision)
        self._buffer.hole(Cause.RESTART, now_ns, instruments=list(new), source=session)


def history_path(state_dir: Path, prefix: str, feeds: Iterable[tuple[str, str]]) -> Path:
    """Return the file of a set of feeds.

    Args:
        state_dir: folder of such files.
        prefix: of the topics; "" where nothing is published.
        feeds: venue and market of each.
    """
    name = "\n".join([prefix, *(f"{venue}:{market}" for venue, market in sorted(set(feeds)))])
    return state_dir / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
