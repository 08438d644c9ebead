"""What the settings of derived rows mean."""

from __future__ import annotations

import pytest

from ingestor.derived.settings import DerivedSettings


@pytest.mark.parametrize(
    ("settings", "has_tops"),
    [
        (DerivedSettings(), False),
        (DerivedSettings(candle_intervals_ns=(1,)), False),
        (DerivedSettings(top_levels=1), True),
        (DerivedSettings(top_levels=1, top_classes=()), False),
    ],
)
def test_tops_need_levels_and_a_channel(settings: DerivedSettings, *, has_tops: bool) -> None:
    assert settings.has_tops is has_tops
