from __future__ import annotations

from ingestor.sources.registry import adapter_of
from ingestor.sources.replay.digits import Digits
from ingestor.sources.replay.survey import Finder, Probe, inferred


def test_an_inferred_instrument_has_room_for_its_digits() -> None:
    one = inferred("acme", "spot", "A", (Digits(2, 2, 5), Digits()))
    assert (one.key, one.tick_size, one.lot_size) == ("acme:spot:A", "0.01", "1")
    assert (one.price_exponent, one.size_exponent) == (2, 0)
    unseen = inferred("acme", "spot", "A", None)
    assert (unseen.price_exponent, unseen.size_exponent) == (8, 8)


def test_a_finder_knows_every_symbol() -> None:
    finder = Finder()
    assert (finder["A"], finder.get("B"), finder["A"]) == (0, 1, 0)
    assert "C" in finder
    assert 3 not in finder  # type: ignore[comparison-overlap]
    assert list(finder) == ["A", "B"]


FRAMES = {
    "trades": b'{"ch":"trade","s":"A","t":1,"i":5,"p":"100.010","q":"0.5","m":"buy"}',
    "quotes": b'{"ch":"quote","s":"B","t":1,"u":9,"b":["7","1"],"a":["100.1234","2.25"]}',
    "book": b'{"ch":"snapshot","s":"A","t":1,"u":9,"b":[["9.0","1"]],"a":[["100.01","2.125"]]}',
}


def test_a_probe_sees_channels_and_digits() -> None:
    finder, probe = Finder(), Probe()
    adapter = adapter_of("simulated")("spot", finder)
    for channel, frame in FRAMES.items():
        probe.begin(None, b"")  # type: ignore[arg-type]
        adapter.decode(frame, 1, probe)
        probe.settle()
        ((number, seen),) = probe.channels
        assert (list(finder)[number], seen) == ("B" if channel == "quotes" else "A", channel)
        probe.channels.clear()
    probe.read()
    exponents = {
        symbol: (probe.prices[number].exponent, probe.sizes[number].exponent)
        for symbol, number in finder.items()
    }
    assert exponents == {"A": (3, 3), "B": (4, 2)}
    assert probe.rows == 0


def test_a_probe_sees_levels_that_are_json() -> None:
    probe = Probe()
    probe.begin(None, b"")  # type: ignore[arg-type]
    assert probe.json_levels(3, 1, 1, 1, 1, b'[["1.25","0.5"]]', b"[]")
    probe.read()
    assert list(probe.channels) == [(3, "book")]
    assert (probe.prices[3].exponent, probe.sizes[3].exponent) == (2, 1)
