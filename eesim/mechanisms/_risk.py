"""Choosing one threshold lambda so that the risk of leaving early stays below a level: p-values, bounds, selectors.

Lambdas are tried from the largest (surest) down, over a grid that does not depend on the samples. Sources: RC-EENN
(arXiv 2405.20915) and its public code; Learn then Test (arXiv 2110.01052); conformal risk control (arXiv 2208.02814);
betting bounds of Waudby-Smith and Ramdas (arXiv 2010.09686).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from eesim.errors import BadInput

SELECTORS = ("ltt", "ltt-code", "ucb-wsr", "crc", "naive")

GRID = np.unique(np.round(np.concatenate([np.linspace(0, 1, 501), 1 - np.logspace(-0.4, -6, 400)]), 9))[::-1].copy()
"""Lambdas that are tried, float64, descending from 1 to 0; close to 1, where most softmax scores are, they lie closer."""


def hoeffding_bentkus(risk: np.ndarray, samples: int, level: float, *, binary: bool) -> np.ndarray:
    """p-values of "the true risk is above `level`" given mean losses in [0, 1] of n samples; for binary losses the exact binomial tail.

    General: min(e * Binom.cdf(ceil(n R); n, level), exp(-n KL(min(R, level) || level))).
    """
    from scipy.special import bdtr, rel_entr

    risk = np.asarray(risk, np.float64)
    if level >= 1:
        return np.zeros(risk.shape)
    if level <= 0:
        return np.ones(risk.shape)
    tail = bdtr(np.clip(np.ceil(samples * risk - 1e-9), 0, samples), samples, level)  # P(Binom(samples, level) <= that many)
    if binary:
        return tail
    least = np.minimum(risk, level)
    divergence = rel_entr(least, level) + rel_entr(1 - least, 1 - level)
    return np.minimum(np.e * tail, np.exp(-samples * divergence))


def wsr_bound(losses: np.ndarray, delta: float, bound: float = 1.0) -> float:
    """Upper confidence bound of the mean loss with confidence 1 - delta, by betting; losses float64 [n] in an order that says nothing.

    mu_i = (sum of losses to i + 1/2)/(i + 1), variances likewise and one sample behind, stakes nu_i at most 1/bound; the
    bound is the mean m at which the largest running log-wealth, sum of ln(1 - nu_i (x_i - m)), reaches ln(1/delta).
    """
    from scipy.optimize import brentq

    places = np.arange(2, losses.size + 2)
    means = (np.cumsum(losses) + 0.5) / places
    variances = (np.cumsum((losses - means) ** 2) + 0.25) / places
    before = np.concatenate([[0.25], variances[:-1]])
    stakes = np.minimum(np.sqrt(2 * np.log(1 / delta) / losses.size / before), 1 / bound)

    def wealth(mean: float) -> float:
        return float(np.cumsum(np.log(1 - stakes * (losses - mean))).max() + np.log(delta))

    with np.errstate(divide="ignore"):  # a loss of 1 against a mean of 0 at full stake
        if wealth(bound) < 0:
            return bound
        if wealth(1e-10) > 0:
            return 1e-10
        return float(brentq(wealth, 1e-10, bound))


def not_held(risk: float, latest: object) -> BadInput:
    """Why a rule whose samples all leave at `latest` does not start: the risk is promised, and the full network cannot step in."""
    return BadInput(
        f"no threshold holds a risk of {risk:g} where exit {latest} answers at the latest, and the full network, which then should, never runs; "
        "allow a larger risk or a later max_exit",
        field="max_exit",
    )


def crc_bound(level: float, samples: int, bound: float = 1.0) -> float:
    """The mean loss that conformal risk control allows: ((n + 1) level - B)/n."""
    return ((samples + 1) * level - bound) / samples


class Curve:
    """Losses of n calibration samples as a function of lambda, for one shared lambda at all exits.

    score : float64 [n, E - 1]; a sample leaves at the first exit with score > lambda (with `strict`) or >= lambda.
    losses : float64 [n, E], what leaving at each exit loses, at most `bound`; binary: all are 0 or 1 once cut off at 0.
    """

    def __init__(self, score: np.ndarray, losses: np.ndarray, *, strict: bool, binary: bool, bound: float = 1.0):
        clean = np.where(np.isnan(score), -np.inf, score)
        self.best = np.maximum.accumulate(clean, axis=1)  # leaving at exit e or before: the best score so far passes
        self.values, self.strict, self.binary, self.bound = losses, strict, binary, bound
        self._bounds: dict[float, list[float]] = {}

    def losses(self, place: int) -> np.ndarray:
        """Loss of every sample at one lambda of the grid, float64 [n]."""
        stays = self.best <= GRID[place] if self.strict else self.best < GRID[place]
        return self.values[np.arange(len(self.values)), stays.sum(axis=1)]

    def risk(self, *, cut: bool = False) -> np.ndarray:
        """Mean loss at each lambda of the grid, float64; cut: losses below 0 count as 0."""
        return self._cut_risk if cut else self._risk

    @cached_property
    def _risk(self) -> np.ndarray:
        return self._mean(self.values)

    @cached_property
    def _cut_risk(self) -> np.ndarray:
        return self._mean(np.maximum(self.values, 0.0))

    def _mean(self, values: np.ndarray) -> np.ndarray:
        if self.best.shape[1] == 0:
            return np.full(GRID.size, values.mean())
        passing = GRID.size - np.searchsorted(GRID[::-1], self.best, side="left" if self.strict else "right")
        gained = (values[:, :-1] - values[:, 1:]).ravel()
        steps = np.bincount(passing.ravel(), weights=gained, minlength=GRID.size + 1)[: GRID.size]
        return (values[:, -1].sum() + np.cumsum(steps)) / len(values)

    def select(self, selector: str, level: float, delta: float) -> int:
        """Place in the grid of the smallest lambda that the selector allows at risk `level`; -1 where it allows none.

        ltt: the last before the first p-value above delta (ltt-code: that first one itself, as the public code does);
        ucb-wsr: the last before the first upper bound that is not below the level; crc, naive: the last with mean loss at
        most the CRC bound, or below the level.
        """
        if selector in ("ltt", "ltt-code"):
            values = hoeffding_bentkus(self.risk(cut=True) / self.bound, len(self.values), level / self.bound, binary=self.binary)
            above = np.flatnonzero(values > delta)
            first = int(above[0]) if above.size else GRID.size
            return min(first, GRID.size - 1) if selector == "ltt-code" else first - 1
        if selector == "ucb-wsr":
            return self._walk(level, delta) - 1
        allowed = self.risk() <= crc_bound(level, len(self.values), self.bound) if selector == "crc" else self.risk() < level
        return int(np.flatnonzero(allowed)[-1]) if allowed.any() else -1

    def _walk(self, level: float, delta: float) -> int:
        """How many lambdas from the largest down have an upper bound below the level; bounds are kept, as far as anyone has walked."""
        known = self._bounds.setdefault(delta, [])
        place = next((place for place, bound in enumerate(known) if not bound < level), len(known))
        while place == len(known) < GRID.size:
            same = place > 0 and self._same(place)
            known.append(known[-1] if same else wsr_bound(self.losses(place), delta, self.bound))
            if known[-1] < level:
                place += 1
        return place

    def _same(self, place: int) -> bool:
        """Whether no sample's best score lies between this lambda and the one before."""
        return not self._crossed[place]

    @cached_property
    def _crossed(self) -> np.ndarray:
        passing = GRID.size - np.searchsorted(GRID[::-1], self.best.ravel(), side="left" if self.strict else "right")
        return np.bincount(passing, minlength=GRID.size + 1) > 0
