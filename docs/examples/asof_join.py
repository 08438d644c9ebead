"""Each trade beside the quote that was in force when it was received: an as-of join in Polars.

python docs/examples/asof_join.py kafka://localhost:9092/md.
"""

import sys

import polars as pl

from ingestor import history

SOURCE = sys.argv[1] if len(sys.argv) > 1 else "kafka://localhost:9092/md."

topics = history.open(SOURCE, kinds=["trades", "quotes"])
trades = topics.to_polars("trades", prices="float").sort("ts_recv")
quotes = topics.to_polars("quotes", prices="float").sort("ts_recv")
joined = trades.join_asof(
    quotes.select("instrument", "ts_recv", "bid_price", "ask_price"),
    on="ts_recv",
    by="instrument",
    check_sortedness=False,  # both are sorted above
).drop_nulls("bid_price")
effective = joined.select(
    "symbol",
    half_spread=(pl.col("ask_price") - pl.col("bid_price")) / 2,
    paid=(pl.col("price") - (pl.col("ask_price") + pl.col("bid_price")) / 2).abs(),
)
print(effective.group_by("symbol").mean().sort("symbol"))
print(f"{len(joined)} of {len(trades)} trades have a quote before them")
