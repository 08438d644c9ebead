"""cryptofeed on a served OKX recording: instrument lists, trades, a book with its checksums."""

import asyncio
import json
import sys
from typing import Any

from cryptofeed import FeedHandler
from cryptofeed.defines import L2_BOOK, TRADES
from cryptofeed.exchanges import OKX

url, rest_url = sys.argv[1:]
OKX.websocket_endpoints = OKX.websocket_endpoints[:1]
OKX.websocket_endpoints[0].address = f"{url}/ws/v5/public"
OKX.rest_endpoints[0].address = rest_url
got = {"trades": 0, "books": 0}


def note(kind: str) -> None:
    got[kind] += 1
    if min(got.values()) >= 5:
        asyncio.get_running_loop().stop()


async def trade(_trade: Any, _received: float) -> None:
    note("trades")


async def book(changed: Any, _received: float) -> None:
    got["bids"] = len(changed.book.bids)
    note("books")


handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": False})
callbacks = {TRADES: trade, L2_BOOK: book}
handler.add_feed(OKX(symbols=["BTC-USDT"], channels=[TRADES, L2_BOOK], callbacks=callbacks))
handler.run(install_signal_handlers=False)
print(json.dumps(got))
