from __future__ import annotations

from ingestor.sources.replay.digits import Digits
from ingestor.sources.replay.inferred import inferred


def test_an_inferred_instrument_has_room_for_its_digits() -> None:
    one = inferred("acme", "spot", "A", (Digits(2, 2, 5), Digits()))
    assert (one.key, one.tick_size, one.lot_size) == ("acme:spot:A", "0.01", "1")
    assert (one.price_exponent, one.size_exponent) == (2, 0)
    unseen = inferred("acme", "spot", "A", None)
    assert (unseen.price_exponent, unseen.size_exponent) == (8, 8)
