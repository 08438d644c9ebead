"""Run the library over mutated frames and random rows, for a build with sanitizers."""

from __future__ import annotations

from random import Random

import numpy as np

from ingestor.adapter import CountsFrames
from ingestor.adapter.shapes import shapes_of
from ingestor.codec import headers
from ingestor.codec.json_batches import JsonBatches
from ingestor.codec.json_encoder import JsonEncoder
from ingestor.model.row_classes import STANDARD_CLASSES
from ingestor.native import FrameTaker, TakenRows, crc32c, native
from ingestor.sources.registry import adapter_of, registry
from tests.feeds.shape_frames import header, mixed, table_of
from tests.unit.codec.test_record_batches import MADE, check_cut, check_mutated
from tests.unit.native.rows import random_rows, random_table

FRAMES = 400  # of each market


def main() -> None:
    library = native().library
    assert library is not None
    random, taken = Random(5), 0
    for venue in registry().sources:
        for market in adapter_of(venue).markets:
            shapes = shapes_of(adapter_of(venue), market)
            if not shapes:
                continue
            table = table_of(venue, market)
            taker = FrameTaker(library, shapes, TakenRows(16, 16))  # which is often full
            taker.set_symbols(
                (one.symbol, number, one.price_exponent, one.size_exponent)
                for number, one in enumerate(table)
            )
            frames = mixed(shapes, FRAMES, random)
            adapters = [adapter_of(venue)(market, {}) for _ in frames if taker.is_counted]
            counters = [one for one in adapters if isinstance(one, CountsFrames)]
            for _ in taker.take_each(frames, range(len(frames)), 0, counters):
                pass
            data = b"".join(header(frame) for frame in frames if len(frame) < 1 << 16)
            for _ in range(FRAMES // 4):
                # A copy of its own: to read behind its end is an error that is found.
                cut = data[: random.randrange(len(data) + 1)]
                taker.take_read(cut, 0, 1 << 16, 1, 0)
                taker.rows.take_out()
            taken += taker.frames
    table, generator = random_table(), np.random.default_rng(6)
    codec = JsonEncoder(table, bytes(16))
    all_headers = {row_class: headers(row_class, "json") for row_class in STANDARD_CLASSES}
    batches = JsonBatches(library, codec, table, all_headers, 1 << 16)
    for turn in range(30):
        for row_class in STANDARD_CLASSES:
            rows = random_rows(row_class, table, generator, turn)
            for lz4 in (False, True):
                found = batches.write(row_class, rows, turn, 1 << 16, lz4=lz4)
                assert found is not None
                crc32c(found[0].data)
                crc32c(found[0].data, portable=True)
    for row_class in MADE:
        check_mutated(row_class, 100, 3)
        check_cut(row_class, Random(7))
    print(f"{taken} frames taken")


if __name__ == "__main__":
    main()
