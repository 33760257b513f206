"""Counting durations in a log histogram."""

from __future__ import annotations

from numba import njit


@njit(cache=True)
def count_logarithmically(values, bins, bits):
    """Count each value in `bins`, 2^bits of them an octave; values below twice that have a bin of their own."""
    width = 1 << bits
    for value in values:
        octave = 0
        scaled = value
        while scaled >= width << 16:
            scaled >>= 16
            octave += 16
        while scaled >= 2 * width:
            scaled >>= 1
            octave += 1
        bins[(octave << bits) + scaled] += 1
