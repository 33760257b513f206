"""Pooling systems that are related to different degrees: same kernels, same board, both, neither.

`eesim.hardware.fit.fit_pooled` lets every system leave the pool's ratios by the same spread, each on its own. Here the deviations
of two systems go together as far as a covariance says, so that all microcontrollers form one pool: a network that one board has
not shown is known first from other boards with the same kernels, then from all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SCALE_SPREAD = 3.0
"""How vague the speed of a system is before its data, as a natural logarithm around the one its data suggest."""


def fit_related(
    design: np.ndarray, measured: np.ndarray, relation: np.ndarray, *, noise: float, prior: Sequence[float], prior_spread: Sequence[float]
) -> np.ndarray:
    """Positive coefficients [systems, terms].

    design : [systems, networks, terms]; measured : [systems, networks], NaN where a case is missing or held out
    relation : [systems, systems], covariance of the logarithms by which systems leave the pool's ratios between coefficients
    noise, prior, prior_spread : as in `fit_pooled`

    The most probable logarithms of the coefficients: Gauss-Newton on the logarithms of the measurements, solved case by case.
    """
    systems, _, terms = design.shape
    known = np.isfinite(measured)
    at, network = np.nonzero(known)
    rows, target = design[at, network], np.log(measured[known])
    expected = np.tile(np.log(np.asarray(prior, float)), (systems, 1))
    guess = np.log(measured / np.einsum("snt,st->sn", design, np.exp(expected)))
    start = np.array([np.mean(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0 for row in guess])
    expected[:] += start[:, None]

    covariance = np.zeros((systems, terms, systems, terms))
    covariance += (SCALE_SPREAD**2 * np.eye(systems))[:, None, :, None]
    for term in range(1, terms):
        covariance[:, term, :, term] += prior_spread[term] ** 2 + relation
    covariance = covariance.reshape(systems * terms, systems * terms)
    columns = at[:, None] * terms + np.arange(terms)

    found = expected.copy()
    for _ in range(30):
        parts = rows * np.exp(found[at])
        total = parts.sum(axis=1)
        shares = parts / total[:, None]
        residual = target - np.log(total) + (shares * (found - expected)[at]).sum(axis=1)
        cross = np.einsum("nt,ntp->np", shares, covariance[columns])
        between = np.einsum("nmt,mt->nm", cross[:, columns], shares)
        between[np.diag_indices(len(target))] += noise**2
        step = np.clip((expected.ravel() + cross.T @ np.linalg.solve(between, residual)).reshape(found.shape) - found, -1, 1)
        found += step
        if np.abs(step).max() < 1e-7:
            break
    return np.exp(found)
