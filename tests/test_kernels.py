"""Every compiled kernel against its plain twin."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from eesim.engine.lanes import waits
from eesim.engine.lindley import closed_loop, lindley, servers
from eesim.engine.planes import quantise, tally
from eesim.engine.statistics import Counted, Histogram, Measured, bin_edges, exact_sum, rank


def draw_queue(rng, requests=300, places=70, tight=True):
    """Arrivals and services with many ties."""
    arrivals = np.cumsum(rng.integers(0, 4 if tight else 40, requests)).astype(np.int64)
    return arrivals, rng.integers(0, 6, places).astype(np.int64)


@pytest.mark.parametrize("seed", range(5))
def test_lindley_equals_its_twin_also_in_blocks(seed):
    arrivals, service = draw_queue(np.random.default_rng(seed))
    start, finish = np.empty_like(arrivals), np.empty_like(arrivals)
    free, done = 0, 0
    for size in (1, 99, 100, 100):
        block = slice(done, done + size)
        free = lindley(arrivals[block], service, done, free, start[block], finish[block])
        done += size
    expected = twins.lindley(arrivals.tolist(), service.tolist())
    assert_array_equal(start, expected[0])
    assert_array_equal(finish, expected[1])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("capacity", [None, 0, 1, 4])
def test_servers_equal_their_twin_also_in_blocks(count, capacity):
    rng = np.random.default_rng(count)
    arrivals, service = draw_queue(rng)
    service *= count
    start, finish = np.empty_like(arrivals), np.empty_like(arrivals)
    free, recent = np.zeros(count, np.int64), np.zeros(capacity or 0, np.int64)
    accepted, done = (-1 if capacity is None else 0), 0
    for size in (57, 143, 100):
        block = slice(done, done + size)
        accepted = servers(arrivals[block], service, done, free, recent, accepted, start[block], finish[block])
        done += size
    expected = twins.servers(arrivals.tolist(), service.tolist(), count, capacity)
    assert_array_equal(start, expected[0])
    assert_array_equal(finish, expected[1])


def test_closed_loop_keeps_every_server_busy():
    service = np.array([5, 3, 8, 1], np.int64)
    start, finish = np.empty(8, np.int64), np.empty(8, np.int64)
    closed_loop(service, 0, np.zeros(2, np.int64), start, finish)
    # server A: 5, then (from 5) 1, 3 …; server B: 3, then (from 3) 8 …
    assert start.tolist() == [0, 0, 3, 5, 6, 11, 11, 14]
    assert finish.tolist() == [5, 3, 11, 6, 11, 14, 19, 15]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 150), st.integers(1, 9))
def test_tally_equals_its_twin(seed, exits, samples, count):
    rng = np.random.default_rng(seed)
    scores = rng.choice([0.1, 0.25, 0.5, 0.75, 0.9, np.nan], (samples, exits))
    bars = rng.choice([-1.0, 0.1, 0.25, 0.3, 0.75, 1.0, np.inf], (count, exits - 1))
    correct, agrees, labels = rng.random((samples, exits)) < 0.5, rng.random((samples, exits)) < 0.5, rng.integers(-1, 3, samples)
    counted = tally(scores, bars, correct, agrees, (labels, 3))
    expected = twins.tally(scores, bars, correct, agrees, labels, 3)
    for got, want in zip((counted.exits, counted.correct, counted.agrees, counted.class_correct), expected, strict=True):
        assert_array_equal(got, want)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=30, unique=True), st.lists(st.floats(), min_size=1, max_size=60))
def test_quantise_counts_the_levels_a_score_reaches(levels, scores):
    levels, scores = np.sort(np.array(levels)), np.array(scores)
    expected = [0 if np.isnan(score) else int((score >= levels).sum()) for score in scores]
    assert_array_equal(quantise(scores, levels), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 40), st.integers(1, 120), st.booleans())
def test_waits_of_lanes_equal_their_twin(seed, exits, samples, requests, long):
    rng = np.random.default_rng(seed)
    scores, bars = rng.random((samples, exits)), rng.choice([0.2, 0.5, 0.8, np.inf], (rng.integers(1, 40), exits - 1))
    service = np.cumsum(rng.integers(1, 50, (3, exits)), axis=1) * (10**9 if long else 1)
    arrivals = np.cumsum(rng.integers(0, 60, requests)) * (10**9 if long else 1)
    got, want = waits(scores, bars, service, arrivals), twins.waits(scores, bars, service, arrivals)
    assert_array_equal(got[0], want[0])
    assert_array_equal(got[1], want[1])


def test_waits_refuse_totals_beyond_int64():
    with pytest.raises(OverflowError):
        waits(np.zeros((1, 2)), np.ones((1, 1)), np.array([[1, 2**61]]), np.arange(10))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200), st.sampled_from([1, 50, 95, 99, 99.9, 100, 33.3]))
def test_percentiles_are_nearest_ranks(values, q):
    expected = twins.nearest_rank(values, q)
    assert Measured(lambda: np.array(values, np.int64)).percentile(q) == expected
    unique, counts = np.unique(values, return_counts=True)
    assert Counted(unique.tolist(), counts.tolist()).percentile(q) == expected
    histogram = Histogram()
    histogram.add(np.array(values, np.int64))
    assert abs(histogram.percentile(q) - expected) <= 0.01 * expected
    assert histogram.mean == sum(values) / len(values) == Measured(lambda: np.array(values, np.int64)).mean
    assert histogram.largest == max(values)


def test_histogram_bins_are_narrow_and_join():
    edges = [bin_edges(place) for place in range(40 * 128)]
    assert all(high + 1 == low for (_, high), (low, _) in pairwise(edges))
    assert max((high - low) / max(low, 1) for low, high in edges) <= 1 / 128


def test_rank_has_no_rounding_errors():
    assert [rank(q, 100) for q in (50, 95, 99, 100)] == [49, 94, 98, 99]
    assert rank(95, 20) == 18 and rank(99, 1) == 0 and rank(50, 3) == 1


def test_exact_sum_does_not_overflow():
    values = np.full(1000, 2**62 - 1, np.int64)
    assert exact_sum(values) == 1000 * (2**62 - 1)
