"""From a running demo to a frame, a join and a live book.

make run          # in another terminal; it prints the broker's address
python docs/examples/quant.py localhost:9092
"""

import sys

from ingestor import history
from ingestor.consumer import SyncLiveBooks

SERVERS = sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"

topics = history.open(f"kafka://{SERVERS}/md.", kinds=["trades", "quotes"])
trades = topics.to_polars("trades", prices="float").sort("ts_recv")
quotes = topics.to_polars("quotes", prices="float").sort("ts_recv")
print(trades.select("ts_recv", "symbol", "side", "price", "size").tail(3))

before = quotes.select("instrument", "ts_recv", "bid_price", "ask_price")
joined = trades.join_asof(before, on="ts_recv", by="instrument", check_sortedness=False)
print(joined.select("ts_recv", "symbol", "price", "bid_price", "ask_price").tail(3))

with SyncLiveBooks(SERVERS) as books:
    for key, book in list(books.items())[:3]:
        print(key, book.best(), book.spread())
