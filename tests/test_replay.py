"""Many settings in lanes against the same settings one by one, with and without a queue."""

from __future__ import annotations

import builders
import numpy as np
import pytest
import twins
from test_engines_agree import Backwards, EarlyAnswer, Scene

import eesim
from eesim.engine.replay import in_lanes, lanes_tally, replay
from eesim.mechanisms import Path, load_mechanism, mechanism_names
from eesim.mechanisms._asking import carried_state, observations, step_of
from eesim.mechanisms._deciding import decide
from eesim.trace.view import score_answers

NAMES = [name for name in mechanism_names() if not load_mechanism(name).bound]


def settings_of(rule, view, count=14):
    if rule.name in NAMES:
        return [rule.settle(values, view, lambda: view.calibration) for values in rule.candidates(view.calibration, count)]
    return [rule.check({"threshold": value}, view) for value in np.linspace(0, 1, count)]


@pytest.mark.parametrize("rule", [*map(load_mechanism, NAMES), Scene(), Backwards(), EarlyAnswer()], ids=lambda rule: rule.name)
@pytest.mark.parametrize("exits", [1, 4])
def test_replaying_together_equals_deciding_one_by_one(rule, exits):
    view = builders.view(samples=400, exits=exits, calibration=150, unlabelled=30, seed=3)
    settings = settings_of(rule, view)
    seen = []
    for part in replay(view, rule, settings):
        for index, place in enumerate(part.settings):
            seen.append(int(place))
            decisions = decide(rule, view, settings[place])
            right = score_answers(decisions.prediction, view.label) == 1
            expected: dict[Path, int] = {}
            for path in decisions.path:
                expected[decisions.paths[path]] = expected.get(decisions.paths[path], 0) + 1
            assert {path: count for path, count in zip(part.paths, part.counts[index], strict=True) if count} == expected
            assert part.exits[index].tolist() == np.bincount(decisions.exit[decisions.exit >= 0], minlength=view.exits).tolist()
            assert part.correct[index] == right.sum() and part.agrees[index] == (decisions.prediction == view.answers[:, -1]).sum()
            assert part.class_correct[index].tolist() == np.bincount(view.label[right], minlength=view.classes).tolist()
    assert sorted(seen) == list(range(len(settings)))


def test_lanes_equal_their_plain_twin_with_waits():
    view, rule = builders.view(samples=90, exits=3, calibration=20, unlabelled=5), Scene()
    settings = settings_of(rule, view, 40)
    assert in_lanes(view, rule)
    rng = np.random.default_rng(0)
    gaps, services = rng.integers(0, 30, 2 * len(view)), np.sort(rng.integers(0, 60, (2, 8)), axis=1)
    masks, exits, hits, waited, left = lanes_tally(view, rule, settings, services, gaps)
    for index, values in enumerate(settings):
        streams, memory = carried_state(rule, view, values)
        visited, _, exit, label = twins.decide(
            step_of(rule), observations(rule, view, values), streams, memory, max(rule.scratch, 1), rule.pack(values, view), True
        )
        assert masks[index].tolist() == np.bincount(visited, minlength=8).tolist()
        assert exits[index].tolist() == np.bincount(exit, minlength=3).tolist()
        own = np.where(label >= 0, label, view.answers[np.arange(len(view)), exit])
        assert hits[index, 0] == ((own == view.label) & (view.label >= 0)).sum()
        for device, service in enumerate(services):
            start, finish = twins.lindley(np.cumsum(gaps), service[visited])
            assert waited[device, index] == sum(start) - np.cumsum(gaps).sum()
            assert left[device, index] + gaps.sum() == finish[-1]


@pytest.mark.parametrize("arrivals", ["closed", "poisson:400/s"])
@pytest.mark.parametrize("laps", [1, 3])
def test_a_swept_stateful_rule_equals_single_runs(made_workload, made_profile, arrivals, laps):
    rule, values = Scene(), [float(value) for value in np.linspace(0, 1, 7)]
    requests = laps * len(made_workload.view())
    figures = "all" if arrivals == "closed" else "means"
    frame = eesim.sweep([made_workload], [made_profile], {rule: {"threshold": values}}, arrivals=arrivals, requests=requests, figures=figures)
    frame = frame[frame.mechanism == rule.name]
    assert len(frame) == len(values)
    for (_, row), threshold in zip(frame.iterrows(), values, strict=True):
        single = eesim.simulate(made_workload, made_profile, rule, {"threshold": threshold}, arrivals=arrivals, requests=requests)
        for name in ("accuracy", "agreement", "latency_ms.mean", "wait_ms.mean", "energy_mj.mean", "macs_mean", "utilization", "balanced_accuracy"):
            assert row[name.replace(".", "_")] == single[name], name
        if figures == "all":
            assert row.latency_ms_p95 == single["latency_ms.p95"] and row.latency_ms_max == single["latency_ms.max"]
