"""Bundled device profiles are complete and honest; a wrong profile gives one line that says what is wrong."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from eesim.bundled import data_folder, profile_names
from eesim.errors import BadInput
from eesim.hardware.fit import (
    Term,
    design_matrix,
    error_statistics,
    fit_pooled,
    fit_relative,
    leave_one_out,
    rates_by_kind,
    significant,
)
from eesim.hardware.profile import check_profile, load_profile, numbers
from eesim.network.layer import KINDS, Layer, work

BUNDLED = {
    "a100",
    "agx-orin",
    "gap9-gapflow",
    "h200",
    "l40s",
    "ndp120",
    "raspberry-pi-4-tflite-fp32",
    "raspberry-pi-4-tflite-uint8",
    "raspberry-pi-5-litert",
    "raspberry-pi-5-onnxruntime",
    "stm32h7a3-xcubeai",
    "stm32l4r5-tflm",
    "stm32l4r5-xcubeai",
    "stm32u575-xcubeai",
    "t4",
    "xavier-nx",
}


@pytest.fixture
def wrong(tmp_path: Path):
    """A function that changes a copy of a good profile and returns the path of the copy."""
    good = yaml.safe_load((data_folder("hwprofiles") / "stm32l4r5-xcubeai.yaml").read_text(encoding="utf-8"))

    def change(edit) -> Path:
        data = copy.deepcopy(good)
        edit(data)
        path = tmp_path / "stm32l4r5-xcubeai.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        return path

    return change


def test_at_least_the_expected_profiles_are_bundled() -> None:
    assert set(profile_names()) >= BUNDLED


@pytest.mark.parametrize("name", profile_names())
def test_bundled_profile_is_complete(name: str) -> None:
    profile = load_profile(name)
    assert check_profile(profile) == []
    assert profile.name == name
    for data_type in profile.data_types:
        for point in profile.operating_points.values():
            for kind in KINDS:
                layer = Layer("x", "X", kind, (1, 8, 8, 8), (1, 8, 8, 8), 4608, 576, 512, 512, (3, 3), (1, 1))
                cost, warning = profile.price(layer, data_type, point)
                assert warning is None and cost.ns > 0 and (cost.nj is None or cost.nj > 0), kind
            # what a decision mechanism computes beside the network is priced by the same rates
            assert profile.price(work("softmax", 10, "softmax"), data_type, point)[0].ns > 0
            assert profile.decision_cost(point)[0] > 0


@pytest.mark.parametrize("name", profile_names())
def test_bundled_profile_says_where_its_numbers_come_from(name: str) -> None:
    profile = load_profile(name)
    text = profile.path.read_text(encoding="utf-8")
    assert "/work" not in text and "shared/" not in text and "/tmp" not in text
    for path in numbers(profile.data.model_dump(exclude_unset=True)):
        source = profile.source(path)
        assert source is not None and len(source.origin) > 10, path
        if source.kind == "fitted":
            assert all(error >= 0 for error in source.error.values()), path
    for point in profile.operating_points.values():
        assert point.idle_mw is None or point.idle_mw > 0
        assert point.sleep_mw is None and point.wake_us is None and point.wake_uj is None  # not in any of the measurements


def test_supply_voltage_changes_energy_and_not_latency() -> None:
    profile = load_profile("stm32l4r5-xcubeai")
    layer = Layer("x", "Conv", "conv", (1, 16, 32, 32), (1, 16, 32, 32), 2359296, 2320, 16384, 16384, (3, 3), (1, 1))
    low, high = (profile.price(layer, "int8", profile.point(point))[0] for point in ("1.8V", "3.0V"))
    assert low.ns == high.ns
    assert high.nj / low.nj == pytest.approx(1.66, abs=0.02)


def test_clock_scales_time() -> None:
    profile = load_profile("gap9-gapflow")
    layer = Layer("x", "Conv", "conv", (1, 16, 32, 32), (1, 16, 32, 32), 2359296, 2320, 16384, 16384, (3, 3), (1, 1))
    slow, fast = (profile.price(layer, "int8", profile.point(point))[0] for point in ("0.65V-240MHz", "0.8V-370MHz"))
    assert slow.ns / fast.ns == pytest.approx(370 / 240)


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (lambda d: d.update(decisions={"cycles": 5}), ("decisions", "did you mean 'decision'?")),
        (lambda d: d["memory"].update(sram_kb=640), ("memory.sram_kb", "did you mean 'sram_kib'?")),
        (lambda d: d["operating_points"]["1.8V"].update(idle_mw=-1.0), ("operating_points.1.8V.idle_mw", "greater than or equal to 0", "-1.0")),
        (lambda d: d["operating_points"]["1.8V"].update(clock=120), ("operating_points.1.8V.clock", "lacks its unit; write 'clock_mhz'")),
        (lambda d: d["operating_points"]["1.8V"].update(clock_mhz="120 MHz"), ("clock_mhz", "the unit belongs in the key")),
        (lambda d: d["cost_model"]["data_types"]["int8"].update(convolution={"per_mac": 1.0}), ("unknown layer kind 'convolution'",)),
        (lambda d: d["cost_model"]["data_types"]["int8"]["conv"].update(per_macs=1.0), ("per_macs", "did you mean 'per_mac'?")),
        (lambda d: d.update(default_operating_point="1.8"), ("default_operating_point", "did you mean '1.8V'?")),
        (lambda d: d["cost_model"].update(model="lineal"), ("cost_model.model", "did you mean 'linear'?")),
        (lambda d: d.pop("energy_scope"), ("energy_scope", "missing")),
        (lambda d: d["sources"][0].update(kind="guessed"), ("sources.0.kind", "guessed")),
        (lambda d: d["sources"][0].update(error={"latency_held_out_median": -1.0}), ("latency_held_out_median", "-1.0")),
        (lambda d: d.update(fitted_over={"in8": {}}), ("fitted_over", "did you mean 'int8'?")),
        (lambda d: d.update(fitted_over={"int8": {"convv": {"macs": [1, 2], "elements": [1, 2]}}}), ("fitted_over.int8", "did you mean 'conv'?")),
        (lambda d: d.update(fitted_over={"int8": {"conv": {"macs": [3, 2], "elements": [1, 2]}}}), ("fitted_over.int8.conv.macs", "in this order")),
        (lambda d: d.update(measured_layers={"int": {"Conv": {"ns": 1.0}}}), ("measured_layers", "unknown data type 'int'")),
        (lambda d: d["cost_model"].update(input={"in8": {"per_call": 1.0}}), ("cost_model.input", "did you mean 'int8'?")),
        (lambda d: d["cost_model"].update(energy={"int8": {"convv": {}}}), ("cost_model.energy.int8", "did you mean 'conv'?")),
    ],
)
def test_a_wrong_profile_gives_one_line(wrong, edit, parts: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as caught:
        load_profile(wrong(edit))
    message = str(caught.value)
    assert "\n" not in message and "stm32l4r5-xcubeai.yaml" in message
    for part in parts:
        assert part in message


def test_check_names_a_kind_without_cost_and_a_number_without_source(wrong) -> None:
    def edit(data: dict) -> None:
        data["cost_model"]["data_types"]["int8"].pop("recurrent")
        data["memory"]["code_kib"] = 30
        data["sources"][0]["covers"] = ["memory.flash_kib", "memory.sram_kib"]

    found = check_profile(load_profile(wrong(edit)))
    assert len(found) == 2
    assert any("layer kind 'recurrent' has no cost" in line for line in found)
    assert any(line.startswith("memory.code_kib: this number has no source") for line in found)


def test_check_names_a_fit_without_error(wrong) -> None:
    found = check_profile(load_profile(wrong(lambda d: next(source for source in d["sources"] if source["kind"] == "fitted").pop("error"))))
    assert len(found) == 1 and "states no error on held-out cases" in found[0]


def test_a_kind_without_cost_is_priced_as_the_dearest_and_said(wrong) -> None:
    profile = load_profile(wrong(lambda d: d["cost_model"]["data_types"]["int8"].update(recurrent=None)))
    cost, warning = profile.price(work("recurrent", 10, "x", macs=1000), "int8", profile.point())
    assert cost.ns > 0 and "'recurrent'" in warning


TERMS = (
    Term("arithmetic", {"conv": {"per_mac": 1.0}, "depthwise": {"per_mac": 2.5}}),
    Term("bytes", {"conv": {"per_byte": 1.0}, "depthwise": {"per_byte": 1.0}, "elementwise": {"per_byte": 1.0}}),
    Term("calls", {"elementwise": {"per_call": 1.0}}),
)
TRUTH = np.array([1.5, 4.0, 30_000.0])


def networks(count: int, seed: int) -> list[list[Layer]]:
    """Random networks of three kinds of layer."""
    random = np.random.default_rng(seed)
    return [
        [
            Layer(str(i), "X", str(random.choice(["conv", "depthwise", "elementwise"])), (1, 1), (1, 1), int(macs), 10, int(size), int(size))
            for i, (macs, size) in enumerate(zip(random.integers(1e3, 1e5, 6), random.integers(1e2, 1e4, 6), strict=True))
        ]
        for _ in range(count)
    ]


def test_design_matrix_counts_what_a_layer_costs() -> None:
    layer = Layer("x", "Conv", "depthwise", (1, 1), (1, 1), 100, 10, 20, 30)
    assert design_matrix([[layer]], TERMS, item_bytes=2).tolist() == [[250.0, 120.0, 0.0]]


def test_regression_recovers_known_coefficients_and_ignores_outliers() -> None:
    pytest.importorskip("scipy", reason="fitting needs SciPy")
    design = design_matrix(networks(40, 1), TERMS, item_bytes=1)
    noise = np.random.default_rng(2).normal(0, 0.005, 40)
    measured = design @ TRUTH * (1 + noise)
    measured[[3, 17]] *= 3
    assert fit_relative(design, measured) == pytest.approx(TRUTH, rel=0.05)
    held_out = leave_one_out(design, measured, fit_relative)
    assert error_statistics(held_out, measured)["median"] < 0.01


def test_pooled_fit_recovers_ratios_and_scales() -> None:
    """Six boards of other speeds and the same ratios: a board with three measured networks predicts the fourth."""
    pytest.importorskip("scipy", reason="fitting needs SciPy")
    design = design_matrix(networks(4, 3), TERMS, item_bytes=1)
    scales = np.array([1.0, 0.5, 2.0, 3.0, 0.8, 1.2])
    measured = scales[:, None] * (design @ TRUTH)
    found = fit_pooled(design, measured, spread=0.01, noise=0.002, prior=(1.0, 1.0, 10_000.0))
    assert found == pytest.approx(scales[:, None] * TRUTH, rel=0.02)
    held_out = leave_one_out(design, measured, lambda d, m: fit_pooled(d, m, spread=0.01, noise=0.002, prior=(1.0, 1.0, 10_000.0)), targets=[0])
    assert held_out[0] == pytest.approx(measured[0], rel=0.02)
    assert np.isnan(held_out[1:]).all()


def test_pooled_fit_hides_repeats_of_a_measurement() -> None:
    """A repeated system betrays the held-out case unless it is named as kin."""
    pytest.importorskip("scipy", reason="fitting needs SciPy")
    seen: list[np.ndarray] = []

    def fit(design: np.ndarray, measured: np.ndarray) -> np.ndarray:
        seen.append(np.isfinite(measured))
        return np.ones((len(measured), design.shape[-1]))

    leave_one_out(np.ones((2, 3)), np.ones((3, 2)), fit, targets=[0], kin=lambda system, network: [0, 2])
    assert [known.tolist() for known in seen] == [[[False, True], [True, True], [False, True]], [[True, False], [True, True], [True, False]]]


def test_rates_are_rounded_and_named_as_the_schema_wants() -> None:
    rates = rates_by_kind(TERMS, [1.23456, 4.0, 123456.0])
    assert rates == {
        "conv": {"per_mac": 1.235, "per_byte": 4.0},
        "depthwise": {"per_mac": 3.086, "per_byte": 4.0},
        "elementwise": {"per_byte": 4.0, "per_call": 123500},
    }
    assert significant(0.0123456) == 0.01235 and significant(0) == 0


def test_committed_profiles_follow_from_the_raw_data() -> None:
    """Refits every profile. Needs the raw measurements, which do not travel with the repository."""
    raw = os.environ.get("EESIM_RAW_DATA")
    if not raw or not (Path(raw) / "hardware").is_dir():
        pytest.skip("EESIM_RAW_DATA is not set to the folder of raw measurements")
    from eesim.fidelity import mlperf_tiny
    from eesim.fidelity.build import build

    documents = [document for document, _ in build(Path(raw) / "hardware")]
    assert mlperf_tiny.rows_from_measured(Path(raw) / "hardware" / "mlperf_tiny" / "measured.csv") == mlperf_tiny.read_published()
    assert {document["name"] for document in documents} <= set(profile_names())
    for document in documents:
        committed = yaml.safe_load((data_folder("hwprofiles") / f"{document['name']}.yaml").read_text(encoding="utf-8"))
        for part in ("cost_model", "operating_points", "memory", "decision"):
            assert _flat(committed[part]) == pytest.approx(_flat(document[part]), rel=5e-3), document["name"]
        errors, stated = ([source.get("error") for source in data["sources"]] for data in (document, committed))
        for found, written in zip(errors, stated, strict=True):
            assert written == pytest.approx(found, abs=5e-3), document["name"]


def _flat(data: dict) -> dict[str, float]:
    """Numbers by dotted path."""
    flat: dict[str, float] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": number for inner, number in _flat(value).items()}
        elif isinstance(value, (int, float)):
            flat[key] = value
    return flat
