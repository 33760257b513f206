"""Fitting cost models to measurements: layers become a design matrix, measurements become coefficients with an honest error.

Every fit minimises *relative* errors, since a fast network must not weigh less than a slow one, and its coefficients are
never negative. Two shapes of data are served:

- many networks on one device (`fit_relative`): a robust non-negative regression;
- few networks on each of several devices (`fit_pooled`): the ratios between coefficients are shared by the pool, each
  device has a scale of its own and may leave the pool's ratios by a given spread. Four networks a board cannot carry more.

The errors that a profile states come from cases the fit has not seen: `leave_one_out`, or a held-out part.
SciPy is imported where it is used: reading a profile does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10

import numpy as np

from eesim.hardware.models.linear import Rates, amounts
from eesim.network.layer import KINDS, Layer


@dataclass(frozen=True)
class Term:
    """One coefficient to fit, and what it multiplies: kind of layer -> rate -> relative weight.

    ``Term("arithmetic", {"conv": {"per_mac": 1}, "depthwise": {"per_mac": 2.8}})`` says that a MAC of a depthwise layer costs
    2.8 times one of a dense layer, whatever the coefficient turns out to be. Weights other than 1 are assumptions.
    """

    name: str
    shares: Mapping[str, Mapping[str, float]]


def design_matrix(networks: Sequence[Iterable[Layer]], terms: Sequence[Term], item_bytes: int, cache_kib: float | None = None) -> np.ndarray:
    """What one unit of each term's coefficient costs each network: array [networks, terms]."""
    matrix = np.zeros((len(networks), len(terms)))
    for row, layers in enumerate(networks):
        for layer in layers:
            found = amounts(layer, item_bytes, cache_kib)
            for column, term in enumerate(terms):
                for rate, weight in term.shares.get(layer.kind, {}).items():
                    matrix[row, column] += weight * found[rate]
    return matrix


def rates_by_kind(terms: Sequence[Term], coefficients: Sequence[float], digits: int = 4) -> dict[str, dict[str, float]]:
    """The `data_types` entry of a linear cost model: kind -> rate -> value, rounded to significant digits."""
    rates: dict[str, dict[str, float]] = {}
    for term, coefficient in zip(terms, coefficients, strict=True):
        for kind, shares in term.shares.items():
            for rate, weight in shares.items():
                rates.setdefault(kind, {})[rate] = rates.get(kind, {}).get(rate, 0.0) + weight * float(coefficient)
    order = list(Rates.model_fields)
    return {
        kind: {rate: significant(values[rate], digits) for rate in sorted(values, key=order.index) if values[rate]}
        for kind, values in sorted(rates.items(), key=lambda pair: KINDS.index(pair[0]))
    }


def significant(value: float, digits: int = 4) -> float:
    """`value` with so many significant digits, so that a refit writes the same file on every machine."""
    if not value:
        return 0.0
    rounded = round(value, digits - 1 - floor(log10(abs(value))))
    return int(rounded) if rounded == int(rounded) and abs(rounded) >= 10 ** (digits - 1) else float(rounded)


def fit_relative(design: np.ndarray, measured: np.ndarray, knee: float = 0.01, rounds: int = 20) -> np.ndarray:
    """Non-negative coefficients that predict `measured` [cases] from `design` [cases, terms] with small relative errors.

    Reweighted least squares: errors beyond `knee` (a fraction) count by their size, not by its square, so that a few disturbed
    measurements do not bend the fit.
    """
    from scipy.optimize import nnls

    design, measured = np.asarray(design, float), np.asarray(measured, float)
    scale = np.abs(design).max(axis=0)
    scale[scale == 0] = 1.0
    relative = design / scale / measured[:, None]
    weights = np.ones(len(measured))
    solution = np.zeros(design.shape[1])
    for _ in range(rounds):
        solution, _ = nnls(relative * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ solution - 1), knee))
    return solution / scale


def fit_expected(design: np.ndarray, measured: np.ndarray, expected: Sequence[float], spread: Sequence[float], noise: float = 0.03) -> np.ndarray:
    """Positive coefficients [terms] with small logarithmic errors: the most probable values where each is expected near `expected`.

    design : [cases, terms]; measured : [cases]; spread : one standard deviation of the natural logarithm of each coefficient
    noise : size of an unexplained relative error. For few cases and many terms, when physics says what to expect.
    """
    from scipy.optimize import least_squares

    mean, vague, target = np.log(expected), np.asarray(spread, float), np.log(measured)

    def residuals(z: np.ndarray) -> np.ndarray:
        return np.concatenate([(np.log(design @ np.exp(mean + z * vague)) - target) / noise, z])

    return np.exp(mean + least_squares(residuals, np.zeros(len(mean)), max_nfev=100).x * vague)


@dataclass(frozen=True)
class Shrunk:
    """Coefficients [terms] fitted towards expected ones; `error`: their standard errors; `settled`: the share of each that comes from
    the measurements rather than from what was expected (1: all of it); `together` [terms, terms]: correlations of the errors."""

    coefficients: np.ndarray
    error: np.ndarray
    settled: np.ndarray
    together: np.ndarray


def fit_towards(
    design: np.ndarray, measured: np.ndarray, expected: np.ndarray, spread: float, *, weight: np.ndarray | float = 1.0, noise: float = 0.02,
    knee: float = 0.02, rounds: int = 8,
) -> Shrunk:  # fmt: skip
    """Non-negative coefficients with small relative errors that stay near `expected` where the measurements do not say otherwise.

    design : [cases, terms]; measured : [cases]; expected : [terms]
    spread : one standard deviation by which a coefficient may leave what is expected, in units of the largest scale of `expected`
    weight : how much each case counts, [cases] or one number for all
    noise : size of an unexplained relative error, what the spread is weighed against

    Ridge regression towards `expected` with non-negative coefficients and errors beyond `knee` counted by their size.
    """
    from scipy.optimize import nnls

    relative = np.asarray(design, float) / np.asarray(measured, float)[:, None]
    terms = relative.shape[1]
    pull = np.eye(terms) / (spread * max(float(np.max(expected)), 1e-300))
    solution, weights = np.asarray(expected, float), np.ones(len(relative))
    for _ in range(rounds):
        weights = np.sqrt(weight * knee / np.maximum(np.abs(relative @ solution - 1), knee))
        rows = np.concatenate([relative * (weights / noise)[:, None], pull])
        solution, _ = nnls(rows, np.concatenate([weights / noise, pull @ expected]), maxiter=30 * terms)
    inverse = np.linalg.pinv(relative.T @ (relative * ((weights / noise) ** 2)[:, None]) + pull.T @ pull)
    residual = np.abs(relative @ solution - 1)
    scale = max(1.4826 * float(np.median(residual)) / noise, 0.1)
    sizes = np.sqrt(np.maximum(np.diag(inverse), 1e-300))
    settled = 1 - np.diag(inverse) * np.diag(pull) ** 2
    return Shrunk(solution, scale * sizes, np.clip(settled, 0.0, 1.0), inverse / np.outer(sizes, sizes))


def fit_pooled(
    design: np.ndarray,
    measured: np.ndarray,
    *,
    spread: float = 0.1,
    noise: float = 0.02,
    prior: Sequence[float] | None = None,
    prior_spread: float | Sequence[float] = 3.0,
) -> np.ndarray:
    """Positive coefficients [systems, terms] for several systems that measured the same few networks.

    design : [networks, terms], or [systems, networks, terms] where systems differ
    measured : [systems, networks], NaN where a case is missing or held out
    spread : by how much (natural logarithm, one standard deviation) a system's ratios between coefficients may leave the
        pool's. 0.1 is 10 %; near 0 leaves each system one scale.
    noise : size of an unexplained relative error, what the spread is weighed against
    prior, prior_spread : ratios of the coefficients to the first one expected before any data, and how vague each is (as `spread`)

    The most probable values under log-normal spreads (a hierarchical model): no coefficient can reach zero.
    """
    from scipy.optimize import least_squares

    measured = np.atleast_2d(np.asarray(measured, float))
    systems, networks = measured.shape
    design = np.broadcast_to(np.asarray(design, float), (systems, networks, np.shape(design)[-1]))
    free = design.shape[2] - 1
    known = np.isfinite(measured)
    if not known.any(axis=1).all():
        raise ValueError("every system needs at least one measurement")
    target = np.log(measured[known])
    expected = np.zeros(free) if prior is None else np.log(np.asarray(prior, float)[1:])
    vague = np.broadcast_to(prior_spread, free + 1)[1:]

    def logarithms(z: np.ndarray) -> np.ndarray:
        ratios = z[:free] + spread * z[free + systems :].reshape(systems, free)
        return np.concatenate([np.zeros((systems, 1)), ratios], axis=1) + z[free : free + systems, None]

    def residuals(z: np.ndarray) -> np.ndarray:
        predicted = np.einsum("snt,st->sn", design, np.exp(logarithms(z)))
        return np.concatenate([(np.log(predicted[known]) - target) / noise, z[free + systems :], (z[:free] - expected) / vague])

    first = np.einsum("snt,t->sn", design, np.exp(np.concatenate([[0.0], expected])))
    scales = [np.mean(np.log(row[mask]) - np.log(guess[mask])) for row, guess, mask in zip(measured, first, known, strict=True)]
    start = np.concatenate([expected, scales, np.zeros(systems * free)])
    return np.exp(logarithms(least_squares(residuals, start, x_scale="jac", max_nfev=200).x))


def leave_one_out(
    design: np.ndarray,
    measured: np.ndarray,
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    targets: Collection[int] | None = None,
    kin: Callable[[int, int], Collection[int]] | None = None,
) -> np.ndarray:
    """Predictions [cases or systems, networks] of each measurement by a fit that has not seen it; NaN where not asked for.

    With one device, `measured` is [cases] and each case is left out in turn. With several, it is [systems, networks], `targets`
    are the systems whose cases are held out, and ``kin(system, network)`` names the systems whose measurement of that
    network is hidden together with it (repeats of the same measurement would betray it).
    """
    measured = np.asarray(measured, float)
    predicted = np.full(measured.shape, np.nan)
    if measured.ndim == 1:
        for case in range(len(measured)):
            others = np.arange(len(measured)) != case
            predicted[case] = design[case] @ fit(design[others], measured[others])
        return predicted
    full = np.broadcast_to(design, (*measured.shape, np.shape(design)[-1]))
    for system in range(len(measured)) if targets is None else targets:
        for network in np.flatnonzero(np.isfinite(measured[system])):
            hidden = measured.copy()
            hidden[system, network] = np.nan
            for other in kin(system, network) if kin else ():
                hidden[other, network] = np.nan
            predicted[system, network] = full[system, network] @ fit(design, hidden)[system]
    return predicted


def error_statistics(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """Relative errors as fractions: `median`, `mean`, `max` (all absolute) and the share of cases `within_10pct`; NaN cases are left out."""
    errors = np.abs(np.asarray(predicted, float) / np.asarray(measured, float) - 1)
    errors = errors[np.isfinite(errors)]
    within = float(np.mean(errors <= 0.1))
    return {"median": float(np.median(errors)), "mean": float(errors.mean()), "max": float(errors.max()), "within_10pct": within}
