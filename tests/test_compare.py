"""Comparisons: every mechanism in one table, paired with the best baseline; what is missing is left out and said."""

from __future__ import annotations

import shutil

import builders
import numpy as np
import pytest

import eesim
from eesim.errors import BadInput
from eesim.explore.compare import BASELINES, comparison, differences, tuned_run, unbalanced
from eesim.mechanisms import load_mechanism, mechanism_names
from eesim.report.figures import _interval, print_comparison
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


def test_baselines_have_the_same_freedom_as_the_others(frame, made, made_profile, tmp_path):
    tuned = frame[frame.calibration_cost_per_exit.notna() & frame.calibration_cost_shared.notna()]
    assert {"max-softmax", "entropy", "margin"} <= set(tuned.mechanism)
    slack = 1 + 1e-9
    assert (tuned.calibration_cost_per_exit <= tuned.calibration_cost_shared * slack).all(), "a vector may be the shared threshold itself"
    for _, row in tuned.iterrows():
        assert row.tuned_calibration_energy_mj <= min(row.calibration_cost_per_exit, row.calibration_cost_shared) * slack
        assert (row.thresholds == "per exit") == ("," in str(row.parameters_threshold))
    plain = frame[frame.mechanism.isin(BASELINES) & (frame.runs_as == frame.mechanism)]
    best = plain.loc[plain.tuned_calibration_energy_mj.idxmin()]
    assert set(frame.versus.dropna()) == {best.mechanism} and set(frame.versus_thresholds.dropna()) == ({best.thresholds} - {None})
    assert (plain[["calibration_cost_shared", "calibration_cost_per_exit"]].min(axis=1).dropna() >= best.tuned_calibration_energy_mj / slack).all()
    device = builders.write_profile(tmp_path)
    shared = eesim.compare(made, [device], ["max-softmax", "temporal-patience"], accuracy_drop="2%", per_exit=False)
    each = eesim.compare(made, [device], ["max-softmax", "temporal-patience"], accuracy_drop="2%", per_exit=True)
    forms = [table.set_index("mechanism").thresholds["max-softmax"] for table in (shared, each)]
    assert forms == ["shared", "per exit"] and "temporal-patience" in set(each.mechanism), "it takes no vector in tuning, so it is tuned as it is"


def test_a_shared_threshold_is_kept_where_thresholds_per_exit_gain_nothing(made, made_profile):
    aim = {"accuracy_drop": "2%", "objective": "energy", "metric": "accuracy"}
    result, tried = tuned_run(made, made_profile, load_mechanism("max-softmax"), per_exit=None, exits=[0], **aim)
    assert set(tried) <= {"shared", "per exit"} and not isinstance(result.setting["parameters"].get("threshold"), list), "one exit to set"
    result, tried = tuned_run(made, made_profile, load_mechanism("entropy"), per_exit=None, parameters={"threshold": 0.4}, **aim)
    assert set(tried) <= {"shared"}, "a threshold that is given is not tuned"


def test_what_is_lost_on_the_test_split_is_told_and_marked(frame):
    static = frame[frame.mechanism == "static"].iloc[0]
    assert frame.lost.to_numpy(float) == pytest.approx(static.accuracy - frame.accuracy.to_numpy(float))
    rules = frame[frame.nothing_to_tune == False]  # noqa: E712
    assert set(frame.mechanism) - set(rules.mechanism) == {"constant", "static", "first-exit", "oracle", "anytime"}
    assert (rules.over_drop.astype(bool) == (rules.lost > 0.02 + 1e-12)).all()
    assert set(frame.tuned_accuracy_drop) == {0.02} and {"energy"} <= set(frame.tuned_objective)
    assert frame[frame.mechanism == "apparate"].answers_early.item() and frame.answers_early.sum() == 1


def test_balanced_accuracy_that_breaks_down_is_a_warning():
    row = {
        "profile": "small", "mechanism": "berxit", "lost": 0.01, "balanced_lost": 0.101, "tuned_accuracy_drop": 0.01, "tuned_metric": "accuracy",
        "nothing_to_tune": False,
    }  # fmt: skip
    (said,) = unbalanced([row, {**row, "mechanism": "dart", "balanced_lost": 0.03}])
    assert "2 mechanisms" in said and "up to" in said and "1 point of accuracy" in said and "10.1 points" in said and "'berxit' most" in said
    assert "--metric balanced_accuracy" in said
    assert not unbalanced([{**row, **other} for other in (
        {"balanced_lost": 0.012}, {"tuned_metric": "balanced_accuracy"}, {"nothing_to_tune": True}, {"balanced_lost": None},
        {"lost": 0.1},
    )])  # fmt: skip


def test_the_table_says_what_is_compared_and_which_rule_is_best(made, made_profile, capsys):
    rows = [item.row() for item in comparison(made, [made_profile], ["max-softmax", "margin", "calm", "apparate"], **OPTIONS | {"per_exit": None})]
    print_comparison(rows, "energy", "accuracy")
    short = capsys.readouterr().out
    for words in (
        "at most 2 points of accuracy against static",
        "best plain rule",
        "active energy per inference",
        "neighbouring samples",
        "calm:",
        "answers leave at the exits told",
        "Settings at their defaults",
        "! more than the 2 points",
        "the cheapest in calibration (",
    ):
        assert words in short, words
    lines = short.splitlines()
    heading = next(line for line in lines if line.startswith("mechanism"))
    assert heading.index("verdict") < heading.index("accuracy") and "DAES" not in heading and max(map(len, lines)) < 170
    print_comparison(rows, "energy", "accuracy", full=True)
    full = capsys.readouterr().out
    assert all(
        words in full for words in ("DAES", "ECE", "utilised", "agrees", "at least 50 labelled samples", "with idling", "its paper takes medians")
    )


def test_intervals_show_enough_digits_to_see_which_side_of_0_they_are_on():
    def shown(*values):
        return _interval(dict(zip(("x_value", "x_low", "x_high"), values, strict=True)), "x", 1)

    assert shown(-0.514, -0.552, -0.47) == "-51.4 [-55.2, -47.0]"
    assert shown(0.0003, 0.0001, 0.0006) == "+0.03 [+0.01, +0.06]", "dearer, and it shows"
    assert shown(1.413, 1.143, 1.759) == "+141 [+114, +176]"
    assert shown(0.0, 0.0, 0.0) == shown(-0.0, -0.0, 0.0) == "+0.0 [+0.0, +0.0]"
    assert shown(-0.00001, -0.01, 0.01) == "-0.001 [-1.000, +1.000]"
    assert shown(None, None, None) == ""


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


def unit_free(ours, theirs):
    """Accuracy and relative energy by the tables of requests, over those that both served."""
    mine, other = ours.requests, theirs.requests
    both = (mine.start_ns >= 0) & (other.start_ns >= 0) & (np.arange(len(mine)) >= ours.setting["warmup"])
    mine, other = mine[both], other[both]
    return mine.correct.mean() - other.correct.mean(), mine.energy_nj.sum() / other.energy_nj.sum() - 1, int(both.sum())


@pytest.mark.parametrize(
    ("rule", "parameters", "load"),
    [
        ("queue-aware", {"threshold": 0.9}, {"requests": 130, "arrivals": "poisson:900/s"}),
        ("queue-aware", {"threshold": 0.9}, {"requests": 1234, "warmup": 77, "arrivals": "poisson:900/s"}),
        ("anytime", {}, {"requests": 1300, "deadline": "2ms", "order": "shuffled"}),
        ("temporal-patience", {"threshold": 0.3}, {"requests": 1300, "queue": 1, "arrivals": "poisson:2500/s"}),
        ("max-softmax", {"threshold": 0.6}, {"requests": 1300, "queue": 0, "overflow": "reject", "arrivals": "poisson:2500/s", "warmup": 31}),
        ("max-softmax", {"threshold": 0.6}, {"requests": 720, "warmup": 100}),
        ("entropy", {"threshold": 0.3}, {"requests": 900, "order": "resampled", "replications": 3}),
    ],
)
def test_rules_are_paired_request_by_request(made, made_profile, rule, parameters, load):
    load = {"arrivals": "poisson:200/s", **load}
    base = eesim.simulate(made, made_profile, "max-softmax", {"threshold": 0.8}, **load)
    ours = eesim.simulate(made, made_profile, rule, parameters, **load)
    accuracy, cost = differences(ours, base, "energy")
    if load.get("replications"):
        assert accuracy.value == pytest.approx(ours["accuracy"] - base["accuracy"], abs=1e-12), "all replications count"
        return
    expected = unit_free(ours, base)
    assert (accuracy.value, cost.value) == pytest.approx(expected[:2], abs=1e-12)
    if "queue" in load:
        assert ours["dropped"] or base["dropped"]
        assert 0 < expected[2] < 1300 - load.get("warmup", 0)
    else:
        assert accuracy.value == pytest.approx(ours["accuracy"] - base["accuracy"], abs=1e-12)
    assert accuracy.low <= accuracy.value <= accuracy.high and cost.low <= cost.value <= cost.high


def test_laps_over_the_same_samples_tell_no_more_than_one(made, made_profile):
    pairs = {}
    for requests in (500, 5000):
        runs = [eesim.simulate(made, made_profile, "max-softmax", {"threshold": t}, arrivals="closed", requests=requests) for t in (0.6, 0.8)]
        pairs[requests] = differences(*runs, "energy")
    assert pairs[500] == pairs[5000]


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


def test_rules_and_states_are_told_in_one_sentence_each():
    from eesim.mechanisms.describe import describe

    told = {name: describe(load_mechanism(name)) for name in mechanism_names()}
    assert {name: record["reads"] for name, record in told.items() if record["reads"]} == {
        "anytime": ["the deadline"], "queue-aware": ["the queue", "the deadline"],
    }  # fmt: skip
    assert told["anytime"]["state"] == told["queue-aware"]["state"] == "none"
    for name in ("difference-detection", "temporal-patience"):
        assert told[name]["rule"].startswith("Stop at") and "iff" in told[name]["rule"], name
    for name, symbol in (("eenet", "q_e a learned score"), ("zero-time-waste", "z_l an ensemble"), ("class-means", "d the distances")):
        assert f"with {symbol}" in told[name]["rule"]
    for name in ("class-means", "berxit", "f-pabee"):
        assert "tune it" in told[name]["text"], "its default hardly ever exits"
