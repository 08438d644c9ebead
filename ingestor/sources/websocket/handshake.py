"""Reads the server's answer to our websocket handshake, before the transports' libraries do.

One library accepts what RFC 6455 forbids, refuses what it allows and knows no status beyond
`http.HTTPStatus`; the other waits for the end of a refusal's body. So both are given an answer that
was found good, in one form, or none at all.
"""

from __future__ import annotations

import re
from typing import Final

from ingestor.model.errors import HandshakeRejected
from ingestor.model.retry_after import retry_after_s
from ingestor.sources.websocket.interface import ProtocolViolated

HEAD_BYTES_MAX: Final = 32 << 10
HEADERS_MAX: Final = 128
_HEAD_END: Final = b"\r\n\r\n"
_TEXT_MAX: Final = 120  # characters of a refusal that are kept for the log
_PROTOCOL_ERROR: Final = 1002
_SWITCHING_PROTOCOLS: Final = 101
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n]*))?")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")

_Headers = dict[str, list[str]]  # by lower-case name


def answer_end(url: str, data: bytes) -> int:
    """Return where the head of an answer ends, 0 while it is not whole. Raises ProtocolViolated."""
    end = data.find(_HEAD_END, 0, HEAD_BYTES_MAX) + len(_HEAD_END)
    if end >= len(_HEAD_END):
        return end
    if len(data) >= HEAD_BYTES_MAX:
        raise _violated(url, f"head of more than {HEAD_BYTES_MAX} bytes")
    return 0


def check_answer(url: str, head: bytes, body: bytes, *, offers_extension: bool) -> bytes:
    """Return an answer that switches protocols, without what the libraries need not see.

    Args:
        url: of the connection, for the errors.
        head: up to and including the empty line.
        body: what came with it; shown of a refusal.
        offers_extension: whether our request offered permessage-deflate.

    Raises:
        HandshakeRejected: if the status is another than 101.
        ProtocolViolated: if the answer breaks RFC 6455 section 4.1 or RFC 9112.
    """
    first, *lines = head.removesuffix(_HEAD_END).split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise _violated(url, f"no HTTP answer: {_shown(first)!r}")
    minor, status, phrase = status_line[1], int(status_line[2]), status_line[3] or b""
    if status != _SWITCHING_PROTOCOLS:
        headers = _headers(url, lines, is_strict=False)
        wait_s = retry_after_s(headers.get("retry-after", [""])[0])
        text = " ".join(filter(None, (_shown(phrase), _shown(body))))
        raise HandshakeRejected(url, status, retry_after_s=wait_s, text=text[:_TEXT_MAX])
    if minor != b"1":
        raise _violated(url, "upgrade in HTTP/1.0")
    headers = _headers(url, lines, is_strict=True)
    _check_upgrade(url, headers, offers_extension=offers_extension)
    kept = ("upgrade", "connection", "sec-websocket-accept", "sec-websocket-extensions")
    given = headers | {"upgrade": ["websocket"], "connection": ["Upgrade"]}
    fields = [f"{name}: {value}\r\n" for name in kept for value in given.get(name, ()) if value]
    return f"HTTP/1.1 101 Switching Protocols\r\n{''.join(fields)}\r\n".encode("latin-1")


def _headers(url: str, lines: list[bytes], *, is_strict: bool) -> _Headers:
    """Return the header fields. What can't be read is left out unless `is_strict`."""
    if len(lines) > HEADERS_MAX:
        if is_strict:
            raise _violated(url, f"more than {HEADERS_MAX} headers")
        del lines[HEADERS_MAX:]
    headers: _Headers = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is not None:
            name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
            headers.setdefault(name, []).append(value.strip(" \t"))
        elif is_strict:
            raise _violated(url, f"header that can't be read: {_shown(line)!r}")
    return headers


def _check_upgrade(url: str, headers: _Headers, *, offers_extension: bool) -> None:
    if _tokens(headers, "upgrade") != ["websocket"]:
        raise _violated(url, "answer without Upgrade: websocket")
    if "upgrade" not in _tokens(headers, "connection"):
        raise _violated(url, "answer without Connection: Upgrade")
    accepts = len(headers.get("sec-websocket-accept", ()))
    if accepts != 1:
        raise _violated(url, f"answer with {accepts} Sec-WebSocket-Accept headers")
    if _tokens(headers, "sec-websocket-extensions") and not offers_extension:
        raise _violated(url, "extension that was not offered")
    if _tokens(headers, "sec-websocket-protocol"):
        raise _violated(url, "subprotocol that was not offered")
    # RFC 9112 section 6: an answer with this status has no body, whatever the headers say
    if "transfer-encoding" in headers or headers.get("content-length", ["0"]) != ["0"]:
        raise _violated(url, "body of an answer that switches protocols")


def _tokens(headers: _Headers, name: str) -> list[str]:
    """Return the members of a list that may be spread over several fields, in lower case."""
    members = (
        member.strip(" \t") for value in headers.get(name, ()) for member in value.split(",")
    )
    return [member.lower() for member in members if member]


def _shown(data: bytes) -> str:
    """Return the begin of some text as one line for a log."""
    text = data[: 4 * _TEXT_MAX].decode("utf-8", "replace")
    printable = "".join(mark if mark.isprintable() else " " for mark in text)
    return " ".join(printable.split())[:_TEXT_MAX]


def _violated(url: str, what: str) -> ProtocolViolated:
    return ProtocolViolated(url, _PROTOCOL_ERROR, f"in the handshake: {what}")
