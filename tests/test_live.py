"""Rules that read the queue and the clock: anytime and queue-aware."""

from __future__ import annotations

import math

import builders
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import eesim
from eesim.errors import BadInput
from eesim.mechanisms import NEXT_NS, QUEUE, SLACK_NS, STOP, load_mechanism
from eesim.mechanisms._asking import step_of
from eesim.mechanisms._deciding import decide

ANYTIME, AWARE = load_mechanism("anytime"), load_mechanism("queue-aware")


def asked(rule, exit, scores, parameters, queue=0.0, slack=math.inf, following=1000.0):
    """What a step returns in one situation."""
    situation = np.empty(3)
    situation[[QUEUE, SLACK_NS, NEXT_NS]] = queue, slack, following
    return step_of(rule)(exit, np.array(scores, float)[:, None], np.zeros(1), np.zeros(1), np.array(parameters, float), situation, np.full(2, -1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    return builders.workload(folder / "w", samples=3200, exits=4, calibration=200), eesim.load_profile(builders.write_profile(folder))


def test_anytime_goes_on_while_the_next_stage_fits():
    three = [0.0] * 3
    assert asked(ANYTIME, 0, three, [1.0], slack=1000) == 1, "finishing at the deadline itself is in time"
    assert asked(ANYTIME, 0, three, [1.0], slack=999) == STOP
    assert asked(ANYTIME, 1, three, [2.0], slack=1999) == STOP and asked(ANYTIME, 1, three, [2.0], slack=2000) == 2
    assert asked(ANYTIME, 1, three, [1.0]) == 2, "no deadline"
    assert asked(ANYTIME, -1, three, [1.0], slack=-5) == 0, "somebody has to answer"
    assert asked(ANYTIME, 0, three, [1.0], slack=math.inf, following=math.inf) == 1, "where time plays no part"


def test_without_a_deadline_anytime_is_the_whole_network(made):
    work, profile = made
    result = eesim.simulate(work, profile, "anytime", arrivals="poisson:100/s")
    assert result["exit_fractions"][-1] == 1
    assert ANYTIME.candidates(work.view("calibration"), 50) == [{}]


def test_anytime_answers_with_the_deepest_exit_that_meets_the_deadline(made):
    """Nobody waits: for every deadline the exit is the deepest whose own time lies within it, and nobody is late who needs not be."""
    work, profile = made
    closed = eesim.simulate(work, profile, "anytime", arrivals="periodic:1s", requests=4)
    exits = work.network.exits
    reached = []
    for exit in range(exits):
        only = eesim.simulate(
            work, profile, "max-softmax", {"threshold": ["never"] * exit + [0] * (exits - 1 - exit)}, arrivals="periodic:1s", requests=4
        )
        own = only.requests
        reached.append(int((own.finish_ns - own.start_ns).iloc[0]))
    assert reached == sorted(set(reached)) and len(closed.requests) == 4
    # the decision of anytime is priced otherwise than that of max-softmax, so its own times are found by bisection
    own = []
    for exit in range(exits):
        low, high = 0, 2 * reached[-1]
        while high - low > 1:
            middle = (low + high) // 2
            table = eesim.simulate(work, profile, "anytime", arrivals="periodic:1s", requests=1, deadline=f"{middle}ns").requests
            met = table.exit.iloc[0] >= exit and table.finish_ns.iloc[0] - table.start_ns.iloc[0] <= middle
            low, high = (low, middle) if met else (middle, high)
        own.append(high)
        table = eesim.simulate(work, profile, "anytime", arrivals="periodic:1s", requests=1, deadline=f"{high}ns").requests
        assert table.exit.iloc[0] == exit and table.finish_ns.iloc[0] - table.start_ns.iloc[0] == high, "the time of this exit, to the nanosecond"
    assert own == sorted(set(own))
    late = eesim.simulate(work, profile, "anytime", arrivals="periodic:1s", requests=3, deadline=f"{own[0] - 1}ns")
    assert late["exit_fractions"][0] == 1 and late["deadline_miss_rate"] == 1


@pytest.mark.parametrize("reserve", [1, 1.5])
def test_under_load_anytime_misses_fewer_deadlines_than_the_whole_network(made, reserve):
    work, profile = made
    load = {"arrivals": "poisson:1000/s", "deadline": "2ms", "requests": 3000}
    whole, rule = (eesim.simulate(work, profile, name, values, **load) for name, values in (("static", {}), ("anytime", {"reserve": reserve})))
    assert rule["deadline_miss_rate"] < 0.05 < 0.5 < whole["deadline_miss_rate"]
    assert rule["accuracy"] > eesim.simulate(work, profile, "first-exit", **load)["accuracy"]
    assert rule["exit_fractions"][-1] > 0.1


def test_the_bar_of_queue_aware_by_hand():
    """bar = max(min(lowest, T), T - per_request * queue - lateness * late)."""
    scores, values = [0.625] * 3, [0.875, 0.75, 0.0625, 0.5, 0.25]
    assert asked(AWARE, 0, scores, values, queue=3) == 1, ".875 - 3 / 16 > .625"
    assert asked(AWARE, 0, scores, values, queue=4) == STOP, ".875 - 4 / 16 = .625"
    assert asked(AWARE, 1, scores, values, queue=2) == STOP and asked(AWARE, 1, scores, values, queue=1) == 2
    assert asked(AWARE, 0, scores, values, slack=500) == STOP, ".875 - .5 * .5 = .625"
    assert asked(AWARE, 0, scores, values, slack=501) == 1
    assert asked(AWARE, 0, scores, values, slack=500, queue=2, following=750) == STOP, ".875 - 2 / 16 - .5 / 3 < .625"
    assert asked(AWARE, 0, scores, values, slack=1000) == 1, "the next stage fits"
    assert asked(AWARE, 0, [0.24, 0.1, 0.1], values, queue=100) == 1 and asked(AWARE, 0, [0.25, 0.1, 0.1], values, queue=100) == STOP, "the floor"
    assert asked(AWARE, 0, [0.2, 0.1, 0.1], [0.2, 0.2, 0.1, 0.4, 0.3]) == STOP, "the floor raises no threshold"
    assert asked(AWARE, 0, [1.0, 0.1, 0.1], [math.inf, 0.2, 0.1, 0.4, 0.3], queue=1e9, slack=-1, following=0) == 1, "never is never"
    assert asked(AWARE, 0, [math.nan, 0.1, 0.1], values, queue=100) == 1, "what is no number never exits"
    assert asked(AWARE, -1, scores, values) == 0


def test_lateness_takes_at_most_its_own_amount():
    assert asked(AWARE, 0, [0.49, 0.0], [0.9, 0.1, 0.4, 0.3], slack=-1e9) == 1
    assert asked(AWARE, 0, [0.51, 0.0], [0.9, 0.1, 0.4, 0.3], slack=-1e9) == STOP


def test_alone_queue_aware_is_max_softmax(made):
    work, profile = made
    view = work.view()
    for threshold in (0.5, 0.8, [0.9, 0.6, 0.7], "never"):
        rule, plain = AWARE.settle({"threshold": threshold}, view), load_mechanism("max-softmax")
        assert_array_equal(decide(AWARE, view, rule).exit, decide(plain, view, plain.settle({"threshold": threshold}, view)).exit)
    kept = view.restricted((0, 2, 3))
    values, plain = AWARE.settle({"threshold": [0.7, 0.1, 0.8]}, kept), load_mechanism("max-softmax")
    assert_array_equal(decide(AWARE, kept, values).exit, decide(plain, kept, plain.settle({"threshold": [0.7, 0.1, 0.8]}, kept)).exit)
    slow = {"arrivals": "periodic:1s"}
    both = [eesim.simulate(work, profile, name, {"threshold": 0.8}, **slow) for name in ("queue-aware", "max-softmax")]
    assert both[0]["exit_fractions"] == both[1]["exit_fractions"] and both[0]["accuracy"] == both[1]["accuracy"]
    tuned = [eesim.tune(work, profile, name, accuracy_drop=0.02) for name in ("queue-aware", "max-softmax")]
    assert tuned[0].mechanism is not None and tuned[0].parameters["threshold"] == pytest.approx(tuned[1].parameters["threshold"], abs=0.05)


def test_in_bursts_the_tail_falls_far_and_accuracy_little(made):
    """Equal thresholds, a fifth of the time 2,000 requests a second instead of 300: the 95th percentile falls to less than a fifth."""
    work, profile = made
    load = {"arrivals": "bursty:300/s,2000/s,40ms,10ms", "requests": 30_000, "order": "resampled"}
    aware, plain = (eesim.simulate(work, profile, name, {"threshold": 0.9}, **load) for name in ("queue-aware", "max-softmax"))
    assert 0.5 < plain["utilization"] < 1
    assert aware["latency_ms.p95"] < 0.2 * plain["latency_ms.p95"]
    assert plain["accuracy"] - 0.03 < aware["accuracy"] < plain["accuracy"]


@pytest.mark.parametrize(
    ("name", "values"), [("anytime", {}), ("anytime", {"reserve": 1.3}), ("queue-aware", {"threshold": 0.8}), ("queue-aware", {"lowest": 0.9})]
)
@pytest.mark.parametrize("load", [{}, {"servers": 2, "queue": 2}], ids=str)
def test_the_calendar_agrees_with_the_oracle(made, name, values, load):
    work, profile = made
    results = [
        eesim.simulate(work, profile, name, values, arrivals="poisson:1500/s", requests=400, deadline="1500us", engine=engine, **load)
        for engine in ("calendar", "simpy")
    ]
    assert_array_equal(results[0].requests.to_numpy(), results[1].requests.to_numpy())
    assert len(set(results[0].requests.exit)) > 1


@pytest.mark.parametrize(
    ("rule", "given", "telling"),
    [
        (ANYTIME, {"reserve": 0.9}, "outside"), (ANYTIME, {"threshold": 0.9}, "has no parameter"), (AWARE, {"threshold": 1.1}, "0 to 1"),
        (AWARE, {"per_request": -0.1}, "outside"), (AWARE, {"lowest": "low"}, "not a number"),
        (AWARE, {"lateness": [0.1, 0.2, 0.3]}, "takes one value"),
    ],
)  # fmt: skip
def test_bad_parameters_are_one_line(rule, given, telling):
    with pytest.raises(BadInput, match=telling) as caught:
        rule.check(given, builders.view())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", [ANYTIME, AWARE], ids=lambda rule: rule.name)
def test_one_exit_and_unlabelled_samples(rule, tmp_path):
    work = builders.workload(tmp_path / "one", samples=120, exits=1, calibration=50, unlabelled=100)
    profile = eesim.load_profile(builders.write_profile(tmp_path))
    result = eesim.simulate(work, profile, rule, arrivals="poisson:3000/s", deadline="1ms")
    assert result["exit_fractions"] == [1.0]
