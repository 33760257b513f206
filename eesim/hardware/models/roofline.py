"""The larger of compute and memory time, plus a launch: graphics processors.

``time = launch + max(2 * MACs / rate, bytes / bandwidth)`` with the rate a kind of layer reaches and the bandwidth the
device reaches (Williams et al., Roofline, CACM 2009). Small layers are all launch, which is what early exits meet on a GPU.
A layer with few outputs cannot fill the device: ``rate = gops * outputs / (outputs + half_outputs)``.

Energy is ``static_mw * time + pj_per_mac * MACs + pj_per_byte * bytes``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from eesim.hardware.models import LayerCost
from eesim.network.layer import ITEM_BYTES, Layer
from eesim.schema import Strict

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Rates(Strict):
    """What one kind of layer reaches: arithmetic in 10^9 operations per second (2 per MAC), the number of outputs at which it
    reaches half of that (0: at any size), and launches per call."""

    gops: Positive
    half_outputs: NonNegative = 0.0
    launches: NonNegative = 1.0


class Energy(Strict):
    """Energy of one data type: power that flows whatever runs, and the cost of arithmetic and of moved bytes."""

    static_mw: NonNegative
    pj_per_mac: NonNegative
    pj_per_byte: NonNegative


class Parameters(Strict):
    """The `cost_model` section of a profile with `model: roofline`."""

    model: Literal["roofline"]
    launch_ns: NonNegative
    bandwidth_gbps: Positive
    data_types: dict[str, dict[str, Rates | None]]
    energy: dict[str, Energy] | None = None


def price(layer: Layer, data_type: str, parameters: Parameters, point) -> LayerCost:
    """Cost of `layer`; the kind must have rates. The operating point only scales energy."""
    rates = parameters.data_types[data_type][layer.kind]
    moved = layer.bytes_moved(ITEM_BYTES[data_type])
    launch = rates.launches * parameters.launch_ns
    compute = 2 * layer.macs / rates.gops * (1 + rates.half_outputs / max(layer.elements_out, 1))
    memory = moved / parameters.bandwidth_gbps
    ns = launch + max(compute, memory)
    energy = None if parameters.energy is None else parameters.energy.get(data_type)
    nj = None
    if energy is not None:
        nj = point.energy_scale * 1e-3 * (energy.static_mw * ns + energy.pj_per_mac * layer.macs + energy.pj_per_byte * moved)
    terms = {"compute": compute, "memory": memory, "overhead": launch}
    return LayerCost(ns, nj, max(terms, key=terms.__getitem__))
