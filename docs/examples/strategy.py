"""A strategy on trades and quotes: buy when buyers dominate, at the quote that was known then.

    python docs/examples/strategy.py localhost:9092

Trades and quotes come in one order of time, so each trade meets the quote before it.
"""

import sys

from ingestor.consumer import SyncConsumer
from ingestor.model.rows import Kind, Side

WINDOW_NS, DOMINANCE = 5_000_000_000, 0.8
SERVERS = sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"
TOPICS = ["md.trades.v1", "md.quotes.v1"]

asks: dict[str, float] = {}
flows: dict[str, tuple[int, float, float]] = {}  # beginning of the window, bought, sold
signals = trades = 0

with SyncConsumer(SERVERS, TOPICS, start="earliest", stop_at_end=True) as consumer:
    for batch in consumer:
        for row in batch.rows:
            instrument = batch.instruments[row["instrument"]]
            if row["kind"] == Kind.QUOTE:
                asks[instrument.key] = row["ask_price"] / 10**instrument.price_exponent
            elif row["kind"] == Kind.GAP:
                flows.pop(instrument.key, None)  # what was counted is not all
            elif row["kind"] == Kind.TRADE and instrument.key in asks:
                trades += 1
                now, size = int(row["ts_recv"]), row["size"] / 10**instrument.size_exponent
                begun, bought, sold = flows.get(instrument.key, (now, 0.0, 0.0))
                bought += size * (row["side"] == Side.BID)
                sold += size * (row["side"] == Side.ASK)
                if now - begun >= WINDOW_NS:
                    if bought > DOMINANCE * (bought + sold):
                        signals += 1
                        print(f"buy {instrument.symbol} at {asks[instrument.key]:g}")
                    begun, bought, sold = now, 0.0, 0.0
                flows[instrument.key] = (begun, bought, sold)

print(f"{signals} signals of {trades} trades, {consumer.consumer.late_rows} rows out of order")
