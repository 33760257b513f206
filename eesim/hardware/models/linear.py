"""Time linear in MACs, bytes, output positions and calls, with its own rates for every kind of layer: microcontrollers and CPUs.

``time = per_mac * MACs + per_byte * bytes moved + per_call + ...`` in clock cycles (then scaled by the operating point's clock)
or in nanoseconds (a clock that is not known). Bytes moved are inputs, outputs and weights, once each. Fitting in cycles by
kind of layer rather than in MACs alone follows InstMeter (arXiv 2603.04134). Processors with caches add `per_weight` (weights are
repacked or streamed at each inference), `per_position` (loops over output positions, however few channels), and `per_far_byte` (all
activations of layers that hold more than `cache_kib` of them).

`channel_multiple`: runtimes and accelerators that work on blocks of channels pay for whole blocks; MACs are counted with the channels of
convolutions and fully connected layers rounded up to it.

`input` prices what a program does once per inference (calling the runtime) and to each number of the input (scaling pixels).

Energy is either linear in the same way (`energy`, nanojoules, scaled by the operating point's `energy_scale`), or time
multiplied by the power drawn while a kind of layer runs (the operating point's `active_mw`).
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from pydantic import Field

from eesim.hardware.models import LayerCost
from eesim.network.layer import ITEM_BYTES, VIEWS, Layer
from eesim.schema import Strict

NonNegative = Annotated[float, Field(ge=0)]
CONVOLUTIONS = ("conv", "depthwise", "pointwise")
BOUNDS = {
    "per_mac": "compute", "per_position": "compute", "per_byte": "memory", "per_weight": "memory", "per_far_byte": "memory", "per_call": "overhead",
}  # fmt: skip
"""What limits a layer whose largest part is of this rate."""


class Rates(Strict):
    """Coefficients of one kind of layer, in the model's time unit or in nanojoules."""

    per_mac: NonNegative = 0.0
    per_byte: NonNegative = 0.0
    per_call: NonNegative = 0.0
    per_weight: NonNegative = 0.0
    per_position: NonNegative = 0.0
    per_far_byte: NonNegative = 0.0


class Input(Strict):
    """Once per inference, and per number of the network's input: time in the model's unit; nanojoules per number (None: the time at the
    default active power)."""

    per_call: NonNegative = 0.0
    per_element: NonNegative = 0.0
    nj_per_element: NonNegative | None = None


class Parameters(Strict):
    """The `cost_model` section of a profile with `model: linear`."""

    model: Literal["linear"]
    time_unit: Literal["cycles", "ns"]
    cache_kib: Annotated[float, Field(gt=0)] | None = None
    """Activations of a layer beyond this are far; None: none are."""
    channel_multiple: Annotated[int, Field(ge=2)] | None = None
    """Channels come in blocks of so many; None: in any number."""
    data_types: dict[str, dict[str, Rates | None]]
    energy: dict[str, dict[str, Rates | None]] | None = None
    input: dict[str, Input] = {}


def amounts(layer: Layer, item_bytes: int, cache_kib: float | None = None, channel_multiple: int | None = None) -> dict[str, float]:
    """What each rate of `Rates` multiplies for one layer."""
    activations = (layer.elements_in + layer.elements_out) * item_bytes
    positions = prod(layer.output_shape[2:]) if layer.kind in CONVOLUTIONS else 1
    return {
        "per_mac": layer.macs * _filled(layer, channel_multiple),
        "per_byte": layer.bytes_moved(item_bytes),
        "per_call": 1,
        "per_weight": layer.params,
        "per_position": positions,
        "per_far_byte": activations if cache_kib is not None and activations > 1024 * cache_kib and layer.op not in VIEWS else 0,
    }


def price(layer: Layer, data_type: str, parameters: Parameters, point) -> LayerCost:
    """Cost of `layer` at operating point `point`; the kind must have rates."""
    times = parts(layer, data_type, parameters, point)
    ns = sum(times.values())
    if parameters.energy is not None:
        joules = energy_parts(layer, data_type, parameters, point)
        nj = None if joules is None else sum(joules.values())
    else:
        power = point.active_power_mw(layer.kind)
        nj = None if power is None else ns * power * 1e-3
    limits = dict.fromkeys(("compute", "memory", "overhead"), 0.0)
    for name, time in times.items():
        limits[BOUNDS[name.split(".")[1]]] += time
    return LayerCost(ns, nj, max(limits, key=limits.__getitem__))


def price_input(elements: int, data_type: str, parameters: Parameters, point) -> LayerCost | None:
    """Cost of what is done to the `elements` numbers of the network's input before the first layer; None where nothing is."""
    rates = parameters.input.get(data_type)
    if rates is None:
        return None
    ns = (rates.per_call + rates.per_element * elements) * _to_ns(parameters, point)
    power = point.active_power_mw("default")
    if rates.nj_per_element is not None:
        return LayerCost(ns, rates.nj_per_element * elements * point.energy_scale, "memory")
    return LayerCost(ns, None if power is None else ns * power * 1e-3, "memory")


def parts(layer: Layer, data_type: str, parameters: Parameters, point) -> dict[str, float]:
    """Nanoseconds of one layer by coefficient, `kind.rate` -> ns; their sum is the layer's time."""
    return _parts(layer, data_type, parameters, parameters.data_types[data_type][layer.kind], _to_ns(parameters, point))


def energy_parts(layer: Layer, data_type: str, parameters: Parameters, point) -> dict[str, float] | None:
    """Nanojoules of one layer by coefficient; None where the model gives no energy for its kind."""
    rates = ((parameters.energy or {}).get(data_type) or {}).get(layer.kind)
    return None if rates is None else _parts(layer, data_type, parameters, rates, point.energy_scale)


def units(layer: Layer, data_type: str, parameters: Parameters, point) -> dict[str, float]:
    """What one unit of each coefficient that calibration may add would cost this layer: the common ones, whether or not the base has them."""
    found = amounts(layer, ITEM_BYTES[data_type], parameters.cache_kib, parameters.channel_multiple)
    return {f"{layer.kind}.{name}": found[name] * _to_ns(parameters, point) for name in ("per_mac", "per_byte", "per_call")}


def changed(cost_model: dict, data_type: str, factors: dict[str, float], added: dict[str, float], section: str = "data_types") -> dict:
    """The section of a profile with coefficients multiplied by `factors`, and those that were zero set to `added`."""
    kinds = {kind: dict(rates) if rates else rates for kind, rates in cost_model[section][data_type].items()}
    for key, factor in factors.items():
        kind, rate = key.split(".")
        if rate in (kinds.get(kind) or {}):
            kinds[kind][rate] *= factor
    for key, value in added.items():
        kind, rate = key.split(".")
        kinds.setdefault(kind, {})[rate] = value
    return {**cost_model, section: {**cost_model[section], data_type: kinds}}


def _parts(layer: Layer, data_type: str, parameters: Parameters, rates: Rates, unit: float) -> dict[str, float]:
    found = amounts(layer, ITEM_BYTES[data_type], parameters.cache_kib, parameters.channel_multiple)
    return {f"{layer.kind}.{name}": rate * found[name] * unit for name, rate in rates if rate}


def _filled(layer: Layer, multiple: int | None) -> float:
    """How many times a layer's MACs there are when its channels are rounded up to a multiple; few input channels are not padded."""
    if multiple is None or layer.kind not in ("conv", "pointwise", "depthwise", "fully_connected") or len(layer.output_shape) < 2:
        return 1.0
    place = 1 if layer.kind != "fully_connected" else -1
    factor = 1.0
    for channels in {layer.output_shape[place]} if layer.kind == "depthwise" else (layer.input_shape[place], layer.output_shape[place]):
        if channels > 4:  # the first layer's images
            factor *= -(-channels // multiple) * multiple / channels
    return factor


def _to_ns(parameters: Parameters, point) -> float:
    return 1.0 if parameters.time_unit == "ns" else 1e3 / point.clock_mhz
