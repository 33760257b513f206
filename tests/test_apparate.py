"""Apparate: answers leave early and computing goes on, thresholds are tuned by hill climbing, ramps come and go."""

from __future__ import annotations

import math

import builders
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import eesim
from eesim.errors import BadInput
from eesim.mechanisms import _apparate_tuning as tuning
from eesim.mechanisms import load_mechanism
from eesim.mechanisms._deciding import decide
from eesim.trace import TraceView

RULE = load_mechanism("apparate")


class Controller:
    """Section 10 written out with lists: what Apparate does with one sample after the other."""

    def __init__(self, count, shares, **values):
        self.ramps, self.shares, self.values = count, shares, values
        self.threshold, self.active, self.history = [0.0] * count, [], {}
        self.window, self.batch, self.batches, self.violations, self.changed = [], [], 0, 0, False
        self.begin()

    def most(self):
        most = self.values["ramps"]
        while most > 0 and most * self.values["ramp_overhead"] > self.values["tail_budget"] + 1e-12:
            most -= 1
        return most

    def usable(self, ramp):
        return self.shares[ramp] + self.values["ramp_overhead"] < 1

    def begin(self):
        latest = max((ramp + 1 for ramp in range(self.ramps) if self.usable(ramp)), default=0)
        wanted = min(self.most(), latest)
        for place in range(wanted):
            self.add((place + 1) * latest // wanted - 1)

    def add(self, ramp):
        self.active = sorted({*self.active, ramp})
        self.threshold[ramp], self.history[ramp] = 0.0, []

    def remove(self, ramp):
        self.active.remove(ramp)
        self.threshold[ramp] = 0.0

    def sample(self, confidence, answers):
        """The answering exit, and the exits that were evaluated."""
        evaluated = [*self.active, self.ramps]
        errors = {ramp: 1.0 - confidence[ramp] for ramp in self.active}
        agrees = {ramp: answers[ramp] == answers[-1] for ramp in self.active}
        exit = next((ramp for ramp in self.active if errors[ramp] < self.threshold[ramp]), self.ramps)
        self.batch.append((errors, agrees))
        if len(self.batch) == self.values["batch"]:
            self.end_of_batch()
        return exit, evaluated

    def measure(self, samples, threshold):
        """Agreement, improvement in percent, and shares."""
        counts, wrong = dict.fromkeys(self.active, 0), 0
        for errors, agrees in samples:
            ramp = next((ramp for ramp in self.active if ramp in errors and errors[ramp] < threshold[ramp]), None)
            if ramp is not None:
                counts[ramp] += 1
                wrong += not agrees[ramp]
        left, mean, overhead = 1.0, 0.0, 0.0
        for ramp in self.active:
            overhead += self.values["ramp_overhead"]
            mean += counts[ramp] / len(samples) * (self.shares[ramp] + overhead)
            left -= counts[ramp] / len(samples)
        mean += left * (1.0 + overhead)
        return 1.0 - wrong / len(samples), (1.0 - mean) * 100.0, {ramp: counts[ramp] / len(samples) for ramp in self.active}

    def tune(self, samples):
        threshold, effective, steps = [0.0] * self.ramps, [0.0] * self.ramps, dict.fromkeys(self.active, 0.01)
        accuracy, improvement, _ = self.measure(samples, threshold)
        while steps and max(steps.values()) > 0.001:
            moves, idle = [], []
            for ramp, step in steps.items():
                if step == 0:
                    continue
                trial = list(threshold)
                trial[ramp] = min(threshold[ramp] + step, 1.0)
                tried, gained, _ = self.measure(samples, trial)
                if (tried, gained) == (accuracy, improvement):
                    idle.append(ramp)
                elif 1.0 - tried < self.values["tuning_budget"]:
                    moves.append((abs(tried - accuracy) / abs(gained - improvement) if gained != improvement else math.inf, -gained, ramp, tried))
            if moves:
                _, gained, best, accuracy = min(moves)
                improvement = -gained
                threshold[best] = effective[best] = min(threshold[best] + steps[best], 1.0)
                steps[best] *= 2
            for ramp in idle:
                threshold[ramp] = min(threshold[ramp] + steps[ramp], 1.0)
                steps[ramp] *= 2
            if not moves and not idle:
                steps = {ramp: step / 2 for ramp, step in steps.items()}
            steps = {ramp: 0 if threshold[ramp] >= 1 else step for ramp, step in steps.items()}
        return effective, improvement

    def end_of_batch(self):
        batch, self.batch = self.batch, []
        self.batches += 1
        self.window = [*self.window, batch][-4:]
        samples = [sample for part in self.window for sample in part]
        accuracy, _, shares = self.measure(batch, self.threshold)
        overhead = self.values["ramp_overhead"]
        latency = [self.shares[ramp] + overhead * (place + 1) for place, ramp in enumerate(self.active)] + [1 + overhead * len(self.active)]
        for place, ramp in enumerate(self.active):
            later = 1 - sum(shares[before] for before in self.active[: place + 1])
            self.history[ramp] = [*self.history[ramp], shares[ramp] * (latency[place + 1] - latency[place]) - later * overhead][-20:]
        violated = 1.0 - accuracy > self.values["accuracy_loss"]
        self.violations = self.violations + 1 if violated else 0
        if self.violations >= 2:
            wrong = set()
            for errors, agrees in batch:
                ramp = next((ramp for ramp in self.active if ramp in errors and errors[ramp] < self.threshold[ramp]), None)
                if ramp is not None and not agrees[ramp]:
                    wrong.add(ramp)
            for ramp in wrong:
                self.threshold[ramp] = 0.0
        elif violated or self.changed or self.batches == 1:
            self.threshold = self.tune(samples)[0]
        self.changed = False
        if self.batches % self.values["check_every"] == 0:
            self.adapt(samples)

    def adapt(self, samples):
        if not self.active:
            self.begin()
            self.changed = True
            return
        useless = [ramp for ramp in self.active if max(self.history[ramp], default=-1) <= 0]
        worth = {ramp: sum(self.history[ramp]) for ramp in self.active}
        if useless:
            tuned, found = self.tune(samples)
            _, present, shares = self.measure(samples, self.threshold)
            if found - present > 2:
                self.threshold = tuned
                return
            for ramp in useless:
                self.remove(ramp)
            if sum(shares[ramp] for ramp in self.active) <= 0.9:
                for ramp in useless:
                    following = next((other for other in range(ramp + 1, self.ramps) if other not in self.active and other not in useless), None)
                    if following is not None and self.usable(following):
                        self.add(following)
            self.changed = True
        elif min(worth.values()) > 0 and self.active[0] > 0:
            new = (self.active[0] - 1) // 2
            if len(self.active) >= self.most():
                self.remove(min(self.active, key=lambda ramp: worth[ramp]))
            self.add(new)
            self.changed = True


def sure_trace(samples, exits, seed, classes=4):
    """Exits that are right when they are sure, on labels whose difficulty drifts, so that ramps gain and lose their worth."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, samples)
    drift = 1.5 + np.sin(np.arange(samples) / 150)
    noise = rng.normal(size=(samples, classes))
    parts = [np.eye(classes)[label] * (1 + exit) * drift[:, None] * 2 + noise + 0.5 * rng.normal(size=(samples, classes)) for exit in range(exits)]
    return TraceView.of_arrays(np.stack(parts), label)


def against_the_twin(view, **given):
    values = RULE.settle(given, view)
    shares = RULE.pack(values, view)[7:].tolist()
    twin = Controller(view.exits - 1, shares, **{name: value for name, value in values.items() if name != "cost_share"})
    decisions = decide(RULE, view, values)
    rows = [twin.sample(view.confidence[index].tolist(), view.answers[index].tolist()) for index in range(len(view))]
    assert_array_equal(decisions.exit, [exit for exit, _ in rows])
    visited = [decisions.paths[path].visited for path in decisions.path]
    assert_array_equal(visited, [sum(1 << exit for exit in evaluated) for _, evaluated in rows])
    for path, (exit, evaluated) in zip(decisions.path, rows, strict=True):
        before = sum(1 << head for head in evaluated if head <= exit)
        assert decisions.paths[path].answered in ((before,) if exit < view.exits - 1 else (-1, before))
    own = view.answers[np.arange(len(view)), decisions.exit]
    assert_array_equal(decisions.prediction, own)
    return decisions, set(visited)


@pytest.mark.parametrize("exits", [1, 2, 3, 6, 9])
@pytest.mark.parametrize(
    "given",
    [
        {}, {"accuracy_loss": 0.1, "tuning_budget": 0.05}, {"accuracy_loss": 0.0, "check_every": 5, "batch": 7}, {"ramps": 1, "check_every": 3},
        {"ramp_overhead": 0.04, "tail_budget": 0.1, "check_every": 4, "accuracy_loss": 0.2, "tuning_budget": 0.1}, {"batch": 1},
        {"ramps": 5, "tail_budget": 1, "ramp_overhead": 0.15, "check_every": 2},
    ],
    ids=str,
)  # fmt: skip
def test_the_compiled_rule_does_what_its_plain_twin_does(exits, given):
    against_the_twin(sure_trace(1500, exits, seed=exits), **given)


def test_ramps_are_removed_and_added_in_these_runs():
    """Else the twin above would not have been asked about them: at least four sets of ramps each."""
    assert len(against_the_twin(sure_trace(3000, 9, 9), check_every=5, ramps=3)[1]) >= 4
    assert len(against_the_twin(sure_trace(3000, 6, 6), ramps=5, tail_budget=1, ramp_overhead=0.15, check_every=2)[1]) >= 4


def memory_of(batch, errors, agrees, parameters, ramps):
    """A controller's memory whose window holds the given errors and agreements [samples][ramps]."""
    memory = np.zeros(tuning.size(ramps, batch))
    tuning.start(memory, ramps, parameters)
    begin = tuning.THRESHOLDS + (7 + tuning.HISTORY) * ramps
    flat = np.array(errors, float).ravel()
    memory[begin : begin + flat.size] = flat
    begin += tuning.WINDOW * batch * ramps
    memory[begin : begin + flat.size] = np.array(agrees, float).ravel()
    return memory


def test_hill_climbing_by_hand():
    """One ramp at half the network, errors .1 .2 .3 .4; the third sample disagrees, so the threshold ends between .2 and .3."""
    parameters = np.array([0.01, 4, 3, 0.0, 1e-4, 30, 0.05, 0.5])
    memory = memory_of(4, [[0.1], [0.2], [0.3], [0.4]], [[1], [1], [0], [1]], parameters, 1)
    improvement = tuning.tune(memory, 1, parameters, 4)
    threshold = memory[tuning.THRESHOLDS + 4]
    assert 0.2 < threshold <= 0.3, "strict: an error of .3 is not below .3"
    assert improvement == pytest.approx(25.0), "half the samples save half the network"
    parameters[4] = 0.3
    assert tuning.tune(memory, 1, parameters, 4) == pytest.approx(50.0), "with a quarter of disagreement allowed all leave"
    parameters[4] = 0.25
    assert tuning.tune(memory, 1, parameters, 4) == pytest.approx(25.0), "the budget itself is not below the budget"


def test_direction_0_is_taken_where_it_is_best():
    """The first ramp is the only one with an effect, the second changes nothing: the public code takes that for no direction."""
    parameters = np.array([0.01, 2, 3, 0.0, 1e-4, 30, 0.05, 0.3, 0.6])
    memory = memory_of(2, [[0.005, 2.0], [0.005, 2.0]], [[1, 1], [1, 1]], parameters, 2)
    assert tuning.tune(memory, 2, parameters, 2) == pytest.approx(70.0)
    assert memory[tuning.THRESHOLDS + 8] == pytest.approx(0.01) and memory[tuning.THRESHOLDS + 9] == 0, "what had no effect stays at never"


def test_latency_counts_the_overhead_of_active_ramps():
    """Ramps at .25 and .5, overhead .02 each: a quarter leaves at .27, a quarter at .54, half at 1.04."""
    parameters = np.array([0.01, 4, 3, 0.02, 1e-4, 30, 0.05, 0.25, 0.5])
    memory = memory_of(4, [[0.1, 0.9], [0.9, 0.1], [0.9, 0.9], [0.9, 0.9]], [[1, 1]] * 4, parameters, 2)
    memory[tuning.THRESHOLDS : tuning.THRESHOLDS + 2] = 0.5
    accuracy, improvement = tuning.measure(memory, 2, parameters, tuning.THRESHOLDS, 0, 4)
    assert accuracy == 1 and improvement == pytest.approx(100 * (1 - (0.27 + 0.54 + 2 * 1.04) / 4))
    tuning.note_utilities(memory, 2, parameters, 1)
    found = memory[tuning.THRESHOLDS + 14 : tuning.THRESHOLDS + 16]
    assert found == pytest.approx([0.25 * (0.54 - 0.27) - 0.75 * 0.02, 0.25 * (1.04 - 0.54) - 0.5 * 0.02])


@pytest.mark.parametrize(
    ("shares", "overhead", "most", "expected"),
    [
        ([0.2, 0.4, 0.6, 0.8], 0.01, 3, [0, 1, 3]), ([0.1 * (index + 1) for index in range(9)], 0.01, 3, [2, 5, 8]), ([0.3, 0.6], 0.01, 3, [0, 1]),
        ([0.3, 0.6, 0.995], 0.01, 3, [0, 1]), ([0.3, 0.6], 0.03, 3, [1]), ([0.3, 0.6], 0.06, 3, []), ([0.3, 0.6], 0.01, 0, []),
    ],
)  # fmt: skip
def test_first_ramps_are_evenly_spaced_up_to_the_last_useful_one(shares, overhead, most, expected):
    parameters = np.array([0.01, 4, most, overhead, 1e-4, 30, 0.05, *shares])
    memory = np.zeros(tuning.size(len(shares), 4))
    tuning.start(memory, len(shares), parameters)
    begin = tuning.THRESHOLDS + len(shares)
    assert np.flatnonzero(memory[begin : begin + len(shares)]).tolist() == expected


def test_nothing_leaves_early_before_the_first_batch_is_over():
    view = sure_trace(64, 4, 1)
    decisions = decide(RULE, view, RULE.settle({"batch": 16}, view))
    assert set(decisions.exit[:16]) == {3} and set(decisions.exit[16:32]) - {3}


def test_responses_precede_completion_and_energy_is_that_of_the_whole_network(tmp_path):
    work = builders.workload(tmp_path / "w", samples=900, exits=4, calibration=100)
    profile = eesim.load_profile(builders.write_profile(tmp_path))
    result = eesim.simulate(work, profile, "apparate", {"accuracy_loss": 0.3, "tuning_budget": 0.2, "ramps": 3}, arrivals="poisson:100/s")
    table = result.requests
    early = table[table.exit < 3]
    assert len(early) > 100 and (early.response_ns < early.finish_ns).all()
    late = table[table.exit == 3]
    assert len(late) > 100 and (late.response_ns == late.finish_ns).all()
    whole = eesim.simulate(work, profile, "max-softmax", {"threshold": "never"}, arrivals="poisson:100/s")
    assert result["macs_mean"] == whole["macs_mean"], "all three ramps and the end run for every sample"
    assert result["latency_ms.mean"] < whole["latency_ms.mean"]
    assert (table.finish_ns - table.start_ns).nunique() == 1 and table.energy_nj.nunique() == 1
    static = eesim.simulate(work, profile, "static", arrivals="poisson:100/s")
    assert result["energy_mj.active"] > static["energy_mj.active"]
    assert result["agreement"] < 1


def test_it_is_tuned_for_latency_whatever_is_asked_for_and_says_so(tmp_path):
    work = builders.workload(tmp_path / "w", samples=1200, exits=4, calibration=600)
    profile = eesim.load_profile(builders.write_profile(tmp_path))
    tuned = eesim.tune(work, profile, RULE, accuracy_drop=0.05, objective="latency")
    assert tuned.mechanism.name == "apparate"
    asked_for_energy = eesim.tune(work, profile, RULE, accuracy_drop=0.05)
    assert asked_for_energy.objective == "latency" and any("saves latency only" in warning for warning in asked_for_energy.warnings)
    assert asked_for_energy.parameters == tuned.parameters


@pytest.mark.parametrize(("engine", "load"), [("lindley", {}), ("k-server", {"servers": 2}), ("calendar", {"queue": 1})])
def test_engines_agree_with_the_oracle(tmp_path, engine, load):
    work = builders.workload(tmp_path / "w", samples=400, exits=4, calibration=100)
    profile = eesim.load_profile(builders.write_profile(tmp_path))
    values = {"accuracy_loss": 0.3, "tuning_budget": 0.2, "batch": 8, "check_every": 4}
    results = [eesim.simulate(work, profile, RULE, values, arrivals="poisson:1500/s", requests=700, engine=way, **load) for way in (engine, "simpy")]
    assert_array_equal(results[0].requests.to_numpy(), results[1].requests.to_numpy())


def test_shares_are_given_for_recorded_exits_and_read_for_enabled_ones():
    view = sure_trace(50, 5, 0)
    assert RULE.pack(RULE.settle({}, view), view)[7:].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    kept = view.restricted((1, 2, 4))
    assert RULE.pack(RULE.settle({}, kept), kept)[7:].tolist() == pytest.approx([0.4, 0.6])
    assert RULE.pack(RULE.settle({"cost_share": [0.1, 0.3, "equal", 0.9]}, kept), kept)[7:].tolist() == pytest.approx([0.3, 0.6])


@pytest.mark.parametrize(
    ("given", "telling"),
    [
        ({"accuracy_loss": 1.5}, "0 to 1"), ({"batch": 0}, "whole number"), ({"batch": 2.5}, "whole number"), 
        ({"cost_share": [0.5]}, "takes one value, or"),
        ({"cost_share": 1.2}, "'equal'"), ({"ramp_overhead": -1}, "outside"), ({"threshold": 0.5}, "has no parameter"),
        ({"check_every": "often"}, "not a number"),
    ],
)  # fmt: skip
def test_bad_parameters_are_one_line(given, telling):
    with pytest.raises(BadInput, match=telling) as caught:
        RULE.check(given, builders.view())
    assert "\n" not in str(caught.value)
