"""Many threshold settings without a queue: scores become bit planes, and counting exits becomes counting bits.

Scores are quantised exactly against all bars that occur (score >= bar_j iff level > j), each bar becomes a set of samples,
64 to a word, and a setting is a few words of logic per 64 samples. Costs are linear in the exit counts, so any number
of devices is one matrix product afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

TILE = 256
"""Words handled together: the planes of a tile stay in the first-level cache."""


@dataclass(frozen=True)
class Tally:
    """What P settings do with N samples: exits int64 [P, E], correct and agreeing int64 [P], correct per class int64 [P, K]."""

    exits: np.ndarray
    correct: np.ndarray
    agrees: np.ndarray
    class_correct: np.ndarray


@intrinsic
def popcount(typing_context, word):
    """Number of set bits of a uint64."""

    def generate(context, builder, signature, arguments):
        function = builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)])
        return builder.call(function, arguments)

    return types.uint64(types.uint64), generate


def tally(scores: np.ndarray, bars: np.ndarray, correct: np.ndarray, agrees: np.ndarray, classes: tuple[np.ndarray, int]) -> Tally:
    """Replay P settings over N samples.

    scores : float64 [N, E]; exit e is taken when scores[:, e] >= bars[:, e] and no earlier one was.
    bars : float64 [P, E - 1]; infinity never passes. The last exit takes the rest.
    correct, agrees : bool [N, E].
    classes : class of each sample (-1 none) and how many there are; pass (labels, 0) to leave classes out.

    Twin: `tests/twins.py:tally`.
    """
    samples, exits = scores.shape
    settings = bars.shape[0]
    words = -(-samples // 64)
    places, planes = _plane_set(scores, bars, words)
    right, same = pack_bits(correct, words), pack_bits(agrees, words)
    labels, count = classes
    members = np.zeros((count, words), np.uint64)
    if count:
        members = pack_bits(labels[:, None] == np.arange(count), words)
    counts = np.zeros((settings, exits), np.int64)
    hits = np.zeros((settings, 2 + count), np.int64)
    _count(planes, places, right, same, members, counts, hits)
    counts[:, -1] -= words * 64 - samples  # the bits that pad the last word reach the last exit and are never correct
    return Tally(counts, hits[:, 0], hits[:, 1], hits[:, 2:])


def _plane_set(scores: np.ndarray, bars: np.ndarray, words: int) -> tuple[np.ndarray, np.ndarray]:
    """For each setting and exit the number of its plane, and all planes uint64 [planes, words]."""
    exits = scores.shape[1]
    levels = [np.unique(bars[:, exit], return_inverse=True) for exit in range(exits - 1)]
    sizes = [values.size for values, _ in levels]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    planes = np.zeros((int(offsets[-1]) if sizes else 1, words), np.uint64)
    places = np.zeros((bars.shape[0], max(exits - 1, 0)), np.int64)
    for exit, (values, inverse) in enumerate(levels):
        places[:, exit] = offsets[exit] + inverse
        build_planes(quantise(np.ascontiguousarray(scores[:, exit]), values), planes[offsets[exit] : offsets[exit + 1]])
    return places, planes


def quantise(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How many of the ascending `levels` each score reaches, uint16 or uint32 [N]; NaN reaches none."""
    kind = np.uint16 if levels.size < 2**16 else np.uint32
    reached = np.empty(scores.size, kind)
    finite = levels[np.isfinite(levels)]
    low, high = (finite[0], finite[-1]) if finite.size else (0.0, 0.0)
    buckets = 4 * levels.size + 1
    with np.errstate(over="ignore"):  # levels a hair apart
        scale = (buckets - 1) / (high - low) if high > low else 0.0
    if not np.isfinite(scale):
        scale = 0.0
    _quantise(scores, levels, low, scale, buckets, reached)
    return reached


@njit(cache=True)
def _bucket(value, low, scale, buckets):
    """Never decreasing in `value`, so a level in an earlier bucket than a score lies below it."""
    scaled = (value - low) * scale
    if not scaled > 0.0:
        return 0
    return buckets - 1 if scaled >= buckets - 1 else int(scaled)


@njit(cache=True)
def _quantise(scores, levels, low, scale, buckets, reached):
    first = np.zeros(buckets + 1, np.int64)
    for level in levels:
        first[_bucket(level, low, scale, buckets) + 1] += 1
    for bucket in range(buckets):
        first[bucket + 1] += first[bucket]
    for sample in range(scores.size):
        score = scores[sample]
        place = first[_bucket(score, low, scale, buckets)]
        while place < levels.size and score >= levels[place]:
            place += 1
        reached[sample] = place if score == score else 0


@njit(cache=True)
def build_planes(reached, planes):
    """planes[j] gets the bits of the samples that reach level j, that is `reached` > j."""
    levels = planes.shape[0]
    for sample in range(reached.size):
        if reached[sample] > 0:
            planes[reached[sample] - 1, sample >> 6] |= np.uint64(1) << np.uint64(sample & 63)
    for level in range(levels - 2, -1, -1):
        above, plane = planes[level + 1], planes[level]
        for word in range(plane.size):
            plane[word] |= above[word]


def pack_bits(flags: np.ndarray, words: int) -> np.ndarray:
    """Bool [N, E] as bit sets uint64 [E, words], little end first."""
    packed = np.zeros((flags.shape[1], words * 8), np.uint8)
    bits = np.packbits(np.ascontiguousarray(flags.T), axis=1, bitorder="little")
    packed[:, : bits.shape[1]] = bits
    return packed.view(np.uint64)


@njit(cache=True)
def _count(planes, places, correct, agrees, members, counts, hits):
    settings, last = places.shape
    words = correct.shape[1]
    gone, good, same = np.empty(TILE, np.uint64), np.empty(TILE, np.uint64), np.empty(TILE, np.uint64)
    for begin in range(0, words, TILE):
        end = min(begin + TILE, words)
        size = end - begin
        for setting in range(settings):
            gone[:] = 0
            good[:] = 0
            same[:] = 0
            for exit in range(last):
                passed, right, full = planes[places[setting, exit], begin:end], correct[exit, begin:end], agrees[exit, begin:end]
                leaving = np.uint64(0)
                for word in range(size):
                    fresh = passed[word] & ~gone[word]
                    gone[word] |= passed[word]
                    good[word] |= fresh & right[word]
                    same[word] |= fresh & full[word]
                    leaving += popcount(fresh)
                counts[setting, exit] += np.int64(leaving)
            right, full = correct[last, begin:end], agrees[last, begin:end]
            left, successes, agreements = np.uint64(0), np.uint64(0), np.uint64(0)
            for word in range(size):
                good[word] |= ~gone[word] & right[word]
                same[word] |= ~gone[word] & full[word]
                left += popcount(gone[word])
                successes += popcount(good[word])
                agreements += popcount(same[word])
            counts[setting, last] += size * 64 - np.int64(left)
            hits[setting, 0] += np.int64(successes)
            hits[setting, 1] += np.int64(agreements)
            for group in range(members.shape[0]):
                member = members[group, begin:end]
                found = np.uint64(0)
                for word in range(size):
                    found += popcount(good[word] & member[word])
                hits[setting, 2 + group] += np.int64(found)
