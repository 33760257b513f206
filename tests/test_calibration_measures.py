"""Calibration errors and conformal sets: by hand, against plain definitions, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from eesim.errors import BadInput
from eesim.measures import calibration as measures


def plain_error(confidence, correct, bins=15):
    """Sample by sample, as the definition reads."""
    edges = np.percentile(confidence, np.linspace(0, 1, bins + 1) * 100)
    members = [[] for _ in range(bins)]
    for index, value in enumerate(confidence):
        members[sum(edge < value for edge in edges[1:-1])].append(index)
    total = 0.0
    for part in members:
        if part:
            total += len(part) / len(confidence) * abs(np.mean(correct[part]) - np.mean(confidence[part]))
    return total


@pytest.mark.parametrize("samples", [1, 7, 15, 400])
def test_calibration_error_is_the_definition(samples):
    rng = np.random.default_rng(samples)
    confidence = np.round(rng.random(samples), 2)  # ties
    correct = (rng.random(samples) < confidence).astype(int)
    assert measures.expected_calibration_error(confidence, correct) == pytest.approx(plain_error(confidence, correct), abs=1e-12)
    assert measures.expected_calibration_error(confidence, correct, bins=3) == pytest.approx(plain_error(confidence, correct, 3), abs=1e-12)


def test_calibration_error_by_hand():
    """Two bins of two: |0.5 - 0.25| and |1 - 0.8|, half the samples each."""
    assert measures.expected_calibration_error(np.array([0.2, 0.3, 0.7, 0.9]), np.array([0, 1, 1, 1]), bins=2) == pytest.approx(0.225)


def test_samples_that_share_a_confidence_share_a_bin():
    assert measures.expected_calibration_error(np.full(100, 0.8), np.arange(100) % 10 < 8) == pytest.approx(0)


def test_by_batch_it_is_the_weighted_mean_and_lies_above():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 1000)
    correct = (rng.random(1000) < confidence).astype(int)
    parts = [slice(begin, begin + 64) for begin in range(0, 1000, 64)]
    wanted = sum(plain_error(confidence[part], correct[part]) * confidence[part].size for part in parts) / 1000
    found = measures.expected_calibration_error(confidence, correct, batch=64)
    assert found == pytest.approx(wanted, abs=1e-12)
    assert found > 2 * measures.expected_calibration_error(confidence, correct), "biased upward, as the reference says"


def test_unknown_labels_are_left_out():
    confidence, correct = np.array([0.9, 0.1, 0.6]), np.array([1, -1, 0])
    assert measures.expected_calibration_error(confidence, correct, 2) == measures.expected_calibration_error(confidence[[0, 2]], correct[[0, 2]], 2)


def test_gated_error_looks_at_the_exit_taken():
    rng = np.random.default_rng(1)
    confidence, exits = rng.random((200, 3)), rng.integers(0, 3, 200)
    correct = (rng.random((200, 3)) < 0.5).astype(int)
    wanted = plain_error(confidence[np.arange(200), exits], correct[np.arange(200), exits])
    assert measures.gated_calibration_error(confidence, correct, exits) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("count", "alpha", "textbook", "code"), [(100, 0.05, 0.96, 0.97), (100, 0.1, 0.91, 0.92), (100, 0.01, 1, 1), (20, 0.1, 0.95, 1)]
)
def test_quantiles_of_the_reference(count, alpha, textbook, code):
    scores = np.random.default_rng(0).permutation(np.arange(1, count + 1) / count)
    assert measures.conformal_quantile(scores, alpha) == pytest.approx(textbook)
    assert measures.conformal_quantile(scores, alpha, "code") == pytest.approx(code)


def test_the_codes_rank_is_numpys_higher():
    scores = np.random.default_rng(0).random(137)
    for alpha in np.arange(0.01, 0.051, 0.005):
        level = min(1, np.ceil(138 * (1 - alpha)) / 137)
        assert measures.conformal_quantile(scores, alpha, "code") == np.quantile(scores, level, method="higher")


def test_no_scores_give_one_minus_alpha_and_few_the_largest():
    assert measures.conformal_quantile(np.array([]), 0.05) == 0.95
    assert measures.conformal_quantile(np.array([0.2, 0.4]), 0.05) == 0.4


def case(seed=0, samples=4000):
    """Three exits, four classes; probabilities that say the truth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, samples)
    evidence = np.eye(4)[labels][:, None] * np.array([2, 4, 8])[:, None] + rng.normal(size=(samples, 3, 4)) * np.sqrt([2, 4, 8])[:, None]
    probabilities = np.exp(evidence) / np.exp(evidence).sum(axis=2, keepdims=True)
    sure = probabilities.max(axis=2) > 0.8
    exits = np.where(sure.any(axis=1), sure.argmax(axis=1), 2)
    return probabilities, labels, exits


def test_scores_are_one_minus_the_true_class():
    probabilities, labels, _ = case(samples=50)
    scores = measures.conformal_scores(probabilities, labels)
    assert scores.shape == (50, 3) and scores[7, 1] == 1 - probabilities[7, 1, labels[7]]
    assert_array_equal(measures.conformal_scores(probabilities[:, 1], labels), scores[:, 1])


def test_variants_take_the_scores_they_name():
    probabilities, labels, exits = case(samples=300)
    exits[exits == 1] = 0
    exits[:5] = 1  # five samples leave at exit 1
    exits[5:40] = 2
    scores = measures.conformal_scores(probabilities, labels)
    strict, everyone, gated, general = (
        measures.conformal_quantiles(scores, exits, 0.1, variant) for variant in ("gated_strict", "gated_all", "gated", "general")
    )
    assert_allclose(strict, [measures.conformal_quantile(scores[exits == exit, exit], 0.1) for exit in range(3)])
    assert_allclose(everyone, [measures.conformal_quantile(scores[:, exit], 0.1) for exit in range(3)])
    assert_allclose(general, measures.conformal_quantile(scores[np.arange(300), exits], 0.1))
    assert_allclose(gated, [strict[0], everyone[1], strict[2]])
    exits[exits == 1] = 0
    assert measures.conformal_quantiles(scores, exits, 0.1, "gated_strict")[1] == 0.9, "nobody left there"


@pytest.mark.parametrize("variant", ["general", "gated_strict", "gated"])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_sets_cover_what_they_promise(variant, alpha):
    probabilities, labels, exits = case(1)
    quantiles = measures.conformal_quantiles(measures.conformal_scores(probabilities, labels), exits, alpha, variant)
    other, truth, left = case(2, 20_000)
    sets = measures.conformal_sets(other, quantiles, left)
    assert measures.coverage(sets, truth) == pytest.approx(1 - alpha, abs=0.02)
    assert measures.empirical_alpha(sets, truth) == pytest.approx(1 - measures.coverage(sets, truth))
    assert measures.inefficiency(sets) == pytest.approx(sets.sum() / 20_000)
    quantiles = measures.conformal_quantiles(measures.conformal_scores(probabilities, labels), exits, 0.4, variant)
    tighter = measures.conformal_sets(other, quantiles, left)
    assert measures.inefficiency(tighter) < measures.inefficiency(sets)


def test_a_sample_at_the_quantile_is_covered_and_sets_are_those_of_the_exit_taken():
    probabilities = np.array([[[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]])
    for exit, truth in ((0, 1), (1, 1)):
        quantile = measures.conformal_scores(probabilities[:, exit], np.array([truth]))[0]
        sets = measures.conformal_sets(probabilities, np.full(2, quantile), np.array([exit]))
        assert sets[0].tolist() == [[True, True, False], [False, True, True]][exit]
    assert measures.coverage(np.array([[True, False], [False, True]]), np.array([0, -1])) == 1


@pytest.mark.parametrize(
    ("call", "telling"),
    [
        (lambda: measures.expected_calibration_error(np.array([0.5]), np.array([-1])), "no sample has a label"),
        (lambda: measures.expected_calibration_error(np.ones(3), np.ones(2)), "one length"),
        (lambda: measures.expected_calibration_error(np.ones(3), np.ones(3), bins=0), "at least 1"),
        (lambda: measures.conformal_quantile(np.ones(3), 1.5), "outside its range"),
        (lambda: measures.conformal_quantile(np.ones(3), 0.1, "codes"), "did you mean 'code'"),
        (lambda: measures.conformal_quantiles(np.ones((3, 2)), np.zeros(3, int), 0.1, "gates"), "unknown variant"),
        (lambda: measures.coverage(np.ones((2, 2), bool), np.array([-1, -1])), "no coverage"),
    ],
)
def test_bad_input_is_one_line(call, telling):
    with pytest.raises(BadInput, match=telling) as caught:
        call()
    assert "\n" not in str(caught.value)
