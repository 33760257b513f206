"""f-pabee and pcee: streaks of like or certain exits, against counters kept by hand."""

from __future__ import annotations

import math

import builders
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eesim.errors import BadInput
from eesim.mechanisms import load_mechanism
from eesim.mechanisms._streak import weakest_of_last
from eesim.mechanisms.base import Site
from eesim.mechanisms.f_pabee import DIVERGENCES, divergences
from eesim.trace import TraceView


def view_of(*exits):
    """One sample for which exit e says `exits[e]`."""
    return TraceView.of_arrays(np.log(np.asarray(exits, float))[:, None].astype(np.float32), np.zeros(1, int))


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


P, Q = (0.7, 0.2, 0.1), (0.6, 0.3, 0.1)
MIDDLE = tuple((a + b) / 2 for a, b in zip(P, Q, strict=True))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("kl", kl(P, Q)),
        ("reverse-kl", kl(Q, P)),
        ("symmetric-kl", kl(P, Q) + kl(Q, P)),
        ("js", (kl(P, MIDDLE) + kl(Q, MIDDLE)) / 2),
    ],
)
def test_divergences_by_hand(kind, expected):
    found = divergences(view_of(P, Q, Q), kind)[0]
    assert np.isinf(found[0]) and found[1] == pytest.approx(expected, abs=1e-6) and found[2] == pytest.approx(0, abs=1e-9)
    assert found[1] != pytest.approx(kl(P, Q) + 0.01)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_divergences_stay_finite_where_a_softmax_entry_is_zero(kind):
    view = TraceView.of_arrays(np.array([[[2000.0, 0, 0]], [[0, 2000.0, 0]], [[0, 2000.0, 0]]], np.float32), np.zeros(1, int))
    assert (view.probabilities == 0).any()
    found = divergences(view, kind)[0]
    assert np.isfinite(found[1:]).all() and found[1] > 0.5 and found[2] == 0


def counted(conditions, patience):
    """The exit at which a counter of conditions in a row first reaches `patience`; the last exit if it never does."""
    counter = 0
    for exit, met in enumerate(conditions[:-1]):
        counter = counter + 1 if met else 0
        if counter >= patience:
            return exit
    return len(conditions) - 1


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_f_pabee_is_a_counter_of_small_divergences(kind, patience):
    view = builders.view(samples=300, exits=5, calibration=100)
    rule, found = load_mechanism("f-pabee"), divergences(view, kind)
    exact = float(found[7, 2])
    for tau in (0.0, 0.05, 0.4, exact, float(np.nextafter(exact, 9)), 3.0):
        values = rule.settle({"threshold": tau, "patience": patience, "divergence": kind}, view)
        expected = [counted([False, *(change < tau for change in row[1:])], patience) for row in found]
        assert_array_equal(rule.decide(view, values).exit, expected)
    assert set(rule.decide(view, rule.settle({"threshold": "never", "patience": patience}, view)).exit) == {4}


def test_f_pabee_is_strict_at_the_threshold():
    view = builders.view(samples=300, exits=4, calibration=100)
    rule, found = load_mechanism("f-pabee"), divergences(view, "symmetric-kl")
    tau = float(found[11, 1])
    for threshold, stops in ((tau, False), (float(np.nextafter(tau, 9)), True)):
        values = rule.settle({"threshold": threshold, "patience": 1}, view)
        assert (rule.decide(view, values).exit[11] == 1) == stops


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_pcee_is_a_counter_of_certain_exits(patience):
    view = builders.view(samples=300, exits=5, calibration=100)
    rule = load_mechanism("pcee")
    for tau in (0.0, 0.3, float(view.entropy[3, 2]), 1.2):
        values = rule.settle({"threshold": tau, "patience": patience}, view)
        expected = [counted([entropy < tau for entropy in row], patience) for row in view.entropy]
        assert_array_equal(rule.decide(view, values).exit, expected)


def test_pcee_with_patience_1_is_the_entropy_rule():
    view = builders.view(samples=300, exits=4, calibration=100)
    rules = [load_mechanism(name) for name in ("pcee", "entropy")]
    exits = [rule.decide(view, rule.settle({"threshold": 0.4, **more}, view)).exit for rule, more in zip(rules, ({"patience": 1}, {}), strict=True)]
    assert_array_equal(*exits)
    assert len(set(exits[0].tolist())) > 2


def test_a_streak_does_not_reach_before_the_first_exit_that_is_asked():
    assert weakest_of_last(np.array([[3.0, 1, 2]]), 2).tolist() == [[-np.inf, 1, 1]]
    assert weakest_of_last(np.array([[3.0, 1, 2]]), 2, begin=1).tolist() == [[-np.inf, -np.inf, 1]]
    view, rule = builders.view(samples=300, exits=5, calibration=100), load_mechanism("pcee")
    whole = rule.decide(view, rule.settle({"threshold": 1.38, "patience": 2}, view)).exit
    later = rule.decide(view, rule.settle({"threshold": 1.38, "patience": 2, "min_exit": 2}, view)).exit
    assert (whole == 1).mean() > 0.9 and set(later.tolist()) <= {3, 4} and (later == 3).any()


def test_scores_that_are_not_numbers_never_pass():
    scores = np.array([[1.0, np.nan, 1, 1]])
    assert not (weakest_of_last(scores, 2)[0, 1:3] >= -1e9).any() and weakest_of_last(scores, 2)[0, 3] == 1


@pytest.mark.parametrize("name", ["f-pabee", "pcee"])
def test_candidates_try_every_patience_that_can_save_something(name):
    view, rule = builders.view(samples=600, exits=5, calibration=300), load_mechanism(name)
    found = rule.candidates(view.calibration, 60)
    assert {values["patience"] for values in found} == ({1, 2, 3} if name == "f-pabee" else {1, 2, 3, 4})
    assert 40 <= len(found) <= 70 and sum(values["threshold"] == "never" for values in found) == 1
    fixed = rule.candidates(view.calibration, 60, {"patience": 2})
    assert all("patience" not in values for values in fixed) and len(fixed) > 40
    assert rule.candidates(view.calibration, 60, {"patience": 2, "threshold": 0.3}) == [{}]
    for values in found:
        rule.settle(values, view)


@pytest.mark.parametrize("name", ["f-pabee", "pcee"])
def test_one_exit_and_bad_input(name):
    view, rule = builders.view(samples=60, exits=1, calibration=20), load_mechanism(name)
    assert rule.candidates(view.calibration, 10)
    assert set(rule.decide(view, rule.settle({}, view)).exit) == {0}
    for given in ({"patience": 0}, {"patience": 1.5}, {"threshold": -1}, {"divergence": "l2"} if name == "f-pabee" else {"threshold": 9}):
        with pytest.raises(BadInput) as caught:
            rule.check(given, view)
        assert "\n" not in str(caught.value)


def test_own_work_is_charged():
    site = Site(classes=10, exits=4)
    first, second, _ = load_mechanism("f-pabee").charge(site).decision
    assert sum(piece.operations for piece in first) == 40, "the first exit has nothing to compare with"
    assert sum(piece.operations for piece in second) == 82
    assert sum(piece.operations for piece in load_mechanism("pcee").charge(site).at(0)) == 72
