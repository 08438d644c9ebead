"""The rows of docs/reliability.md: what is done to the program, and what it promises then.

A test shows a row by `@pytest.mark.rows("K1")`; with the fixture `row` it also records figures. A
row of tier `short` is shown in `make test`, with shortened constants where its own would take too
long; one of tier `long` in `make test-long`.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

TESTS: Final = Path(__file__).parents[1]
SECTIONS: Final = {
    "L": "Load",
    "K": "Kafka faults",
    "X": "Venue faults",
    "D": "Data",
    "P": "Process faults",
    "I": "Isolation",
    "V": "Simulation",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, and the figure that is promised for it."""

    id: str
    tier: Literal["short", "long"]
    fault: str
    promised: str

    @property
    def section(self) -> str:
        """The title of the part of the document that the row belongs to."""
        return SECTIONS[self.id[0]]


_TABLE: Final = (
    ("L1", "short", "1,000 connections, 10,000 messages/s", "receive to ack p99 <= 50 ms"),
    ("L2", "long", "5,000 connections, 20,000 messages/s, 10 minutes", "p99 <= 100 ms, balanced"),
    ("L3", "long", "9,000 connections, 5,000 messages/s", "<= 25 KB a connection"),
    ("L4", "long", "2,000 TLS connections, 10,000 messages/s", "<= 75 KB a connection"),
    ("L5", "short", "a burst of five times the rate for 5 s", "p99 < 100 ms again in <= 10 s"),
    ("L6", "short", "twice the measured capacity", "RSS within the budget; trades shed last"),
    ("L7", "long", "60 minutes with a reconnect each second", "RSS slope <= 1 MB in 10 minutes"),
    ("K1", "short", "broker killed and started again", "resumes <= 5 s; nothing lost"),
    ("K2", "long", "broker stopped (SIGSTOP) for 10 s and 45 s", "nothing lost, order kept"),
    ("K3", "short", "leaders move", "nothing lost, nothing twice"),
    ("K4", "long", "link to the broker drops both ways, or replies alone", "nothing lost"),
    ("K5", "long", "an outage longer than the budget", "memory <= budget; counts exact"),
    ("K6", "short", "the error codes of a produce request", "retried, or dead-lettered alone"),
    ("K7", "long", "round trips of 500 ms and 3 s; 1 Mbit/s", "no unbounded queue; lag follows"),
    (
        "K8",
        "short",
        "record too large or dated ahead; topic unknown or denied",
        "others unaffected",
    ),
    ("K9", "short", "log storm in an outage", "<= 10 lines a minute and cause"),
    ("X1", "long", "all connections closed within 1 s", "99 % back <= 60 s, limits kept"),
    ("X2", "long", "half-open connections", "found <= ping interval + timeout + 1 s"),
    ("X3", "short", "open connection, pongs answered, no data", "stale at the stream's limit"),
    ("X4", "short", "slow handshakes; endless headers", "fail at the timeout; others unaffected"),
    ("X5", "short", "HTTP errors, redirects, close codes", "table obeyed; <= 1 try a second"),
    ("X6", "short", "TLS: expired, self-signed, wrong host, TLS 1.1", "refused"),
    ("X7", "short", "messages too large, fragments, deflate bomb", "1009; RSS + <= 20 MB"),
    ("X8", "short", "200,000 pings at once", "RSS + <= 64 MB, loop stall <= 250 ms"),
    ("X9", "short", "invalid UTF-8, masked frames, RSV bits", "rejected or 1002"),
    ("X10", "short", "names that do not resolve or hang; connections refused", "others unaffected"),
    (
        "D1",
        "short",
        "1,000,000 messages: repeated, late, lost, reset",
        "counts equal the generator's",
    ),
    ("D2", "short", "one of two lines is killed, or cut as planned", "0 missing, 0 twice, no gap"),
    ("D3", "short", "clocks +-5 s, +-1 h, a step back", "no negative lag; ts_recv monotone"),
    ("D4", "long", "mutated frames and payloads", "none uncaught, none > 100 ms"),
    ("D5", "short", "JSON bombs and numbers out of range", "rejected with a reason"),
    ("D6", "short", "hostile symbols", "pages inert, metrics well-formed"),
    ("D7", "short", "every number, read again independently", "0 differences"),
    ("P1", "long", "ingestor killed (SIGKILL) 20 times", "recordings lose <= 1 s; gaps declared"),
    ("P2", "short", "SIGTERM under load; a second SIGTERM", "drained <= 10 s, exit 0"),
    ("P3", "short", "the recorder's disk is full", "publishing unaffected; resumes <= 30 s"),
    ("P4", "short", "event loop blocked", "stall metric; liveness fails only at 30 s"),
    ("P5", "short", "descriptors run out", "clear error, the rest is served"),
    ("P7", "short", "reload, also of 50 bad configurations", "refused; other streams untouched"),
    ("I1", "short", "an exception at each boundary", "costs what docs/bulkheads.md says"),
    ("I2", "short", "instrument metadata change at run time", "a revision; the book valid again"),
    ("I3", "short", "odd, empty, huge instrument lists", "the odd entry alone is left out"),
    ("I4", "short", "one symbol halts or is delisted", "siblings: 0 reconnects, 0 gaps"),
    ("I5", "short", "unknown messages and shapes", "cost what they name"),
    ("I6", "short", "one venue's name server hangs", "others up <= 3 s; SIGTERM in time"),
    ("I7", "long", "one topic denied, deleted, compacted, refused", "others' p99 unchanged"),
    ("I8", "short", "wall clock -600 s, +1 h", "nothing shed or lost; pings on time"),
    ("I9", "short", "stderr and stdout closed, full, unread", "goes on, drains, same exit status"),
    ("I10", "short", "descriptors run out while the broker restarts", "Kafka and HTTP served"),
    ("I11", "short", "Retry-After huge, negative, far ahead", "bounded, logged"),
    (
        "I12",
        "long",
        "broker away 345 s at 5,000 messages/s, the shipped alerts in a real Prometheus",
        "kafka_up 0 <= 10 s, first alert <= 90 s and before any loss",
    ),
    ("I13", "short", "zstd bomb, endless line, links to devices", "<= 64 MiB, one line"),
    (
        "I14",
        "short",
        "killed and started again",
        "previous session named; a GAP before each first row",
    ),
    ("V1", "long", "200 seeds of a virtual hour of random faults", "ledger and bulkheads hold"),
)
ROWS: Final[Mapping[str, Row]] = {fields[0]: Row(*fields) for fields in _TABLE}


def named_tests(folder: Path = TESTS) -> dict[str, list[str]]:
    """Read from the sources which tests show each row, as `tests/file.py::test_name`."""
    found: dict[str, list[str]] = defaultdict(list)
    for test, mark in _marks(folder, "rows"):
        for argument in mark.args:
            found[ast.literal_eval(argument)].append(test)
    return dict(found)


def long_tests(folder: Path = TESTS) -> dict[str, float]:
    """Read from the sources how many minutes each test of the long suite takes."""
    return {
        test: float(ast.literal_eval(mark.keywords[0].value))
        for test, mark in _marks(folder, "long")
    }


def _marks(folder: Path, name: str) -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(folder.rglob("test_*.py")):
        file = f"{folder.name}/{path.relative_to(folder).as_posix()}"
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in function.decorator_list:
                    if (
                        isinstance(mark, ast.Call)
                        and ast.unparse(mark.func) == f"pytest.mark.{name}"
                    ):
                        yield f"{file}::{function.name}", mark
