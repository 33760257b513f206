"""Plans and comparisons: what is promised holds on the test split, and every rejection says why."""

from __future__ import annotations

import builders
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
        ({}, "either a rate or arrivals"),
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


def test_compare_tunes_all_to_the_same_drop(larger_workload, devices):
    frame = eesim.compare(larger_workload, devices[:2], accuracy_drop="2%", arrivals="poisson:100/s")
    assert len(frame) == 2 * len(eesim.mechanism_names())
    static = frame[(frame.mechanism == "static") & (frame.profile == "fast")].iloc[0]
    tuned = frame[(frame.profile == "fast") & ~frame.mechanism.isin(["constant", "first-exit", "oracle"])]
    assert (tuned.active_mj_mean <= static.active_mj_mean).all()
    assert (tuned.accuracy > static.accuracy - 0.05).all(), "2 % on the calibration split, a little more or less on the test split"
    per_exit = eesim.compare(larger_workload, devices[:1], ["max-softmax"], accuracy_drop="2%", per_exit=True, arrivals="poisson:100/s")
    assert len(per_exit[per_exit.mechanism == "max-softmax"].parameters_threshold.iloc[0].split(",")) == 3
