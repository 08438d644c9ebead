"""ccxt on a served Binance spot recording: markets, time, trades, the book."""

import asyncio
import json
import os
import sys

import ccxt.pro

SYMBOL = "BTC/USDT"


async def main(url: str, rest_url: str) -> None:
    options = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False}
    exchange = ccxt.pro.binance({"cafile": os.environ["SSL_CERT_FILE"], "options": options})
    exchange.urls["api"]["public"] = f"{rest_url}/api/v3"
    exchange.urls["api"]["ws"]["spot"] = f"{url}/ws"
    try:
        markets = await exchange.load_markets()
        await exchange.fetch_time()
        trades, updates = 0, 0
        while min(trades, updates) < 5:
            book = await exchange.watch_order_book(SYMBOL)
            trades += len(await exchange.watch_trades(SYMBOL))
            updates += 1
    finally:
        await exchange.close()
    types = {symbol: market["type"] for symbol, market in markets.items()}
    print(json.dumps({"types": types, "trades": trades, "bids": len(book["bids"])}))


asyncio.run(main(*sys.argv[1:]))
