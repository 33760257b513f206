"""What `eesim validate` shows: findings and their limits, this machine against itself, and that no profile gets worse unnoticed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_cli import eesim as command

from eesim.bundled import profile_names
from eesim.cost import price_network
from eesim.errors import BadInput
from eesim.fidelity import cpu, mlperf_tiny
from eesim.fidelity.checks import LIMITS, finding
from eesim.fidelity.machine import exits_of_other_networks
from eesim.hardware.fit import error_statistics
from eesim.hardware.profile import load_profile
from eesim.measure.profile import measured_profile, staging
from eesim.plot.fidelity import fidelity
from eesim.report.fidelity import markdown
from eesim.workload import load_workload

STATED = {
    "a100": (0.09, None), "agx-orin": (None, None), "esp32s3-esp-nn": (None, None), "gap9-gapflow": (0.20, 0.20), "h200": (0.09, 0.37),
    "l40s": (0.10, None), "ndp120": (0.06, 0.18), "nrf5340-microtvm": (0.19, None), "odroid-n2plus-tflite": (0.18, 0.20), "psoc62-hale": (0.12, None),
    "ra6m4-renesas": (0.25, 0.25), "ra8d1-renesas": (0.20, None), "raspberry-pi-4-armnn": (0.055, 0.06), "raspberry-pi-4-tflite-fp32": (0.075, 0.10),
    "raspberry-pi-4-tflite-uint8": (0.045, 0.07), "raspberry-pi-5-litert": (0.012, 0.025), "raspberry-pi-5-onnxruntime": (0.005, 0.028),
    "raspberry-pi-5-torchmobile": (0.009, 0.05), "rx65n-renesas": (0.05, 0.06), "stm32g0b1-hale": (0.04, None), "stm32h7a3-xcubeai": (0.035, 0.05),
    "stm32l4r5-microtvm": (0.15, 0.09), "stm32l4r5-microtvm-native": (0.16, 0.19), "stm32l4r5-tflm": (0.155, 0.11),
    "stm32l4r5-xcubeai": (0.055, 0.06),
    "stm32u575-xcubeai": (0.035, 0.045), "t4": (0.17, None), "xavier-nx": (None, None), "xavier-tflite": (0.085, 0.075), "xg24-tflm": (0.03, 0.065),
}  # fmt: skip
"""Profile -> median errors of latency and energy on cases that the fit has not seen which may not be exceeded. Loosened only for a reason:
h200 states the energy of short kernels, which does not repeat, since the larger of short and steady counts."""


def test_no_profile_gets_worse_unnoticed():
    """The errors that profiles state; `test_published_mlperf_tiny` and `test_profiles` hold the statements against the data."""
    assert {name for name in profile_names() if name != "reference"} == set(STATED)
    for name, limits in STATED.items():
        profile = load_profile(name)
        for quantity, limit in zip(("latency", "energy"), limits, strict=True):
            stated = profile.stated_error(quantity)
            assert (stated is None) == (limit is None) and (limit is None or stated <= limit), (name, quantity, stated)
    steady = [source.error.get("energy_held_out_steady_median", 0.0) for source in load_profile("h200").sources if source.error]
    assert 0 < max(steady) <= 0.11, "the energy of steady kernels is held to its own limit"


def test_a_finding_knows_its_limits():
    errors = np.array([0.01, -0.02, 0.005, 0.5, np.nan])
    found = finding("raspberry-pi-5-litert", "default", "latency", errors, "left out")
    assert found.limits == LIMITS["raspberry-pi-5-litert", "latency"]
    assert found.statistics["median"] == pytest.approx(0.015) and found.statistics["within_10pct"] == 0.75
    assert found.kept is False, "three of four within 10 % are too few"
    assert finding("raspberry-pi-5-litert", "default", "latency", errors[:3], "left out").kept is True
    assert finding("nobody", "x", "latency", errors, "left out").kept is None


def test_the_page_and_the_plot_hold_every_finding():
    rng = np.random.default_rng(0)
    many, few = 0.05 * rng.standard_normal(2000), np.array([2.0, -0.1, 0.02])
    found = [finding("h200", "bf16", "latency", many, "shapes"), finding("stm32", "1.8V", "energy", few, "boards")]
    replayed = dict.fromkeys(("mean_ms", "p50_ms", "p95_ms", "p99_ms", "utilization"), 0.01)
    serving = {"ecg": {"differences": {"replayed": replayed}, "exits_equal": 1.0, "runs": 5, "disturbed": 0.1}}
    page = markdown(found, serving, "fidelity.png", "eesim validate")
    assert "| h200, bf16 | latency | 2000 |" in page and "| stm32 | 1.8V | energy | 3 |" in page and "| ecg | replayed | +1.0% |" in page
    assert page.count("\n| ") > 4 and "What the data cannot settle" in page
    _, axes = fidelity(found, "title")
    assert len(axes) == 2 and {text.get_text() for text in axes[1].get_yticklabels()} == {"stm32, 1.8V"}
    assert any(text.get_text() == "1" for text in axes[1].texts), "the case that is off by 200 % is counted at the edge"
    with pytest.raises(BadInput):
        fidelity([], "title")


def test_the_figure_is_closed_under_pooling():
    """A board of the published table: pooled predictions never use its own measurement of that network."""
    rows = mlperf_tiny.read_published()
    pool = mlperf_tiny.Pool("ndp120", rows)
    before = pool.held_out(0)[0]
    betray = [(row["board"], row["network"]) == ("NDP9120", "ic") for row in rows]
    changed = [{**row, "latency_ms": str(3 * float(row["latency_ms"]))} if hit else row for row, hit in zip(rows, betray, strict=True)]
    after = mlperf_tiny.Pool("ndp120", changed).held_out(0)[0]
    place = mlperf_tiny.NETWORKS.index("ic")
    assert after[place] == pytest.approx(before[place], rel=1e-6)
    assert not np.allclose(np.delete(after, place), np.delete(before, place), equal_nan=True)


CALL_NS = 40_000.0
SLOWDOWN = 1.2


def measurement(name: str, rng: np.random.Generator, noise: float = 0.01):
    """As `measure_model` would return it on a machine with three rates, 40 us a call in stages and 10 us in one piece."""
    network = load_workload(name).network
    rates = {"conv": (0.02, 0.04, 5000), "depthwise": (0.06, 0.04, 4000), "pointwise": (0.02, 0.04, 4000)}

    def took(layer):
        per_mac, per_byte, per_call = rates.get(layer.kind, (0.05, 0.05, 1500))
        return (per_mac * layer.macs + per_byte * layer.bytes_moved(4) + per_call) * float(np.exp(noise * rng.standard_normal()))

    rows, parts = [], {}
    for place, groups in (("segment", network.segments), ("head", network.heads)):
        for index, group in enumerate(groups):
            for layer in group:
                ns = took(layer)
                parts[place, index] = parts.get((place, index), 0.0) + ns
                rows.append({"layer": layer.name, "part": f"{place} {index}", "kind": layer.kind, "latency_ms": ns / 1e6, "inside": ""})
    rows.append({"layer": "(call)", "part": "", "kind": "runtime", "latency_ms": 0.01, "inside": ""})
    totals = [{"exit": np.nan, "calls": 1, "latency_ms": sum(row["latency_ms"] for row in rows), "disturbed": 0.0, "left_out": 0.0, "scaled": 0.0}]
    for exit in range(network.exits):
        own = sum(parts.get(("segment", index), 0.0) for index in range(exit + 1)) + parts[("head", exit)]
        calls = sum(bool(network.segments[index]) for index in range(exit + 1)) + 1
        latency = (SLOWDOWN * own + calls * CALL_NS) / 1e6
        totals.append({"exit": exit, "calls": calls, "latency_ms": latency, "disturbed": 0.0, "left_out": 0.0, "scaled": 0.0})
    machine = SimpleNamespace(cpu="a made-up processor", architecture="x", versions={"onnxruntime": "1.0"})
    return SimpleNamespace(
        name=name, network=network, layers=pd.DataFrame(rows), totals=pd.DataFrame(totals), latency_ms=totals[0]["latency_ms"], machine=machine,
        runtime="onnxruntime", clock="own", threads=1, data_type="fp32",
    )  # fmt: skip


@pytest.fixture(scope="module")
def measurements():
    rng = np.random.default_rng(5)
    return [measurement(name, rng) for name in ("digits", "ecg-mitbih", "har-wisdm", "kws-speech-commands", "cifar10-resnet8")]


def test_a_profile_of_this_machine_predicts_networks_it_has_not_seen(measurements, tmp_path):
    found = staging(measurements)
    assert (found.call_ns, found.slowdown) == (pytest.approx(CALL_NS, rel=0.02), pytest.approx(SLOWDOWN, rel=0.02))
    found = exits_of_other_networks(measurements, tmp_path)
    assert found.errors.size == sum(item.network.exits for item in measurements)
    assert np.median(np.abs(found.errors)) < 0.03 and np.abs(found.errors).max() < 0.15


def test_what_was_measured_is_priced_as_measured(measurements, tmp_path):
    from eesim.hardware.document import write_profile

    document = measured_profile(measurements, "here")
    profile = load_profile(write_profile(document, tmp_path / "here.yaml"))
    assert command("profiles", "check", "here.yaml", cwd=tmp_path, check=0).stdout == "here: complete\n"
    item = measurements[1]
    priced = price_network(item.network, profile)
    times = item.layers.set_index("layer").latency_ms * 1e6
    assert sum(cost.ns for layer, cost in priced.layers if layer.kind != "input") == pytest.approx(SLOWDOWN * times.drop("(call)").sum(), rel=0.02)
    assert {priced.grade(layer, "latency") for layer, _ in priced.layers if layer.kind != "input"} == {"measured"}
    assert priced.segment_nj is None, "energy was not measured, and unknown is not zero"
    with pytest.raises(BadInput, match="too few"):
        measured_profile(measurements[:2], "here")


def test_validate_on_the_command_line_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.delenv("EESIM_RAW_DATA", raising=False)
    done = command("validate", "--only", "profiles", cwd=tmp_path, check=2)
    assert "EESIM_RAW_DATA" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert "did you mean 'machine'" in command("validate", "--only", "machin", cwd=tmp_path, check=2).stderr


def test_families_are_predicted_from_other_families():
    """Mobile networks on the Raspberry Pi 4, every family left out of the fit; with a limit on the mean error."""
    raw = os.environ.get("EESIM_RAW_DATA")
    if not raw or not (Path(raw) / "hardware" / "rpi4_mlperf").is_dir():
        pytest.skip("EESIM_RAW_DATA is not set to the folder of raw measurements")
    folder = Path(raw) / "hardware" / "rpi4_mlperf"
    rows, graphs = cpu._rows(folder / "calibration.csv"), cpu._graphs(folder / "onnx.zip")
    for name in ("raspberry-pi-4-tflite-fp32", "raspberry-pi-4-tflite-uint8"):
        document, table = cpu._arm(name, *cpu.ARM_SYSTEMS[name], rows, graphs)
        latency = next(row["held_out"] for row in table if row["what"] == "latency")
        assert error_statistics(1 + latency, np.ones_like(latency))["mean"] < 0.09, name
        assert json.dumps(document, sort_keys=True)


def test_the_page_says_what_its_generator_says():
    from eesim.report import fidelity as report

    page = (Path(__file__).parent.parent / "hwprofiles" / "FIDELITY.md").read_text(encoding="utf-8")
    texts = [line for line in report._serving_text({}) if line and not line.startswith("|")]
    assert len(texts) > 3 and all(line in page for line in texts)
