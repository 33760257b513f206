"""Small smooth fits: L-BFGS from a fixed start, which gives the same weights each time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eesim.trace.view import TraceView


def minimum(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, steps: int = 100) -> np.ndarray:
    """Where `loss`, which gives its value and gradient, is least: L-BFGS from `start` (float64 [P]), at most `steps` steps.

    Steps are halved until the loss falls by a ten-thousandth of what the slope promises; it ends where a step gains no more
    than a hundred-millionth. Written here because scipy's calls threaded linear algebra for its tiny systems.
    """
    place = np.array(start, np.float64)
    value, gradient = loss(place)
    moves: list[tuple[np.ndarray, np.ndarray, float]] = []
    for _ in range(steps):
        downhill = _direction(gradient, moves)
        slope = float(gradient @ downhill)
        if not slope < 0:
            break
        length = 1.0 if moves else min(1.0, 1.0 / float(np.abs(gradient).sum()))
        for _ in range(30):
            tried = place + length * downhill
            found, steeper = loss(tried)
            if found <= value + 1e-4 * length * slope:
                break
            length /= 2
        else:
            break
        move, change = tried - place, steeper - gradient
        curved = float(move @ change)
        if curved > 1e-12 * float(change @ change):
            moves = [*moves[1 - MEMORY :], (move, change, curved)]
        gained, place, value, gradient = value - found, tried, found, steeper
        if gained <= 1e-8 * max(abs(value), 1e-12):
            break
    return place


MEMORY = 10
"""Moves that `minimum` remembers."""


def _direction(gradient: np.ndarray, moves: list[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """Minus the gradient times the inverse curvature that the remembered moves tell of (the two-loop recursion)."""
    if not moves:
        return -gradient
    direction, shares = -gradient, []
    for move, change, curved in reversed(moves):
        share = float(move @ direction) / curved
        direction = direction - share * change
        shares.append(share)
    _, change, curved = moves[-1]
    direction = direction * (curved / float(change @ change))
    for (move, change, curved), share in zip(moves, reversed(shares), strict=True):
        direction = direction + (share - float(change @ direction) / curved) * move
    return direction


def sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def log_softmax(view: TraceView) -> np.ndarray:
    """Logarithms of every exit's softmax, float64 [N, E, K]; finite also where the softmax is 0."""
    logs = np.ascontiguousarray(view.logits.transpose(1, 0, 2)).astype(np.float64)
    logs -= logs.max(axis=2, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=2, keepdims=True))
    return logs


def softmax(values: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
