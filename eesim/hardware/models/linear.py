"""Time linear in MACs, bytes and calls, with its own rates for every kind of layer: microcontrollers and in-order CPUs.

``time = per_mac * MACs + per_byte * bytes moved + per_call`` in clock cycles (then scaled by the operating point's clock)
or in nanoseconds (a clock that is not known). Bytes moved are inputs, outputs and weights, once each. Fitting in cycles by
kind of layer rather than in MACs alone follows InstMeter (arXiv 2603.04134).

Energy is either linear in the same way (`energy`, nanojoules, scaled by the operating point's `energy_scale`), or time
multiplied by the power drawn while a kind of layer runs (the operating point's `active_mw`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from eesim.hardware.models import LayerCost
from eesim.network.layer import ITEM_BYTES, Layer
from eesim.schema import Strict

NonNegative = Annotated[float, Field(ge=0)]


class Rates(Strict):
    """Coefficients of one kind of layer, in the model's time unit or in nanojoules."""

    per_mac: NonNegative = 0.0
    per_byte: NonNegative = 0.0
    per_call: NonNegative = 0.0


class Parameters(Strict):
    """The `cost_model` section of a profile with `model: linear`."""

    model: Literal["linear"]
    time_unit: Literal["cycles", "ns"]
    data_types: dict[str, dict[str, Rates | None]]
    energy: dict[str, dict[str, Rates | None]] | None = None


def price(layer: Layer, data_type: str, parameters: Parameters, point) -> LayerCost:
    """Cost of `layer` at operating point `point`; the kind must have rates."""
    rates = parameters.data_types[data_type][layer.kind]
    moved = layer.bytes_moved(ITEM_BYTES[data_type])
    terms = {"compute": rates.per_mac * layer.macs, "memory": rates.per_byte * moved, "overhead": rates.per_call}
    to_ns = 1.0 if parameters.time_unit == "ns" else 1e3 / point.clock_mhz
    ns = sum(terms.values()) * to_ns
    if parameters.energy is not None:
        joules = (parameters.energy.get(data_type) or {}).get(layer.kind)
        nj = None if joules is None else point.energy_scale * (joules.per_mac * layer.macs + joules.per_byte * moved + joules.per_call)
    else:
        power = point.active_power_mw(layer.kind)
        nj = None if power is None else ns * power * 1e-3
    return LayerCost(ns, nj, max(terms, key=terms.__getitem__))


def parts(layer: Layer, data_type: str, parameters: Parameters, point) -> dict[str, float]:
    """Nanoseconds of one layer by coefficient, `kind.rate` -> ns; their sum is the layer's price. For calibration."""
    rates = parameters.data_types[data_type][layer.kind]
    to_ns = 1.0 if parameters.time_unit == "ns" else 1e3 / point.clock_mhz
    return {f"{layer.kind}.{name}": getattr(rates, name) * amount * to_ns for name, amount in _amounts(layer, data_type).items()}


def energy_parts(layer: Layer, data_type: str, parameters: Parameters, point) -> dict[str, float] | None:
    """Nanojoules of one layer by coefficient; None where the model gives no energy of its own."""
    rates = ((parameters.energy or {}).get(data_type) or {}).get(layer.kind)
    if rates is None:
        return None
    return {f"{layer.kind}.{name}": getattr(rates, name) * amount * point.energy_scale for name, amount in _amounts(layer, data_type).items()}


def units(layer: Layer, data_type: str, parameters: Parameters, point) -> dict[str, float]:
    """Nanoseconds (and nanojoules) that one unit of each coefficient would cost, for those that are zero in the base too."""
    to_ns = 1.0 if parameters.time_unit == "ns" else 1e3 / point.clock_mhz
    return {f"{layer.kind}.{name}": amount * to_ns for name, amount in _amounts(layer, data_type).items()}


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


def _amounts(layer: Layer, data_type: str) -> dict[str, float]:
    return {"per_mac": layer.macs, "per_byte": layer.bytes_moved(ITEM_BYTES[data_type]), "per_call": 1}
