"""What a template of each class has; tests/unit/native/test_records.py compares the bytes."""

from __future__ import annotations

import numpy as np
import pytest

from ingestor.codec import decode, encoder, headers
from ingestor.codec.json_batches import JsonBatches
from ingestor.codec.json_encoder import JsonEncoder
from ingestor.model.row_classes import RowClass
from ingestor.native import native
from tests.fakes.rows import table_of, trades


def test_a_record_is_read_back_as_its_row() -> None:
    library = native().library
    if library is None:
        pytest.skip(native().reason)
    table = table_of(1)
    codec = encoder("json", table, bytes(16))
    assert isinstance(codec, JsonEncoder)
    all_headers = {RowClass.TRADE: headers(RowClass.TRADE, "json")}
    batches = JsonBatches(library, codec, table, all_headers, 1 << 16)
    rows = trades(3, instruments=1)
    found = batches.write(RowClass.TRADE, rows, 5, 1 << 16, lz4=False)
    assert found is not None
    written, starts = found
    assert starts.tolist() == [0, 1, 2, 3]
    first = written.data.index(b"{")
    value = written.data[first : written.data.index(b"}") + 1]
    assert decode(value).first_sequence == 5
    assert np.array_equal(decode(value).batch.rows["price"], rows["price"][:1])
