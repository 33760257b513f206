"""How far the price of a layer can be trusted, and how wide the 1-sigma band around a sum of prices is.

Each layer has one of five grades, the best first:

    measured      this very layer (operator, shapes, kernel, stride, groups) was timed on the device
    fitted        the rates of its kind are fitted; the profile does not say over which sizes
    interpolated  they are fitted, and this layer's size lies between those that the fit saw
    extrapolated  they are fitted, and it does not
    assumed       the rates of its kind are assumed or from a datasheet, or another kind stands in

The band: relative errors within a grade are taken to go together (a rate that is 5 % off is so for every layer), those of
different grades to be independent: ``sigma = sqrt(sum over grades of (share of grade x sigma of grade)^2)``.
The sigma of fitted grades is 1.4826 times the median error that the profile states on networks its fit has not seen (a
normal distribution's ratio); extrapolated and assumed grades have no evidence of their own, so theirs are assumptions,
`DEFAULT_SIGMA` unless the profile's `uncertainty` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from eesim.network.layer import Layer

if TYPE_CHECKING:
    from eesim.hardware.profile import Profile

GRADES = ("measured", "fitted", "interpolated", "extrapolated", "assumed")
QUANTITIES = ("latency", "energy")
DEFAULT_SIGMA = {"measured": 0.03, "extrapolated": 0.25, "assumed": 0.5}
"""Relative. Extrapolation is never taken to be better than twice the error of what is fitted."""
NORMAL = 1.4826
"""Standard deviation of a normal distribution over the median of its absolute deviations."""


def worst(grades: Iterable[str]) -> str:
    """The least trustworthy of some grades; 'measured' of none."""
    return max(grades, key=GRADES.index, default=GRADES[0])


def grade(profile: Profile, layer: Layer, data_type: str, quantity: str = "latency", point: str | None = None) -> str:
    """The grade of one layer's latency or energy. The energy's is never better than that of the time it is computed from."""
    at_default = point in (None, profile.default_operating_point)
    if quantity == "latency" and at_default and profile.measured(layer, data_type) is not None:
        return "measured"
    found = _by_kind(profile, layer.kind, data_type, quantity, point or profile.default_operating_point)
    if found == "fitted":
        span = (profile.fitted_over.get(data_type) or {}).get(layer.kind)
        if span is not None:
            inside = all(low <= size <= high for size, (low, high) in ((layer.macs, span.macs), (layer.elements, span.elements)))
            found = "interpolated" if inside else "extrapolated"
    return found


def grade_of_numbers(profile: Profile, paths: Iterable[str]) -> str:
    """The grade of what rests on the numbers at these dotted paths of a profile: 'measured', 'fitted' or 'assumed'."""
    kinds = [source.kind if (source := profile.source(path)) else "assumed" for path in paths]
    return worst({"measured": "measured", "fitted": "fitted"}.get(kind, "assumed") for kind in kinds) if kinds else "assumed"


@lru_cache(maxsize=4096)
def _by_kind(profile: Profile, kind: str, data_type: str, quantity: str, point: str) -> str:
    """The grade of a kind's numbers, before sizes are looked at."""
    if kind == "input":
        return grade_of_numbers(profile, [f"cost_model.input.{data_type}.per_element"])
    if not profile.knows(kind, data_type):
        return "assumed"
    rates = profile.parameters.data_types[data_type][kind].model_dump(exclude_unset=True)
    paths = [f"cost_model.data_types.{data_type}.{kind}.{name}" for name, value in rates.items() if value]
    if quantity == "energy":
        energy = getattr(profile.parameters, "energy", None)
        if energy is not None:
            own = (energy.get(data_type) or {}) if isinstance(energy, Mapping) else {}
            part = own.get(kind) if isinstance(own, Mapping) else own
            prefix = f"cost_model.energy.{data_type}" + (f".{kind}" if isinstance(own, Mapping) else "")
            paths += [] if part is None else [f"{prefix}.{name}" for name, value in part.model_dump(exclude_unset=True).items() if value]
        else:
            active = profile.point(point).active_mw or {}
            paths.append(f"operating_points.{point}.active_mw.{kind if kind in active else 'default'}")
    found = grade_of_numbers(profile, paths)
    return "fitted" if found == "measured" else found  # rates taken from measurements without a fit are as good as fitted ones


def sigma(profile: Profile, quantity: str) -> dict[str, float]:
    """Relative 1-sigma of each grade for 'latency' or 'energy'."""
    given = getattr(profile.uncertainty, quantity) if profile.uncertainty else {}
    stated = profile.stated_error(quantity)
    fitted = given.get("fitted", DEFAULT_SIGMA["assumed"] if stated is None else NORMAL * stated)
    found = {**DEFAULT_SIGMA, "fitted": fitted, "interpolated": fitted, "extrapolated": max(2 * fitted, DEFAULT_SIGMA["extrapolated"]), **given}
    return {name: float(found[name]) for name in GRADES}


def band(profile: Profile, quantity: str, amounts: Mapping[str, float]) -> float | None:
    """Relative 1-sigma of a sum with so much of each grade; None where there is nothing."""
    total = sum(amounts.values())
    if not total:
        return None
    each = sigma(profile, quantity)
    return float(np.sqrt(sum((amounts.get(name, 0.0) / total * each[name]) ** 2 for name in GRADES)))
