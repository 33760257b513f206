"""Paired differences: worked examples, coverage of the intervals, and ties."""

from __future__ import annotations

import numpy as np
import pytest

from eesim.measures.paired import difference, units


def test_a_difference_by_hand():
    ours, theirs = np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.0, 0.0])
    found = difference(ours, theirs, np.arange(4))
    assert found.value == 0.5 and found.low <= 0.5 <= found.high
    assert difference(2 * theirs + 1, theirs + 1, np.arange(4), relative=True).value == pytest.approx(1 / 5)


def test_equal_runs_tie_and_unknown_labels_are_left_out():
    values = np.array([1.0, 0.0, np.nan, 1.0])
    assert difference(values, values, np.arange(4)).tie
    assert difference(np.full(3, np.nan), np.zeros(3), np.arange(3)) is None
    assert difference(np.ones(3), np.zeros(3), np.arange(3), relative=True) is None


def test_streams_are_drawn_whole_where_there_are_enough():
    assert units(np.repeat(np.arange(12), 5)).tolist() == np.repeat(np.arange(12), 5).tolist()
    few = units(np.repeat(np.arange(3), 400))
    assert np.unique(few).size == 100 and (np.diff(few) >= 0).all()
    assert units(np.zeros(7, int)).tolist() == list(range(7))


def test_intervals_hold_the_truth_about_as_often_as_they_say_even_where_neighbours_agree():
    rng = np.random.default_rng(3)
    held = naive = 0
    for _ in range(100):
        shared = np.repeat(rng.normal(0.0, 1.0, 40), 25)  # 40 streams of 25 samples that share their luck
        ours, theirs = shared + rng.normal(0.3, 1, 1000), rng.normal(0.0, 1, 1000)
        by_stream = difference(ours, theirs, units(np.repeat(np.arange(40), 25)))
        held += by_stream.low <= 0.3 <= by_stream.high
        alone = difference(ours, theirs, np.arange(1000))
        naive += alone.low <= 0.3 <= alone.high
    assert held >= 88 > naive, "drawing samples one by one would promise too much"
