from __future__ import annotations

from feeds.binance import adapter as Binance
from feeds.bybit import adapter as Bybit
from feeds.okx import adapter as Okx
from ingestor.adapter.addresses import markets_at


def test_what_addresses_say() -> None:
    assert markets_at(Binance, "wss://fstream.binance.com/stream?streams=x@depth") == ["usdm"]
    assert markets_at(Binance, "https://api.binance.com/api/v3/depth?symbol=X") == ["spot"]
    assert markets_at(Bybit, "wss://stream.bybit.com/v5/public/inverse/") == ["inverse"]
    assert markets_at(Bybit, "wss://stream.bybit.com/v9") == ["spot", "linear", "inverse"]
    assert markets_at(Bybit, "wss://stream.bybit.eu/v5/public/linear") == ["linear"]
    assert "swap" in markets_at(Okx, "wss://wseea.okx.com:8443/ws/v5/public")
    assert markets_at(Okx, "wss://stream.binance.com/ws") == markets_at(Okx, "/depth") == []
