"""Fitting EENet's exit scores and exit distribution; see `eenet.py` for what is minimised."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np

from eesim.mechanisms._fitting import Model
from eesim.mechanisms._logistic import minimum
from eesim.mechanisms._losses import budget_loss, cut_cross_entropy, exit_distribution
from eesim.trace.view import TraceView

EDGE = 0.01
"""Where the cross-entropy of a score goes on as a straight line: near enough to 0 and 1 on its wrong side."""
ROWS = 500
"""Samples, evenly spaced, that the exit distribution is fitted to; its mean over all is what counts."""
SCORE_STEPS, REFINING_STEPS, SHARE_STEPS = 50, 15, 40


def fit(view: TraceView, budget: float, costs: tuple[float, ...], settings: tuple[float, ...]) -> Model:
    """Score weights [E, K + 2 + E], parameters of the distribution [P], and the sizes of its hidden layers [E]."""
    alpha_ce, alpha_cost, beta, ratio, sharpness = settings
    known = view.label >= 0
    seen, right = inputs(view)[known], (view.correct[known] == 1).astype(np.float64)
    begin = begun(view, start_scores)
    past = np.clip(scores_of(begin, seen), 0, 1)
    whole, widths = with_past(seen, past)
    hidden = np.maximum((widths * ratio).astype(np.int64), 1)
    rows = np.linspace(0, len(right) - 1, min(ROWS, len(right))).round().astype(int)
    wanted = past[rows] ** beta + 1e-9
    wanted /= wanted.sum(axis=1, keepdims=True)
    part, prices = np.ascontiguousarray(whole[:, rows]), np.asarray(costs)
    networks = minimum(
        lambda place: budget_loss(place, part, widths, hidden, sharpness, wanted, prices, budget, alpha_ce, alpha_cost),
        _start(widths, hidden), SHARE_STEPS,
    )  # fmt: skip
    shares, _, _ = exit_distribution(networks, whole, widths, hidden, sharpness)
    weights = fitted_scores(seen, right, shares / shares.sum(axis=0), begin, REFINING_STEPS)
    return {"weights": weights, "networks": networks, "hidden": hidden, "sharpness": np.array(sharpness)}


def start_scores(view: TraceView) -> np.ndarray:
    """Score weights where every sample counts alike: the same for every budget."""
    known = view.label >= 0
    right = (view.correct[known] == 1).astype(np.float64)
    return fitted_scores(inputs(view)[known], right, np.full(right.shape, 1 / len(right)), None, SCORE_STEPS)


class _Begun:
    """Remembers `start_scores` of the calibration split and its folds while the split is in memory.

    An object that is called, not a dictionary: what models are kept under on disk includes the globals that a fit reads.
    """

    def __init__(self):
        self.kept: WeakKeyDictionary[TraceView, dict[bytes, np.ndarray]] = WeakKeyDictionary()

    def __call__(self, view: TraceView, make: Callable[[TraceView], np.ndarray]) -> np.ndarray:
        known = self.kept.setdefault(view.calibration, {})
        rows = view.rows.tobytes()
        if rows not in known:
            known[rows] = make(view)
        return known[rows]


begun = _Begun()


def applied(model: Model, view: TraceView) -> tuple[np.ndarray, np.ndarray]:
    """Scores q and the exit distribution, float64 [N, E] each."""
    seen = inputs(view)
    scores = scores_of(model["weights"], seen)
    whole, widths = with_past(seen, np.clip(scores, 0, 1))
    return scores, exit_distribution(model["networks"], whole, widths, model["hidden"], float(model["sharpness"]))[0]


def inputs(view: TraceView) -> np.ndarray:
    """[p, p1, 1 + sum p ln p / ln K] of every exit, float64 [N, E, K + 2]."""
    certain = 1 - view.entropy / np.log(view.classes)
    return np.concatenate([view.probabilities, view.confidence[:, :, None], certain[:, :, None]], axis=2)


def with_past(seen: np.ndarray, past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the exits with earlier scores last, float64 [E, n, K + 2 + E], and how many columns of each exit count, int64 [E]."""
    samples, exits, size = seen.shape
    whole = np.zeros((exits, samples, size + exits))
    whole[:, :, :size] = seen.transpose(1, 0, 2)
    for exit in range(exits):
        whole[exit, :, size : size + exit] = past[:, :exit]
    return whole, size + np.arange(exits)


def scores_of(weights: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """q of every exit, not cut, float64 [n, E]; each exit sees the earlier ones cut to [0, 1]."""
    samples, exits, size = seen.shape
    scores, past = np.empty((samples, exits)), np.empty((samples, exits))
    for exit in range(exits):
        scores[:, exit] = np.einsum("nd,d->n", seen[:, exit], weights[exit, :size])
        scores[:, exit] += np.einsum("nd,d->n", past[:, :exit], weights[exit, size : size + exit])
        past[:, exit] = np.clip(scores[:, exit], 0, 1)
    return scores


def fitted_scores(seen: np.ndarray, right: np.ndarray, shares: np.ndarray, start: np.ndarray | None, steps: int) -> np.ndarray:
    """Score weights of every exit in turn, float64 [E, K + 2 + E]; shares float64 [n, E]: weight of each sample, 1 in sum at each exit."""
    samples, exits, size = seen.shape
    weights, past = np.zeros((exits, size + exits)), np.zeros((samples, exits))
    for exit in range(exits):
        known = np.concatenate([seen[:, exit], past[:, :exit]], axis=1)
        target, share = np.ascontiguousarray(right[:, exit]), np.ascontiguousarray(shares[:, exit])
        if start is None:
            square = np.einsum("nd,ne->de", known, known) / samples + 1e-4 * np.eye(size + exit)
            begin = np.linalg.solve(square, np.einsum("nd,n->d", known, target) / samples)
        else:
            begin = start[exit, : size + exit]
        found = minimum(lambda place, given=(known, target, share): cut_cross_entropy(place, *given, EDGE), begin, steps)
        weights[exit, : size + exit] = found
        past[:, exit] = np.clip(np.einsum("nd,d->n", known, found), 0, 1)
    return weights


def _start(widths: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Small random parameters of the distribution's networks, the same each time."""
    rng, parts = np.random.default_rng(0), []
    for width, size in zip(widths, hidden, strict=True):
        parts += [rng.uniform(-1, 1, size * (width + 1)) / np.sqrt(width), rng.uniform(-1, 1, size + 1) / np.sqrt(size)]
    return np.concatenate(parts)
