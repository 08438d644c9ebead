from __future__ import annotations

from pathlib import Path

import pytest

from ingestor.model.rows import Cause
from ingestor.recording.format import (
    HOUR_NS,
    Decided,
    Header,
    Http,
    Line,
    Open,
    Recv,
    Send,
    cause_of,
    encode_lines,
    lost_line,
    parse_line,
    parse_lines,
    text_or_bytes,
)
from ingestor.recording.layout import (
    Index,
    Indexed,
    SegmentName,
    encode_index,
    finished_path,
    parse_index,
    parse_segment_path,
    segment_path,
)

T0 = 1_790_000_000_000_000_000


def test_lines_are_those_of_the_captures() -> None:
    text = encode_lines([Recv(T0, 7, '{"a":"\\u00e9"}', None, 3), Send(T0, 7, None, b"\xff", 4)])
    assert text == (
        b'{"t":"recv","ts_ns":1790000000000000000,"conn":7,"data":"{\\"a\\":\\"\\\\u00e9\\"}","n":3}\n'
        b'{"t":"send","ts_ns":1790000000000000000,"conn":7,"b64":"/w==","n":4}\n'
    )


def test_lines_of_others_need_few_fields() -> None:
    lines = parse_lines(
        b'{"t":"header","venue":"ACME","channels":{"trades":["A"]}}\n'
        b'{"t":"http","ts_ns":1,"conn":"A.http.0","url":"https://x","data":"{}"}\n'
        b'{"t":"send","ts_ns":2,"conn":"A.ws","url":"wss://x","data":"hi"}\n'
        b'{"t":"recv","ts_ns":3,"conn":"A.ws","b64":"AAE="}\n'
    )
    header, http, send, recv = lines
    assert isinstance(header, Header)
    assert (header.format, header.n, header.channels) == (0, -1, {"trades": ["A"]})
    assert isinstance(http, Http)
    assert http.payload == b"{}"
    assert isinstance(send, Send)
    assert isinstance(recv, Recv)
    assert (send.payload, recv.payload, recv.conn) == (b"hi", b"\x00\x01", "A.ws")
    assert Http(1, "https://x").payload == Recv(1, 1).payload == b""


def test_every_line_survives_a_round_trip() -> None:
    lines: list[Line] = [
        Header("acme", 1, "s", T0, 5, [{"symbol": "A"}], [Open(1, "spot", "u", [("A", "t", "s")])]),
        Http(T0, "https://x", None, b"\xfe", 3, "acme", "spot", 6),
        lost_line(3, T0, 9, lines=2, size=40, from_ns=T0 - 5),
    ]
    assert parse_lines(encode_lines(lines)) == lines
    assert [parse_line(text) for text in encode_lines(lines).splitlines()] == lines


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"ts_ns":1}',
        b'{"t":"candle","ts_ns":1}',
        b'{"t":"recv","conn":1,"data":"x"}',
        b'{"t":"recv","ts_ns":"1","conn":1,"data":"x"}',
        b'{"t":"recv","ts_ns":1,"conn":1,"b64":"***"}',
        b'{"t":"recv","ts_ns":1,"conn":1,"data":"\xff"}',
    ],
)
def test_what_is_no_line_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_line(text)
    if text:
        with pytest.raises(ValueError, match=r"\S"):
            parse_lines(text)


def test_payloads_that_are_no_text_are_bytes() -> None:
    assert text_or_bytes(b"caf\xc3\xa9") == ("café", None)
    assert text_or_bytes(b"\xc3") == (None, b"\xc3")


@pytest.mark.parametrize(
    ("decision", "cause"),
    [
        ({"action": "invalidate", "cause": "shed", "key": "a:b:c"}, Cause.SHED),
        ({"action": "invalidate", "cause": "stale"}, Cause.STALE),
        ({"action": "invalidate", "cause": "CROSSED"}, Cause.CROSSED),
        ({"action": "invalidate"}, Cause.STALE),
        ({"action": "pause"}, None),
        ({}, None),
    ],
)
def test_decisions_that_invalidate(decision: dict[str, str], cause: Cause | None) -> None:
    assert cause_of(decision) is cause


def test_segments_lie_by_venue_and_hour(tmp_path: Path) -> None:
    path = segment_path(tmp_path, "acme", T0, "run-1", 42)
    assert str(path.relative_to(tmp_path)) == (
        "raw/venue=acme/date=2026-09-21/hour=14/run-1-000000000042.jsonl.zst"
    )
    hour = T0 // HOUR_NS
    assert parse_segment_path(path) == SegmentName("run-1", 42, "acme", hour, True)
    unfinished = path.with_name(path.name + ".inprogress")
    assert parse_segment_path(unfinished) == SegmentName("run-1", 42, "acme", hour, False)
    assert finished_path(unfinished) == finished_path(path) == path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("okx.jsonl.zst", None),
        ("s-12.jsonl.zst", None),
        ("-000000000001.jsonl.zst", None),
        ("s-000000000001.jsonl.zst", SegmentName("s", 1, "", -1, True)),
        ("venue=a/hour=25/date=x/s-000000000001.jsonl.zst", SegmentName("s", 1, "a", -1, True)),
    ],
)
def test_names_of_other_files(text: str, expected: SegmentName | None) -> None:
    assert parse_segment_path(Path(text)) == expected


def test_an_index_finds_where_to_start() -> None:
    index = Index([Indexed(10, 0, 0, 0), Indexed(20, 5, 70, 900), Indexed(30, 9, 150, 1_800)], 200)
    assert parse_index(encode_index(index)) == index
    assert index.before(10) is None
    assert index.before(20) == index.frames[0]
    assert index.before(21) == index.before(30) == index.frames[1]
    assert index.before(99) == index.frames[2]
    with pytest.raises(ValueError, match=r"\S"):
        parse_index(b"{}nonsense")


def test_a_decision_keeps_what_it_says() -> None:
    line = parse_line(b'{"t":"decided","ts_ns":1,"decision":{"action":"x","more":[1]}}')
    assert line == Decided(1, {"action": "x", "more": [1]})
