"""Temperature scaling: one temperature for each exit, fitted on the calibration split (Guo et al., arXiv 1706.04599, section 4.2)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from eesim.errors import BadInput
from eesim.trace.view import TraceView

RANGE = (0.05, 20.0)
"""Temperatures that are looked at."""


def fitted_temperatures(view: TraceView) -> tuple[float, ...]:
    """For each enabled exit the temperature with the least negative log-likelihood of the labels. Raises BadInput without labels."""
    known = view.label >= 0
    if not known.any():
        raise BadInput("the calibration split has no labels to fit temperatures to", field="temperature")
    return tuple(_temperature(logits[known].astype(np.float64), view.label[known]) for logits in view.logits)


def _temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The loss is convex in 1/T; searched over log T, rounded to six digits."""
    true = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float((logsumexp(logits * scale, axis=1) - true * scale).mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(RANGE)), method="bounded", options={"xatol": 1e-6})
    return round(float(np.exp(found.x)), 6)
