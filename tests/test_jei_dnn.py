"""JEI-DNN: exit masses and targets by hand, training against plain numpy and finite differences, what it learns, costs, bad input."""

from __future__ import annotations

from itertools import pairwise

import builders
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit, log_softmax, softmax

import eesim
from eesim.errors import BadInput
from eesim.mechanisms import STOP, load_mechanism
from eesim.mechanisms import _jei_training as training
from eesim.mechanisms.base import Site
from eesim.mechanisms.jei_dnn import head_statistics, losses, module_features
from eesim.trace import TraceView

RULE = load_mechanism("jei-dnn")


def decided(view, **given):
    values = RULE.settle(given, view)
    return RULE.variant(values).decide(view, values)


# The rule, by hand


@pytest.mark.parametrize(
    ("gates", "mass", "chance", "exit"),
    [
        ((0.3, 0.3, 0.6, 0.5), (0.3, 0.3, 0.4, 0), (0.3, 0.428571, 1, 0), 2),
        ((0.1, 0.2, 0.3, 0.1), (0.1, 0.2, 0.3, 0.1), (0.1, 0.222222, 0.428571, 0.25), None),
        ((0.5, 0.9), (0.5, 0.5), (0.5, 1), 0),
        ((0.49, 0.2, 0.4, 0.9), (0.49, 0.2, 0.31, 0), (0.49, 0.392157, 1, 0), 2),
        ((0.45, 0.45, 0.05, 0.2), (0.45, 0.45, 0.05, 0.05), (0.45, 0.818182, None, None), 1),
    ],
)
def test_exit_masses_by_hand(gates, mass, chance, exit):
    found_mass, found_chance = training.exit_masses(np.array([gates]))
    assert_allclose(found_mass[0], mass, atol=1e-6)
    known = [place for place, value in enumerate(chance) if value is not None]
    assert_allclose(found_chance[0, known], [chance[place] for place in known], atol=1e-6)
    leave = np.flatnonzero(found_chance[0] >= 0.5)
    assert (int(leave[0]) if leave.size else None) == exit


@pytest.mark.parametrize(("chance", "following"), [(0.5, STOP), (np.nextafter(0.5, 0), 1), (np.nan, 1)])
def test_half_itself_leaves(monkeypatch, chance, following):
    observed, answer = np.array([[chance, 2.0], [1.0, 0.0]]), np.full(2, -1)
    assert RULE.step(0, observed, None, None, None, None, answer) == following
    assert answer[0] == (2 if following == STOP else -1)
    view = builders.view(samples=400, exits=2)
    said = np.full((len(view), 1), chance), np.full((len(view), 1), 2, np.int32), np.ones((len(view), 1))
    monkeypatch.setattr(type(RULE), "opinions", lambda *_: said)
    assert set(RULE.decide(view, {"trade_off": 0.7}).exit) == {0 if following == STOP else 1}


def test_the_mass_left_is_the_last_exits():
    rng = np.random.default_rng(0)
    gates = rng.random((500, 5))
    mass, chance = training.exit_masses(gates)
    assert (mass >= 0).all() and (mass.sum(axis=1) <= 1 + 1e-12).all() and ((chance >= 0) & (chance <= 1)).all()
    assert_allclose(np.prod(1 - chance, axis=1), 1 - mass.sum(axis=1), atol=1e-12)


@pytest.mark.parametrize(("trade_off", "exit"), [(0, 3), (0.5, 3), (1, 3), (3, 2)])
def test_targets_by_hand(trade_off, exit):
    assert training.exit_targets(np.array([[2, 1.2, 0.4, 0.1]]), np.array([0.25, 0.5, 0.75, 1]), trade_off) == [exit]


def test_of_equal_targets_the_first_counts():
    assert training.exit_targets(np.array([[0.5, 0.25, 0.0]]), np.array([0.0, 0.25, 0.5]), 1.0) == [0]


def test_statistics_by_hand():
    found = training.softmax_statistics(np.array([0.7, 0.2, 0.1]))
    assert_allclose(found, [0.7, 0.801819, 0.5, 0.354829], atol=1e-6)


def test_weights_of_positive_targets_count_those_that_leave_exactly_there():
    """Ten samples: none at exit 0, one at 1, two at 2, seven at the last."""
    targets = np.array([1, 2, 2, 3, 3, 3, 3, 3, 3, 3])
    assert_allclose(training.positive_weights(targets, 3, 5.0), [5, 5, 4])
    assert_allclose(training.positive_weights(targets, 3, 0.5), [0.5, 0.5, 0.5])
    assert_allclose(training.positive_weights(np.zeros(10, int), 3, 5.0), [0, 5, 5])


# Training against plain twins


def problem(seed=0, samples=200, exits=3, size=4, classes=5):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(samples, exits, size))
    labels = rng.integers(0, classes, samples)
    features[:, :, 0] += labels[:, None]
    weights, gates = rng.normal(size=(exits, size + 1, classes)) / 3, rng.normal(size=(exits, 5)) * 2
    gates[:, 4] -= 1
    return features, labels, weights, gates


def module_logits(features, weights):
    return np.einsum("nld,ldk->nlk", features, weights[:, :-1]) + weights[:, -1]


def exit_mass(features, weights, gates):
    statistics = training.softmax_statistics(softmax(module_logits(features, weights), axis=2))
    return training.exit_masses(expit((statistics * gates[:, :4]).sum(axis=2) + gates[:, 4]))[0]


def twin_turn(features, labels, order, rate, by_mass, gates, weights, speed):
    for rows in order.reshape(-1, training.BATCH):
        share = exit_mass(features[rows], weights, gates) if by_mass else np.ones((rows.size, len(weights)))
        error = softmax(module_logits(features[rows], weights), axis=2) - np.eye(weights.shape[2])[labels[rows]][:, None]
        ones = np.concatenate([features[rows], np.ones((rows.size, len(weights), 1))], axis=2)
        gradient = np.einsum("nl,nld,nlk->ldk", share, ones, error) / training.BATCH
        speed = 0.9 * speed + gradient + 5e-4 * weights
        weights = weights - rate * speed
    return weights, speed


@pytest.mark.parametrize("by_mass", [True, False])
def test_a_turn_of_the_modules_is_momentum_sgd(by_mass):
    features, labels, weights, gates = problem(3)
    order = training.batches(np.random.default_rng(3), np.arange(len(labels)), 7)
    speed = np.random.default_rng(4).normal(size=weights.shape)
    wanted = twin_turn(features, labels, order, 0.03, by_mass, gates, weights.copy(), speed.copy())
    training.module_turn(features, labels, order, 0.03, by_mass, gates, weights, speed)
    assert_allclose(weights, wanted[0], rtol=0, atol=1e-9)
    assert_allclose(speed, wanted[1], rtol=0, atol=1e-9)


def test_one_step_follows_the_gradient_of_the_mass_weighted_loss():
    """Finite differences of sum over exits of P_l CE_l, P held fixed: the weights are detached."""
    features, labels, weights, gates = problem(1, samples=training.BATCH)
    mass = exit_mass(features, weights, gates)

    def loss(flat):
        logarithm = log_softmax(module_logits(features, flat.reshape(weights.shape)), axis=2)
        return -(mass * np.take_along_axis(logarithm, labels[:, None, None], axis=2)[:, :, 0]).sum(axis=1).mean()

    gradient = approx_fprime(weights.ravel(), loss, 1e-6).reshape(weights.shape)
    after = weights.copy()
    training.module_turn(features, labels, np.arange(training.BATCH), 1.0, True, gates, after, np.zeros_like(weights))
    assert_allclose(weights - after, gradient + training.DECAY * weights, atol=1e-6)
    assert (mass.mean(axis=0) > 0.02).all() and (mass == 0).any(), "the case has samples of every kind"


def test_the_public_codes_weights_cancel_out():
    """Its loss sum_l P_l CE_l * (sum CE / sum P CE), differentiated through the factor, is that of sum_l CE_l whatever P is."""
    features, labels, weights, gates = problem(2, samples=40)

    def cross_entropies(flat):
        logarithm = log_softmax(module_logits(features, flat.reshape(weights.shape)), axis=2)
        return -np.take_along_axis(logarithm, labels[:, None, None], axis=2)[:, :, 0]

    mass = exit_mass(features, weights, gates) + 1e-3

    def codes(flat):
        each = cross_entropies(flat)
        return (mass * each).sum(axis=1) @ (each.sum(axis=1) / (mass * each).sum(axis=1))

    plain = approx_fprime(weights.ravel(), lambda flat: cross_entropies(flat).sum(), 1e-6)
    assert_allclose(approx_fprime(weights.ravel(), codes, 1e-6), plain, atol=1e-3)


def twin_warm_up(features, labels, order, held, every, share, weights):
    speed, best, least, worse = np.zeros_like(weights), weights, np.inf, 0
    ones = np.column_stack([features, np.ones(len(features))])
    steps = order.reshape(-1, training.BATCH)
    for step, rows in enumerate(steps, start=1):
        error = softmax(ones[rows] @ weights, axis=1) - np.eye(weights.shape[1])[labels[rows]]
        speed = 0.9 * speed + share * ones[rows].T @ error / training.BATCH + 5e-4 * weights
        weights = weights - 0.01 * speed
        if step % every == 0 or step == len(steps):
            loss = -log_softmax(ones[held] @ weights, axis=1)[np.arange(held.size), labels[held]].sum()
            if loss < least:
                least, worse, best = loss, 0, weights
            else:
                worse += 1
                if worse == 2:
                    break
    return best, step


@pytest.mark.parametrize(("batches", "stopped"), [(20, False), (400, True)])
def test_warm_up_is_sgd_with_an_early_stop_at_the_best(batches, stopped):
    features, labels, weights, _ = problem(5, samples=80)
    if stopped:
        labels = np.random.default_rng(2).permutation(labels)  # nothing to learn but by heart
    rows = np.random.default_rng(0).permutation(80)
    order = training.batches(np.random.default_rng(1), rows[16:], batches)
    wanted, steps = twin_warm_up(features[:, 0], labels, order, rows[:16], 4, 3.0, weights[0].copy())
    assert (steps < batches) == stopped
    training.warm_up_module(features, 0, labels, order, rows[:16], 4, 3.0, weights)
    assert_allclose(weights[0], wanted, rtol=0, atol=1e-9)


def test_modules_are_asked_as_numpy_would():
    features, labels, weights, _ = problem(6)
    said = softmax(module_logits(features.astype(np.float32), weights), axis=2)
    loss, statistics = np.empty((200, 3)), np.empty((200, 3, 4))
    training.look(features.astype(np.float32), labels, weights, loss, statistics)
    assert_allclose(loss, -np.log(np.take_along_axis(said, labels[:, None, None], axis=2)[:, :, 0]), atol=1e-9)
    assert_allclose(statistics, training.softmax_statistics(said), atol=1e-9)
    answers, confidence, again = np.empty((200, 3), np.int32), np.empty((200, 3)), np.empty((200, 3, 4))
    training.ask_modules(features.astype(np.float32), weights, answers, confidence, again)
    assert_array_equal(answers, said.argmax(axis=2))
    assert_allclose(confidence, said.max(axis=2), atol=1e-12)
    assert_array_equal(again, statistics)


def test_gate_loss_by_finite_differences():
    rng = np.random.default_rng(0)
    statistics, leave, gate = rng.normal(size=(50, 4)), rng.random(50) < 0.3, rng.normal(size=5)

    def value(point):
        return training.gate_moments(statistics, leave, 2.5, 0.01, point)[0]

    sums = statistics @ gate[:4] + gate[4]
    plain = np.where(leave, -2.5 * np.log(expit(sums)), -np.log(expit(-sums))).mean() + 0.005 * gate @ gate
    assert value(gate) == pytest.approx(plain, abs=1e-12)
    _, gradient, curvature = training.gate_moments(statistics, leave, 2.5, 0.01, gate)
    assert_allclose(gradient, approx_fprime(gate, value, 1e-7), atol=1e-6)
    slopes = [approx_fprime(gate, lambda point, e=e: training.gate_moments(statistics, leave, 2.5, 0.01, point)[1][e], 1e-7) for e in range(5)]
    assert_allclose(curvature, slopes, atol=1e-6)


def test_gates_reach_the_minimum_of_their_loss():
    rng = np.random.default_rng(1)
    statistics, targets = rng.normal(size=(300, 2, 4)), rng.integers(0, 3, 300)
    statistics[:, :, 0] -= targets[:, None]
    positive = training.positive_weights(targets, 2, 5.0)
    gates = training.fit_gates(statistics, targets, positive, np.full((2, 5), 3.0))
    for exit in range(2):
        leave = targets <= exit

        def loss(gate, exit=exit, leave=leave):
            sums = statistics[:, exit] @ gate[:4] + gate[4]
            losses = np.logaddexp(0, np.where(leave, -sums, sums)) * np.where(leave, positive[exit], 1)
            return losses.mean() + 2 * training.DECAY * gate @ gate / 2

        assert_allclose(gates[exit], minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x, atol=1e-5)


@pytest.mark.parametrize("targets", [np.zeros(40, int), np.full(40, 2)])
def test_gates_with_one_kind_of_target_stay_finite(targets):
    statistics = np.random.default_rng(2).normal(size=(40, 2, 4))
    statistics[:, :, 1] = 0
    gates = training.fit_gates(statistics, targets, np.full(2, 5.0), np.zeros((2, 5)))
    assert np.isfinite(gates).all()
    assert ((gates[:, 4] > 2) == (targets[0] == 0)).all()


def test_folding_back_is_a_change_of_coordinates_only():
    features, _, weights, _ = problem(7)
    mean, deviation = training.standard(features)
    wanted = module_logits((features - mean) / deviation, weights)
    assert_allclose(module_logits(features, training.fold_back(weights, mean, deviation)), wanted, atol=1e-9)
    gates = np.random.default_rng(0).normal(size=(3, 5))
    folded = training.fold_back(gates, mean, deviation)
    statistics = (features - mean) / deviation
    assert_allclose((features * folded[:, :4]).sum(axis=2) + folded[:, 4], (statistics * gates[:, :4]).sum(axis=2) + gates[:, 4], atol=1e-9)


def test_many_alike_features_do_not_overshoot():
    """100 copies of one feature: the rate would be far too large without shrinking."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    features = np.repeat((labels + 0.3 * rng.normal(size=300))[:, None, None], 100, axis=2)
    warm = training.warm_up(features, labels, 2, 0)
    plain = (features - warm["mean"])[:, 0] / warm["deviation"]
    assert np.linalg.eigvalsh(plain.T @ plain / 300)[-1] * 2 == pytest.approx(training.STEEPEST), "100 * 2 unshrunk"
    said = plain @ warm["weights"][0, :-1] + warm["weights"][0, -1]
    assert (said.argmax(axis=1) == labels).mean() > 0.9


# What it learns


def made(**options):
    return builders.view(**{"samples": 3000, "calibration": 1200, "seed": 3, **options})


@pytest.mark.parametrize("modules", ["fitted", "recorded"])
def test_mean_cost_falls_as_the_trade_off_grows(modules):
    view = made()
    depth = [decided(view, trade_off=value, modules=modules, pos_weight_max=1).exit.mean() for value in (0, 0.1, 0.3, 0.7, 1.5, 3)]
    assert all(later <= earlier + 0.02 for earlier, later in pairwise(depth)), depth
    assert depth[0] > 1.8 and depth[-1] < 1, "the trade-off spans the network"


@pytest.mark.parametrize("modules", ["fitted", "recorded"])
def test_early_leavers_are_right_more_often_than_the_first_head(modules):
    view = made()
    decisions = decided(view, trade_off=0.7, modules=modules, pos_weight_max=1)
    first = decisions.exit == 0
    assert 0.03 < first.mean() < 0.9
    assert (decisions.prediction == view.label)[first].mean() > view.correct[:, 0].mean() + 0.05
    assert (decisions.prediction == view.label).mean() > view.correct[:, 0].mean() + 0.1


def test_modules_do_not_depend_on_the_trade_off_with_the_codes_weighting():
    view = made(samples=1500)
    said = {
        w: [RULE.opinions(view, {"trade_off": value, "modules": "fitted", "weighting": w}) for value in (0.01, 0.7, 3.0)]
        for w in ("code", "exit-mass")
    }
    for other in said["code"][1:]:
        assert_array_equal(other[1], said["code"][0][1])
        assert_array_equal(other[2], said["code"][0][2])
        assert not np.array_equal(other[0], said["code"][0][0]), "the gates do depend on it"
    assert not np.array_equal(said["exit-mass"][1][2], said["exit-mass"][0][2])


def test_gates_on_recorded_heads_are_the_weighted_regressions():
    view = made(exits=3)
    known = view.calibration
    targets = (losses(known) + 0.5 * np.array([1 / 3, 2 / 3, 1])).argmin(axis=1)
    gates = training.train_gates(head_statistics(known), losses(known), np.array([1 / 3, 2 / 3, 1]), 0.5, 2.0)
    outputs = training.gate_outputs(head_statistics(view), gates)
    assert_array_equal(RULE.opinions(view, {"trade_off": 0.5, "modules": "recorded", "pos_weight_max": 2.0})[0], training.exit_masses(outputs)[1])
    calibrated = training.gate_outputs(head_statistics(known), gates)
    weight = np.minimum(2, (1200 - np.bincount(targets)[:2]) / np.bincount(targets)[:2])
    for exit in range(2):
        share = np.where(targets <= exit, weight[exit], 1)
        assert (share * calibrated[:, exit]).sum() == pytest.approx((share * (targets <= exit)).sum(), rel=0.01), "a fitted regression's mean"


def test_answers_and_confidence_are_the_modules_own():
    view = made(exits=3)
    decisions = decided(view, trade_off=0.5, modules="fitted")
    chance, answers, confidence = RULE.opinions(view, {"trade_off": 0.5, "modules": "fitted"})
    for exit in range(2):
        there = decisions.exit == exit
        assert there.any()
        assert_array_equal(decisions.prediction[there], answers[there, exit])
        assert_array_equal(decisions.confidence[there], confidence[there, exit])
        assert (chance[there, exit] >= 0.5).all() and (chance[there, :exit] < 0.5).all()
    last = decisions.exit == 2
    assert_array_equal(decisions.prediction[last], view.answers[last, 2])
    assert_array_equal(decisions.confidence[last], view.confidence[last, 2])
    assert (answers != view.answers[:, :2]).any(), "modules are not the recorded heads"


def test_nothing_of_the_test_split_is_learned_from():
    seen, other = made(exits=3), made(exits=3, unlabelled=0)
    other.label[:] = 0
    for modules in ("fitted", "recorded"):
        assert_array_equal(decided(seen, modules=modules).exit, decided(other, modules=modules).exit)


def test_the_calibration_split_is_judged_out_of_fold(monkeypatch):
    from eesim.mechanisms import _fitting

    view = made(exits=3)
    sizes = []
    real = _fitting.fitted
    monkeypatch.setattr(_fitting, "fitted", lambda samples, *rest, **more: sizes.append(len(samples)) or real(samples, *rest, **more))
    decided(view.calibration, modules="recorded", trade_off=0.123)
    assert sizes == [800, 800, 800]


def test_samples_without_a_label_are_left_out():
    view = made(exits=3, unlabelled=1500)
    assert (view.calibration.label < 0).sum() > 300
    for modules in ("fitted", "recorded"):
        assert decided(view, modules=modules, pos_weight_max=1).exit.mean() < 2
    view.calibration.label[:] = -1
    with pytest.raises(BadInput, match="no labels"):
        decided(view, modules="recorded", trade_off=0.77)


def test_the_same_seed_gives_the_same_and_another_seed_other_modules():
    view = made(samples=1500, exits=3)
    given = {"trade_off": 0.5, "modules": "fitted"}
    first, again, other = (RULE.opinions(made(samples=1500, exits=3), {**given, "seed": seed})[2] for seed in (1, 1, 2))
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert_allclose(first, other, atol=0.2)
    assert len(view) == len(first)


def test_costs_by_exit_say_where_leaving_pays():
    view = made(exits=4)
    even = RULE.exit_costs(view, {})
    assert_allclose(even, [0.25, 0.5, 0.75, 1])
    assert_allclose(RULE.exit_costs(view.restricted((1, 3)), {}), [0.5, 1])
    assert_allclose(RULE.exit_costs(view.restricted((1, 3)), {"cost": (0.1, 0.3, 0.9)}), [0.3, 1])
    shares = [np.mean(decided(view, modules="recorded", trade_off=1, pos_weight_max=1, cost=cost).exit == 1) for cost in ([0.1, 0.1, 1], [0.1, 1, 1])]
    assert shares[0] > shares[1] + 0.1


@pytest.mark.parametrize("modules", ["fitted", "recorded"])
@pytest.mark.parametrize("enabled", [(3,), (1, 3), (0, 1, 3)])
def test_some_exits_only(modules, enabled):
    view = made(samples=900, calibration=300).restricted(enabled)
    decisions = decided(view, modules=modules, pos_weight_max=0.5)
    assert set(decisions.exit) <= set(range(len(enabled)))
    observed = RULE.observe(view, RULE.settle({"modules": modules, "pos_weight_max": 0.5}, view))
    assert observed.shape == (len(view), len(enabled), 2) and (observed[:, -1, 1] == view.answers[:, -1]).all()


def test_exits_may_have_features_of_different_length():
    made_up = builders.trace(samples=900, calibration=300, exits=3)
    parts = [part[:, : 3 + 2 * exit] for exit, part in enumerate(builders.features(made_up, 8))]
    views = {}
    for split in ("calibration", "test"):
        views[split] = TraceView(made_up, split, sibling=views.get, features=lambda split: [part[made_up.split == split] for part in parts])
    filled = module_features(views["test"])
    assert filled.shape == (600, 2, 5) and (filled[:, 0, 3:] == 0).all() and (filled[:, 1] == parts[1][made_up.split == "test"]).all()
    assert set(decided(views["test"], trade_off=0.7, modules="fitted").exit) <= {0, 1, 2}


# Costs, candidates, bad input


def test_modules_replace_the_recorded_heads_and_are_paid():
    site = Site(4, 3, (1, 100), (640, 32, 64), (16, 32, 64))
    fitted, recorded = (RULE.variant({"modules": modules}) for modules in ("fitted", "recorded"))
    first, second = (fitted.charge(site).at(exit) for exit in range(2))
    assert [(work.kind, work.macs) for work in first] == [("pooling", 0), ("fully_connected", 64), ("softmax", 0), ("elementwise", 0)]
    assert first[0].elements == 640 and first[3].operations == 9 * 4 + 6 + 3
    assert [work.kind for work in second] == ["fully_connected", "softmax", "elementwise"], "features that are pooled already"
    assert fitted.replaces_heads and fitted.variant({"modules": "fitted"}) is fitted and not fitted.variant({}).replaces_heads
    assert recorded is RULE and not recorded.replaces_heads, "the default"
    assert [work.kind for work in recorded.charge(site).at(0)] == ["softmax", "elementwise"]


def test_macs_are_those_of_the_modules(made_workload, made_profile):
    macs = {}
    for modules in ("fitted", "recorded"):
        result = eesim.simulate(made_workload, made_profile, "jei-dnn", {"trade_off": 3, "modules": modules}, arrivals="closed")
        shares = np.array(result["exit_fractions"])
        reached = np.array([shares[exit:].sum() for exit in range(4)])
        segments = np.array([10_000, 20_000, 30_000, 40_000]) @ reached
        macs[modules] = result["macs_mean"] - segments - 100 * shares[-1]
        own = 100 if modules == "recorded" else 4 * 4  # the made-up heads read 4 features
        assert macs[modules] == pytest.approx(own * reached[:-1].sum())


def test_candidates_try_both_kinds_of_modules_where_there_are_features():
    view = made(samples=900, calibration=300)
    tried = RULE.candidates(view.calibration, 500)
    assert {values["modules"] for values in tried} == {"fitted", "recorded"}
    assert len({repr(values) for values in tried}) == len(tried) < 100
    assert all(RULE.check(values, view) == values for values in tried)
    assert len(RULE.candidates(view.calibration, 6)) <= 8
    assert {values["trade_off"] for values in RULE.candidates(view.calibration, 500, {"modules": "recorded", "pos_weight_max": 5.0})} >= {0.7, 2.0}
    assert RULE.candidates(view.calibration, 500, {"trade_off": 0.7, "modules": "recorded", "pos_weight_max": 5.0}) == [{}]
    bare = TraceView(builders.trace(samples=900, calibration=300))
    assert {values["modules"] for values in RULE.candidates(bare.calibration, 500)} == {"recorded"}


def test_tuning_saves_and_keeps_within_the_drop(made_workload, made_profile):
    tuned = eesim.tune(made_workload, made_profile, "jei-dnn", accuracy_drop="5%", objective="macs")
    static = eesim.tune(made_workload, made_profile, "static", objective="macs")
    assert tuned.mechanism.name == "jei-dnn" and tuned.calibration["macs"] < 0.9 * static.calibration["macs"]
    assert tuned.calibration["accuracy"] >= static.calibration["accuracy"] - 0.05 - 1e-12


def test_the_default_is_no_trap():
    """On har-wisdm modules of its own are less accurate than the first recorded exit, at more cost; the default must not be."""
    found = {}
    for name, parameters in (("first-exit", {}), ("jei-dnn", {}), ("jei-dnn", {"modules": "recorded"})):
        result = eesim.simulate("har-wisdm", "stm32l4r5-xcubeai", name, parameters, arrivals="closed")
        found[name, bool(parameters)] = result["accuracy"]
    assert found["jei-dnn", False] == found["jei-dnn", True] > found["first-exit", False] + 0.03


@pytest.mark.parametrize(
    ("given", "telling"),
    [
        ({"trade_off": -0.1}, "at least 0"),
        ({"trade_off": "never"}, "not a number"),
        ({"modules": "both"}, "unknown modules 'both'"),
        ({"weighting": "mass"}, "unknown weighting"),
        ({"cost": 1.5}, "outside"),
        ({"cost": [0.1, 0.2]}, "takes one value, or 3"),
        ({"cost": [0.5, 0.2, 0.7]}, "may not fall"),
        ({"pos_weight_max": 0}, "at least 0.001"),
        ({"seed": 0.5}, "whole number"),
        ({"seed": 1}, "no effect with modules=recorded"),
        ({"weighting": "code", "modules": "recorded"}, "takes modules=fitted"),
        ({"threshold": 0.5}, "no parameter 'threshold'"),
    ],
)
def test_bad_parameters_are_one_line(given, telling):
    with pytest.raises(BadInput) as caught:
        RULE.check(given, TraceView(builders.trace(exits=4)))
    assert telling in str(caught.value) and "\n" not in str(caught.value)


def test_without_features_the_way_out_is_named():
    bare = TraceView(builders.trace(samples=900, calibration=300))
    with pytest.raises(BadInput, match="modules=recorded") as caught:
        decided(bare, modules="fitted")
    assert "\n" not in str(caught.value)
    assert decided(bare).exit.size == 600, "the default needs none"


def test_without_a_calibration_split_it_is_one_line():
    with pytest.raises(BadInput, match="no calibration split"):
        decided(TraceView(builders.trace(calibration=0)), modules="recorded")


# The published table: sum of exit shares times cost of each exit (reference, sections 5.5 and 5.6)

COSTS = {
    "cifar10-t2t7": [5.534, 6.843, 8.153, 9.463, 10.772, 12.082, 13.392],
    "cifar100-t2t7": [5.558, 6.891, 8.225, 9.558, 10.892, 12.226, 13.558],
    "svhn-t2t7": [0.940, 1.487, 2.035, 2.583, 3.131, 3.679],
    "cifar10-t2t14": [7.253 + 2.956 * exit for exit in range(14)],
    "cifar100-t2t14": [*(7.289 + 2.991 * exit for exit in range(13)), 46.171],
}
TABLE = [
    ("cifar10-t2t7", 10.948, 0, "0 0 0 0 .8676 .1305 .0019"), ("cifar10-t2t7", 10.177, 0, "0 0 0 .5767 .3015 .1217 .0002"),
    ("cifar10-t2t7", 9.314, 0, "0 .0429 .3177 .3751 .2388 .0255"), ("cifar10-t2t7", 9.068, 0, ".0042 .0863 .3502 .3395 .2053 .0144"),
    ("cifar10-t2t7", 8.831, 0, ".0214 .1208 .3652 .3112 .1739 .0075"), ("cifar10-t2t7", 8.569, 0, ".0476 .1505 .3811 .2813 .1367 .0028"),
    ("cifar10-t2t7", 8.317, 0, ".0757 .1821 .3882 .2499 .1034 .0007"), ("cifar10-t2t7", 8.081, 0, ".1107 .2102 .3779 .2259 .0750 .0002"),
    ("cifar10-t2t7", 6.429, 0, ".4332 .4520 .1124 .0024"), ("cifar10-t2t7", 6.121, 0, ".5519 .4481"), ("cifar10-t2t7", 5.870, 0, ".7432 .2568"),
    ("cifar100-t2t7", 12.009, 4, ".1626 .8374"), ("cifar100-t2t7", 11.395, 3, ".0150 .5937 .3907 .0006"),
    ("cifar100-t2t7", 10.738, 3, ".2899 .5360 .1742"), ("cifar100-t2t7", 8.730, 0, ".0185 .1234 .3366 .5038 .0176"),
    ("svhn-t2t7", 2.733, 3, ".7523 .2210 .0267"), ("svhn-t2t7", 2.716, 3, ".7693 .2185 .0123"),
    ("svhn-t2t7", 2.364, 0, ".0718 .1156 .1248 .5155 .1721 .0002"), ("svhn-t2t7", 2.119, 0, ".1553 .1494 .1860 .4061 .1032"),
    ("svhn-t2t7", 1.982, 0, ".2015 .1696 .2165 .3489 .0636"), ("svhn-t2t7", 1.919, 0, ".2255 .1762 .2300 .3216 .0467"),
    ("svhn-t2t7", 1.603, 0, ".3207 .2819 .2634 .1339 .0002"), ("svhn-t2t7", 1.400, 0, ".3790 .4141 .1939 .0130"),
    ("svhn-t2t7", 1.238, 0, ".4552 .5448"), ("svhn-t2t7", 1.223, 0, ".4817 .5183"), ("svhn-t2t7", 1.273, 0, ".3919 .6081"),
    ("svhn-t2t7", 1.375, 0, ".2058 .7942"),
    ("cifar10-t2t14", 24.710, 5, ".3421 .4533 .1632 .0390 .0024"), ("cifar10-t2t14", 19.019, 1, ".0532 .0851 .2537 .2431 .2121 .1118 .0355 .0056"),
    ("cifar10-t2t14", 13.343, 0, ".2219 .1747 .1944 .2229 .1141 .0606 .0109 .0005"),
    ("cifar10-t2t14", 12.606, 0, ".2549 .1986 .2092 .2033 .0911 .0383 .0046 .0001"),
    ("cifar10-t2t14", 11.952, 0, ".2879 .2316 .2010 .1866 .0687 .0232 .0009"), ("cifar10-t2t14", 11.410, 0, ".3181 .2533 .2049 .1626 .0501 .0110"),
    ("cifar10-t2t14", 10.964, 0, ".3444 .2734 .2050 .1412 .0319 .0042"), ("cifar10-t2t14", 10.582, 0, ".3691 .2923 .2033 .1150 .0192 .0010"),
    ("cifar10-t2t14", 8.935, 0, ".4701 .4910 .0387 .0001"), ("cifar10-t2t14", 8.609, 0, ".5413 .4587"), ("cifar10-t2t14", 8.303, 0, ".6449 .3551"),
    ("cifar100-t2t14", 34.517, 4, ".0003 0 0 .0193 .4105 .2606 .1573 .0899 .0311 .0309"),
    ("cifar100-t2t14", 29.949, 3, ".0005 .0100 .0693 .1797 .2851 .1824 .1494 .0755 .0299 .0097 .0084"),
    ("cifar100-t2t14", 29.059, 3, ".0028 .0192 .0937 .2040 .2820 .1873 .1235 .0570 .0232 .0033 .0040"),
    ("cifar100-t2t14", 26.998, 3, ".0113 .0484 .1665 .2621 .2617 .1556 .0673 .0233 .0037"),
    ("cifar100-t2t14", 22.888, 1, ".0008 .0215 .1286 .1250 .2781 .2553 .1629 .0275 .0003"),
    ("cifar100-t2t14", 15.089, 0, ".0205 .1785 .2037 .3894 .1859 .0221"),
]  # fmt: skip


@pytest.mark.parametrize(("network", "cost", "first", "shares"), TABLE, ids=lambda value: str(value)[:24])
def test_published_shares_times_published_costs_give_the_published_cost(network, cost, first, shares):
    shares = np.array([float(share) for share in shares.split()])
    assert shares.sum() == pytest.approx(1, abs=5e-4)
    found = shares @ np.array(COSTS[network][first : first + len(shares)])
    assert found == pytest.approx(cost, abs=0.002 if network.endswith("t2t7") else 0.005)
