"""Thresholds by target shares: the walk of MSDNet's budgeted batch classification, and EENet's form of it."""

from __future__ import annotations

import numpy as np


def walked(scores: np.ndarray, shares: np.ndarray, *, exact: bool = False, order: np.ndarray | None = None) -> np.ndarray:
    """Bars, float64 [E - 1], by which about `shares` [E] of these samples leave at each exit. scores: float64 [N, E - 1] or wider.

    Exit by exit, among the samples that have not left: the bar is the score of the floor(share * N)-th best, and all at or above
    it leave (with `exact` only that many, which differs where scores are equal). Where none shall leave it is infinity; where
    fewer are left than shall leave, all do. order: what `descending` says of the scores, where that is known already.
    """
    order = descending(scores[:, : len(shares) - 1]) if order is None else order
    bars, stays = np.full(len(shares) - 1, np.inf), np.ones(len(scores), bool)
    for exit in range(len(shares) - 1):
        wanted = int(shares[exit] * len(scores) + 1e-9)
        if wanted == 0 or not stays.any():
            continue
        ranked = order[:, exit]
        best = ranked[stays[ranked]]
        bars[exit] = scores[best[min(wanted, best.size) - 1], exit]
        stays[best[:wanted] if exact else scores[:, exit] >= bars[exit]] = False
    return bars


def descending(scores: np.ndarray) -> np.ndarray:
    """Samples by falling score at each exit, equal ones as recorded, int64 [N, exits]."""
    return np.ascontiguousarray(np.argsort(-scores, axis=0, kind="stable").T).T


def geometric_shares(ratio: float, exits: int) -> np.ndarray:
    """r_l = q^l / sum of q^j over all exits, float64 [E]."""
    powers = np.log(ratio) * np.arange(exits)
    shares = np.exp(powers - powers.max())
    return shares / shares.sum()
