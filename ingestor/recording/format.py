"""The recording format: JSON lines, one object a line, in zstd frames.

| t | fields | is |
|---|---|---|
| header | format, session, n, ts_ns, venue, instruments, connections | first line of each segment |
| http | ts_ns, conn, n, venue, market, url, data | body of a REST answer |
| connect | ts_ns, conn, n, venue, market, url, subscriptions, instruments, lines | a socket is up |
| disconnect | ts_ns, conn, n, reason | a socket ended |
| send | ts_ns, conn, n, data | a frame we sent |
| recv | ts_ns, conn, n, data | a frame we received, verbatim |
| decided | ts_ns, conn, n, decision | what live decided by timer or load |

`lines` is 2 where another connection carries the same streams, and left out elsewhere.

`data` is text; a payload that is no UTF-8 stands in `b64` instead. `n` counts the lines of one
(session, venue) but headers, over all of its segments: a jump says how many are missing; a header
has the number of the line after it. `ts_ns` is our clock,
ns since the epoch. `instruments` are those that the lines before did not name yet. Recordings of
others have neither `format` nor `n`, and connections that are text; they are read all the same.

Decisions, by `action`; `key` is an instrument's key:

| action | fields | replay |
|---|---|---|
| invalidate | key, cause (name of a Cause) | invalidates the book |
| revise | key (of one of them), instruments | takes the new metadata |
| forget | key (one of them), keys | drops the books, which nobody carries any more |
| streams | subscriptions, instruments | lets the connection carry these streams |
| resubscribe | streams | declares a hole for these streams of the connection, books apart |
| recorder_lost | lines, bytes, from_ns, to_ns | declares a hole for the connection |
| restart | keys | declares a hole for these instruments of the connection |
| unfilled | key, first, last | declares that lost trades can't be had |
| any other | | nothing: what followed from it was recorded |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from ingestor.adapter.contract import LostTrades, Subscription
from ingestor.model.instruments import Instrument
from ingestor.model.rows import Cause
from ingestor.model.timestamps import SECOND

FORMAT: Final = 1
HOUR_NS: Final = 3_600 * SECOND
FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"  # RFC 8878 section 3.1.1
LOST: Final = "recorder_lost"
REVISE: Final = "revise"
FORGET: Final = "forget"
STREAMS: Final = "streams"
RESUBSCRIBE: Final = "resubscribe"
RESTART: Final = "restart"
UNFILLED: Final = "unfilled"

# The largest line known is a book snapshot of 46,000 levels: 5.8 MB, 280,000 values.
LINE_BYTES_MAX: Final = 12 << 20
_PAYLOAD_ELEMENTS_MAX: Final = 1_000_000
_ELEMENTS_MAX: Final = 300_000  # of other lines, which become Python objects at once
_LARGE_BYTES: Final = 1 << 20  # text below is never a burden, whatever it holds
_PAYLOADS: Final = frozenset({"recv", "send", "http"})

Connection = int | str
SubscriptionText = tuple[str, str, str]  # symbol, channel, stream


class Open(msgspec.Struct, omit_defaults=True):
    """A connection that was open when a segment began."""

    conn: Connection
    market: str = ""
    url: str = ""
    subscriptions: list[SubscriptionText] = []
    lines: int = 1


class Header(msgspec.Struct, tag_field="t", tag="header", omit_defaults=True):
    """format: 0 = a recording of others. instruments: `Instrument.to_json`."""

    venue: str = ""
    format: int = 0
    session: str = ""
    ts_ns: int = 0
    n: int = -1
    instruments: list[dict[str, Any]] = []
    connections: list[Open] = []
    channels: dict[str, list[str]] = {}


class _Payload(msgspec.Struct, tag_field="t", omit_defaults=True, gc=False):
    ts_ns: int
    conn: Connection
    data: str | None = None
    b64: bytes | None = None
    n: int = -1

    @property
    def payload(self) -> bytes:
        return self.data.encode() if self.data is not None else self.b64 or b""


class Recv(_Payload, tag="recv"):
    pass


class Send(_Payload, tag="send"):
    pass


class Http(msgspec.Struct, tag_field="t", tag="http", omit_defaults=True):
    ts_ns: int
    url: str
    data: str | None = None
    b64: bytes | None = None
    conn: Connection | None = None
    venue: str = ""
    market: str = ""
    n: int = -1

    @property
    def payload(self) -> bytes:
        return self.data.encode() if self.data is not None else self.b64 or b""


class Connect(msgspec.Struct, tag_field="t", tag="connect", omit_defaults=True):
    ts_ns: int
    conn: Connection
    url: str = ""
    venue: str = ""
    market: str = ""
    subscriptions: list[SubscriptionText] = []
    instruments: list[dict[str, Any]] = []
    n: int = -1
    lines: int = 1


class Disconnect(msgspec.Struct, tag_field="t", tag="disconnect", omit_defaults=True):
    ts_ns: int
    conn: Connection
    reason: str = ""
    n: int = -1


class Decided(msgspec.Struct, tag_field="t", tag="decided", omit_defaults=True):
    ts_ns: int
    decision: dict[str, Any]
    conn: Connection | None = None
    n: int = -1


Line = Header | Http | Connect | Disconnect | Send | Recv | Decided

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)


class _Kind(msgspec.Struct):
    t: str


_KIND: Final = msgspec.json.Decoder(_Kind)


def encode_lines(lines: Sequence[Line]) -> bytes:
    """Return the lines as JSON text, each ended by a newline."""
    return _ENCODER.encode_lines(lines)


def text_or_bytes(payload: bytes) -> tuple[str | None, bytes | None]:
    """Return what the fields `data` and `b64` of a payload are."""
    try:
        return str(payload, "utf-8"), None
    except UnicodeDecodeError:
        return None, payload


def parse_lines(text: bytes) -> list[Line]:
    """Parse whole lines. Raises ValueError when any of them is none of ours, or too large."""
    if len(text) > _LARGE_BYTES:
        return [parse_line(line) for line in text.split(b"\n") if line.strip()]
    try:
        return _DECODER.decode_lines(text)
    except (msgspec.MsgspecError, RecursionError) as failure:
        raise ValueError(str(failure)) from None


def parse_line(text: bytes) -> Line:
    """Parse one line. Raises ValueError, which says what is wrong with it."""
    try:
        if len(text) > _LARGE_BYTES:
            _check_size(text)
        return _DECODER.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as failure:
        raise ValueError(str(failure)) from None


def _check_size(text: bytes) -> None:
    """Refuse a large line that would take many times its size once it is parsed.

    Raises ValueError.
    """
    if len(text) > LINE_BYTES_MAX:
        raise ValueError(f"a line of {len(text):,} bytes, above the limit of {LINE_BYTES_MAX:,}")
    if len(text) > LINE_BYTES_MAX // 2 and (not text.isascii() or b"\\u" in text):
        # Python takes up to 4 bytes a character then.
        raise ValueError(f"a line of {len(text):,} bytes that are not all ASCII")
    elements = len(text) - len(text.translate(None, b",{["))
    if elements <= _ELEMENTS_MAX:
        return
    is_payload = _KIND.decode(text).t in _PAYLOADS
    elements_max = _PAYLOAD_ELEMENTS_MAX if is_payload else _ELEMENTS_MAX
    if elements > elements_max:
        raise ValueError(f"a line of more than {elements_max:,} values")


def lost_line(
    connection: int, ts_ns: int, n: int, *, lines: int, size: int, from_ns: int
) -> Decided:
    """Return the control line that says what the recorder could not keep.

    Args:
        connection: Number of the connection.
        ts_ns: Time of the line.
        n: Number of the line itself, after those lost.
        lines: Lines that were lost.
        size: Bytes of payload that were lost.
        from_ns: Time of the first lost line.
    """
    decision = {
        "action": LOST,
        "lines": lines,
        "bytes": size,
        "from_ns": from_ns,
        "to_ns": ts_ns,
    }
    return Decided(ts_ns, decision, connection, n)


def revision(instruments: Sequence[Instrument]) -> dict[str, Any]:
    """Return the decision to take new metadata. instruments: of one venue, at least one."""
    rows = [instrument.to_json() for instrument in instruments]
    return {"action": REVISE, "key": instruments[0].key, "instruments": rows}


def forgotten(keys: Sequence[str]) -> dict[str, Any]:
    """Return the decision to drop books. keys: of their instruments, of one venue, at least one."""
    return {"action": FORGET, "key": keys[0], "keys": list(keys)}


def streams_changed(
    subscriptions: Iterable[Subscription], instruments: Iterable[Instrument]
) -> dict[str, Any]:
    """Return the decision that an open connection carries other streams.

    Args:
        subscriptions: all that it carries from now on.
        instruments: those of the new ones.
    """
    texts = [
        (subscription.symbol, subscription.channel, subscription.stream)
        for subscription in subscriptions
    ]
    rows = [instrument.to_json() for instrument in instruments]
    return {"action": STREAMS, "subscriptions": texts, "instruments": rows}


def unfilled(key: str, lost: LostTrades) -> dict[str, Any]:
    """Return the decision that trades which an instrument lost can't be had. key: whose."""
    return {"action": UNFILLED, "key": key, "first": lost.first, "last": lost.last}


def unfilled_of(decision: dict[str, Any]) -> LostTrades | None:
    """Return which lost trades a decision gives up; None when it doesn't."""
    first, last = (decision.get(name) for name in ("first", "last"))
    if decision.get("action") != UNFILLED or not isinstance(first, int):
        return None
    return LostTrades(first, last, 0, 0) if isinstance(last, int) else None


def cause_of(decision: dict[str, Any]) -> Cause | None:
    """Return why a decision invalidates a book; None when it doesn't."""
    if decision.get("action") != "invalidate":
        return None
    return Cause.__members__.get(str(decision.get("cause", "")).upper(), Cause.STALE)
