"""Prices: one rounding for each segment, head and decision, and what each path through the exits costs."""

from __future__ import annotations

import builders
import numpy as np
import pytest

from eesim.cost import MechanismCost, cost_record, price_network
from eesim.errors import BadInput
from eesim.hardware import load_profile
from eesim.mechanisms import Path, load_mechanism
from eesim.network import KINDS, Layer, Network


def device(tmp_path, **changes):
    return load_profile(builders.write_profile(tmp_path, builders.profile_data(**changes)))


def test_a_layer_is_linear_in_macs_bytes_and_calls(tmp_path):
    """1000 MACs at 1 cycle, 250 bytes (100 in, 100 out, 50 weights) at 0.1, 50 a call: 1075 cycles at 100 MHz = 10,750 ns; 50 mW: 537.5 nJ."""
    profile = device(tmp_path)
    cost, warning = profile.price(builders.layer("a"), "int8", profile.point())
    assert (cost.ns, cost.nj, cost.bound, warning) == (pytest.approx(10_750), pytest.approx(537.5), "compute", None)
    slow, _ = profile.price(builders.layer("a"), "int8", profile.point("slow"))
    assert (slow.ns, slow.nj) == (pytest.approx(21_500), pytest.approx(430.0))


def network(cycles):
    """Two exits; layers of so many cycles at one cycle a MAC and nothing else."""
    parts = [Layer(name, "Conv", "conv", (1, 1), (1, 1), macs) for name, macs in cycles.items()]
    return Network("n", {"input": (1, 1)}, ((parts[0], parts[1]), (parts[2],)), ((parts[3],), (parts[4],)))


def plain_device(tmp_path, **changes):
    rates = {kind: {"per_mac": 1.0} for kind in KINDS}
    model = {"model": "linear", "time_unit": "ns", "data_types": {"int8": rates}}
    return device(tmp_path, cost_model=model, decision={"ns": 2.5, "nj": 0.5}, **changes)


def test_each_part_is_rounded_once_half_to_even(tmp_path):
    """Two layers of 0.25 ns make a segment of 0.5 ns, which rounds to 0; of 0.75 and 0.75 ns 1.5, which rounds to 2."""
    rates = {kind: {"per_mac": 0.25} for kind in KINDS}
    model = {"model": "linear", "time_unit": "ns", "data_types": {"int8": rates}}
    profile = device(tmp_path, cost_model=model, decision={"ns": 2.5})
    priced = price_network(network({"a": 1, "b": 1, "c": 10, "d": 3, "e": 6}), profile)
    assert priced.segment_ns == [0, 2] and priced.head_ns == [1, 2]  # 0.5 -> 0, 2.5 -> 2, 0.75 -> 1, 1.5 -> 2
    assert priced.decision([], asks=True)[0] == 2  # 2.5 -> 2


def test_paths_pay_what_they_run(tmp_path):
    """Segments 10+20 and 40, heads 3 and 5, a decision of 2 (2.5 rounded to even) at every head but the last."""
    priced = price_network(network({"a": 10, "b": 20, "c": 40, "d": 3, "e": 5}), plain_device(tmp_path))
    rule = load_mechanism("max-softmax")
    rule.work = lambda classes: ([], [])
    cost = MechanismCost(priced, (0, 1), rule, 3)
    paths = cost.paths([Path(0b01), Path(0b11), Path(0b10), Path(0), Path(0b11, answered=0b01)])
    assert paths.service_ns.tolist() == [35, 80, 75, 0, 80]
    assert paths.response_ns.tolist() == [35, 80, 75, 0, 35]
    assert paths.macs.tolist() == [33, 78, 75, 0, 78]
    assert paths.stage_ns.tolist() == [[35, 0], [35, 45], [75, 0], [0, 0], [35, 45]]
    assert paths.stages.tolist() == [1, 2, 1, 1, 2] and paths.answer_stage.tolist() == [1, 2, 1, 1, 1]


def test_bounds_decide_for_free(tmp_path):
    priced = price_network(network({"a": 10, "b": 20, "c": 40, "d": 3, "e": 5}), plain_device(tmp_path))
    assert MechanismCost(priced, (0, 1), load_mechanism("first-exit"), 3).paths([Path(1)]).service_ns.tolist() == [33]


def test_disabled_heads_cost_nothing_and_segments_join(tmp_path):
    priced = price_network(network({"a": 10, "b": 20, "c": 40, "d": 3, "e": 5}), plain_device(tmp_path))
    cost = MechanismCost(priced, (1,), load_mechanism("static"), 3)
    assert cost.segment_ns.tolist() == [70] and cost.paths([Path(1)]).service_ns.tolist() == [75]
    with pytest.raises(BadInput, match="end with the final one"):
        MechanismCost(priced, (0,), load_mechanism("static"), 3)


def test_a_mechanisms_own_work_is_charged_with_the_decision(tmp_path):
    """Softmax over 3 classes is a pseudo-layer of 3 elements: (3 in + 3 out) bytes at 1 ns a byte, plus the device's 2.5: 8.5 -> 8."""
    rates = {kind: {"per_byte": 1.0} for kind in KINDS}
    model = {"model": "linear", "time_unit": "ns", "data_types": {"int8": rates}}
    priced = price_network(network({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}), device(tmp_path, cost_model=model, decision={"ns": 2.5}))
    cost = MechanismCost(priced, (0, 1), load_mechanism("max-softmax"), 3)
    assert cost.decision_ns.tolist() == [8, 0]
    assert cost.paths([Path(0b01)]).operations.tolist() == [13]


def test_energy_is_unknown_where_one_part_of_it_is(tmp_path):
    data = builders.profile_data()
    data["operating_points"]["fast"]["active_mw"] = None
    profile = load_profile(builders.write_profile(tmp_path, data))
    priced = price_network(builders.network(), profile)
    assert priced.segment_nj is None
    cost = MechanismCost(priced, (0, 1, 2, 3), load_mechanism("static"), 4).paths([Path(8)])
    assert cost.energy_nj is None and cost.service_ns[0] > 0
    assert cost_record(priced)["energy_mj"] is None


def test_a_kind_without_a_cost_is_a_warning_with_what_was_assumed(tmp_path):
    data = builders.profile_data()
    data["cost_model"]["data_types"]["int8"]["conv"] = None
    data["cost_model"]["data_types"]["int8"]["depthwise"]["per_mac"] = 7.0
    priced = price_network(builders.network(), load_profile(builders.write_profile(tmp_path, data)))
    assert any("'conv'" in warning and "'depthwise'" in warning for warning in priced.warnings)
    assert priced.segment_ns[0] > 10_000 * 10 * 6, "never a silent zero"


def test_data_type_follows_the_profile_unless_the_network_is_quantised(tmp_path):
    data = builders.profile_data(data_type="fp32")
    data["cost_model"]["data_types"]["fp32"] = data["cost_model"]["data_types"]["int8"]
    profile = load_profile(builders.write_profile(tmp_path, data))
    made = builders.network()
    assert price_network(made, profile).data_type == "fp32"
    quantised = Network(made.name, made.inputs, made.segments, made.heads, "int8")
    assert price_network(quantised, profile).data_type == "int8"
    assert price_network(made, profile, data_type="int8").data_type == "int8"
    with pytest.raises(BadInput, match="did you mean 'int8'"):
        price_network(made, profile, data_type="int9")
    with pytest.raises(BadInput, match="did you mean 'slow'"):
        price_network(made, profile, "slo")


def test_memory_says_what_fits(tmp_path):
    small = device(tmp_path, memory={"flash_kib": 0.1, "sram_kib": 256})
    assert price_network(builders.network(), small).memory()["fits"] is False
    unknown = device(tmp_path, memory={})
    assert price_network(builders.network(), unknown).memory()["fits"] is None
    roomy = price_network(builders.network(), device(tmp_path))
    assert roomy.memory()["fits"] is True
    assert roomy.memory([3])["flash_kib"] < roomy.memory()["flash_kib"], "disabled heads need no weights"
    record = cost_record(roomy)
    assert record["macs"] == sum(layer["macs"] for layer in record["layers"])
    assert record["latency_ms"] == pytest.approx(np.sum([layer["latency_ms"] for layer in record["layers"]]))
