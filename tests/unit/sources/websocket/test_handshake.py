"""ingestor.sources.websocket.handshake; tests/network/test_protocol_violations.py uses sockets."""

from __future__ import annotations

from random import Random

import pytest

from ingestor.model.errors import HandshakeRejected, TransportError
from ingestor.model.retry_after import RETRY_AFTER_MAX_S
from ingestor.sources.websocket.handshake import HEAD_BYTES_MAX, answer_end, check_answer
from ingestor.sources.websocket.interface import ProtocolViolated

URL = "wss://venue.example/ws"
GOOD = (
    b"HTTP/1.1 101 Switching Protocols\r\nServer: x\r\nUpgrade: WebSocket\r\n"
    b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: abc=\r\n\r\n"
)
SHORT = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: abc=\r\n\r\n"
)


def check(head: bytes, body: bytes = b"", *, offers_extension: bool = False) -> bytes:
    return check_answer(URL, head, body, offers_extension=offers_extension)


def test_the_libraries_see_one_form() -> None:
    assert check(GOOD) == SHORT


def test_an_extension_passes_where_one_was_offered() -> None:
    head = GOOD.replace(b"Server: x", b"Sec-WebSocket-Extensions: permessage-deflate; a=1")
    assert b"sec-websocket-extensions: permessage-deflate; a=1\r\n" in check(
        head, offers_extension=True
    )
    with pytest.raises(ProtocolViolated, match="extension that was not offered"):
        check(head)


def test_the_end_of_a_head() -> None:
    for size in range(len(GOOD)):
        assert answer_end(URL, GOOD[:size]) == 0
    assert answer_end(URL, GOOD) == answer_end(URL, GOOD + b"frames\r\n\r\n") == len(GOOD)
    assert answer_end(URL, b"x" * (HEAD_BYTES_MAX - 1)) == 0
    with pytest.raises(ProtocolViolated):
        answer_end(URL, b"x" * HEAD_BYTES_MAX)


@pytest.mark.parametrize(
    ("field", "wait_s"),
    [
        (b"Retry-After: 7", 7.0),
        (b"retry-after:\t7 ", 7.0),
        (b"Retry-After: Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        (b"Retry-After: Sun, 06 Nov 1994 99:49:37 GMT", None),
        (b"Retry-After: " + b"9" * 400, RETRY_AFTER_MAX_S),
        (b"Retry-After: -7", None),
        (b"Retry-After: \xff", None),
        (b"X: y", None),
    ],
)
def test_retry_after(field: bytes, wait_s: float | None) -> None:
    with pytest.raises(HandshakeRejected) as caught:
        check(b"HTTP/1.1 520 x\r\n" + field + b"\r\n\r\n")
    assert (caught.value.status, caught.value.retry_after_s) == (520, wait_s)


def test_whatever_comes_is_an_answer_or_a_transport_error_of_one_line() -> None:
    """Spoiled answers: bytes changed, left out, doubled."""
    random = Random(20)
    refusals: list[str] = []
    for _ in range(20_000):
        head = bytearray(random.choice((GOOD, b"HTTP/1.1 429 No\r\nRetry-After: 1\r\n\r\n")))
        for _ in range(random.randrange(1, 5)):
            if not head:
                break
            at = random.randrange(len(head))
            match random.randrange(3):
                case 0:
                    head[at] = random.randrange(256)
                case 1:
                    del head[at : at + random.randrange(1, 20)]
                case _:
                    head[at:at] = head[at : at + random.randrange(1, 40)]
        try:
            assert check(bytes(head) + b"\r\n\r\n", random.randbytes(50)).endswith(b"\r\n\r\n")
        except TransportError as failure:
            refusals.append(str(failure))
    assert len(refusals) > 10_000
    assert all(text.isprintable() and len(text) < 300 for text in refusals)
