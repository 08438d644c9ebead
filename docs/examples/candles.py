"""Candles of every instrument, from the trades of a topic or a recording, to Parquet.

python docs/examples/candles.py kafka://localhost:9092/md. candles.parquet 1s
"""

import sys

import polars as pl

from ingestor import history

SOURCE = sys.argv[1] if len(sys.argv) > 1 else "kafka://localhost:9092/md."
TARGET = sys.argv[2] if len(sys.argv) > 2 else "candles.parquet"
EVERY = sys.argv[3] if len(sys.argv) > 3 else "1m"

trades = history.open(SOURCE, kinds="trades").to_polars()
candles = (
    trades.sort("ts_event", maintain_order=True)
    .group_by_dynamic("ts_event", every=EVERY, group_by=["venue", "symbol"])
    .agg(
        open=pl.col("price").first(),
        high=pl.col("price").max(),
        low=pl.col("price").min(),
        close=pl.col("price").last(),
        volume=pl.col("size").sum(),
        trades=pl.len(),
    )
)
candles.write_parquet(TARGET)
print(f"{len(candles)} candles of {len(trades)} trades in {TARGET}")
