"""ingestor.sources.replay.survey: lists, and lines that are read but once."""

from __future__ import annotations

from pathlib import Path

from ingestor.recording.format import Connect, Http, Line, Recv, encode_lines
from ingestor.recording.reader import Problems, find_chains
from ingestor.sources.registry import adapter_of
from ingestor.sources.replay.survey import survey
from tests.feeds.fixtures import load

T0 = 1_790_000_000_000_000_000


def trade(symbol: str, number: int) -> str:
    time = T0 + number
    text = f'"ch":"trade","s":"{symbol}","t":{time},"i":{number},"p":"1.5","q":"0.5","m":"buy"'
    return f"{{{text}}}"


def test_only_the_instruments_that_have_data_are_taken_from_a_list(tmp_path: Path) -> None:
    adapter = adapter_of("simulated")
    (request,) = adapter.instrument_requests("spot")
    body = load(adapter, "spot").rest[0].decode()
    symbol = "S00001-USD"
    assert body.count('"symbol"') > 1
    lines: list[Line] = [
        Http(1, f"https://x.example{request.path}", data=body),
        Connect(2, 0, "wss://x.example"),
        *(Recv(3, 0, data=trade(name, 1)) for name in (symbol, "UNLISTED")),
    ]
    path = tmp_path / "some.jsonl"
    path.write_bytes(encode_lines(lines))
    (chain,) = find_chains([path], Problems())
    found = survey(chain, adapter, "spot")
    assert {*found.digits} == {("spot", symbol), ("spot", "UNLISTED")}
    assert {*found.listed} == {("spot", symbol)}
