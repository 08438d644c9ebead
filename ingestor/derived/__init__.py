"""Makes rows of other rows: candles of trades, and the tops of books at fixed times."""
