"""Whole scenarios drawn at random: every engine that may run one must give the same bytes for every request."""

from __future__ import annotations

import builders
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eesim.arrivals import parse_arrivals
from eesim.cost import MechanismCost, price_network
from eesim.engine.chooser import obstacles, run
from eesim.engine.scenario import Scenario
from eesim.errors import BadInput
from eesim.hardware import load_profile
from eesim.mechanisms import STOP, Mechanism, Parameter, ThresholdMechanism, load_mechanism, mechanism_names
from eesim.seeds import Seeds
from eesim.simulation import Load, sample_order
from eesim.trace import TraceView

EXAMPLES = 600
"""At least 500 scenarios a run."""


class QueueAware(Mechanism):
    """A live rule with state within the sample: the longer the queue and the less the slack, the lower the bar."""

    name, state, live, scratch = "queue-aware-test", "within", True, 1
    parameters = (Parameter("threshold", 0.9, 0.0, 1.0),)

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        scratch[0] += 1
        late = 0.2 if situation[1] < situation[2] else 0.0
        if exit >= 0 and observed[exit, 0] >= parameters[0] - 0.05 * situation[0] - late - 0.01 * scratch[0]:
            return STOP
        return exit + 1


class Scene(Mechanism):
    """State per stream, heads skipped, a label that is not the exit's own: the shape of Temporal Patience."""

    name, state = "scene-test", "stream"
    parameters = (Parameter("threshold", 0.3, 0.0, 1.0),)

    def memory(self, view, values):
        return 3

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        last = observed.shape[0] - 1
        if exit < 0:
            return int(memory[1]) if memory[0] > 0 else 0
        if memory[0] > 0 and exit == int(memory[1]) and abs(observed[exit, 0] - memory[2]) <= parameters[0]:
            answer[0] = int(memory[1]) % 2
            return STOP
        memory[0] = 0
        if exit == last:
            memory[0], memory[1] = 1, last // 2
            memory[2] = observed[last // 2, 0]
            return STOP
        return exit + 1


class EarlyAnswer(Mechanism):
    """Global state, answers early and computes on: the shape of Apparate. Counts what it has seen."""

    name, state = "early-answer-test", "global"
    parameters = (Parameter("threshold", 0.6, 0.0, 1.0),)

    def memory(self, view, values):
        return 1

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        if exit >= 0 and answer[1] < 0 and observed[exit, 0] >= parameters[0] + 0.001 * (memory[0] % 7):
            answer[1] = exit
        if exit == observed.shape[0] - 2:
            memory[0] += 1
        return exit + 1


class Backwards(Mechanism):
    """Starts in the middle, may go back and may answer without evaluating anything."""

    name = "backwards-test"
    parameters = (Parameter("threshold", 0.6, 0.0, 1.0),)

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        middle = observed.shape[0] // 2
        if exit < 0:
            if observed[0, 0] < 0.4:
                answer[0] = 1
                return STOP
            return middle
        if exit == middle and observed[exit, 0] < parameters[0]:
            return 0 if middle > 0 else 1
        return STOP


class EarlyThenBack(Mechanism):
    """Starts deep, answers there when sure, and evaluates shallower heads afterwards; global state counts the samples."""

    name, state = "early-then-back-test", "global"
    parameters = (Parameter("threshold", 0.6, 0.0, 1.0),)

    def memory(self, view, values):
        return 1

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        last = observed.shape[0] - 1
        if exit < 0:
            memory[0] += 1
            return last // 2
        if exit == last // 2 and observed[exit, 0] >= parameters[0]:
            answer[1] = exit
        if exit == last // 2 and last // 2 > 0 and memory[0] % 3 > 0:
            return 0
        return STOP if answer[1] >= 0 else last


class Stuck(Mechanism):
    """Asks for the first head for ever."""

    name = "stuck-test"

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        return 0


class StuckGlobal(Stuck):
    """The same with state, so that it is asked when service starts."""

    name, state = "stuck-global-test", "global"


class StuckLive(Stuck):
    """The same, asked in simulated time."""

    name, live = "stuck-live-test", True


RULES = [load_mechanism(name) for name in mechanism_names()]
RULES += [QueueAware(), Scene(), EarlyAnswer(), Backwards(), EarlyThenBack()]
PROFILE = None
TRACES: dict[int, TraceView] = {}


def view_of(exits: int, streams: int) -> TraceView:
    """A small view; made once."""
    key = exits * 10 + streams
    if key not in TRACES:
        TRACES[key] = builders.view(samples=130, exits=exits, classes=3, seed=key, streams=streams, calibration=60, unlabelled=7)
    return TRACES[key]


def profile(tmp_path_factory):
    """A device with costs of a few nanoseconds, so that events often fall on the same instant."""
    global PROFILE
    if PROFILE is None:
        from eesim.network import KINDS

        rates = {kind: {"per_mac": 0.001, "per_call": 0.3} for kind in KINDS}
        model = {"model": "linear", "time_unit": "ns", "data_types": {"int8": rates}}
        data = builders.profile_data("tiny-times", cost_model=model, decision={"ns": 1.0})
        PROFILE = load_profile(builders.write_profile(tmp_path_factory.mktemp("tiny"), data))
    return PROFILE


def draw_values(draw, rule, view):
    """One of the candidates of tuning, or numbers drawn for mechanisms made up here; now and then with the additions of threshold rules."""
    if rule in RULES[-5:]:
        numbers = st.sampled_from([0.0, 0.45, 0.6, 0.8, 1.0])
        return rule.check({p.name: draw(st.integers(1, 3)) if p.integer else draw(numbers) for p in rule.parameters}, view)
    values = {} if rule.bound or view.exits == 1 else dict(draw(st.sampled_from(rule.candidates(view.calibration, 8))))
    if isinstance(rule, ThresholdMechanism) and draw(st.integers(0, 3)) == 0:
        first, latest = sorted((draw(st.integers(0, last := view.trace.exits - 1)), draw(st.integers(0, last))))
        added = {"min_exit": first, "max_exit": latest, "temperature": "fitted", "class_offset": "fitted"}
        values |= {name: added[name] for name in draw(st.lists(st.sampled_from(sorted(added)), unique=True))}
    return rule.settle(values, view, lambda: view.calibration)


@st.composite
def scenarios(draw, device):
    exits = draw(st.integers(1, 5))
    view = view_of(exits, draw(st.integers(1, 3)))
    rule = draw(st.sampled_from(RULES))
    if exits > 1 and draw(st.booleans()):
        kept = draw(st.lists(st.integers(0, exits - 2), unique=True, max_size=exits - 1))
        view = view.restricted((*sorted(kept), exits - 1))
    values = draw_values(draw, rule, view)
    macs = draw(st.lists(st.integers(0, 9000), min_size=exits, max_size=exits))
    priced = price_network(builders.network(exits, macs, 3), device)
    load = Load(order=draw(st.sampled_from(["recorded", "shuffled", "resampled"])), seed=draw(st.integers(0, 99)))
    requests = draw(st.integers(1, 160))
    servers = draw(st.integers(1, 4))
    seeds = Seeds(load.seed)
    kind = draw(st.sampled_from(["closed", "ties", "poisson", "periodic", "bursty"]))
    rng = np.random.default_rng(load.seed)
    text = {
        "closed": "closed", "ties": np.cumsum(rng.integers(0, draw(st.integers(2, 12)), requests)), "poisson": "poisson:100000000/s",
        "periodic": f"periodic:{draw(st.integers(1, 40))}ns,jitter=1ns", "bursty": "bursty:10000000/s,300000000/s,100ns,100ns",
    }[kind]  # fmt: skip
    process = parse_arrivals(text)
    rows, in_order = sample_order(view, load.order, requests, seeds, process)
    capacity = draw(st.sampled_from([-1, -1, 0, 1, 3]))
    rule = rule.variant(values)
    return Scenario(
        view, rows, in_order, rule, values, MechanismCost(priced, view.recorded_exits, rule, view.classes), process, seeds,
        requests, servers, capacity, draw(st.booleans()), draw(st.sampled_from([-1, 5, 20])), draw(st.integers(0, requests - 1)),
    )  # fmt: skip


def columns(outcome):
    """What every engine must agree on, byte for byte."""
    timeline, verdicts = outcome.timeline, outcome.timeline.decided.verdicts
    size = outcome.scenario.requests
    served = timeline.start >= 0
    chosen = {name: np.where(served, np.resize(getattr(verdicts, name), size), -1) for name in ("exit", "prediction", "correct")}
    energy = np.where(served, np.resize(timeline.decided.energy_nj, size), 0)
    return {
        "arrival": timeline.arrival,
        "start": timeline.start,
        "response": timeline.response,
        "finish": timeline.finish,
        "energy": energy,
        **chosen,
    }


def test_all_engines_agree_byte_for_byte(tmp_path_factory):
    device = profile(tmp_path_factory)
    ran: dict[str, int] = {}

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(scenarios(device))
    def agree(scenario):
        reference = run(scenario, "simpy")
        expected = columns(reference)
        figures = (
            reference.latency.mean,
            reference.latency.percentile(95),
            reference.dropped,
            reference.late,
            reference.busy_ns,
            reference.horizon_ns,
        )
        assert (expected["finish"] >= expected["response"]).all() and (expected["start"] <= expected["response"]).all()
        for engine, obstacle in obstacles(scenario).items():
            if obstacle is None and engine != "simpy":
                ran[engine] = ran.get(engine, 0) + 1
                outcome = run(scenario, engine)
                for name, values in columns(outcome).items():
                    assert values.astype(np.int64).tobytes() == expected[name].astype(np.int64).tobytes(), (engine, name)
                got = (outcome.latency.mean, outcome.latency.percentile(95), outcome.dropped, outcome.late, outcome.busy_ns, outcome.horizon_ns)
                assert np.array_equal(got, figures, equal_nan=True), engine

    agree()
    assert ran["calendar"] >= 500 and min(ran.get(name, 0) for name in ("counts", "lindley", "k-server")) >= 20, ran


@pytest.mark.parametrize("rule", [Stuck(), StuckGlobal(), StuckLive()], ids=lambda rule: rule.name)
@pytest.mark.parametrize("engine", ["lindley", "calendar", "simpy"])
def test_a_step_that_asks_for_a_head_again_is_refused_and_does_not_hang(tmp_path_factory, rule, engine):
    view, process, seeds = view_of(3, 2), parse_arrivals("poisson:100/s"), Seeds(0)
    priced = price_network(builders.network(3, [10, 10, 10], 3), profile(tmp_path_factory))
    rows, in_order = sample_order(view, "recorded", 20, seeds, process)
    capacity = 2 if rule.state == "global" and engine != "lindley" else -1
    cost = MechanismCost(priced, view.recorded_exits, rule, view.classes)
    scenario = Scenario(view, rows, in_order, rule, {}, cost, process, seeds, 20, capacity=capacity)
    if obstacles(scenario)[engine] is not None:
        pytest.skip(f"{engine} does not run {rule.name}")
    with pytest.raises(BadInput, match="has evaluated already"):
        run(scenario, engine)
