"""`eesim.simulate`: what it promises about requests, figures, orders, queues, energy and repeatability."""

from __future__ import annotations

import builders
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import eesim
from eesim.engine import chooser
from eesim.errors import BadInput

COLUMNS = ["sample_id", "arrival_ns", "start_ns", "response_ns", "finish_ns", "exit", "prediction", "correct", "energy_nj"]


@pytest.fixture
def run(made_workload, made_profile):
    def call(mechanism="max-softmax", parameters=None, **options):
        if mechanism == "max-softmax" and parameters is None and "accuracy_drop" not in options:
            parameters = {"threshold": 0.7}
        return eesim.simulate(made_workload, made_profile, mechanism, parameters, **options)

    return call


def test_requests_and_summary_say_the_same(run):
    result = run(arrivals="poisson:1500/s", requests=1000, deadline="2ms", servers=2, queue=1)
    table, figures = result.requests, result.summary()
    served = table[table.start_ns >= 0]
    assert list(table.columns) == COLUMNS and len(table) == figures["requests"] == 1000
    latency = (served.response_ns - served.arrival_ns).to_numpy()
    assert figures["latency_ms"]["mean"] == pytest.approx(latency.mean() / 1e6, rel=1e-12)
    assert figures["latency_ms"]["p95"] == np.sort(latency)[int(np.ceil(0.95 * latency.size)) - 1] / 1e6
    assert figures["latency_ms"]["max"] == latency.max() / 1e6
    assert figures["wait_ms"]["mean"] == pytest.approx((served.start_ns - served.arrival_ns).mean() / 1e6, rel=1e-12)
    assert figures["dropped"] == len(table) - len(served) > 0
    assert figures["deadline_miss_rate"] == ((latency > 2_000_000).sum() + figures["dropped"]) / 1000
    assert figures["accuracy"] == (served.correct == 1).sum() / (served.correct >= 0).sum()
    assert figures["exit_fractions"] == pytest.approx([(served.exit == exit).mean() for exit in range(4)])
    horizon = table.finish_ns.max()
    busy = (served.finish_ns - served.start_ns).sum()
    assert figures["utilization"] == busy / (2 * horizon)
    assert figures["throughput_hz"] == pytest.approx(len(served) / horizon * 1e9)
    energy = figures["energy_mj"]
    assert energy["active"] == served.energy_nj.sum() / 1e6
    assert energy["idle"] == round(5.0 * (2 * horizon - busy) * 1e-3) / 1e6
    assert energy["total"] == pytest.approx(energy["active"] + energy["idle"] + energy["sleep"] + energy["transition"] + energy["link"])
    assert energy["mean"] == pytest.approx(energy["total"] / len(served))
    lost = table[table.start_ns < 0]
    assert (lost[["start_ns", "finish_ns", "response_ns", "exit", "prediction", "correct"]] == -1).all(axis=None) and (lost.energy_nj == 0).all()


def test_balanced_accuracy_is_mean_recall_over_classes_with_fifty_samples(tmp_path, made_profile):
    trace = builders.trace(samples=700, calibration=100, seed=3)
    rare = np.flatnonzero(trace.label == 3)
    trace.label[rare[49:]] = 0
    trace.split[rare[:49]] = "test"
    workload = builders.write_workload(tmp_path / "rare", trace)
    result = eesim.simulate(workload, made_profile, "static", arrivals="closed")
    table = result.requests
    label = trace.label[table.sample_id]
    recalls = [(table.prediction[label == index] == index).mean() for index in range(3)]
    assert result["balanced_classes"] == ["class0", "class1", "class2"]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    few = builders.write_workload(tmp_path / "few", builders.trace(samples=60, calibration=20))
    assert eesim.simulate(few, made_profile, "static", arrivals="closed")["balanced_accuracy"] is None


def test_unlabelled_samples_count_for_agreement_only(tmp_path, made_profile):
    trace = builders.trace(samples=400, calibration=100, unlabelled=80, seed=5)
    workload = builders.write_workload(tmp_path / "unlabelled", trace)
    result = eesim.simulate(workload, made_profile, "first-exit", arrivals="closed")
    table = result.requests
    full = trace.logits[-1].argmax(axis=1)[table.sample_id]
    assert result["agreement"] == (table.prediction == full).mean()
    known = trace.label[table.sample_id] >= 0
    assert set(table.correct[~known]) == {-1}
    assert result["accuracy"] == (table.correct[known] == 1).mean()


def test_defaults_are_one_pass_of_the_test_split_in_recorded_order(run, made_workload):
    result = run()
    view = made_workload.view("test")
    assert_array_equal(result.requests.sample_id, view.sample_id)
    assert result["arrivals"] == made_workload.arrivals and result["order"] == "recorded" and result["seed"] == 0


def test_orders(run, made_workload):
    ids = made_workload.view("test").sample_id
    laps = run(arrivals="closed", requests=2 * ids.size + 5).requests.sample_id
    assert_array_equal(laps, np.concatenate([ids, ids, ids[:5]]))
    shuffled = run(arrivals="closed", order="shuffled", requests=2 * ids.size).requests.sample_id.to_numpy()
    assert_array_equal(np.sort(shuffled[: ids.size]), np.sort(ids))
    assert_array_equal(shuffled[: ids.size], shuffled[ids.size :])
    assert (shuffled[: ids.size] != ids).any()
    drawn = run(arrivals="closed", order="resampled", requests=5000).requests.sample_id
    counts = np.bincount(drawn - ids.min(), minlength=ids.size)
    assert counts.min() >= 0 and counts.max() > counts.mean() + 1 and abs(counts.mean() - 12.5) < 0.1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(run):
    first, again, other = (run(arrivals="poisson:800/s", order="resampled", seed=seed).requests for seed in (4, 4, 5))
    assert first.equals(again) and not first.arrival_ns.equals(other.arrival_ns)


def test_mechanisms_and_devices_meet_the_same_arrivals_and_samples(run, made_workload, tmp_path):
    slower = builders.write_profile(tmp_path, builders.profile_data("slower", default_operating_point="slow"))
    options = {"arrivals": "poisson:500/s", "order": "resampled", "seed": 7}
    tables = [run("entropy", {"threshold": 0.4}, **options).requests, eesim.simulate(made_workload, slower, "patience", **options).requests]
    assert_array_equal(tables[0].arrival_ns, tables[1].arrival_ns)
    assert_array_equal(tables[0].sample_id, tables[1].sample_id)


def test_closed_loop_never_waits_and_one_server_never_idles(run):
    one = run(arrivals="closed")
    assert one["utilization"] == 1 and one["wait_ms.mean"] == 0 and one["energy_mj.idle"] == 0 and one["engine"] == "counts"
    table = run(arrivals="closed", servers=3).requests
    assert_array_equal(table.arrival_ns, table.start_ns)
    outstanding = [(table.start_ns[:index] <= time).sum() - (table.finish_ns[:index] <= time).sum() for index, time in enumerate(table.start_ns[:50])]
    assert max(outstanding) == 2, "two others are in service whenever the third starts"


def test_idle_power_is_charged_over_busy_time_where_it_was_subtracted(made_workload, tmp_path):
    scope = {"rail": "core", "idle": "subtracted"}
    device = builders.write_profile(tmp_path, builders.profile_data("subtracting", energy_scope=scope))
    result = eesim.simulate(made_workload, device, "static", arrivals="periodic:5ms")
    horizon = result.requests.finish_ns.max()
    assert result["energy_mj.idle"] == round(5.0 * horizon * 1e-3) / 1e6


def test_unknown_powers_are_null_and_never_zero(made_workload, tmp_path):
    data = builders.profile_data("silent")
    data["operating_points"]["fast"]["idle_mw"] = None
    result = eesim.simulate(made_workload, builders.write_profile(tmp_path, data), "static", arrivals="periodic:5ms")
    energy = result["energy_mj"]
    assert energy["idle"] is None and energy["total"] is None and energy["mean"] is None and energy["active"] > 0
    data["operating_points"]["fast"]["active_mw"] = None
    result = eesim.simulate(made_workload, builders.write_profile(tmp_path, {**data, "name": "silent2"}), "static", arrivals="periodic:5ms")
    assert result["energy_mj.active"] is None and result["active_mj_mean"] is None and result.requests.energy_nj.isna().all()


def test_warmup_leaves_averages_and_keeps_totals(run):
    whole, warm = run(arrivals="poisson:1500/s", requests=900), run(arrivals="poisson:1500/s", requests=900, warmup=300)
    rest = whole.requests.iloc[300:]
    assert warm["latency_ms.mean"] == pytest.approx((rest.response_ns - rest.arrival_ns).mean() / 1e6, rel=1e-12)
    assert warm["accuracy"] == (rest.correct == 1).mean() and warm["requests"] == 600
    assert warm["energy_mj.total"] == whole["energy_mj.total"] and warm["utilization"] == whole["utilization"]


def test_long_runs_keep_no_requests_and_agree_with_short_ones(run, monkeypatch):
    options = {"arrivals": "poisson:1500/s", "requests": 600_000, "deadline": "1ms", "warmup": 1000}
    for more in ({}, {"servers": 3}, {"queue": 2}):
        exact = run(**options, **more).summary()
        with monkeypatch.context() as patch:
            patch.setattr(chooser, "KEPT_REQUESTS", 1000)
            streamed = run(**options, **more)
            figures = streamed.summary()
        assert figures["percentiles"] == "histogram" and exact["percentiles"] == "exact"
        for name, value in exact.items():
            if name not in ("latency_ms", "wait_ms", "percentiles"):
                assert figures[name] == value, name
        for group in ("latency_ms", "wait_ms"):
            for name, value in exact[group].items():
                assert figures[group][name] == pytest.approx(value, rel=0.01, abs=1e-6), (group, name)
        assert len(streamed.requests) == 600_000, "built on demand"


def test_counts_builds_requests_on_demand(run):
    result = run(arrivals="periodic:20ms")
    assert result["engine"] == "counts"
    assert result.requests.equals(run(arrivals="periodic:20ms", engine="calendar").requests)


def test_overload_is_a_warning_with_the_utilisation(run):
    result = run("static", {}, arrivals="poisson:5000/s")
    assert len(result.warnings) == 1 and "overload" in result.warnings[0] and "utilisation" in result.warnings[0]
    assert not run(arrivals="poisson:10/s").warnings


def test_subsets_say_whether_they_are_valid(run, tmp_path, made_profile):
    assert run(arrivals="closed")["subset"] is None
    result = run(arrivals="closed", exits=[1])
    assert result["exits"] == [1, 3] and result["subset"] == "approximate" and result["exit_fractions"][0] == 0
    frozen = builders.trace()
    header = type(frozen.header)(**{**vars(frozen.header), "training_mode": "frozen"})
    workload = builders.write_workload(tmp_path / "frozen", type(frozen)(**{**vars(frozen), "header": header}))
    assert eesim.simulate(workload, made_profile, "static", exits=[0], arrivals="closed")["subset"] == "valid"


def test_given_times_and_calibration_split(run, made_workload):
    times = np.array([5, 5, 9, 1000], np.int64)
    table = run("static", {}, arrivals=times).requests
    assert_array_equal(table.arrival_ns, times)
    ids = run(arrivals="closed", split="calibration").requests.sample_id
    assert_array_equal(ids, made_workload.view("calibration").sample_id)


def test_results_are_read_only_and_show_themselves(run):
    result = run(arrivals="closed")
    assert "made-up" in repr(result) and "<table>" in result._repr_html_()
    with pytest.raises(ValueError, match="read-only"):
        result.requests.start_ns.to_numpy()[0] = 1


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ({"requests": 0}, "at least 1"),
        ({"requests": 2.5}, "whole number"),
        ({"servers": 0}, "at least 1"),
        ({"queue": -1}, "at least 0"),
        ({"order": "shufled"}, "did you mean 'shuffled'"),
        ({"overflow": "drop-newest"}, "did you mean 'drop-oldest'"),
        ({"split": "training"}, "choose one of"),
        ({"arrivals": "poisson:0/s"}, "above 0"),
        ({"deadline": "30"}, "lacks its unit"),
        ({"warmup": 400}, "leaves none"),
        ({"replications": 0}, "at least 1"),
        ({"exits": [7]}, "exits 0 to 3"),
        ({"engine": "lindly"}, "did you mean 'lindley'"),
        ({"engine": "lindley", "servers": 2}, "use 'k-server'"),
        ({"engine": "counts", "arrivals": "poisson:2000/s"}, "may have to wait"),
        ({"operating_point": "fst"}, "did you mean 'fast'"),
        ({"accuracy_drop": "2"}, "outside 0 to 1"),
        ({"accuracy_drop": "1%", "objective": "joules"}, "choose one of"),
        ({"requests": 2**62}, "292 years"),
        ({"arrivals": "periodic:300d", "requests": 10**6}, "292 years"),
    ],
)
def test_bad_options_are_one_line(made_workload, made_profile, options, telling):
    with pytest.raises(BadInput) as caught:
        eesim.simulate(made_workload, made_profile, "max-softmax", **options)
    assert telling in str(caught.value) and "\n" not in str(caught.value)


def test_a_trace_without_calibration_cannot_be_tuned_on(tmp_path, made_profile):
    workload = builders.write_workload(tmp_path / "bare", builders.trace(calibration=0))
    with pytest.raises(BadInput, match="no calibration split"):
        eesim.simulate(workload, made_profile, "max-softmax", accuracy_drop="1%")
    with pytest.raises(BadInput, match="no calibration split"):
        eesim.simulate(workload, made_profile, "constant")
    assert eesim.simulate(workload, made_profile, "max-softmax", {"threshold": 0.9})["accuracy"] > 0.5
