"""A monitor of spreads over venues: where could one buy below what another venue bids?

    python docs/examples/spread_monitor.py localhost:9092 BTC-USDT

It follows the quotes of one canonical symbol at every venue that has it.
"""

import asyncio
import sys

from ingestor.consumer import Consumer, read_metadata
from ingestor.model.rows import Kind

SERVERS = sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"
CANONICAL = sys.argv[2] if len(sys.argv) > 2 else "BTC-USDT"
LINES = int(sys.argv[3]) if len(sys.argv) > 3 else None


async def main() -> None:
    metadata = await read_metadata(SERVERS)
    keys = {key for key, one in metadata.items() if one.canonical == CANONICAL}
    print("venues:", ", ".join(sorted(metadata[key].venue for key in keys)))
    best: dict[str, tuple[float, float]] = {}
    lines = 0
    async with Consumer(SERVERS, "md.quotes.v1", start="earliest") as consumer:
        async for batch in consumer:
            for row in batch.rows:
                instrument = batch.instruments[row["instrument"]]
                if instrument.key not in keys:
                    continue
                if row["kind"] != Kind.QUOTE or not (row["bid_size"] and row["ask_size"]):
                    best.pop(instrument.key, None)  # a gap, or an empty side
                    continue
                scale = 10**instrument.price_exponent
                best[instrument.key] = row["bid_price"] / scale, row["ask_price"] / scale
                if len(best) < 2:
                    continue
                bid, sell_at = max((bid, key) for key, (bid, _) in best.items())
                ask, buy_at = min((ask, key) for key, (_, ask) in best.items())
                edge = (bid - ask) / ask * 10_000
                print(f"buy {buy_at} at {ask:g}, sell {sell_at} at {bid:g}: {edge:+.2f} bp")
                lines += 1
                if lines == LINES:
                    return


asyncio.run(main())
