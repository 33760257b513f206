"""Axes that panels share, so that devices can be compared by eye."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

WIDE = 4.0
"""Costs that differ by more than this factor get a logarithmic axis, in every panel of the figure."""
NEAR = 0.35
"""A bound this far beyond the others, in shares of their range, is drawn in its place; beyond that it is named at the edge."""


def share_costs(axes, costs: np.ndarray) -> None:
    """One horizontal scale for all panels: logarithmic where costs differ much and none is zero, else from zero."""
    low, high = float(costs.min()), float(costs.max())
    if low > 0 and high > WIDE * low:
        margin = (high / low) ** 0.05
        for panel in axes:
            panel.set_xscale("log")
            panel.set_xlim(low / margin, high * margin)
            panel.xaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 700 * low else (1,), numticks=12))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
    else:
        for panel in axes:
            panel.set_xlim(0, high * 1.06 if high > 0 else 1)
            panel.xaxis.set_major_locator(MaxNLocator(5))


def value_range(values: np.ndarray, above: float | None, below: float | None) -> tuple[float, float]:
    """Lower and upper limit for values, with a strip for what is named at an edge because it lies far beyond.

    above, below : the highest oracle and the lowest constant answer, None where there is none.
    """
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.004)
    if above is not None and high < above <= high + NEAR * span:
        high = above
    if below is not None and low - NEAR * span <= below < low:
        low = below
    strip_above = 0.22 if above is not None and above > high else 0.07
    strip_below = 0.16 if below is not None and below < low else 0.07
    return low - strip_below * span, high + strip_above * span
