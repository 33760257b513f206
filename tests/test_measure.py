"""Measuring this machine: every layer has a time, times are consistent, what the runtime makes of a network is led back to its layers.

Nothing here depends on how fast the machine is or on what else it does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eesim.errors import BadInput
from eesim.measure.energy import find_meter, idle_power, measure_energy
from eesim.measure.machine import pinned, quiet_cores, this_machine
from eesim.measure.timing import summary, timed, warm

ROOT = Path(__file__).parents[1]
WORKLOADS = ROOT / "workloads"
needs_runtime = pytest.mark.skipif(not find_spec("onnxruntime"), reason="onnxruntime is not installed, so nothing can be measured")


@pytest.fixture(scope="module")
def digits():
    """The digits network, measured quickly."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed, so nothing can be measured")
    from eesim.measure import measure_model

    steps = []
    return measure_model("digits", repeats=20, warmup=2, progress=steps.append), steps


def test_totals_have_the_whole_and_every_exit(digits):
    measured, steps = digits
    totals = measured.totals
    assert totals["exit"].tolist() == [pd.NA, 0, 1, 2] and totals["calls"].tolist() == [1, 2, 3, 4]
    assert (totals["latency_ms"] > 0).all() and (totals["min_ms"] <= totals["latency_ms"]).all()
    assert (totals["repeats"] >= 20).all() and totals["disturbed"].between(0, 1).all()
    assert measured.exit_ms() == totals["latency_ms"].tolist()[1:] and sum(steps) == len(steps) == 5
    later = totals["min_ms"].tolist()[1:]
    assert later == sorted(later)  # every run goes through all stages, so a later exit is never earlier


def test_layers_are_complete_and_sum_to_the_whole(digits):
    measured, _ = digits
    layers = measured.layers
    own = layers[layers["kind"] != "runtime"]
    assert own["layer"].tolist() == [layer.name for layer in measured.network.layers]
    assert own["macs"].tolist() == [layer.macs for layer in measured.network.layers]
    assert (own.loc[own["macs"] > 0, "latency_ms"] > 0).all()
    assert own["part"].tolist()[:2] == ["segment 0", "segment 0"]
    assert set(own["part"]) == {f"{kind} {exit}" for kind in ("segment", "head") for exit in range(3)}
    assert layers["latency_ms"].sum() == pytest.approx(measured.latency_ms, rel=1e-6)
    assert "(call)" in set(layers["layer"])
    assert measured.profiling["scale"] > 0 and measured.profiling["overhead_us"] >= 0


def test_rows_are_what_calibrate_reads(digits, tmp_path):
    from eesim.measure import to_csv

    measured, _ = digits
    to_csv([measured], tmp_path / "here.csv")
    frame = pd.read_csv(tmp_path / "here.csv", keep_default_na=False)
    assert list(frame) == ["network", "layer", "latency_ms", "energy_mj"] and set(frame["network"]) == {"digits/network.onnx"}
    assert frame["layer"][0] == "" and float(frame["latency_ms"][0]) == pytest.approx(measured.latency_ms, rel=1e-4)
    assert set(frame["layer"][1:]) <= {layer.name for layer in measured.network.layers} and (frame["latency_ms"].astype(float) > 0).all()
    assert {layer.name for layer in measured.network.layers if layer.macs} <= set(frame["layer"])
    json.dumps(measured.record(), allow_nan=False)


@needs_runtime
@pytest.mark.parametrize("name", ["cifar10-resnet8", "levit-128s"])
def test_what_the_runtime_rewrites_is_led_back_to_layers(name, tmp_path):
    """Fused additions, renamed products, operators that are taken apart, and weights that are missing."""
    from eesim.measure.measuring import find_onnx
    from eesim.measure.onnx_model import prepare
    from eesim.measure.profiling import NodeProfile, share
    from eesim.network.onnx_import import import_onnx

    file, final_head = find_onnx(name)
    prepared, network = prepare(file, final_head=final_head), import_onnx(file, final_head=final_head)
    assert (prepared.random > 0) == (name == "levit-128s")
    profile = NodeProfile(prepared, tmp_path, 1)
    for _ in range(3):
        profile.run(prepared.example())
    profile.forget()
    profile.run(prepared.example())
    durations = profile.finish()
    assert all(values.shape == (1,) for values in durations.values())
    assert set(durations) == set(profile.executed.layers)  # no event is lost, no node is without one
    by_layer, inserted, inside = share(durations, list(network.layers), profile.executed)
    names = {layer.name for layer in network.layers}
    assert set(by_layer) | set(inside) == names and all(inside.values())
    assert {layer.name for layer in network.layers if layer.macs} <= set(by_layer)
    assert sum(values[0] for values in (*by_layer.values(), *inserted.values())) == pytest.approx(sum(values[0] for values in durations.values()))
    operators = {layer.name: layer.op for layer in network.layers}
    if name == "cifar10-resnet8":
        assert {operators[layer] for layer in inside} <= {"Add"}
        assert all(operators[host] == "Conv" for host in inside.values())
        second = {layer: host for layer, host in inside.items() if layer == "/segments.1/Add"}
        assert not second or second == {"/segments.1/Add": "/segments.1/second/second.0/Conv"}
    else:
        assert {operators[layer] for layer in inside} <= {"Mul", "Transpose", "Reshape"} and not {"HardSigmoid", "Mul"} & set(inserted)


def test_layers_with_macs_share_the_node_that_runs_them():
    from eesim.measure.profiling import Executed, hosts, share
    from eesim.network.layer import Layer

    def layer(name, op, kind, macs, inputs):
        return Layer(name, op, kind, (1, 4), (1, 4), macs, 4 if macs else 0, 4, 4, inputs=inputs)

    layers = [
        layer("a", "MatMul", "matmul", 300, ("x",)),
        layer("b", "MatMul", "matmul", 100, ("a",)),
        layer("c", "Softmax", "softmax", 0, ("b",)),
        layer("d", "Add", "elementwise", 0, ("c",)),
    ]
    run = Executed({"n": "Attention", "m": "Transpose", "s": "Softmax"}, {"n": "b", "m": None, "s": "c"})
    by_layer, inserted, inside = share({"n": np.array([40.0]), "m": np.array([1.0]), "s": np.array([2.0])}, layers, run)
    assert by_layer == {"a": [30.0], "b": [10.0], "c": [2.0]} and inserted == {"Transpose": [1.0]}
    assert inside == {"a": "b", "d": "c"}
    assert hosts(layers, {}, {}) == {"a": "", "b": "", "c": "", "d": ""}


def test_node_durations_are_summed_by_run():
    from eesim.measure.profiling import nameless, node_durations

    def node(name, ts, dur, op):
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": op}}

    run = [{"cat": "Session", "name": "model_run", "ts": ts, "dur": 50} for ts in (100, 200)]
    events = [*run, node("a", 101, 5, "Conv"), node("Mul_7", 110, 1, "Mul"), node("Mul_3", 120, 2, "Mul")]
    events += [node("a", 130, 4, "Conv"), node("a", 201, 7, "Conv")]
    found = node_durations([{"cat": "Session", "name": "model_loading", "ts": 1}, *events], {"a"})
    assert found["a"].tolist() == [10_000, 7_500]  # half a microsecond is added to each, since whole ones are cut off
    assert found[nameless("Mul", 0)].tolist() == [1_500, 0] and found[nameless("Mul", 1)].tolist() == [2_500, 0]
    assert node_durations(events, {"a"}, first=1)["a"].tolist() == [7_500]


def test_overhead_and_scale_are_found_together():
    from eesim.measure.profiling import free, settle

    true = np.array([50.0, 20.0, 1.0, 1.0, 3.0]) * 1e3
    overhead, scale = settle(true + 4e3, 4e3, true.sum())
    assert overhead == pytest.approx(4e3, rel=0.02) and scale == pytest.approx(1, rel=0.01)
    overhead, scale = settle(1.2 * true + 6e3, 4e3, true.sum())  # a slower machine, and a larger overhead than the chain shows
    assert 4e3 < overhead < 8e3 and scale < 1 and (free(1.2 * true + 6e3, overhead) * scale).sum() == pytest.approx(true.sum())
    assert settle(true, 0.0, true.sum()) == (0.0, pytest.approx(1))


def test_statistics_are_robust():
    steady = summary(np.r_[np.full(99, 1000), 50_000])
    assert (steady.median, steady.middle, steady.iqr, steady.least) == (1000, 1000, 0, 1000) and steady.disturbed == pytest.approx(0.01)
    assert summary(np.array([100, 100, 100, 200, 200, 200])).drift == pytest.approx(1)
    assert summary(np.array([7])).repeats == 1
    assert summary(np.full(4, 5), np.array([True, False, False, False])).disturbed == 0.25
    durations, lost, reading = timed(lambda: None, repeats=7)
    assert np.isnan(reading).all()
    assert durations.shape == lost.shape == (7,) and (durations >= 0).all()
    assert len(timed(lambda: None, seconds=1e-6)[0]) == 20 and not timed(lambda: None, repeats=3, clock="own").preempted.any()
    assert warm(lambda: None, 3) == 3 and warm(lambda: None) >= 10
    with pytest.raises(BadInput, match="own"):
        timed(lambda: None, repeats=1, clock="owm")


def test_the_machine_is_described_and_cores_are_given_back():
    machine = this_machine()
    assert machine.cores >= 1 and machine.versions["python"] and json.dumps(machine.record()) and str(machine)
    if hasattr(os, "sched_getaffinity"):
        before = os.sched_getaffinity(0)
        with pytest.raises(ZeroDivisionError), pinned(1) as cores:
            assert len(cores) <= 1 and (not cores or os.sched_getaffinity(0) == set(cores))
            raise ZeroDivisionError
        assert os.sched_getaffinity(0) == before and set(quiet_cores(1)) <= before


def test_energy_counters_that_wrap_and_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("eesim.measure.energy.LEAST_S", 0.05)
    missing = find_meter("cpu", tmp_path)
    assert missing.read is None and "RAPL" in missing.why_not and measure_energy(missing, lambda: None) is None and idle_power(missing) is None
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of the package: not counted twice
    (package / "max_energy_range_uj").write_text("10000\n", encoding="ascii")
    (package / "energy_uj").write_text("9000\n", encoding="ascii")
    meter = find_meter("cpu", tmp_path)
    calls = []

    def run():
        calls.append(None)
        if len(calls) == 1:
            (package / "energy_uj").write_text("4000\n", encoding="ascii")  # 5 mJ further, over the edge
        time.sleep(0.02)

    found = measure_energy(meter, run, 1.0, seconds=0.05)
    assert found.mj == pytest.approx(5.0 / len(calls)) and found.idle_mw == 1.0 and "package" in found.rail


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"path": "digitz"}, "digits"),
        ({"path": "missing.onnx"}, "no such model"),
        ({"path": "digits", "runtime": "onnx"}, "onnxruntime"),
        ({"path": "digits", "device": "gpu"}, "device"),
        ({"path": "digits", "threads": 0}, "threads"),
        ({"path": "digits", "repeats": 5, "seconds": 1.0}, "not both"),
        ({"path": "digits", "seconds": -1.0}, "seconds"),
        ({"path": "digits", "clock": "own", "threads": 2}, "clock"),
        ({"path": str(ROOT / "README.md")}, ".onnx"),
        ({"path": "missing.py:build", "runtime": "torch"}, "no such Python file"),
    ],
)
def test_mistakes_are_one_line(given, word):
    from eesim.measure import measure_model

    with pytest.raises(BadInput) as caught:
        measure_model(**given)
    assert word in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("runtime", "argument"), [("onnxruntime", "digits"), ("torch", "model.py:build")])
def test_a_missing_runtime_is_one_line(runtime, argument, monkeypatch, tmp_path):
    from eesim.measure import measure_model

    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text("", encoding="utf-8")
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(BadInput, match=f"needs {runtime}; install"):
        measure_model(argument, runtime=runtime)


TORCH = """
import torch
from torch import nn

class Exits(nn.Module):
    def __init__(self):
        super().__init__()
        self.segments = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Conv2d(4, 4, 3, groups=4)])
        self.heads = nn.ModuleList([nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)) for _ in range(2)])

    def forward(self, x):
        said = []
        for segment, head in zip(self.segments, self.heads):
            x = segment(x)
            said.append(head(x))
        return said

def build():
    return Exits(), torch.zeros(1, 3, 8, 8)

def alone():
    return nn.Linear(3, 2), (torch.zeros(1, 3),)

def wrong():
    return nn.Linear(3, 2)
"""


def test_torch_modules(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    from eesim.measure import measure_model

    file = tmp_path / "model.py"
    file.write_text(TORCH, encoding="utf-8")
    measured = measure_model(f"{file}:build", runtime="torch", repeats=10, warmup=1)
    own = measured.layers[measured.layers["kind"] != "runtime"]
    assert dict(zip(own["layer"], own["macs"], strict=True)) == {
        "segments.0.0": 36 * 4 * 27, "segments.0.1": 0, "heads.0.0": 0, "heads.0.1": 0, "heads.0.2": 20,
        "segments.1": 16 * 4 * 9, "heads.1.0": 0, "heads.1.1": 0, "heads.1.2": 20,
    }  # fmt: skip
    assert own["kind"].tolist()[:2] == ["conv", "elementwise"] and own["kind"].tolist()[5] == "depthwise"
    assert measured.totals["exit"].tolist() == [pd.NA, 0, 1] and measured.network is None
    assert measured.layers["latency_ms"].sum() == pytest.approx(measured.latency_ms, rel=1e-6)
    alone = measure_model(f"{file}:alone", runtime="torch", repeats=5, warmup=1)
    assert len(alone.totals) == 1 and any("exit by exit" in note for note in alone.notes)
    with pytest.raises(BadInput, match="example_inputs"):
        measure_model(f"{file}:wrong", runtime="torch")


@needs_runtime
def test_the_command_writes_whole_files_or_none(tmp_path):
    from click.testing import CliRunner

    from eesim.cli.measure import measure

    csv = tmp_path / "here.csv"
    done = CliRunner().invoke(measure, ["digits", "--repeats", "5", "--warmup", "1", "--csv", str(csv), "--format", "json"], catch_exceptions=False)
    record = json.loads(done.stdout)
    assert done.exit_code == 0 and record["network"] == "digits" and len(record["totals"]) == 4 and "here.csv" in done.stderr
    assert list(tmp_path.iterdir()) == [csv]
    failed = CliRunner().invoke(measure, ["digits", "missing.onnx", "--repeats", "5", "--csv", str(tmp_path / "there.csv")])
    assert isinstance(failed.exception, BadInput) and "no such model" in str(failed.exception) and list(tmp_path.iterdir()) == [csv]


def test_repeats_of_a_slow_machine_do_not_count(monkeypatch):
    from eesim.measure import timing, yardstick

    stick = yardstick.Yardstick()
    stick.readings = [100.0] * 1000
    disturbed = np.array([100.0] * 30 + [180.0] * 70 + [np.nan])
    counted, scale = stick.counted(disturbed)
    assert counted.sum() == 31 and counted[-1] and (scale == 1).all(), "by the wall clock nothing is known, so all count"
    counted, scale = stick.counted(disturbed[20:])
    assert counted.all() and scale[:10].tolist() == [1] * 10 and scale[10] == pytest.approx(100 / 180), "too few: slow ones are scaled"
    found = summary(np.r_[np.full(30, 10), np.full(70, 18)], counted=stick.counted(disturbed[:-1]))
    assert (found.median, found.repeats, found.left_out, found.scaled) == (10, 30, pytest.approx(0.7), 0)

    readings = iter([180.0, 100.0, 100.0, 100.0, 180.0] + [100.0] * 1000)  # waits once, one good chunk, one that became slow, then good ones
    monkeypatch.setattr(stick, "read", lambda: next(readings))
    monkeypatch.setattr(timing, "yardstick", lambda: stick)
    monkeypatch.setattr(timing, "CHUNK_NS", 0)
    runs = []
    found = timed(lambda: runs.append(0), repeats=5, clock="own")
    assert found.reading.tolist() == [100, 180, 100, 100, 100, 100] and len(runs) == 6
    monkeypatch.setattr(stick, "read", lambda: 180.0)
    assert (timed(lambda: None, repeats=5, clock="own", until=0.0).reading == 180).all(), "nobody waits for ever"


def test_of_several_passes_the_middle_of_the_undisturbed_counts():
    from dataclasses import dataclass, field

    from eesim.measure.turns import _middle

    @dataclass
    class Tried:
        latency_ms: float
        totals: pd.DataFrame
        notes: list = field(default_factory=list)

    def tried(latency, scaled=0.0):
        return Tried(latency, pd.DataFrame({"scaled": [scaled]}))

    passes = [tried(1.05), tried(1.0), tried(1.08), tried(1.3), tried(0.9, scaled=0.5)]
    assert _middle(passes).latency_ms == 1.05 and "3 of 4 passes agreed" in _middle(passes).notes[0]
    assert _middle([tried(0.9, 0.5), tried(1.0, 0.1)]).latency_ms == 0.9


def test_a_disturbed_request_is_served_again(monkeypatch):
    from eesim.measure import staged, yardstick

    stick = yardstick.Yardstick()
    stick.readings = [100.0] * 1000
    readings = iter([100.0, 180.0, 100.0, 100.0])
    monkeypatch.setattr(stick, "read", lambda: next(readings))
    monkeypatch.setattr(staged, "yardstick", lambda: stick)
    times, runs = iter(range(0, 1000, 7)), []
    start, finish, said = staged.undisturbedly(lambda: runs.append(0) or len(runs), lambda: next(times), float("inf"))
    assert (start, finish, said) == (14, 21, 2)
