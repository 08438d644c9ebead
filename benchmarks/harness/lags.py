"""Percentiles of lags, by their names."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

PERCENTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0)


def percentiles_ms(lags_ns: ArrayLike) -> dict[str, float]:
    """Return {"p50": ms, ..., "p100": ms} of lags in ns; {} of none."""
    held = np.asarray(lags_ns, np.int64)
    if not len(held):
        return {}
    values = np.percentile(held, PERCENTILES) / 1e6
    return {
        f"p{percentile:g}": round(float(value), 3)
        for percentile, value in zip(PERCENTILES, values, strict=True)
    }
