"""How far a price can be trusted: grades of layers, bands of sums and of runs, and what `support` makes of them."""

from __future__ import annotations

import json
from dataclasses import replace

import builders
import numpy as np
import pytest
from test_cli import eesim as command

import eesim
from eesim.cost import price_network
from eesim.hardware import trust
from eesim.hardware.profile import load_profile
from eesim.network.layer import KINDS, Layer, work
from eesim.support import support_record

RATES = {kind: {"per_mac": 1.0, "per_byte": 0.5, "per_call": 10.0} for kind in KINDS}


@pytest.fixture
def device(tmp_path):
    """fp: conv fitted over some sizes, fully connected fitted without saying over which, the rest assumed."""

    def build(**more):
        sources = [
            {"covers": ["cost_model.*.conv.*", "cost_model.*.fully_connected.*"], "kind": "fitted", "origin": "here",
             "error": {"latency_held_out_median": 0.1, "energy_held_out_median": 0.2}},
            {"covers": ["*"], "kind": "assumed", "origin": "made up"},
        ]  # fmt: skip
        model = {"model": "linear", "time_unit": "ns", "data_types": {"int8": RATES}}
        spans = {"int8": {"conv": {"macs": [1000, 5000], "elements": [100, 900]}}}
        data = builders.profile_data("graded", cost_model=model, sources=sources, fitted_over=spans, **more)
        return load_profile(builders.write_profile(tmp_path, data))

    return build


def layer(kind: str, macs: int = 2000, elements: int = 200) -> Layer:
    return Layer("x", kind, kind, (1, 4), (1, 4), macs, 0, elements // 2, elements // 2)


@pytest.mark.parametrize(
    ("asked", "grade"),
    [
        (layer("conv"), "interpolated"), (layer("conv", 1000, 100), "interpolated"), (layer("conv", 5000, 900), "interpolated"),
        (layer("conv", 5001), "extrapolated"), (layer("conv", 999), "extrapolated"), (layer("conv", 2000, 902), "extrapolated"),
        (layer("fully_connected", 10**9), "fitted"), (layer("softmax"), "assumed"), (layer("depthwise"), "assumed"),
    ],
)  # fmt: skip
def test_the_grade_of_a_layer(device, asked, grade):
    assert trust.grade(device(), asked, "int8") == grade


def test_a_layer_that_was_timed_itself_is_priced_as_measured(device):
    timed = layer("softmax", 7)
    profile = device(measured_layers={"int8": {timed.signature: {"ns": 123.0}}})
    cost, warning = profile.price(timed, "int8", profile.point())
    assert (cost.ns, warning, trust.grade(profile, timed, "int8")) == (123.0, None, "measured")
    other = replace(timed, kernel=(3, 3))
    assert profile.price(other, "int8", profile.point())[0].ns != 123.0 and trust.grade(profile, other, "int8") == "assumed"


def test_a_band_adds_grades_in_quadrature(device):
    profile = device()
    each = trust.sigma(profile, "latency")
    assert each == pytest.approx({"measured": 0.03, "fitted": 0.14826, "interpolated": 0.14826, "extrapolated": 0.29652, "assumed": 0.5})
    assert trust.sigma(profile, "energy")["fitted"] == pytest.approx(0.29652)
    assert trust.band(profile, "latency", {"fitted": 3.0}) == pytest.approx(0.14826)
    assert trust.band(profile, "latency", {"fitted": 3.0, "assumed": 1.0}) == pytest.approx(np.hypot(0.75 * 0.14826, 0.25 * 0.5))
    assert trust.band(profile, "latency", {}) is None
    known = device(uncertainty={"latency": {"fitted": 0.02, "assumed": 0.3}})
    expected = {"measured": 0.03, "fitted": 0.02, "interpolated": 0.02, "extrapolated": 0.25, "assumed": 0.3}
    assert trust.sigma(known, "latency") == pytest.approx(expected)


def test_shares_of_a_run_are_those_of_the_paths_it_took(made_workload, device):
    """Against plain sums over the layers of every sample's path."""
    profile = device(decision={"ns": 40.0})
    result = eesim.simulate(made_workload, profile, "max-softmax", {"threshold": 0.7})
    priced = price_network(made_workload.network, profile)
    totals, classes = dict.fromkeys(trust.GRADES, 0.0), made_workload.trace.classes
    softmax = profile.price(work("softmax", classes, "softmax"), "int8", profile.point())[0].ns
    for exit in result.requests.exit:
        for part in (*priced.segments[: exit + 1], *priced.heads[: exit + 1]):
            for each, cost in part:
                totals[trust.grade(profile, each, "int8")] += cost.ns
        asked = min(exit + 1, made_workload.network.exits - 1)
        totals["assumed"] += asked * (40.0 + softmax)
    found = result["uncertainty.shares"]
    whole = sum(totals.values())
    assert found == pytest.approx({name: value / whole for name, value in totals.items()}, abs=2e-3)
    assert result["uncertainty.latency"] == pytest.approx(trust.band(profile, "latency", totals), rel=5e-3)
    assert result["trust"] == "assumed"


def test_the_band_of_a_run_is_that_of_scaled_costs(made_workload, device):
    profile = device()
    result = eesim.simulate(made_workload, profile, "max-softmax", {"threshold": 0.7}, arrivals="poisson:20000/s", requests=500)
    sigma, found = result["uncertainty.latency"], result.band()
    assert found["latency_ms"]["mean"][0] < result["latency_ms.mean"] < found["latency_ms"]["mean"][1]
    alone = eesim.simulate(made_workload, profile, "max-softmax", {"threshold": 0.7}, arrivals="closed", requests=500)
    mean = alone["latency_ms.mean"]
    assert alone.band()["latency_ms"]["mean"] == pytest.approx([mean * (1 - sigma), mean * (1 + sigma)], rel=2e-3)
    queued = (found["latency_ms"]["mean"][1] / result["latency_ms.mean"] - 1) / sigma
    assert queued > 1, "waiting grows faster than service"
    found["latency_ms"]["mean"] = None
    assert result.band()["latency_ms"]["mean"] is not None, "what is given away is a copy"


def test_sweeps_and_runs_say_the_same(made_workload, device):
    profile = device()
    grid = {"max-softmax": {"threshold": [0.5, 0.7, 0.8, 0.9, 0.95, 0.99]}}
    frame = eesim.sweep(workloads=[made_workload], profiles=[profile], mechanisms=grid, arrivals="closed")
    for row in frame[frame.mechanism == "max-softmax"].itertuples():
        single = eesim.simulate(made_workload, profile, "max-softmax", {"threshold": row.parameters_threshold}, arrivals="closed")
        assert row.uncertainty_latency == pytest.approx(single["uncertainty.latency"], rel=1e-12)


def test_support_names_what_is_guessed_and_what_does_not_fit(made_workload, device):
    profile = device(memory={"flash_kib": 0.01, "sram_kib": None})
    record = support_record(price_network(made_workload.network, profile))
    assert record["verdict"] == "impossible" and any("does not fit" in reason for reason in record["reasons"])
    roomy = support_record(price_network(made_workload.network, device()))
    assert roomy["verdict"] in ("guessed", "interpolated") and sum(row["share"] for row in roomy["kinds"]) == pytest.approx(1)
    guessed = [share for row in roomy["kinds"] for grade, share in row["grades"].items() if grade in ("extrapolated", "assumed")]
    assert roomy["guessed_share"] == pytest.approx(sum(guessed))


def test_support_on_the_command_line(tmp_path):
    record = json.loads(command("support", "-w", "ecg-mitbih", "-p", "stm32l4r5-xcubeai", "--format", "json", cwd=tmp_path, check=0).stdout)
    assert record["verdict"] == "guessed" and record["fits"] is True and {row["kind"] for row in record["kinds"]} >= {"conv", "pooling"}
    table = command("support", "-w", "digits", "-p", "all", cwd=tmp_path, check=0).stdout
    assert "h200" in table and "stm32g0b1-hale" in table
    assert "no such model" in command("support", "-w", "ecg-mitbi", "-p", "h200", cwd=tmp_path, check=2).stderr


def test_the_band_finds_an_engine_where_higher_costs_begin_to_wait(made_workload, device):
    """Requests a little further apart than a service: nothing waits, but with costs a sigma higher everything does."""
    profile = device()
    longest = eesim.simulate(made_workload, profile, "static", arrivals="closed")["latency_ms.max"]
    result = eesim.simulate(made_workload, profile, "static", arrivals=f"periodic:{int(longest * 1.02e6) + 1}ns")
    assert result.summary()["engine"] == "counts" and result["wait_ms.mean"] == 0
    assert result.band()["wait_ms"]["mean"][0] == 0 < result.band()["wait_ms"]["mean"][1]


def test_measured_layers_count_at_the_default_operating_point_only(device):
    timed = layer("softmax", 7)
    profile = device(measured_layers={"int8": {timed.signature: {"ns": 123.0}}})
    assert [trust.grade(profile, timed, "int8", "latency", point) for point in ("fast", "slow")] == ["measured", "assumed"]
