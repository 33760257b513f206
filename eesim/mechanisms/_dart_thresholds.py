"""Joint thresholds for DART: the vector that maximises J = sum over exits of pi_l (A_l - beta C_l) (arXiv 2603.12269, Eq. 10-12).

pi, A and C are measured on the labelled samples of one split: J is the mean over samples of [right at the exit that answers]
- beta x [cost up to that exit, as a share of the full network's]. Three ways to it, on the same grid of thresholds at each exit:

- `exact`: every vector of the grid, by depth-first search over the sets of samples that are left at each exit,
- `coordinate`: one exit at a time, the best of its grid with the others held, while that is a strict improvement,
- `value_iteration`: backward over (exit, bin of difficulty, bin of confidence), as in the paper; its policy says for each bin
  whether leaving is worth more than going on. One sweep from the last exit is the fixed point, since no path is longer than
  the network; nothing is discounted, so that the value of a state is its J. The policy is then projected to a threshold at each
  exit: the one of the grid that keeps most of the policy's advantage among the samples that get there.

All compare "score >= bar", as the mechanism does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

BINS = 20
"""Bins of difficulty and of confidence in value iteration (as in the authors' code), of equal mass on the split."""
SWEEPS = 4
"""Coordinate descent goes over the exits at most so often."""


@dataclass(frozen=True, eq=False)
class Problem:
    """N labelled samples at E exits, E - 1 of them with a grid of thresholds.

    reach int64 [N, E - 1]: how many of an exit's ascending bars a sample's score reaches; right bool [N, E];
    sizes int64 [E - 1]: how many bars each exit has. Place j of an exit is its bar j; place `sizes` means never.
    """

    reach: np.ndarray
    right: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, right: np.ndarray, bars: list[np.ndarray]) -> Problem:
        """scores float64 [N, E - 1]; right bool [N, E]; bars: ascending float64, one array for each exit but the last."""
        reach = np.zeros(scores.shape, np.int64)
        for exit, levels in enumerate(bars):
            reach[:, exit] = np.where(np.isnan(scores[:, exit]), 0, np.searchsorted(levels, scores[:, exit], side="right"))
        return cls(reach, np.ascontiguousarray(right), np.array([levels.size for levels in bars], np.int64))

    @property
    def vectors(self) -> int:
        """How many threshold vectors the grid holds."""
        return int(np.prod(self.sizes.astype(object) + 1))

    def outcome(self, places: np.ndarray) -> tuple[int, np.ndarray]:
        """How many samples are right, and int64 [E] how many each exit answers."""
        passed = self.reach > places
        exits = np.where(passed.any(axis=1), passed.argmax(axis=1), passed.shape[1]) if passed.shape[1] else np.zeros(len(passed), np.int64)
        return int(self.right[np.arange(len(exits)), exits].sum()), np.bincount(exits, minlength=self.right.shape[1])

    def value(self, places: np.ndarray, prices: np.ndarray) -> float:
        """J of a vector; prices float64 [E]: beta x C of each exit."""
        right, exits = self.outcome(places)
        return (right - float(exits @ prices)) / len(self.reach)


def best(problem: Problem, prices: np.ndarray, most: int) -> np.ndarray:
    """The best vectors found for B objectives, places int64 [B, E - 1]: `exact` on a part of the grid of at most about `most`
    vectors, then `coordinate` on all of it; prices float64 [B, E]."""
    free = len(problem.sizes)
    if not free:
        return np.zeros((len(prices), 0), np.int64)
    each = max(int(most ** (1 / free)) - 1, 1)
    kept = [
        np.unique(np.linspace(0, size - 1, min(size, each)).round().astype(np.int64)) if size else np.zeros(0, np.int64) for size in problem.sizes
    ]
    reach = np.stack([np.searchsorted(part, problem.reach[:, exit], side="left") for exit, part in enumerate(kept)], axis=1)
    coarse = Problem(np.ascontiguousarray(reach), problem.right, np.array([part.size for part in kept], np.int64))
    found = exact(coarse, prices)
    full = [np.append(part, size) for part, size in zip(kept, problem.sizes, strict=True)]
    starts = np.stack([full[exit][found[:, exit]] for exit in range(free)], axis=1)
    return np.stack([coordinate(problem, price, start) for price, start in zip(prices, starts, strict=True)])


def exact(problem: Problem, prices: np.ndarray) -> np.ndarray:
    """The best vector of the whole grid for each of B objectives, places int64 [B, E - 1]; prices float64 [B, E]. Twin: brute force.

    Among equals the one that comes first, that is with the lower thresholds.
    """
    prices = np.ascontiguousarray(np.atleast_2d(prices), np.float64)
    best = np.zeros((len(prices), problem.reach.shape[1]), np.int64)
    if best.shape[1] and len(problem.reach):
        _exact(problem.reach, problem.right, problem.sizes, prices, best)
    return best


@njit(cache=True)
def _exact(reach, right, sizes, prices, best):
    """The last threshold needs no search: for given ones before it, counts by level give all of its places at once."""
    samples, free = reach.shape
    objectives = prices.shape[0]
    record = np.full(objectives, -np.inf)
    left = np.empty((free, samples), np.int64)  # samples that reach exit d, given the places before it
    size = np.zeros(free, np.int64)
    exits = np.zeros(free, np.int64)  # how many leave at exits before, and how many of all those are right
    hits = np.zeros(free + 1, np.int64)
    place = np.full(free, -1, np.int64)
    most = sizes.max() + 2
    leaving, good, full = np.zeros(most, np.int64), np.zeros(most, np.int64), np.zeros(most, np.int64)
    spent = np.zeros(objectives)
    for sample in range(samples):
        left[0, sample] = sample
    size[0] = samples
    depth, last = 0, free - 1
    while depth >= 0:
        if depth < last:
            place[depth] += 1
            if place[depth] > sizes[depth]:
                place[depth] = -1
                depth -= 1
                continue
            kept, found = 0, hits[depth]
            for index in range(size[depth]):
                sample = left[depth, index]
                if reach[sample, depth] > place[depth]:
                    found += right[sample, depth]
                else:
                    left[depth + 1, kept] = sample
                    kept += 1
            exits[depth] = size[depth] - kept
            hits[depth + 1] = found
            depth += 1
            size[depth] = kept
            continue
        levels = sizes[last]
        leaving[:], good[:], full[:] = 0, 0, 0
        stays = 0
        for index in range(size[last]):
            sample = left[last, index]
            level = reach[sample, last]
            leaving[level] += 1
            good[level] += right[sample, last]
            full[level] += right[sample, last + 1]
            stays += right[sample, last + 1]
        for objective in range(objectives):
            spent[objective] = 0.0
            for exit in range(last):
                spent[objective] += exits[exit] * prices[objective, exit]
        # from `never` down: level r leaves where the place is below r
        gone, gained = 0, stays
        for choice in range(levels, -1, -1):
            if choice < levels:
                gone += leaving[choice + 1]
                gained += good[choice + 1] - full[choice + 1]
            total = hits[last] + gained
            for objective in range(objectives):
                cost = spent[objective] + gone * prices[objective, last] + (size[last] - gone) * prices[objective, last + 1]
                value = total - cost
                # lower places win ties with higher ones of the same prefix, not with earlier prefixes
                if value > record[objective] or (value == record[objective] and (best[objective, :last] == place[:last]).all()):
                    record[objective] = value
                    for exit in range(last):
                        best[objective, exit] = place[exit]
                    best[objective, last] = choice
        depth -= 1


def coordinate(problem: Problem, prices: np.ndarray, start: np.ndarray, sweeps: int = SWEEPS) -> np.ndarray:
    """Places int64 [E - 1] that no change at a single exit improves, or those reached after `sweeps`; prices float64 [E]."""
    places = np.array(start, np.int64)
    if places.size and len(problem.reach):
        _coordinate(problem.reach, problem.right, problem.sizes, np.asarray(prices, np.float64), places, sweeps)
    return places


@njit(cache=True)
def _without(reached, places, exit):
    """Where a sample leaves if it stays at `exit`: a later exit, or -1 where it has left before."""
    for other in range(exit):
        if reached[other] > places[other]:
            return -1
    for other in range(exit + 1, reached.size):
        if reached[other] > places[other]:
            return other
    return reached.size


@njit(cache=True)
def _coordinate(reach, right, sizes, prices, places, sweeps):
    samples, free = reach.shape
    gain = np.zeros(sizes.max() + 2)
    tiny = 1e-9  # of one sample: sums of floats are not a strict improvement
    for _ in range(sweeps):
        better = False
        for exit in range(free):
            gain[:] = 0.0
            for sample in range(samples):
                later = _without(reach[sample], places, exit)
                if later < 0:
                    continue
                gain[reach[sample, exit]] += (right[sample, exit] - prices[exit]) - (right[sample, later] - prices[later])
            total, now = 0.0, 0.0
            for choice in range(sizes[exit] - 1, -1, -1):
                total += gain[choice + 1]
                if choice == places[exit]:
                    now = total
            best, record, total = places[exit], now, 0.0
            for choice in range(sizes[exit], -1, -1):
                if choice < sizes[exit]:
                    total += gain[choice + 1]
                if total > record + tiny:
                    best, record = choice, total
            if best != places[exit]:
                places[exit] = best
                better = True
        if not better:
            break


def cheapest_within(problem: Problem, costs: np.ndarray, least: int, start: np.ndarray, sweeps: int = SWEEPS) -> np.ndarray:
    """Places int64 [E - 1] of the least cost that changes at one exit after the other reach with at least `least` samples right.

    costs float64 [E]; `start` has that many right. J's optima jump where accuracy is not concave in cost; this lands in between.
    """
    places = np.array(start, np.int64)
    if places.size and len(problem.reach):
        _cheapest_within(
            problem.reach, problem.right, problem.sizes, np.asarray(costs, np.float64), problem.outcome(places)[0] - least, places, sweeps
        )
    return places


@njit(cache=True)
def _cheapest_within(reach, right, sizes, costs, spare, places, sweeps):
    """spare: how many right answers may still be lost."""
    samples, free = reach.shape
    hits, saved = np.zeros(sizes.max() + 2, np.int64), np.zeros(sizes.max() + 2)
    for _ in range(sweeps):
        better = False
        for exit in range(free):
            hits[:] = 0
            saved[:] = 0.0
            for sample in range(samples):
                later = _without(reach[sample], places, exit)
                if later < 0:
                    continue
                level = reach[sample, exit]
                hits[level] += np.int64(right[sample, exit]) - np.int64(right[sample, later])
                saved[level] += costs[later] - costs[exit]
            now_hits, now_saved = 0, 0.0
            for level in range(places[exit] + 1, sizes[exit] + 1):
                now_hits += hits[level]
                now_saved += saved[level]
            best, best_hits, record, gained, total = places[exit], now_hits, now_saved, 0, 0.0
            for choice in range(sizes[exit], -1, -1):
                if choice < sizes[exit]:
                    gained += hits[choice + 1]
                    total += saved[choice + 1]
                if gained - now_hits + spare >= 0 and total > record + 1e-9:
                    best, best_hits, record = choice, gained, total
            if best != places[exit]:
                spare += best_hits - now_hits
                places[exit] = best
                better = True
        if not better:
            break


@dataclass(frozen=True, eq=False)
class Policy:
    """What value iteration finds: leave bool [E - 1, bins of difficulty, bins of confidence], and the advantage of leaving, in J."""

    leave: np.ndarray
    advantage: np.ndarray
    hard: np.ndarray
    sure: np.ndarray
    """Bins of the samples: int64 [N] of difficulty, int64 [N, E] of confidence."""

    def outcome(self, right: np.ndarray) -> tuple[int, np.ndarray]:
        """How many samples are right under the policy itself, and int64 [E] how many each exit answers."""
        exits = np.full(len(self.hard), right.shape[1] - 1)
        for exit in range(right.shape[1] - 2, -1, -1):
            exits[self.leave[exit, self.hard, self.sure[:, exit]]] = exit
        return int(right[np.arange(len(exits)), exits].sum()), np.bincount(exits, minlength=right.shape[1])


def value_iteration(confidence: np.ndarray, alpha: np.ndarray, right: np.ndarray, prices: np.ndarray, bins: int = BINS) -> Policy:
    """Backward over (exit, difficulty, confidence): leave where A - beta C of the bin is at least what going on is worth.

    confidence float64 [N, E]; alpha float64 [N]; right bool [N, E]; prices float64 [E]. Transitions and accuracies are the
    frequencies of these samples; a bin that none of them fell into is never left.
    """
    exits = right.shape[1]
    hard = _bins(alpha, bins)
    sure = np.stack([_bins(confidence[:, exit], bins) for exit in range(exits)], axis=1)
    cells = hard[:, None] * bins + sure
    count, hits = (np.stack([np.bincount(cells[:, exit], weight[:, exit], bins * bins) for exit in range(exits)]) for weight in (right >= 0, right))
    with np.errstate(invalid="ignore", divide="ignore"):
        reward = np.where(count > 0, hits / count, 0.0) - prices[:, None]
    value, advantage = reward[-1], np.full((exits - 1, bins * bins), -np.inf)
    for exit in range(exits - 2, -1, -1):
        going = np.bincount(cells[:, exit], value[cells[:, exit + 1]], bins * bins)
        seen = count[exit] > 0
        onward = np.where(seen, going / np.maximum(count[exit], 1), 0.0)
        advantage[exit, seen] = (reward[exit] - onward)[seen]
        value = np.where(seen & (advantage[exit] < 0), onward, reward[exit])
    advantage = advantage.reshape(exits - 1, bins, bins)
    return Policy(advantage >= 0, advantage, hard, sure)


def projected(problem: Problem, policy: Policy) -> np.ndarray:
    """Thresholds for a policy, places int64 [E - 1]: at each exit the one whose leavers have the largest sum of advantages.

    Exit by exit from the first, among the samples that those before leave.
    """
    places = problem.sizes.copy()
    left = np.ones(len(problem.reach), bool)
    for exit, size in enumerate(problem.sizes):
        reach = problem.reach[left, exit]
        gain = np.bincount(reach, policy.advantage[exit, policy.hard[left], policy.sure[left, exit]], size + 1)
        above = np.append(np.cumsum(gain[:0:-1])[::-1], 0.0)  # sum over those that pass place j
        places[exit] = size - int(np.argmax(above[::-1]))  # the highest among equals
        left &= problem.reach[:, exit] <= places[exit]
    return places


def _bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Bins of equal mass as far as ties allow, int64 [N]."""
    edges = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    return np.searchsorted(edges, values, side="left")
