"""Serving in stages: the parts of a network say together what the whole says, requests are stamped in order, and simulating them agrees.

Nothing here depends on how fast the machine is or on what else it does.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from eesim.errors import BadInput
from eesim.workload import load_workload

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed, so nothing can be served")

from eesim.measure.measuring import find_onnx
from eesim.measure.onnx_model import session
from eesim.measure.recorded import recorded_inputs
from eesim.measure.serving import recorded_exits, serve, serving_versus_simulation, simulated
from eesim.measure.staged import StagedNetwork, confidence, go_through, service_times, stage_times

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def never_slow(monkeypatch):
    """Tests share their machine with each other, and do not wait for it to be quiet."""
    from eesim.measure.yardstick import Yardstick

    monkeypatch.setattr(Yardstick, "learn", lambda self: self.read())
    monkeypatch.setattr(Yardstick, "slow", lambda self, reading: False)


@pytest.fixture(scope="module")
def digits():
    """The digits network in stages."""
    file, final_head = find_onnx("digits")
    return StagedNetwork(file, final_head=final_head)


@pytest.fixture(scope="module")
def images():
    """The recorded test images of digits and their labels."""
    pytest.importorskip("sklearn", reason="scikit-learn, which brings the images, is not installed")
    return recorded_inputs("digits")


@pytest.mark.parametrize("name", ["digits", "ecg-mitbih", "cifar10-resnet8", "kws-speech-commands"])
def test_stages_say_what_the_whole_network_says(name):
    """Skip connections, and heads that read the network's inputs."""
    file, final_head = find_onnx(name)
    staged = StagedNetwork(file, final_head=final_head)
    network = load_workload(name).network
    assert staged.exits == network.exits and list(staged.inputs) == list(network.inputs)
    whole, sample = session(staged.prepared.model), staged.example(1)
    expected = whole.run(staged.outputs, sample)
    for said, wanted in zip(staged.run(sample), expected, strict=True):
        np.testing.assert_allclose(said, wanted[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(staged.run(sample, 0, every_head=False)[0], expected[0][0], rtol=1e-3, atol=1e-4)


def test_every_node_is_in_one_part(digits):
    nodes = [node.name for part in (*digits.segments, *digits.heads) for node in _nodes(digits, part)]
    assert sorted(nodes) == sorted(node.name for node in digits.prepared.model.graph.node)


def _nodes(staged, part):
    from eesim.measure.onnx_model import part_of, tensor_owners

    kind, exit = part.name.split()
    return part_of(staged.prepared, (int(exit), kind == "head"), tensor_owners(staged.prepared), "part").graph.node


def test_served_exits_and_answers_are_the_recorded_ones(digits, images):
    inputs, labels = images
    view, threshold = load_workload("digits").view("test"), 0.9
    samples = digits.samples(inputs)
    served = serve(digits, np.zeros(len(samples), np.int64), samples, threshold=threshold, pin=False).requests
    recorded = recorded_exits(load_workload("digits"), threshold)
    near = np.abs(view.confidence[:, :-1] - threshold).min(axis=1) < 1e-3  # the trace is float16
    assert (served["exit"].to_numpy() == recorded)[~near].all() and near.mean() < 0.05
    left = served["exit"].to_numpy()
    answers = view.answers[np.arange(len(left)), left]
    assert (served["prediction"].to_numpy() == answers).mean() > 0.99 and np.array_equal(labels, view.label)


def test_requests_are_served_in_order_and_not_before_they_arrive(digits):
    arrivals = np.cumsum(np.full(30, 100_000)).astype(np.int64)
    exits = np.arange(30) % 3
    for clock in ("wall", "own"):
        served = serve(digits, arrivals, exits=exits, clock=clock)
        requests = served.requests
        start, finish = requests["start_ns"].to_numpy(), requests["finish_ns"].to_numpy()
        assert list(requests) == ["arrival_ns", "start_ns", "finish_ns", "exit", "prediction"]
        assert (start >= arrivals).all() and (finish > start).all() and (start[1:] >= finish[:-1]).all()
        assert requests["exit"].tolist() == exits.tolist()
        assert (np.argmax(served.times.segment[:, ::-1] >= 0, axis=1) == 2 - exits).all()  # stages behind the exit were not reached
        parts = np.stack([served.times.segment, served.times.head, served.times.decision]).clip(0).sum(axis=(0, 2)) + served.times.request
        assert (parts == served.service_ns).all()


def test_a_kernel_replays_what_was_served(digits):
    arrivals = np.zeros(20, np.int64)
    served = serve(digits, arrivals, exits=np.full(20, 2), clock="own")
    start, finish = simulated(arrivals, served.service_ns)
    real = served.requests["finish_ns"].to_numpy() - served.requests["start_ns"][0]
    assert (finish <= real).all() and start[0] == 0  # what is left is what the loop takes between two requests
    assert finish.tolist() == np.cumsum(served.service_ns).tolist()


def test_stage_times_add_up(digits):
    times = stage_times(digits, repeats=12, warmup=2)
    assert times.segment.shape == times.head.shape == times.decision.shape == (12, 3) and times.request.shape == (12,)
    assert (times.segment > 0).all() and (times.head > 0).all() and (times.decision[:, :-1] > 0).all() and not times.decision[:, -1].any()
    segment, head, decision, request = times.means()
    assert times.service_ns()[-1] == segment.sum() + head.sum() + decision.sum() + request[-1] and (times.exit == 2).all()
    assert (times.each_ns == (times.segment + times.head + times.decision).sum(axis=1) + times.request).all()
    left = stage_times(digits, exits=np.array([0, 0, 2]), repeats=9, warmup=0, clock="own")
    assert left.exit.tolist() == [0, 0, 2] * 3 and (left.segment[left.exit == 0, 1:] == -1).all() and left.means()[0].all()
    assert (np.diff(left.service_ns()) > 0).all() and left.means()[3][1] == round(left.request.mean())
    drawn = left.draw(np.array([0, 2, 1, 0]), np.random.default_rng(0))
    assert drawn[2] == left.service_ns()[1] and drawn[1] in left.each_ns[left.exit == 2] and {drawn[0], drawn[3]} <= set(left.each_ns[left.exit == 0])
    assert service_times([1, 2], [10, 20], 100, 1000).tolist() == [1111, 1133]


def test_thresholds_stop_and_exits_force(digits):
    sample = digits.example(3)
    logits = digits.run(sample)
    sure = confidence(logits[0])
    probabilities = np.exp(logits[0].astype(float)) / np.exp(logits[0].astype(float)).sum()
    assert sure == pytest.approx(probabilities.max(), rel=1e-12)
    assert go_through(digits, sample, [sure, 2.0], -1)[0] == 0 and go_through(digits, sample, [np.nextafter(sure, 2), 2.0], -1)[0] == 2
    assert go_through(digits, sample, [0.0, 0.0], 1) == (1, int(logits[1].argmax()))


@pytest.mark.parametrize("inputs", [False, True])
def test_serving_and_simulation_are_compared(inputs, images):
    given = dict(zip(("inputs", "labels"), images, strict=True)) if inputs else {}
    slow = (np.full(3, 10**9), np.zeros(3, np.int64), 0)
    found = serving_versus_simulation("digits", **given, requests=40, runs=2, repeats=10, predicted={"slow": slow}, clock="own")
    runs = found.runs
    assert runs["source"].tolist() == ["real", "stages", "drawn", "slow", "replayed"] * 2 and found.forced is not inputs
    assert runs["utilization"].between(0, 1.0001).all() and (runs["p50_ms"] <= runs["p99_ms"]).all() and (runs["exit_agreement"] > 0.9).all()
    off = found.differences.set_index("source")
    assert list(off.index) == ["stages", "drawn", "slow", "replayed"] and off.loc["slow", "p50_ms"] > 1
    assert abs(off.loc["replayed", "utilization"]) < 0.5
    json.dumps(found.record(), default=float)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda net: serve(net, np.array([5, 3])), "ascending"),
        (lambda net: serve(net, np.array([], np.int64)), "at least one"),
        (lambda net: serve(net, np.array([0, 1]), exits=np.array([0, 3])), "exit of 0 to 2"),
        (lambda net: serve(net, np.array([0]), threshold=[0.1, 0.2, 0.3]), "3 thresholds"),
        (lambda net: net.samples({"image": np.zeros((2, 1, 8, 9))}), "shape"),
        (lambda net: net.samples({"picture": np.zeros((2, 1, 8, 8))}), "missing"),
        (lambda net: serving_versus_simulation("digits", load=0), "load"),
        (lambda net: serving_versus_simulation("digits", {"image": np.zeros((3, 1, 8, 8))}), "3 samples"),
        (lambda net: serving_versus_simulation("digits", labels=np.zeros(3)), "labels"),
        (lambda net: recorded_inputs("levit-128s"), "trace"),
    ],
)
def test_mistakes_are_one_line(call, word, digits, monkeypatch):
    monkeypatch.delenv("EESIM_RAW_DATA", raising=False)
    with pytest.raises(BadInput) as caught:
        call(digits)
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_raw_inputs_that_are_missing_are_one_line(monkeypatch):
    monkeypatch.delenv("EESIM_RAW_DATA", raising=False)
    with pytest.raises(BadInput, match="EESIM_RAW_DATA"):
        recorded_inputs("ecg-mitbih")


@pytest.mark.skipif(
    not (Path(os.environ.get("EESIM_RAW_DATA") or "none") / "datasets" / "mitbih").is_dir() or not os.environ.get("EESIM_SLOW_TESTS"),
    reason="EESIM_RAW_DATA names no folder with the raw MIT-BIH records, or EESIM_SLOW_TESTS is not set, so beats are not made again",
)
def test_recorded_beats_are_made_again():
    inputs, labels = recorded_inputs("ecg-mitbih")
    assert inputs["signal"].shape == (len(labels), 2, 1, 112) and inputs["rr"].shape == (len(labels), 8)
