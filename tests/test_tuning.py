"""Tuning: the cheapest setting within the drop, on the calibration split only."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import builders
import numpy as np
import pytest

import eesim
from eesim.cost import MechanismCost, price_network
from eesim.errors import BadInput
from eesim.mechanisms import load_mechanism
from eesim.tuning import evaluate, tune


def brute_force(workload, profile, name, thresholds, drop):
    """Least mean energy over all given threshold vectors that keep the accuracy, asked one by one."""
    rule, view = load_mechanism(name), workload.view("calibration")
    priced = price_network(workload.network, profile)
    cost = MechanismCost(priced, tuple(range(4)), rule, view.classes)
    least = (view.answers[:, -1] == view.label).mean() - drop
    best = None
    for vector in thresholds:
        values = rule.check({"threshold": vector}, view)
        decisions = rule.decide(view, values)
        if (decisions.prediction == view.label).mean() >= least - 1e-12:
            energy = cost.paths(decisions.paths).energy_nj[decisions.path].mean()
            best = energy if best is None or energy < best else best
    return best


@pytest.mark.parametrize("name", ["max-softmax", "entropy", "margin"])
def test_shared_threshold_is_as_good_as_any(made_workload, made_profile, name):
    tuned = tune(made_workload, made_profile, name, accuracy_drop="2%")
    best = brute_force(made_workload, made_profile, name, np.linspace(0, 1, 400), 0.02)
    assert tuned.calibration["energy_mj"] * 1e6 <= best * (1 + 1e-9)


def test_per_exit_thresholds_are_as_good_as_a_whole_grid_and_never_worse_than_shared(made_workload, made_profile):
    tuned = tune(made_workload, made_profile, "max-softmax", accuracy_drop="2%", per_exit=True)
    grid = brute_force(made_workload, made_profile, "max-softmax", product(np.linspace(0.3, 1, 9), repeat=3), 0.02)
    shared = tune(made_workload, made_profile, "max-softmax", accuracy_drop="2%")
    assert tuned.calibration["energy_mj"] * 1e6 <= grid * (1 + 1e-9)
    assert tuned.calibration["energy_mj"] <= shared.calibration["energy_mj"]
    assert len(tuned.parameters["threshold"]) == 3


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
@pytest.mark.parametrize("objective", ["energy", "latency", "macs"])
def test_what_tuning_says_is_what_a_run_over_calibration_gives(made_workload, made_profile, objective, metric):
    tuned = tune(made_workload, made_profile, "max-softmax", accuracy_drop="2%", objective=objective, metric=metric)
    result = eesim.simulate(made_workload, made_profile, tuned.mechanism, tuned.parameters, split="calibration", arrivals="closed")
    static = eesim.simulate(made_workload, made_profile, "static", split="calibration", arrivals="closed")
    assert result[metric] == pytest.approx(tuned.calibration[metric]) and result[metric] >= static[metric] - 0.02 - 1e-12
    figure, value = {"energy": ("active_mj_mean", "energy_mj"), "latency": ("latency_ms.mean", "latency_ms"), "macs": ("macs_mean", "macs")}[
        objective
    ]
    assert result[figure] == pytest.approx(tuned.calibration[value]) and result[figure] < static[figure]


def test_only_the_calibration_split_is_looked_at(tmp_path, made_profile):
    """Scrambling every test label and logit changes nothing."""
    trace = builders.trace(seed=11)
    test = trace.split == "test"
    other = replace(trace, label=np.where(test, 0, trace.label).astype(np.int32), logits=np.where(test[None, :, None], -trace.logits, trace.logits))
    one, two = (builders.write_workload(tmp_path / name, made) for name, made in (("one", trace), ("two", other)))
    for name in ("max-softmax", "entropy", "patience"):
        assert tune(one, made_profile, name).parameters == tune(two, made_profile, name).parameters


def test_where_nothing_pays_it_is_static_and_said(made_workload, tmp_path):
    data = builders.profile_data("slow-to-decide", decision={"cycles": 10**7})
    tuned = tune(made_workload, builders.write_profile(tmp_path, data), "max-softmax", accuracy_drop="1%")
    assert tuned.mechanism.name == "static" and "static is used" in tuned.warnings[0]
    result = eesim.simulate(made_workload, tmp_path / "slow-to-decide.yaml", "max-softmax", accuracy_drop="1%")
    assert result["mechanism"] == "static" and any("static is used" in warning for warning in result.warnings)


def test_disabled_exits_are_left_out_of_tuning(made_workload, made_profile):
    tuned = tune(made_workload, made_profile, "max-softmax", accuracy_drop="2%", per_exit=True, exits=[1])
    assert tuned.parameters["threshold"][0] == "never" and tuned.parameters["threshold"][2] == "never"
    result = eesim.simulate(made_workload, made_profile, "max-softmax", tuned.parameters, exits=[1], arrivals="closed")
    assert result["exit_fractions"][0] == result["exit_fractions"][2] == 0 < result["exit_fractions"][1]


def test_bit_planes_and_one_by_one_evaluate_alike(made_workload, made_profile):
    view, rule = made_workload.view("calibration"), load_mechanism("entropy")
    cost = MechanismCost(price_network(made_workload.network, made_profile), tuple(range(4)), rule, view.classes)
    settings = [rule.check(values, view) for values in rule.candidates(view, 30)]
    many = evaluate(view, rule, settings, cost)
    single = [evaluate(view, rule, [values], cost) for values in settings]
    for name in ("accuracy", "balanced_accuracy"):
        assert getattr(many, name) == pytest.approx([getattr(one, name)[0] for one in single])
    for name in ("energy", "latency", "macs"):
        assert many.cost[name] == pytest.approx([one.cost[name][0] for one in single])


def test_bad_requests_are_one_line(made_workload, made_profile, tmp_path):
    with pytest.raises(BadInput, match="outside 0 to 1"):
        tune(made_workload, made_profile, "max-softmax", accuracy_drop=5)
    with pytest.raises(BadInput, match="did you mean 'energy'"):
        tune(made_workload, made_profile, "max-softmax", objective="enrgy")
    with pytest.raises(BadInput, match="no threshold per exit"):
        tune(made_workload, made_profile, "patience", per_exit=True)
    data = builders.profile_data("no-energy")
    data["operating_points"]["fast"]["active_mw"] = None
    with pytest.raises(BadInput, match="gives no energy"):
        tune(made_workload, builders.write_profile(tmp_path, data), "max-softmax")
