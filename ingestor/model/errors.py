"""Every exception of the program, and what is to be done about each.

The class carries its remedy: whoever catches an `IngestError` reads `recovery` and acts, and
nobody compares messages. Attributes hold facts; `__str__` writes the one sentence a person sees:
what is wrong, where, what to change.
"""

from __future__ import annotations

from enum import Enum
from struct import error as struct_error
from typing import ClassVar, Final

# What code that reads a foreign message by its plain keys raises where the message is not as
# documented. RecursionError is a parser's, over a message that is nested too deeply; struct.error
# is that of a number that doesn't fit its field.
MALFORMED: Final = (
    *(LookupError, TypeError, ValueError, AttributeError, OverflowError, struct_error),
    RecursionError,
)


class Recovery(Enum):
    """Name the program's reaction to an error."""

    EXIT = "exit"  # before any feed's socket opens; exit status 2 for ConfigError, else 1
    RECONNECT = "reconnect"  # with capped, jittered backoff
    DROP_CHANNEL = "drop_channel"  # the venue refuses this subscription; its siblings go on
    RESUBSCRIBE = "resubscribe"  # one instrument's book is repaired, a GAP is emitted
    SKIP_FRAME = "skip_frame"  # the frame goes to quarantine; its instruments get GAP and repair
    HOLD = "hold"  # stop reading until the sink accepts rows again
    KEEP = "keep"  # nothing changes; whoever asked for the change is told why
    DEAD_LETTER = "dead_letter"  # one record can never be accepted; its neighbours are delivered


class IngestError(Exception):
    """Base of all errors that the program expects and handles."""

    recovery: ClassVar[Recovery]


class LedgerBroken(IngestError):
    """Frames or rows are unaccounted for: the one error that no boundary of a unit stops."""

    recovery = Recovery.EXIT

    def __init__(self, what: str, unaccounted: int) -> None:
        super().__init__(what, unaccounted)
        self.what = what
        self.unaccounted = unaccounted

    def __str__(self) -> str:
        return f"the ledger does not balance: {self.unaccounted:,} {self.what} are unaccounted for"


class ConfigError(IngestError):
    """The configuration or the command line can't be used as it is.

    `where` names the file and key (`config/demo.toml: kafka.topic_prefix`), `hint` what to change.
    """

    recovery = Recovery.EXIT

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{where}{self.what}{hint}"


class ListenFailed(IngestError):
    """A port that we serve on can't be opened: in use, or not ours to use. Exit status 1."""

    recovery = Recovery.EXIT

    def __init__(self, what: str, address: str, reason: str, *, hint: str = "") -> None:
        super().__init__(what, address, reason)
        self.what = what
        self.address = address
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.what} can't listen on {self.address}: {self.reason}{hint}"


class WorkerFailed(IngestError):
    """A worker process ended before it had ever run; what it said itself tells why.

    exit_status: its own.
    """

    recovery = Recovery.EXIT

    def __init__(self, worker: int, exit_status: int) -> None:
        super().__init__(worker, exit_status)
        self.worker = worker
        self.exit_status = exit_status

    def __str__(self) -> str:
        return f"worker {self.worker} could not start: it ended with status {self.exit_status}"


class ReloadRefused(IngestError):
    """A running process can't follow its configuration now, whatever that says."""

    recovery = Recovery.KEEP

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"not reloaded: {self.reason}"


class TransportError(IngestError):
    """A connection failed or ended; it is opened again."""

    recovery = Recovery.RECONNECT

    def __init__(self, url: str, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class HandshakeRejected(TransportError):
    """The server answered the websocket handshake with an HTTP status other than 101.

    text: what it said beside the status, in one line.
    """

    def __init__(
        self, url: str, status: int, *, retry_after_s: float | None = None, text: str = ""
    ) -> None:
        reason = f"handshake refused with HTTP {status} {text}".rstrip()
        super().__init__(url, reason, retry_after_s=retry_after_s)
        self.status = status


class RequestRefused(TransportError):
    """A REST endpoint answered with an HTTP status other than 200.

    text: how its body begins, "" for none: many venues say the cause there.
    """

    def __init__(
        self, url: str, status: int, text: str = "", *, retry_after_s: float | None = None
    ) -> None:
        reason = f"refused with HTTP {status}{f': {text}' if text else ''}"
        super().__init__(url, reason, retry_after_s=retry_after_s)
        self.status = status
        self.text = text


class VenueError(TransportError):
    """A venue answered HTTP 200 with an error of its own in the body.

    temporary: whether the venue's documents say that the same request may be repeated.
    """

    def __init__(self, venue: str, code: str, text: str, *, temporary: bool = False) -> None:
        super().__init__(venue, f"error {code}: {text}" if text else f"error {code}")
        self.venue = venue
        self.code = code
        self.text = text
        self.temporary = temporary


class PeerClosed(TransportError):
    """The venue closed the connection (RFC 6455 section 7.4 close code)."""

    def __init__(self, url: str, code: int, reason: str = "") -> None:
        super().__init__(url, f"closed by the venue with code {code} {reason}".rstrip())
        self.code = code


class FeedStale(TransportError):
    """The connection is open, but a stream that should have spoken is silent."""

    def __init__(self, url: str, stream: str, silence_s: float) -> None:
        super().__init__(url, f"{stream} silent for {silence_s:.1f} s")
        self.stream = stream
        self.silence_s = silence_s


class SubscriptionRejected(IngestError):
    """The venue refuses a subscription. `streams` may be empty when it doesn't say which."""

    recovery = Recovery.DROP_CHANNEL

    def __init__(self, venue: str, text: str, streams: tuple[str, ...] = ()) -> None:
        super().__init__(venue, text, streams)
        self.venue = venue
        self.text = text
        self.streams = streams

    def __str__(self) -> str:
        which = ", ".join(self.streams) or "a subscription"
        return f"{self.venue} refuses {which}: {self.text}"


class SequenceGap(IngestError):
    """An instrument's book lost continuity, or was proved wrong.

    first, last: the numbers that are missing; 0 = not known.
    """

    recovery = Recovery.RESUBSCRIBE

    def __init__(self, instrument: str, cause: str, first: int = 0, last: int = 0) -> None:
        super().__init__(instrument, cause, first, last)
        self.instrument = instrument
        self.cause = cause
        self.first = first
        self.last = last

    def __str__(self) -> str:
        if not self.last:
            return f"{self.instrument}: {self.cause}"
        numbers = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        return f"{self.instrument}: {self.cause}, {numbers} missing"


class DecodeError(IngestError):
    """A frame can't be read. It costs itself alone and goes to quarantine."""

    recovery = Recovery.SKIP_FRAME
    reason: ClassVar[str] = "malformed"

    def __init__(self, venue: str, detail: str) -> None:
        super().__init__(venue, detail)
        self.venue = venue
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.venue}: {self.reason}: {self.detail}"


class UnknownMessage(DecodeError):
    """A well-formed message of a type that the adapter doesn't know."""

    reason = "unknown_message"


class UnknownInstrument(DecodeError):
    """A message for an instrument that is not in the instrument table. symbol: the venue's name."""

    reason = "unknown_instrument"

    def __init__(self, venue: str, symbol: str) -> None:
        super().__init__(venue, f"{symbol!r:.60}")
        self.symbol = symbol


class BadNumber(DecodeError):
    """A price or size that is no plain decimal, or finer than the instrument's increment."""

    reason = "bad_number"


class FenceFailed(IngestError):
    """A life could not be kept from publishing, so that nobody may take over from it yet."""

    recovery = Recovery.HOLD

    def __init__(self, life: str, reason: str) -> None:
        super().__init__(life, reason)
        self.life = life
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.life} could not be fenced: {self.reason}"


class SinkUnavailable(IngestError):
    """The sink accepts nothing now. Rows are held, and sockets paused when the budget says so."""

    recovery = Recovery.HOLD

    def __init__(self, sink: str, reason: str) -> None:
        super().__init__(sink, reason)
        self.sink = sink
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.sink} is unavailable: {self.reason}"


class TopicAbsent(IngestError):
    """A topic that is to be read does not exist, or may not be seen. Exit status 1."""

    recovery = Recovery.EXIT

    def __init__(self, topic: str, servers: str) -> None:
        super().__init__(topic, servers)
        self.topic = topic
        self.servers = servers

    def __str__(self) -> str:
        return f"Kafka at {self.servers} has no topic {self.topic}, or doesn't show it to us"


class RecordRejected(IngestError):
    """The broker refuses a batch for one of its records, and would refuse it for ever."""

    recovery = Recovery.DEAD_LETTER

    def __init__(self, topic: str, partition: int, reason: str) -> None:
        super().__init__(topic, partition, reason)
        self.topic = topic
        self.partition = partition
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}] refuses a record: {self.reason}"


class RecordingError(IngestError):
    """A recording, or a line of one, can't be read. `offset` counts bytes of the plain text."""

    recovery = Recovery.SKIP_FRAME

    def __init__(self, path: str, offset: int, what: str) -> None:
        super().__init__(path, offset, what)
        self.path = path
        self.offset = offset
        self.what = what

    def __str__(self) -> str:
        return f"{self.path}, byte {self.offset}: {self.what}"


class PlanUnusable(IngestError):
    """A worker can't run what the cluster's plan says of a shard; it keeps the plan before."""

    recovery = Recovery.HOLD

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ClusterError(IngestError):
    """A command for the cluster can't be done. `hint` says what to do instead."""

    recovery = Recovery.EXIT

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what
