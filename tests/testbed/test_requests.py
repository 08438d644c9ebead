"""What clients may ask, well and badly, and how each venue answers; our adapters read it too."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingestor.adapter import Ack, Notice, Refused
from ingestor.columns.buffer import ColumnBuffer
from ingestor.testbed.emulator.server import VenueEmulator
from tests.testbed.made import ALL, peer
from tests.testbed.test_rest import ADAPTERS

# venue -> request, what the answer must contain
CASES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "binance": [
        ("{", {"error": {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}}),
        ('{"method":"SUBSCRIBE","params":"x","id":4}', {"id": 4}),
        ('{"method":"SUBSCRIBE","params":[],"id":1.5}', {"id": None}),
        ('{"method":"SUBSCRIBE","params":["nosuch@trade"],"id":5}', {"result": None, "id": 5}),
        ('{"method":"LIST_SUBSCRIPTIONS","id":6}', {"result": ["nosuch@trade"], "id": 6}),
        ('{"method":"UNSUBSCRIBE","params":["nosuch@trade"],"id":7}', {"result": None, "id": 7}),
        ('{"method":"LIST_SUBSCRIPTIONS","id":8}', {"result": [], "id": 8}),
        ('{"method":"TELEPORT","id":9}', {"id": 9}),
    ],
    "coinbase": [
        ("nonsense", {"type": "error"}),
        ('{"type":"subscribe","channel":"level9","product_ids":[]}', {"type": "error"}),
        (
            '{"type":"subscribe","channel":"heartbeats"}',
            {"channel": "subscriptions", "sequence_num": 0},
        ),
        (
            '{"type":"unsubscribe","channel":"heartbeats"}',
            {"sequence_num": 1, "events": [{"subscriptions": {}}]},
        ),
    ],
    "kraken": [
        ("[]", {"error": "Malformed request", "success": False}),
        ('{"method":"ping","req_id":101}', {"method": "pong", "req_id": 101}),
        ('{"method":"teleport"}', {"success": False}),
        ('{"method":"subscribe","params":{"channel":"book"}}', {"success": False}),
        (
            (
                '{"method":"subscribe","params":{"channel":"book","depth":10,"symbol":["NO/PE"]},'
                '"req_id":3}'
            ),
            {"success": False, "error": "Currency pair not supported NO/PE", "req_id": 3},
        ),
        (
            '{"method":"unsubscribe","params":{"channel":"book","symbol":["MATIC/USD"]}}',
            {"success": False, "error": "Subscription Not Found"},
        ),
    ],
    "bybit": [
        ("{}", {"success": False}),
        ('{"req_id":"p","op":"ping"}', {"ret_msg": "pong", "op": "ping", "req_id": "p"}),
        (
            '{"req_id":"q","op":"subscribe","args":["orderbook.50.NOPE"]}',
            {
                "success": False,
                "ret_msg": "error:handler not found,topic:orderbook.50.NOPE",
                "op": "subscribe",
                "req_id": "q",
            },
        ),
        ('{"op":"unsubscribe","args":["publicTrade.BTCUSDT"]}', {"success": True}),
    ],
    "okx": [
        ("{", {"event": "error", "code": "60012"}),
        ('{"op":"subscribe","args":["x"]}', {"event": "error", "code": "60012"}),
        (
            '{"op":"subscribe","args":[{"channel":"trades","instId":"NO-PE"}]}',
            {"event": "error", "code": "60018"},
        ),
        (
            '{"op":"unsubscribe","args":[{"channel":"trades","instId":"BTC-USDT"}]}',
            {"event": "unsubscribe", "arg": {"channel": "trades", "instId": "BTC-USDT"}},
        ),
    ],
}


@pytest.mark.parametrize("venue", CASES)
async def test_answers(venue: str, tmp_path: Path) -> None:
    made = ALL[venue]
    async with (
        VenueEmulator([made.write(tmp_path)], start_when="manual") as emulator,
        peer(emulator.ws_url + made.path) as one,
    ):
        await one.until(1 if venue == "kraken" else 0)
        for request, expected in CASES[venue]:
            (text,) = await one.ask(request)
            answer = json.loads(text)
            found = {key: answer.get(key) for key in expected}
            if "msg" not in (expected.get("error") or ()):
                answer.pop("error", None)
            assert found == expected, request


async def test_okx_speaks_bare_text(tmp_path: Path) -> None:
    made = ALL["okx"]
    async with VenueEmulator([made.write(tmp_path)]) as emulator, peer(emulator.ws_url) as one:
        assert await one.ask("ping") == ["pong"]


@pytest.mark.parametrize("venue", ALL)
async def test_our_adapters_understand_acks_and_refusals(venue: str, tmp_path: Path) -> None:
    """Subscribing as the adapter does: every stream is confirmed, an unknown one refused."""
    made = ALL[venue]
    adapter = ADAPTERS[venue](made.market, {})
    symbol = next(one for one in json.loads(made.requests[0] and json.dumps([_symbol(venue)])))
    streams = [adapter.stream(channel, symbol) for channel in ("trades", "book")]
    unknown = adapter.stream("trades", "NOSUCH")
    async with (
        VenueEmulator([made.write(tmp_path)], start_when="manual") as emulator,
        peer(emulator.ws_url + made.path) as one,
    ):
        sent = [*adapter.subscribe(streams), *adapter.subscribe([unknown])]
        for frame in sent:
            await one.socket.send(frame.decode())
        confirmed: set[str] = set()
        refused: set[str] = set()
        out = ColumnBuffer()
        heard = 0
        while not (confirmed >= set(streams) and (refused or unknown in confirmed)):
            text = (await one.until(heard + 1))[heard]
            heard += 1
            match adapter.decode(text.encode(), 1, out):
                case Ack(acked):
                    confirmed.update(acked)
                case Refused(_, named):
                    refused.update(named)
                case other:
                    assert isinstance(other, Notice)
    if venue == "binance":
        assert not refused  # as the venue: unknown symbols are acknowledged like others
    else:
        assert refused == {unknown}
        assert emulator.statistics.refused >= (0 if venue == "bybit" else 1)
    assert out.is_empty


def _symbol(venue: str) -> str:
    return {
        "binance": "BNBBTC",
        "bybit": "BTCUSDT",
        "coinbase": "BTC-USD",
        "kraken": "MATIC/USD",
        "okx": "BTC-USDT",
    }[venue]


async def test_heartbeats_are_made_for_who_is_quiet(tmp_path: Path) -> None:
    kraken = ALL["kraken"]
    async with (
        VenueEmulator([kraken.write(tmp_path)], start_when="manual") as emulator,
        peer(emulator.ws_url + "/v2") as one,
    ):
        await one.socket.send(kraken.requests[0])
        assert json.loads((await one.until(3))[2]) == {"channel": "heartbeat"}
    coinbase = ALL["coinbase"]
    async with (
        VenueEmulator([coinbase.write(tmp_path)], start_when="manual") as emulator,
        peer(emulator.ws_url) as one,
    ):
        await one.ask('{"type":"subscribe","channel":"heartbeats"}')
        beat = json.loads((await one.until(2))[1])
        assert (beat["channel"], beat["sequence_num"]) == ("heartbeats", 1)
