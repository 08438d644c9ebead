"""python-binance on a served Binance spot recording: ping, lists, the book by REST, streams."""

import asyncio
import json
import sys

from binance import AsyncClient, BinanceSocketManager


async def main(url: str, rest_url: str) -> None:
    AsyncClient.API_URL = f"{rest_url}/api"
    client = await AsyncClient.create()
    client.API_URL = f"{rest_url}/api"
    got = {"trade": 0, "depthUpdate": 0}
    try:
        listed = await client.get_exchange_info()
        depth = await client.get_order_book(symbol="BTCUSDT", limit=100)
        sockets = BinanceSocketManager(client)
        sockets.STREAM_URL = f"{url}/"
        async with sockets.multiplex_socket(["btcusdt@trade", "btcusdt@depth@100ms"]) as socket:
            while min(got.values()) < 5:
                got[(await socket.recv())["data"]["e"]] += 1
    finally:
        await client.close_connection()
    symbols = [one["symbol"] for one in listed["symbols"]]
    print(json.dumps({"symbols": symbols, "bids": len(depth["bids"]), **got}))


asyncio.run(main(*sys.argv[1:]))
