"""How far confidences can be trusted: expected calibration error, and conformal sets of networks with several exits.

Plain functions on arrays: N samples, E exits, K classes. Definitions as in JEI-DNN (arXiv 2310.09163) and its public code.
"""

from __future__ import annotations

import numpy as np

from eesim.errors import BadInput, unknown

BINS = 15
RANKS = ("textbook", "code")
VARIANTS = ("general", "gated_strict", "gated_all", "gated")
ENOUGH = 20
"""Variant 'gated' takes an exit's own samples where there are more than this."""
ROUNDING = 1e-9
"""What the rank (n + 1)(1 - alpha) may lie above a whole number by rounding alone."""


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS, batch: int | None = None) -> float:
    """Sum over bins of equal mass of (n_b / n) |accuracy_b - confidence_b|, a fraction of 1.

    confidence float [N]; correct [N]: 1, 0, or -1 where unknown, which is left out. Edges are percentiles of the confidence,
    a sample's bin is the number of inner edges below its confidence. batch : compute it for so many samples at a time and
    average, weighted by size, as the public code does; that is biased upward. Raises BadInput where nothing is known.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct)
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise BadInput(f"confidence {confidence.shape} and correct {correct.shape} are not two arrays of one length")
    known = correct >= 0
    confidence, correct = confidence[known], correct[known].astype(np.float64)
    if confidence.size == 0:
        raise BadInput("no sample has a label, so there is no calibration error")
    size = confidence.size if batch is None else batch
    if bins < 1 or size < 1:
        raise BadInput(f"bins {bins} and batch {batch} must be at least 1")
    total = 0.0
    for begin in range(0, confidence.size, size):
        part = slice(begin, begin + size)
        total += _error(confidence[part], correct[part], bins) * confidence[part].size
    return total / confidence.size


def _error(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    edges = np.percentile(confidence, np.linspace(0, 1, bins + 1) * 100)
    places = np.searchsorted(edges[1:-1], confidence)
    gaps = np.bincount(places, correct, bins) - np.bincount(places, confidence, bins)
    return float(np.abs(gaps).sum() / confidence.size)


def gated_calibration_error(confidence: np.ndarray, correct: np.ndarray, exits: np.ndarray, bins: int = BINS, batch: int | None = None) -> float:
    """`expected_calibration_error` of the exits taken: confidence and correct [N, E], exits int [N]."""
    chosen = np.asarray(exits, np.intp)[:, None]
    sure, right = (np.take_along_axis(np.asarray(part), chosen, axis=1)[:, 0] for part in (confidence, correct))
    return expected_calibration_error(sure, right, bins, batch)


def conformal_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 - probability of the true class: probabilities [N, K] or [N, E, K], labels [N] all known; float64 [N] or [N, E]."""
    probabilities = np.asarray(probabilities, np.float64)
    places = np.asarray(labels, np.intp).reshape(-1, *(1,) * (probabilities.ndim - 1))
    return 1.0 - np.take_along_axis(probabilities, places, axis=-1)[..., 0]


def conformal_quantile(scores: np.ndarray, alpha: float, rank: str = "textbook") -> float:
    """The score that a set may reach so that it misses the true class with probability alpha; 1 - alpha where there are no scores.

    rank 'textbook': the k-th smallest, k = ceil((n + 1)(1 - alpha)), at most the largest. 'code': the public code's
    numpy.quantile(scores, min(1, k / n), method='higher'), which lies one rank above wherever k < n.
    """
    scores = np.sort(np.asarray(scores, np.float64))
    if not 0 < alpha < 1:
        raise BadInput(f"alpha {alpha:g} is outside its range; legal is more than 0 and less than 1", field="alpha")
    if rank not in RANKS:
        raise unknown("rank", rank, RANKS, field="rank")
    count = scores.size
    if count == 0:
        return 1.0 - alpha
    place = int(np.ceil((count + 1) * (1 - alpha) - ROUNDING))
    if rank == "code":
        return float(np.quantile(scores, min(1.0, place / count), method="higher"))
    return float(scores[min(max(place, 1), count) - 1])


def conformal_quantiles(scores: np.ndarray, exits: np.ndarray, alpha: float, variant: str = "gated", rank: str = "textbook") -> np.ndarray:
    """The quantile for each exit, float64 [E], from calibration scores [n, E] and the exits taken there int [n].

    variant : 'general': one for all exits, from the scores at the exits taken; 'gated_strict': from the samples that left
    there; 'gated_all': from all samples' scores at that exit; 'gated': strict where more than 20 left there, else all.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS, field="variant")
    scores, exits = np.asarray(scores, np.float64), np.asarray(exits, np.intp)
    if variant == "general":
        taken = np.take_along_axis(scores, exits[:, None], axis=1)[:, 0]
        return np.full(scores.shape[1], conformal_quantile(taken, alpha, rank))
    quantiles = []
    for exit in range(scores.shape[1]):
        left = exits == exit
        strict = variant == "gated_strict" or (variant == "gated" and left.sum() > ENOUGH)
        quantiles.append(conformal_quantile(scores[left, exit] if strict else scores[:, exit], alpha, rank))
    return np.array(quantiles)


def conformal_sets(probabilities: np.ndarray, quantiles: np.ndarray, exits: np.ndarray) -> np.ndarray:
    """Classes in each sample's set, bool [N, K]: those with 1 - p <= q at the exit taken.

    probabilities [N, E, K], quantiles [E], exits int [N]. (p >= 1 - q in the paper: the same, but for rounding.)
    """
    exits = np.asarray(exits, np.intp)
    taken = np.take_along_axis(np.asarray(probabilities, np.float64), exits[:, None, None], axis=1)[:, 0]
    return 1.0 - taken <= np.asarray(quantiles)[exits][:, None]


def coverage(sets: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples whose set holds the true class: sets bool [N, K], labels int [N]; -1 (unknown) is left out."""
    labels = np.asarray(labels, np.intp)
    known = np.flatnonzero(labels >= 0)
    if known.size == 0:
        raise BadInput("no sample has a label, so there is no coverage")
    return float(np.asarray(sets)[known, labels[known]].mean())


def empirical_alpha(sets: np.ndarray, labels: np.ndarray) -> float:
    """1 - coverage: the share of sets that miss the true class."""
    return 1.0 - coverage(sets, labels)


def inefficiency(sets: np.ndarray) -> float:
    """Mean number of classes in a set, sets bool [N, K]."""
    return float(np.asarray(sets).sum(axis=1).mean())
