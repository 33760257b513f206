"""What DART looks at: the difficulty of an input, the confidence of an exit, and how the one should move the bar for the other."""

from __future__ import annotations

from math import prod

import numpy as np

from eesim.errors import BadInput
from eesim.mechanisms.base import Work
from eesim.trace.view import TraceView, score_answers

EDGES = {"density": "edge", "sobel-mean": "sobel_mean"}
"""Forms of the edge component: the paper's share of pixels above tau_edge, and the mean gradient of the authors' code."""
CONFIDENCES = ("max-softmax", "combined", "fallback")
FLOPS_PER_PIXEL = 77
"""78.9 kFLOP for 32 x 32 pixels (arXiv 2603.12269)."""
PASSES = 6
"""Over the image: grey values, two Sobel responses, their magnitude against tau_edge, the Laplacian, the variance."""


def difficulty(view: TraceView, edge: str = "density", weights: tuple[float, float, float] = (0.4, 0.3, 0.3)) -> np.ndarray:
    """alpha of each sample, float64 [N] in [0, 1]: the weighted sum of edge, variance and gradient (arXiv 2603.12269, Eq. 8).

    Components are those recorded, clipped to [0, 1] sample by sample; so is the sum, where weights add up to more than 1.
    Raises BadInput where the trace has none.
    """
    names = (EDGES[edge], "variance", "gradient")
    missing = [f"difficulty_{name}" for name in names if name not in view.difficulty]
    if missing:
        how = "record it with `eesim trace record`, which writes them, or set beta_diff=0 to do without difficulty"
        raise BadInput(f"the trace of '{view.trace.header.network}' has no column {', '.join(missing)}, which dart needs; {how}", field="beta_diff")
    parts = [weight * np.clip(view.difficulty[name].astype(np.float64), 0, 1) for weight, name in zip(weights, names, strict=True)]
    return np.clip(parts[0] + parts[1] + parts[2], 0, 1)


def confidence(view: TraceView, kind: str) -> np.ndarray:
    """What the rule compares, float64 [N, E]: p1; or 0.6 p1 + 0.4 (1 - H/ln K); or 0.4 (1 - H/ln K) + 0.4 p1 + 0.2 (p1 - p2)."""
    if kind == "max-softmax":
        return view.confidence
    certainty = 1 - view.entropy / np.log(max(view.classes, 2))
    if kind == "combined":
        return 0.6 * view.confidence + 0.4 * certainty
    return 0.4 * certainty + 0.4 * view.confidence + 0.2 * view.margin


def fitted_sign(view: TraceView, confident: np.ndarray, alpha: np.ndarray) -> int:
    """1 where harder inputs are less often right than their confidence says, -1 where more often; from the labels of a calibration view.

    The sign of the covariance of alpha and "right" once a straight line in the confidence is taken out of alpha, summed over all
    exits but the last. That is what the bar should follow: whether, at equal confidence, difficulty makes an answer worth less.
    1 where there is nothing to tell by.
    """
    right = score_answers(view.answers, view.label[:, None])[:, :-1]
    rows = (right[:, 0] >= 0) if right.shape[1] else np.zeros(len(view), bool)
    if not rows.any():
        return 1
    slope = 0.0
    for exit in range(right.shape[1]):
        known = np.stack([np.ones(rows.sum()), confident[rows, exit]], axis=1)
        other = alpha[rows] - known @ np.linalg.lstsq(known, alpha[rows], rcond=None)[0]
        slope += float(other @ right[rows, exit])
    return -1 if slope > 0 else 1


def estimator_work(input_shape: tuple[int, ...]) -> Work:
    """The estimator's own computing for one input, whose shape has the batch of 1 in front.

    Images: the published 77 operations a pixel, priced as six element-wise passes over the grey image (its stencils hold
    27 weights, which no layer that is priced by weights would describe). Signals of C channels: 5 C + 9 operations a
    position, counted from `eesim.recorder.difficulty`.
    """
    channels, *sides = input_shape[1:] if len(input_shape) > 2 else (1, *input_shape[1:])
    if len(sides) > 2:
        channels, sides = channels * prod(sides[:-2]), sides[-2:]
    size = prod(sides)
    if len(sides) == 2 and 1 not in sides:
        return Work("elementwise", PASSES * size, FLOPS_PER_PIXEL * size)
    return Work("elementwise", (2 * channels + 2) * size, (5 * channels + 9) * size)
