"""pybit on a served Bybit recording: time, list, the book by REST, streams."""

import json
import os
import sys
import threading

import pybit.unified_trading
from pybit.unified_trading import HTTP, WebSocket

PATIENCE_S = 30.0
url, rest_url = sys.argv[1:]
http = HTTP()
http.endpoint = rest_url
http.client.verify = os.environ["SSL_CERT_FILE"]
http.get_server_time()
listed = http.get_instruments_info(category="linear")["result"]["list"]
got = {"orderbook": 0, "trade": 0}
enough = threading.Event()


def note(kind: str) -> None:
    got[kind] += 1
    if min(got.values()) >= 5:
        enough.set()


pybit.unified_trading.PUBLIC_WSS = f"{url}/v5/public/{{CHANNEL_TYPE}}"
socket = WebSocket(testnet=False, channel_type="linear")
socket.orderbook_stream(200, "BTCUSDT", lambda message: note("orderbook"))
socket.trade_stream("BTCUSDT", lambda message: note("trade"))
enough.wait(PATIENCE_S)
book = http.get_orderbook(category="linear", symbol="BTCUSDT", limit=50)["result"]
symbols = [one["symbol"] for one in listed]
print(json.dumps({"has": "BTCUSDT" in symbols, "bids": len(book["b"]), **got}))
socket.exit()
