"""How well confidences are calibrated."""

from __future__ import annotations

import numpy as np

BINS = 15


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """|accuracy - confidence| over bins of equal mass, weighted by their samples (JEI-DNN, arXiv 2310.09163, and its public code).

    confidence float [N]; correct bool or 0/1 [N]. Edges are percentiles of the confidences, a value on an edge belongs to the bin
    below it; equal values always share a bin. NaN when there are no samples.
    """
    if confidence.size == 0:
        return float("nan")
    edges = np.percentile(confidence, np.linspace(0, 100, bins + 1))
    place = np.searchsorted(edges[1:-1], confidence)
    gap = np.bincount(place, np.asarray(correct, float) - confidence, bins)
    return float(np.abs(gap).sum() / confidence.size)
