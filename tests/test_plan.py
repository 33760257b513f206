"""Plans and comparisons: what is promised holds on the test split, and every rejection says why."""

from __future__ import annotations

from itertools import combinations

import builders
import numpy as np
import pytest

import eesim
from eesim.errors import BadInput


@pytest.fixture
def devices(tmp_path):
    paths = []
    for name, clock, flash in (("fast", 200, 1024), ("slow", 20, 1024), ("tiny", 100, 0.05)):
        data = builders.profile_data(name, memory={"flash_kib": flash, "sram_kib": 256})
        data["operating_points"]["fast"]["clock_mhz"] = clock
        paths.append(builders.write_profile(tmp_path, data))
    return paths


@pytest.fixture(scope="session")
def larger_workload(tmp_path_factory):
    return builders.workload(tmp_path_factory.mktemp("larger") / "larger", samples=3000, calibration=1200, seed=4)


def test_deployments_meet_every_constraint_when_run_again(larger_workload, devices):
    limits = {"min_accuracy": 0.95, "max_p99": "4ms", "max_active_energy": "0.05mJ", "fits": True}
    plan = eesim.plan([larger_workload], devices, rate="100/s", **limits)
    assert plan.deployments
    for item in plan.deployments:
        summary = item.summary
        again = eesim.simulate(
            larger_workload,
            item.candidate.device.profile,
            summary["mechanism"],
            summary["parameters"],
            exits=summary["exits"],
            arrivals="poisson:100/s",
        )
        assert again["accuracy"] >= 0.95 and again["latency_ms.p99"] <= 4 and again["active_mj_mean"] <= 0.05
        assert again["energy_mj.mean"] == summary["energy_mj"]["mean"], "figures are those of a run on the test split"
        assert item.margins["min_accuracy"] == pytest.approx(again["accuracy"] - 0.95)
        assert item.margins["max_p99"] == pytest.approx(4 - again["latency_ms.p99"])
    energies = [item.summary["energy_mj"]["mean"] for item in plan.deployments]
    assert energies == sorted(energies)


def test_every_device_is_a_deployment_or_a_rejection_with_what_it_breaks(larger_workload, devices):
    plan = eesim.plan([larger_workload], devices, rate="100/s", min_accuracy=0.95, max_p99="2ms", fits=True)
    kept, lost = {item.summary["profile"] for item in plan.deployments}, {item.summary["profile"]: item for item in plan.rejected}
    assert kept == {"fast"} and set(lost) == {"slow", "tiny"}
    assert lost["slow"].broken["max_p99"] == lost["slow"].summary["latency_ms"]["p99"] > 2
    assert lost["slow"].summary["split"] == "test"
    assert "fits" in lost["tiny"].broken
    bounds = {item.summary["mechanism"] for item in plan.bounds}
    assert bounds == {"constant", "static", "first-exit", "oracle"}


def test_a_rate_must_be_sustained(larger_workload, devices):
    plan = eesim.plan([larger_workload], devices[1:2], rate="5000/s")
    assert not plan.deployments and plan.rejected[0].broken["rate"] > 1


@pytest.mark.parametrize(("objective", "figure", "sign"), [("latency", "latency_ms", 1), ("macs", "macs_mean", 1), ("accuracy", "accuracy", -1)])
def test_objectives_rank(larger_workload, devices, objective, figure, sign):
    plan = eesim.plan([larger_workload], devices, rate="50/s", min_accuracy=0.9, objective=objective)
    values = [item.summary[figure]["mean"] if figure == "latency_ms" else item.summary[figure] for item in plan.deployments]
    assert len(values) > 1 and [sign * value for value in values] == sorted(sign * value for value in values)


def test_exits_pay_where_the_constraint_allows_it(larger_workload, devices):
    loose = eesim.plan([larger_workload], devices[:1], rate="50/s", min_accuracy=0.9)
    strict = eesim.plan([larger_workload], devices[:1], rate="50/s", min_accuracy=0.985)
    assert loose.deployments[0].summary["active_mj_mean"] < strict.deployments[0].summary["active_mj_mean"]


def test_settings_are_chosen_on_the_calibration_split(larger_workload, devices):
    plan = eesim.plan([larger_workload], devices[:1], rate="50/s", min_accuracy=0.95)
    for item in plan.deployments:
        assert item.candidate.accuracy >= 0.95, "also on the calibration split"


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ({"max_p999": "20ms"}, "unknown limit 'max_p999'; did you mean 'max_p99'"),
        ({"operating_points": ["nominal", "fsat"]}, "unknown operating point 'nominal'"),
        ({"rate": "10/s", "arrivals": "closed"}, "either a rate or arrivals"),
        ({"rate": "10"}, "lacks its unit"),
        ({"rate": "0/s"}, "above 0"),
        ({"rate": "10/s", "min_accuracy": 1.2}, "outside 0 to 1"),
        ({"rate": "10/s", "max_p99": "20"}, "lacks its unit"),
        ({"rate": "10/s", "max_energy": "1mW"}, "unknown unit 'mW'"),
        ({"rate": "10/s", "max_miss_rate": "1%"}, "needs a deadline"),
        ({"rate": "10/s", "objective": "enegry"}, "did you mean 'energy'"),
    ],
)
def test_bad_plans_are_one_line(larger_workload, devices, options, telling):
    with pytest.raises(BadInput, match=telling):
        eesim.plan([larger_workload], devices[:1], **options)


def settings_that_hold(workload, device, arrivals, floor, split):
    """Brute force: every threshold of three rules over every subset of exits, simulated; the active energy of those that hold."""
    found = {}
    last = workload.network.exits - 1
    for size in range(1, last + 1):
        for chosen in combinations(range(last), size):
            for rule, thresholds in (("max-softmax", np.linspace(0.4, 1, 13)), ("margin", np.linspace(0, 1, 11)), ("entropy", np.linspace(0, 1, 11))):
                for threshold in thresholds:
                    result = eesim.simulate(workload, device, rule, {"threshold": threshold}, exits=chosen, arrivals=arrivals, split=split)
                    if result["accuracy"] >= floor:
                        found[rule, chosen, round(float(threshold), 3)] = result["active_mj_mean"]
    return found


@pytest.mark.parametrize("floor", [0.9, 0.97])
def test_the_best_deployment_is_near_the_best_that_brute_force_finds(larger_workload, devices, floor):
    arrivals = "poisson:50/s"
    test, calibration = (settings_that_hold(larger_workload, devices[0], arrivals, floor, split) for split in ("test", "calibration"))
    both = {key: energy for key, energy in test.items() if key in calibration}
    plan = eesim.plan([larger_workload], devices[:1], arrivals=arrivals, min_accuracy=floor)
    static = eesim.simulate(larger_workload, devices[0], "static", arrivals=arrivals)
    assert plan.deployments or (not both and static["accuracy"] < floor)
    if both:
        assert plan.deployments[0].summary["active_mj_mean"] <= min(both.values()) * 1.1


@pytest.mark.parametrize("objective", ["energy", "latency", "accuracy"])
def test_what_the_network_without_exits_keeps_is_a_deployment(larger_workload, devices, objective):
    static = eesim.simulate(larger_workload, devices[0], "static", arrivals="poisson:50/s")["accuracy"]
    plan = eesim.plan([larger_workload], devices[:1], rate="50/s", min_accuracy=static, objective=objective)
    assert "static" in {item.summary["mechanism"] for item in plan.deployments}
    assert not eesim.plan([larger_workload], devices[:1], rate="50/s", min_accuracy=min(static + 0.02, 1)).deployments


def test_without_a_rate_the_workload_arrives_as_it_does(larger_workload, devices):
    plan = eesim.plan([larger_workload], devices[:1], min_accuracy=0.5)
    assert plan.deployments[0].summary["arrivals"] == larger_workload.arrivals


def test_compare_tunes_all_to_the_same_drop(larger_workload, devices):
    frame = eesim.compare(larger_workload, devices[:2], accuracy_drop="2%", arrivals="poisson:100/s")
    assert len(frame) == 2 * len(eesim.mechanism_names())
    static = frame[(frame.mechanism == "static") & (frame.profile == "fast")].iloc[0]
    tuned = frame[(frame.profile == "fast") & ~frame.mechanism.isin(["constant", "first-exit", "oracle"])]
    by_time = tuned.mechanism.isin(["anytime", "apparate"])
    assert (tuned.active_mj_mean <= static.active_mj_mean)[~by_time].all()
    assert (tuned.latency_ms_mean <= static.latency_ms_mean)[tuned.mechanism == "apparate"].all(), "its answers leave early, computing goes on"
    assert (tuned.accuracy > static.accuracy - 0.05).all(), "2 % on the calibration split, a little more or less on the test split"
    per_exit = eesim.compare(larger_workload, devices[:1], ["max-softmax"], accuracy_drop="2%", per_exit=True, arrivals="poisson:100/s")
    assert len(per_exit[per_exit.mechanism == "max-softmax"].parameters_threshold.iloc[0].split(",")) == 3
