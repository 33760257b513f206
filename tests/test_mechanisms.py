"""Decision mechanisms: worked examples by hand, array form against `step`, compiled against plain, and their parameters."""

from __future__ import annotations

import math

import builders
import numpy as np
import pytest
import twins
from numpy.testing import assert_array_equal

from eesim.errors import BadInput
from eesim.mechanisms import STOP, Mechanism, Parameter, load_mechanism, mechanism_names
from eesim.mechanisms._asking import carried_state, decide_in_order, observations, step_of
from eesim.mechanisms.describe import describe
from eesim.trace import TraceView


def view_of(probabilities, labels=None):
    """A view in which exit e says `probabilities[e][n]` about sample n."""
    logits = np.log(np.asarray(probabilities, float)).astype(np.float32)
    return TraceView.of_arrays(logits, np.zeros(logits.shape[1], int) if labels is None else np.asarray(labels))


def exits_of(name, view, **values):
    rule = load_mechanism(name)
    return rule.decide(view, rule.check(values, view)).exit.tolist()


SURE, HALF, GUESS = (0.9, 0.06, 0.04), (0.6, 0.3, 0.1), (0.4, 0.35, 0.25)


def test_max_softmax_stops_at_the_threshold_itself():
    view = view_of([[SURE, HALF, GUESS], [SURE, SURE, HALF], [HALF, HALF, HALF]])
    assert exits_of("max-softmax", view, threshold=0.9 - 1e-6) == [0, 1, 2]
    exact = float(view.confidence[1, 0])
    assert exits_of("max-softmax", view, threshold=exact)[1] == 0, "p1 >= T: the threshold itself stops"
    assert exits_of("max-softmax", view, threshold=float(np.nextafter(exact, 1)))[1] == 1
    assert exits_of("max-softmax", view, threshold=0) == [0, 0, 0]
    assert exits_of("max-softmax", view, threshold="never") == [2, 2, 2]
    assert exits_of("max-softmax", view, threshold=[0.95, 0.5]) == [1, 1, 1]


def test_margin_is_the_difference_of_the_two_largest():
    view = view_of([[SURE, HALF, GUESS], [GUESS, SURE, HALF]])
    assert view.margin[:, 0] == pytest.approx([0.84, 0.3, 0.05])
    assert exits_of("margin", view, threshold=0.29) == [0, 0, 1]
    assert exits_of("margin", view, threshold=0.31) == [0, 1, 1]
    assert exits_of("margin", view, threshold=0.05 - 1e-6) == [0, 0, 0]


def test_entropy_is_strict_and_in_nats():
    view = view_of([[SURE, HALF, GUESS], [SURE, SURE, SURE]])
    expected = -sum(p * math.log(p) for p in HALF)
    assert view.entropy[1, 0] == pytest.approx(expected)
    exact = float(view.entropy[1, 0])
    assert exits_of("entropy", view, threshold=exact)[1] == 1, "H < T is strict"
    assert exits_of("entropy", view, threshold=float(np.nextafter(exact, 2)))[1] == 0
    assert exits_of("entropy", view, threshold=0) == [1, 1, 1]
    assert exits_of("entropy", view, threshold=math.log(3)) == [0, 0, 0]
    assert exits_of("entropy", view, threshold="never") == [1, 1, 1]


def test_reference_values_of_scores():
    """p = (.7, .2, .1): entropy 0.801819, margin 0.5."""
    view = view_of([[(0.7, 0.2, 0.1)]])
    assert view.entropy[0, 0] == pytest.approx(0.801819, abs=1e-6)
    assert view.margin[0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(("patience", "exit", "label"), [(1, 2, 1), (2, 3, 1), (3, 5, 3), ("never", 5, 3)])
def test_patience_counts_agreements_from_zero(patience, exit, label):
    """Answers 2, 1, 1, 1, 3, 3: the counter is 0 0 1 2 0 1, so t = 1 stops at the third exit, t = 2 at the fourth."""
    view = view_of([[tuple(0.85 if index == answer else 0.05 for index in range(4))] for answer in (2, 1, 1, 1, 3, 3)])
    rule = load_mechanism("patience")
    decisions = rule.decide(view, rule.check({"patience": patience}, view))
    assert (decisions.exit[0], decisions.prediction[0]) == (exit, label)


def test_bounds_pay_only_the_head_they_answer_with():
    view = view_of([[SURE, GUESS], [SURE, SURE], [SURE, SURE]], labels=[1, 0])
    for name, exits in (("static", [2, 2]), ("first-exit", [0, 0]), ("oracle", [0, 0])):
        decisions = load_mechanism(name).decide(view, {})
        assert decisions.exit.tolist() == exits
        assert [decisions.paths[path].visited for path in decisions.path] == [1 << exit for exit in exits]


def test_oracle_takes_the_earliest_right_exit_and_exit_0_if_none_is():
    """Sample 0 is right from exit 1 on, sample 1 never, sample 2 has no label."""
    other = (0.05, 0.9, 0.05)
    view = view_of([[other, SURE, SURE], [SURE, SURE, SURE], [SURE, SURE, SURE]], labels=[0, 2, -1])
    assert load_mechanism("oracle").decide(view, {}).exit.tolist() == [1, 0, 0]


def test_constant_answers_the_most_frequent_class_of_calibration_and_runs_nothing(made_workload):
    rule = load_mechanism("constant")
    calibration = made_workload.view("calibration")
    values = rule.defaults(lambda: calibration)
    assert values["answer"] == np.bincount(calibration.label).argmax()
    decisions = rule.decide(made_workload.view(), values)
    assert set(decisions.prediction) == {values["answer"]} and decisions.paths[0].visited == 0 and set(decisions.exit) == {-1}


@pytest.mark.parametrize("name", mechanism_names())
@pytest.mark.parametrize("exits", [1, 2, 5])
def test_array_form_compiled_step_and_plain_twin_agree(name, exits):
    view = builders.view(samples=500, exits=exits, calibration=200, unlabelled=20, seed=exits)
    asked = load_mechanism(name)
    settings = asked.candidates(view.calibration, 6)[:6] if not asked.bound else [asked.defaults(lambda: view.calibration)]
    for values in settings:
        values = asked.settle(values, view, lambda: view.calibration)
        rule = asked.variant(values)
        array, compiled = rule.decide(view, values), decide_in_order(rule, view, values)
        streams, memory = carried_state(rule, view, values)
        visited, answered, exit, label = twins.decide(
            step_of(rule), observations(rule, view, values), streams, memory, max(rule.scratch, 1), rule.pack(values, view),
            rule.state in ("stream", "global"),
        )  # fmt: skip
        if array is not None:
            assert_array_equal(array.exit, compiled.exit)
            assert_array_equal(array.prediction, compiled.prediction)
        assert_array_equal(compiled.exit, exit)
        for decisions in (array, compiled) if array is not None else (compiled,):
            assert_array_equal([decisions.paths[path].visited for path in decisions.path], visited)
            left = [decisions.paths[path].answered for path in decisions.path]
            assert_array_equal(np.where(np.array(left) < 0, visited, left), answered)
        own = np.where(exit >= 0, view.answers[np.arange(len(view)), np.maximum(exit, 0)], -1)
        assert_array_equal(compiled.prediction, np.where(label >= 0, label, own))


def test_disabled_exits_are_never_asked_and_their_thresholds_ignored():
    view = TraceView(builders.trace(samples=200, exits=4, calibration=0)).restricted((1, 3))
    rule = load_mechanism("max-softmax")
    assert rule.bars(rule.check({"threshold": [0.1, 0.6, 0.2]}, view), view).tolist() == [0.6]
    exits = rule.decide(view, rule.check({"threshold": 0.5}, view)).exit
    assert set(exits) <= {0, 1}, "exits are counted among the enabled ones"


@pytest.mark.parametrize(
    ("name", "given", "telling"),
    [
        ("max-softmax", {"threshold": 1.2}, "0 to 1"),
        ("max-softmax", {"threshold": -0.1}, "outside"),
        ("max-softmax", {"threshold": "maybe"}, "not a number"),
        ("max-softmax", {"threshold": float("nan")}, "outside"),
        ("max-softmax", {"treshold": 0.5}, "did you mean 'threshold'"),
        ("max-softmax", {"threshold": [0.5, 0.6]}, "takes one value, or 3"),
        ("max-softmax", {"threshold": "0.5,2,0.5"}, "outside"),
        ("entropy", {"threshold": 1.5}, "0 to 1.386"),
        ("margin", {"threshold": 7}, "0 to 1"),
        ("patience", {"patience": 0}, "whole number"),
        ("patience", {"patience": 1.5}, "whole number"),
        ("patience", {"patience": "inf"}, "whole number"),
        ("max-softmax", {"min_exit": "1e400"}, "whole number"),
        ("patience", {"patience": [1, 2, 3]}, "takes one value"),
        ("max-softmax", {"min_exit": 4}, "the network has exits 0 to 3"),
        ("entropy", {"max_exit": 9}, "the network has exits 0 to 3"),
        ("margin", {"min_exit": 2, "max_exit": 1}, "lies behind max_exit"),
        ("dart", {"window": 50}, "adaptive=temporal"),
        ("dart", {"adaptive": "temporal", "eta": 0.1}, "no effect with adaptive=temporal"),
        ("dart", {"adaptive": "ucb1", "label_delay": 10}, "labels=late"),
        ("budgeted", {"target": 0.9}, "recipe=accuracy"),
        ("budgeted", {"recipe": "accuracy", "q": 0.5}, "recipe=budget"),
        ("calm", {"decay": "none", "tau": 2}, "decay=free or decay=paper"),
        ("risk-control", {"selector": "crc", "confidence": 0.99}, "selector=ltt or"),
        ("static", {"threshold": 0.5}, "has no parameters"),
        ("constant", {"answer": 4}, "0 to 3"),
    ],
)
def test_bad_parameters_are_one_line(name, given, telling):
    view = TraceView(builders.trace(exits=4))
    with pytest.raises(BadInput) as caught:
        load_mechanism(name).check(given, view)
    assert telling in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "left_out"),
    [("budgeted", {"recipe": "accuracy"}, "q"), ("calm", {"decay": "none"}, "tau"), ("risk-control", {"selector": "naive"}, "confidence")],
)
def test_defaults_without_effect_are_left_out(name, given, left_out):
    view, rule = builders.view(samples=400, exits=4, calibration=200), load_mechanism(name)
    assert left_out in rule.settle({}, view)
    values = rule.settle(given, view)
    assert left_out not in values and rule.settle(values, view) == values
    told = {parameter["name"]: parameter["help"] for parameter in describe(rule)["parameters"]}
    assert f"(only with {next(iter(given))}=" in told[left_out]
    rule.decide(view, values)


OWN = '''
from eesim.mechanisms import STOP, Mechanism, Parameter


class TwoLooks(Mechanism):
    """Stop when two exits in a row are sure."""

    parameters = (Parameter("threshold", 0.8, 0.0, 1.0),)
    state, scratch = "within", 1

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        if exit >= 0:
            sure = observed[exit, 0] >= parameters[0]
            if sure and scratch[0] > 0:
                return STOP
            scratch[0] = 1.0 if sure else 0.0
        return exit + 1
'''


def test_a_mechanism_of_ones_own_is_one_file(tmp_path, made_workload, made_profile):
    import eesim

    path = tmp_path / "two_looks.py"
    path.write_text(OWN)
    result = eesim.simulate(made_workload, made_profile, path, {"threshold": 0.6})
    assert result["mechanism"] == "two-looks" and result["exit_fractions"][0] == 0 and result["exit_fractions"][1] > 0
    before = result["exit_fractions"]
    path.write_text(OWN.replace("scratch[0] > 0", "scratch[0] > 5"))
    edited = eesim.simulate(made_workload, made_profile, path, {"threshold": 0.6})["exit_fractions"]
    assert edited != before and edited[-1] == 1, "an edit must not meet a stale compiled kernel"


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("x = 1\n", "exactly one subclass"),
        ("import nowhere_to_be_found\n", "nowhere_to_be_found"),
        ("from eesim.mechanisms import Mechanism\nclass A(Mechanism): pass\n", "neither 'step' nor 'decide'"),
    ],
)
def test_a_bad_file_of_ones_own_is_one_line(tmp_path, text, telling):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BadInput, match=telling) as caught:
        load_mechanism(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_step_that_cannot_be_compiled_is_one_line(made_workload):
    class Broken(Mechanism):
        name = "broken"

        @staticmethod
        def step(exit, observed, scratch, memory, parameters, situation, answer):
            return undefined_name  # noqa: F821

    with pytest.raises(BadInput, match="cannot be compiled") as caught:
        decide_in_order(Broken(), made_workload.view(), {})
    assert "\n" not in str(caught.value)


def test_state_is_kept_per_stream():
    class Every(Mechanism):
        """Counts samples: leaves at exit 0 on every second sample of its stream."""

        name, state = "every-second", "stream"
        parameters = (Parameter("unused", 0.0),)

        def memory(self, view, values):
            return 1

        @staticmethod
        def step(exit, observed, scratch, memory, parameters, situation, answer):
            if exit < 0:
                memory[0] += 1
                return 0
            return STOP if memory[0] % 2 == 0 else exit + 1

    trace = builders.trace(samples=12, exits=2, calibration=0, streams=2)
    view = TraceView(trace)
    mixed = view.taken(np.array([0, 6, 1, 7, 2, 8]))  # two streams interleaved
    rule = Every()
    assert decide_in_order(rule, mixed, rule.check({"unused": 0}, mixed)).exit.tolist() == [1, 1, 0, 0, 1, 1]


def test_unknown_mechanism_suggests_the_nearest():
    with pytest.raises(BadInput, match="did you mean 'max-softmax'"):
        load_mechanism("max-sofmax")
