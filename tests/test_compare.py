"""Comparisons: every mechanism in one table, paired with the best baseline; what is missing is left out and said."""

from __future__ import annotations

import shutil

import builders
import numpy as np
import pytest

import eesim
from eesim.errors import BadInput
from eesim.explore.compare import BASELINES, comparison, differences
from eesim.mechanisms import load_mechanism, mechanism_names
from eesim.workload import load_workload

OPTIONS = {"per_exit": False, "accuracy_drop": "2%", "objective": "energy", "metric": "accuracy", "arrivals": "poisson:100/s"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return builders.workload(tmp_path_factory.mktemp("compare") / "made", samples=900, calibration=400)


@pytest.fixture(scope="module")
def frame(made, tmp_path_factory):
    device = builders.write_profile(tmp_path_factory.mktemp("device"))
    return eesim.compare(made, [device], accuracy_drop="2%", arrivals="poisson:100/s")


def test_every_mechanism_is_there_with_its_measures(frame):
    assert set(frame.mechanism) == set(mechanism_names())
    assert frame[frame.mechanism != "constant"].ece.between(0, 1).all()
    assert frame[frame.mechanism != "constant"].daes.notna().all()
    static = frame[frame.mechanism == "static"].iloc[0]
    alpha = static.accuracy / static.daes - 1
    row = frame[frame.mechanism == "max-softmax"].iloc[0]
    service = row.latency_ms_mean - row.wait_ms_mean
    speed, energy = (static.latency_ms_mean - static.wait_ms_mean) / service, static.active_mj_mean / row.active_mj_mean
    assert row.daes == pytest.approx(row.accuracy * speed * energy / (1 + alpha))


def test_differences_are_paired_with_the_best_baseline(frame):
    versus = frame.versus.dropna().unique()
    assert len(versus) == 1 and versus[0] in BASELINES
    base = frame[frame.mechanism == versus[0]].iloc[0]
    for _, row in frame[frame.versus.notna()].iterrows():
        assert row.accuracy_difference_value == pytest.approx(row.accuracy - base.accuracy, abs=1e-12)
        assert row.cost_difference_value == pytest.approx(row.active_mj_mean / base.active_mj_mean - 1, rel=1e-9, abs=1e-12)
        assert row.accuracy_difference_low <= row.accuracy_difference_value <= row.accuracy_difference_high
        tie = all(row[f"{name}_low"] <= 0 <= row[f"{name}_high"] for name in ("accuracy_difference", "cost_difference"))
        assert (row.verdict == "tie") == tie
    static = frame[frame.mechanism == "static"].iloc[0]
    assert "dearer" in static.verdict


def test_the_error_of_calibration_is_of_the_answers_given(made, made_profile):
    items = {item.asked: item for item in comparison(made, [made_profile], ["max-softmax"], **OPTIONS)}
    result = items["max-softmax"].result
    verdicts = result.outcomes[0].decided.verdicts
    view = made.view()
    place = np.arange(len(view))
    assert np.array_equal(verdicts.confidence, view.confidence[place, verdicts.exit])
    edges = np.percentile(verdicts.confidence, np.linspace(0, 100, 16))
    where = np.searchsorted(edges[1:-1], verdicts.confidence)
    total = sum(abs((verdicts.correct[where == b] - verdicts.confidence[where == b]).sum()) for b in range(15))
    assert items["max-softmax"].ece == pytest.approx(total / len(view), abs=1e-12)


def test_what_lacks_its_data_is_left_out_unless_it_is_named(tmp_path, made_profile):
    folder = builders.write_workload(tmp_path / "bare", builders.trace(samples=500, calibration=200))
    (folder / "features.parquet").unlink()
    bare, remarks = load_workload(folder), []
    found = [item.asked for item in comparison(bare, [made_profile], None, remark=remarks.append, **OPTIONS)]
    assert "max-softmax" in found and "class-means" not in found
    assert any("'class-means' is left out" in remark and "features" in remark for remark in remarks)
    with pytest.raises(BadInput, match="features"):
        list(comparison(bare, [made_profile], ["class-means"], **OPTIONS))
    shutil.rmtree(folder)


def test_runs_over_other_samples_are_not_paired(made, made_profile):
    ours = eesim.simulate(made, made_profile, "max-softmax", {"threshold": 0.8}, arrivals="closed")
    theirs = eesim.simulate(made, made_profile, "static", arrivals="closed", order="shuffled", seed=3)
    assert differences(ours, theirs, "energy") == (None, None)


def test_what_a_mechanism_keeps_lies_in_memory(made, made_profile):
    plain = eesim.simulate(made, made_profile, "max-softmax", {"threshold": 0.8})["memory"]
    kept = eesim.simulate(made, made_profile, "temporal-patience", {"threshold": 0.3})["memory"]
    view = made.view()
    assert plain["state_kib"] == 0 and kept["state_kib"] * 1024 >= 4 * view.exits * view.classes
    assert kept["sram_kib"] == plain["sram_kib"] + kept["state_kib"] and kept["flash_kib"] == plain["flash_kib"]


def test_mechanisms_tell_what_they_are():
    from eesim.mechanisms.describe import describe

    for name in mechanism_names():
        record = describe(load_mechanism(name))
        assert record["name"] == name and len(record["rule"]) > 15 and record["source"], name
        assert all(parameter["help"] for parameter in record["parameters"]), name
