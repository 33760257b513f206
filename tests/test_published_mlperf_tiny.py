"""The published MLPerf Tiny latencies and energies, recomputed from the profiles: each must be as close as its profile states."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from eesim.bundled import data_folder
from eesim.hardware.fit import error_statistics
from eesim.hardware.profile import load_profile
from eesim.network import read_network

FOLDER = data_folder("hwprofiles")
DATA_TYPE = "int8"
ROUNDING = 1e-4
"""Stated errors have four decimals."""
SOLVER = 2e-3
"""How far a refit may move a held-out error: the solver stops at its own tolerance."""


def published() -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """profile -> operating point -> network -> latency in ms, energy in uJ (NaN where not submitted)."""
    found: dict = {}
    with (FOLDER / "published" / "mlperf-tiny.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["profile"]:
                networks = found.setdefault(row["profile"], {}).setdefault(row["operating_point"], {})
                networks[row["network"]] = float(row["latency_ms"]), float(row["energy_uj"] or "nan")
    return found


PUBLISHED = published()
NETWORKS = {name: read_network(FOLDER / "networks" / f"mlperf-tiny-{name}.yaml") for name in ("ic", "kws", "vww", "ad")}


def recompute(profile, point: str) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors of latency and energy on the published networks: plain sums over their layers."""
    errors = []
    for network, (latency_ms, energy_uj) in PUBLISHED[profile.name][point].items():
        costs = [profile.price(layer, DATA_TYPE, profile.point(point))[0] for layer in NETWORKS[network].layers]
        joules = [np.nan if cost.nj is None else cost.nj for cost in costs]
        errors.append((sum(cost.ns for cost in costs) * 1e-6 / latency_ms, sum(joules) * 1e-3 / energy_uj))
    latency, energy = np.array(errors).T
    return latency - 1, energy - 1


def stated(profile, path: str) -> dict[str, float]:
    """The errors that the profile states for the number at `path`."""
    return profile.source(path).error


def contradictions(profile) -> list[str]:
    """What a profile states about its in-sample errors that its coefficients do not bear out."""
    claims = []
    latencies = []
    for point in PUBLISHED[profile.name]:
        latency, energy = recompute(profile, point)
        latencies.append(latency)
        if np.isfinite(energy).any():
            claims.append((point, "energy_in_sample", energy, stated(profile, f"operating_points.{point}.active_mw.default")))
    rates = stated(profile, f"cost_model.data_types.{DATA_TYPE}.conv.per_mac")
    claims.append(("all points", "latency_in_sample", np.concatenate(latencies), rates))
    found = []
    for point, name, errors, claim in claims:
        for statistic, value in error_statistics(1 + errors, np.ones_like(errors)).items():
            if f"{name}_{statistic}" in claim and abs(claim[f"{name}_{statistic}"] - value) > ROUNDING:
                found.append(f"{profile.name} {point}: {name}_{statistic} is {value:.4f}, stated {claim[f'{name}_{statistic}']}")
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_are_reproduced_to_the_stated_error(name: str) -> None:
    assert contradictions(load_profile(name)) == []


def test_every_microcontroller_profile_is_held_to_published_figures() -> None:
    small = {path.stem for path in FOLDER.glob("*.yaml") if load_profile(path).device_class in ("mcu", "npu")}
    assert small - set(PUBLISHED) == {"esp32s3-esp-nn"}, "the one device nobody submitted; all its rates are assumed"
    for name, points in PUBLISHED.items():
        assert sorted(points) == sorted(load_profile(name).operating_points)


def test_microcontrollers_are_close_to_what_was_published() -> None:
    """An absolute limit beside each profile's own statement; a few boards fit the pool worse, and say so."""
    for name, points in PUBLISHED.items():
        profile = load_profile(name)
        for point in points:
            latency, energy = recompute(profile, point)
            worse = profile.device_class == "npu" or name in ("ra6m4-renesas", "stm32l4r5-microtvm-native")
            assert np.abs(latency).max() < (0.19 if worse else 0.11), (name, point)
            assert not np.isfinite(energy).any() or np.nanmax(np.abs(energy)) < (0.21 if worse else 0.12), (name, point)


FITTED = next(index for index, source in enumerate(load_profile("stm32l4r5-xcubeai").sources) if source.kind == "fitted")


@pytest.mark.parametrize(
    ("where", "factor"),
    [
        (("cost_model", "data_types", "int8", "conv", "per_mac"), 1.05),
        (("cost_model", "data_types", "int8", "fully_connected", "per_mac"), 0.9),
        (("operating_points", "3.0V", "active_mw", "conv"), 1.05),
        (("operating_points", "1.8V", "clock_mhz"), 1.1),
        (("sources", FITTED, "error", "latency_in_sample_median"), 0.5),
        (("sources", FITTED, "error", "latency_in_sample_max"), 0.9),
    ],
)
def test_a_changed_number_or_statement_is_noticed(tmp_path: Path, where: tuple, factor: float) -> None:
    data = yaml.safe_load((FOLDER / "stm32l4r5-xcubeai.yaml").read_text(encoding="utf-8"))
    inner = data
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] *= factor
    path = tmp_path / "stm32l4r5-xcubeai.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    assert contradictions(load_profile(path))


@pytest.fixture(scope="module")
def refit() -> dict[str, dict]:
    """The documents that the committed table of published figures gives, by profile."""
    from eesim.fidelity import mcu, mlperf_tiny

    return {document["name"]: document for document, _ in mcu.documents(mlperf_tiny.read_published())}


@pytest.mark.parametrize("name", PUBLISHED)
def test_coefficients_and_held_out_errors_follow_from_the_published_table(refit: dict, name: str) -> None:
    profile, document = load_profile(name), refit[name]
    committed = profile.data.model_dump(exclude_unset=True)
    for kind, rates in document["cost_model"]["data_types"][DATA_TYPE].items():
        assert committed["cost_model"]["data_types"][DATA_TYPE][kind] == pytest.approx(rates, rel=2e-3), kind
    for point, entry in document["operating_points"].items():
        there = committed["operating_points"][point]["active_mw"]
        assert there == (entry["active_mw"] and pytest.approx(entry["active_mw"], rel=2e-3))
    claims = {tuple(source["covers"]): source["error"] for source in document["sources"] if "error" in source}
    assert claims
    for source in profile.sources:
        if source.error:
            assert source.error == pytest.approx(claims[tuple(source.covers)], abs=SOLVER), source.covers


def test_pooling_beats_one_board_alone() -> None:
    """Held-out latency of the boards with a pool of their own kind, against the same form fitted on the board's other three networks alone."""
    from eesim.fidelity.mlperf_tiny import Pool, read_published

    pool = Pool("mcu", read_published())
    errors: dict[bool, list[float]] = {False: [], True: []}
    for name in ("stm32l4r5-xcubeai", "stm32u575-xcubeai", "stm32h7a3-xcubeai"):
        system = pool.index(name, load_profile(name).default_operating_point)
        for alone, found in errors.items():
            found += list(np.abs(pool.held_out(system, alone=alone)[0] / pool.latency_ms[system] - 1))
    assert np.mean(errors[False]) < np.mean(errors[True])
    assert np.median(errors[False]) < 0.09
