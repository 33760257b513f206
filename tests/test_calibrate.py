"""Fitting a profile to measurements of one's own: what is recovered, what is said about what cannot be, and the command line."""

from __future__ import annotations

import csv
import json

import builders
import numpy as np
import pytest
import yaml
from test_cli import eesim as command

from eesim.errors import BadInput
from eesim.hardware.calibrate import Case, calibrate
from eesim.hardware.document import write_profile
from eesim.hardware.fit import error_statistics, fit_expected, fit_towards
from eesim.hardware.profile import check_profile, load_profile
from eesim.measure.table import read_cases
from eesim.network import write_network
from eesim.network.layer import KINDS, Layer

TRUE = {"conv": (2.0, 0.5, 300.0), "depthwise": (6.0, 0.5, 300.0), "fully_connected": (3.0, 1.0, 300.0), "elementwise": (0.0, 0.8, 100.0)}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """One rate for all kinds."""
    rates = {kind: {"per_mac": 1.0, "per_byte": 0.5, "per_call": 100.0} for kind in KINDS}
    model = {"model": "linear", "time_unit": "ns", "data_types": {"int8": rates}}
    return load_profile(builders.write_profile(tmp_path_factory.mktemp("base"), builders.profile_data("base", cost_model=model)))


def networks(count: int, seed: int = 0, kinds=tuple(TRUE)) -> list[tuple[Layer, ...]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        layers = []
        for index in range(rng.integers(4, 12)):
            kind = kinds[rng.integers(len(kinds))]
            size = int(rng.integers(100, 4000))
            macs = 0 if kind == "elementwise" else int(size * rng.integers(1, 60))
            layers.append(Layer(f"l{index}", kind, kind, (1, 8), (1, 8), macs, 0, size, size))
        found.append(tuple(layers))
    return found


def true_ns(layers) -> float:
    return sum(rates[0] * layer.macs + rates[1] * layer.bytes_moved(1) + rates[2] for layer in layers for rates in [TRUE[layer.kind]])


def cases(count: int, noise: float = 0.01, **options) -> list[Case]:
    rng = np.random.default_rng(99)
    return [
        Case(f"n{index}", f"n{index}", layers, true_ns(layers) * float(np.exp(noise * rng.standard_normal())), true_ns(layers) * 0.03)
        for index, layers in enumerate(networks(count, **options))
    ]


def test_rates_come_out_of_measurements_with_noise(base):
    found = calibrate(base, cases(150), name="new", origin="made up")
    rates = found.document["cost_model"]["data_types"]["int8"]
    for kind in ("conv", "depthwise", "fully_connected"):
        assert rates[kind]["per_mac"] == pytest.approx(TRUE[kind][0], rel=0.05), kind
    latency, energy = found.quantities
    assert error_statistics(latency.held_out, latency.measured)["median"] < 0.02
    settled = {item.name: item.settled for item in latency.coefficients}
    assert settled["conv.per_mac"] > 0.9 and settled["depthwise.per_mac"] > 0.9
    item = next(item for item in latency.coefficients if item.name == "conv.per_mac")
    assert abs(item.value - 2.0) < 6 * item.error * item.value, "the standard error is honest"
    power = found.document["operating_points"]["fast"]["active_mw"]["default"]
    assert power == pytest.approx(30.0, rel=0.05) and energy.what == "energy"


def test_what_few_networks_do_not_settle_has_the_error_of_the_whole_and_power_is_not_claimed(tmp_path):
    device = load_profile("stm32h7a3-xcubeai")
    few = [Case(case.name, case.group, case.layers, 1e3 * case.latency_ns) for case in cases(5, noise=0.2)]
    found = calibrate(device, few, name="few", origin="made up")
    profile = load_profile(write_profile(found.document, tmp_path / "few.yaml"))
    unsettled = [item.name for item in found.quantities[0].coefficients if item.settled < 0.5]
    assert unsettled and {profile.source(f"cost_model.data_types.int8.{name}").kind for name in unsettled} == {"fitted"}
    assert profile.source("cost_model.data_types.int8.recurrent.per_mac").kind == "assumed", "in no measured network"
    assert set(profile.fitted_over["int8"]) == set(TRUE)
    assert profile.stated_error("latency") == pytest.approx(found.quantities[0].errors["latency_held_out_median"], abs=1e-4)
    power = profile.source("operating_points.3.3V.active_mw.default")
    assert power.kind == "assumed" and power.error is None and profile.stated_error("energy") is None, "the base's is not this device's"
    assert profile.source("operating_points.3.3V.clock_mhz").kind == "datasheet" and check_profile(profile) == []


def test_a_few_bad_measurements_do_not_bend_the_fit(base):
    good = cases(150)
    bad = [case if index % 15 else Case(case.name, case.group, case.layers, case.latency_ns * 4, None) for index, case in enumerate(good)]
    rates = calibrate(base, bad, name="new", origin="made up").document["cost_model"]["data_types"]["int8"]
    assert rates["conv"]["per_mac"] == pytest.approx(2.0, rel=0.1) and rates["depthwise"]["per_mac"] == pytest.approx(6.0, rel=0.1)


def test_what_measurements_cannot_tell_apart_is_said_and_stays_as_in_the_base(base):
    """In every network, depthwise layers hold exactly half the MACs and bytes of the dense ones."""
    found = []
    for index, macs in enumerate((1000, 5000, 20_000, 80_000)):
        parts = (("conv", macs), ("depthwise", macs // 2))
        layers = tuple(Layer(kind, kind, kind, (1, 8), (1, 8), part, 0, part // 50, part // 50) for kind, part in parts)
        found.append(Case(f"n{index}", f"n{index}", layers, true_ns(layers)))
    calibrated = calibrate(base, found, name="new", origin="made up")
    assert any("cannot separate" in warning and "depthwise" in warning for warning in calibrated.warnings)
    assert all(item.settled < 0.9 for item in calibrated.quantities[0].coefficients if item.name.startswith("depthwise"))
    assert error_statistics(calibrated.quantities[0].held_out, calibrated.quantities[0].measured)["median"] < 0.15


def test_held_out_networks_take_no_part(base):
    """Nothing about a network's own measurement reaches the fit that predicts it."""
    some = cases(12)
    first = calibrate(base, some, name="new", origin="x").quantities[0].held_out
    some[3] = Case("n3", "n3", some[3].layers, some[3].latency_ns * 2.0)
    second = calibrate(base, some, name="new", origin="x").quantities[0].held_out
    assert second[3] == first[3] and not np.allclose(np.delete(second, 3), np.delete(first, 3))


def test_the_written_profile_is_complete_and_prices_as_fitted(base, tmp_path):
    found = calibrate(base, cases(60), name="new", origin="made up")
    profile = load_profile(write_profile(found.document, tmp_path / "new.yaml"))
    assert check_profile(profile) == []
    assert profile.stated_error("latency") == pytest.approx(found.quantities[0].errors["latency_held_out_median"], abs=1e-4)
    for case, expected in zip(found.cases, found.quantities[0].in_sample, strict=True):
        priced = sum(profile.price(layer, "int8", profile.point())[0].ns for layer in case.layers)
        assert priced == pytest.approx(expected, rel=2e-3)
    assert profile.fitted_over["int8"]["conv"].macs[0] > 0 and "softmax" not in profile.fitted_over["int8"]


def test_bad_measurements_are_one_line(base):
    few = cases(2)
    with pytest.raises(BadInput, match="too few"):
        calibrate(base, few, name="new", origin="x")
    with pytest.raises(BadInput, match="positive"):
        calibrate(base, [*cases(5), Case("bad", "bad", networks(1)[0], float("nan"))], name="new", origin="x")


def test_fit_towards_is_ridge_regression_where_nothing_is_robust():
    """Against the closed form, with a knee that no residual reaches and no coefficient at zero."""
    rng = np.random.default_rng(3)
    design = rng.uniform(1, 2, (30, 3))
    measured = design @ [1.0, 2.0, 3.0] * np.exp(0.01 * rng.standard_normal(30))
    expected, spread, noise = np.array([1.5, 1.5, 1.5]), 0.4, 0.02
    found = fit_towards(design, measured, expected, spread, noise=noise, knee=10.0)
    relative, pull = design / measured[:, None], 1 / (spread * 1.5)
    normal = relative.T @ relative / noise**2 + pull**2 * np.eye(3)
    assert found.coefficients == pytest.approx(np.linalg.solve(normal, relative.sum(axis=0) / noise**2 + pull**2 * expected), rel=1e-6)
    assert found.settled == pytest.approx(1 - np.diag(np.linalg.inv(normal)) * pull**2, rel=1e-6)


def test_fit_expected_stays_where_nothing_is_known_and_moves_where_it_is():
    design = np.array([[1.0, 0.0], [2.0, 0.0], [5.0, 0.0]])
    found = fit_expected(design, design @ [4.0, 0.0], [1.0, 7.0], [1.0, 1.0])
    assert found[0] == pytest.approx(4.0, rel=0.01) and found[1] == pytest.approx(7.0)


@pytest.fixture
def table(tmp_path):
    """Measurements of made-up networks beside the networks, with columns of other names."""
    rows = []
    for index in range(8):
        made = builders.network(3, [1000 * (index + 1), 5000, 20_000 + 7000 * index], 3)
        write_network(made, tmp_path / "nets" / f"net{index}.yaml")
        rows.append({"id": f"net{index}", "ms": sum(layer.macs for layer in made.layers) * 3e-6, "kit": "a" if index < 6 else "b"})
    with (tmp_path / "measured.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


GIVEN = {
    "-m": "measured.csv", "-n": "nets", "-b": "stm32h7a3-xcubeai", "--columns": "network=id,latency_ms=ms", "--where": "kit=a", "-o": "new.yaml",
}  # fmt: skip


def test_the_verb_writes_profile_and_plot(table):
    done = command("calibrate", *[part for pair in GIVEN.items() for part in pair], "--format", "json", cwd=table, check=0)
    record = json.loads(done.stdout)
    assert record["networks"] == 6 and record["errors"]["latency_held_out_median"] < 0.2
    assert (table / "new.png").stat().st_size > 5000
    assert command("profiles", "check", "new.yaml", cwd=table, check=0).stdout == "new: complete\n"
    assert yaml.safe_load((table / "new.yaml").read_text())["sources"][0]["kind"] == "fitted"


@pytest.mark.parametrize(
    ("changes", "telling"),
    [
        ({"--columns": "network=id,latency_ms=mss"}, "did you mean 'ms'"), ({"--columns": "network"}, "not NAME=VALUE"),
        ({"--where": "kit=c"}, "unknown value of 'kit'"), ({"-n": "nowhere"}, "neither a folder nor a zip"), ({"-b": "h200"}, "cannot be calibrated"),
    ],
)  # fmt: skip
def test_bad_input_of_the_verb_is_one_line(table, changes, telling):
    done = command("calibrate", *[part for pair in (GIVEN | changes).items() for part in pair], cwd=table, check=2)
    assert telling in done.stderr and len([line for line in done.stderr.splitlines() if "fitting" not in line]) == 1
    assert not (table / "new.yaml").exists()


def test_single_layers_are_cases_of_their_own(table):
    (table / "layers.csv").write_text("network,layer,latency_ms\nnet0,,1.5\nnet0,segment0,0.5\n")
    whole, single = read_cases(table / "layers.csv", table / "nets")
    assert whole.group == single.group == "net0" and len(single.layers) == 1 < len(whole.layers)
    (table / "layers.csv").write_text("network,layer,latency_ms\nnet0,segmnt0,0.5\n")
    with pytest.raises(BadInput, match="did you mean"):
        read_cases(table / "layers.csv", table / "nets")


@pytest.mark.parametrize("name", ["raspberry-pi-4-tflite-fp32", "reference", "stm32l4r5-xcubeai", "raspberry-pi-4-armnn"])
def test_calibrating_on_a_profile_s_own_prices_gives_them_back(name, tmp_path):
    """What the new profile says of the measured networks is what its stated error promises, whatever the base does to inputs."""
    from eesim.cost import price_network
    from eesim.workload import load_workload

    profile, found = load_profile(name), []
    measured = {}
    for workload in ("digits", "ecg-mitbih", "har-wisdm", "kws-speech-commands", "cifar10-resnet8"):
        network = load_workload(workload).network
        measured[workload] = network, sum(cost.ns for _, cost in price_network(network, profile).layers)
        found.append(Case(workload, workload, network.layers, measured[workload][1]))
    calibrated = calibrate(profile, found, name="again", origin="its own prices")
    again = load_profile(write_profile(calibrated.document, tmp_path / "again.yaml"))
    assert check_profile(again) == []
    errors = [sum(cost.ns for _, cost in price_network(network, again).layers) / ns - 1 for network, ns in measured.values()]
    assert np.median(np.abs(errors)) == pytest.approx(calibrated.quantities[0].errors["latency_in_sample_median"], abs=0.01)


def test_another_data_type_of_the_base_becomes_the_profile_s(tmp_path):
    base = load_profile("raspberry-pi-4-armnn")
    found = [Case(f"n{index}", f"n{index}", layers, 1e6 * (index + 1)) for index, layers in enumerate(networks(5))]
    document = calibrate(base, found, name="new", origin="x", data_type="uint8").document
    assert load_profile(write_profile(document, tmp_path / "new.yaml")).data_type == "uint8"
    with pytest.raises(BadInput, match="data type"):
        calibrate(base, found, name="new", origin="x", data_type="fp64")


def test_a_comma_at_the_end_of_every_row_does_no_harm(table):
    text = (table / "measured.csv").read_text().splitlines()
    (table / "commas.csv").write_text("\n".join([text[0], *[f"{line}," for line in text[1:]]]) + "\n")
    arguments = {**GIVEN, "-m": "commas.csv"}
    command("calibrate", *[part for pair in arguments.items() for part in pair], cwd=table, check=0)


def test_numbers_for_a_name_are_quoted(base, tmp_path):
    document = calibrate(base, cases(12), name="1e3", origin="x").document
    assert load_profile(write_profile(document, tmp_path / "1e3.yaml")).name == "1e3"
