"""Fitting a profile to measurements of one device: whole networks, single layers, or both.

Starting from a base profile, every coefficient of its cost model may move: the fit minimises relative errors (robustly, never
below zero) and pays for leaving the base's coefficients, scaled to the device. What the measurements do not say therefore stays
as in the base, and is reported as such. How dear leaving the base is, is chosen by cross-validation; the errors that the new
profile states come from networks left out of both that choice and the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eesim.errors import BadInput, unknown
from eesim.hardware.document import named, source
from eesim.hardware.fit import Shrunk, error_statistics, fit_towards, significant
from eesim.hardware.models import load_model
from eesim.hardware.profile import OperatingPoint, Profile
from eesim.network.layer import Layer

SPREADS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""By how much coefficients may leave the base, relative to its scale; tried in cross-validation."""
FEWEST = 3
FOLDS = 5
LEAVE_ONE_OUT_UP_TO = 12
NOMINAL = 0.05
"""A coefficient that is zero in the base is counted in units that make it this share of the time of the layers it is for."""
SETTLED = 0.5
"""Coefficients less settled than this are called unsettled."""


@dataclass(frozen=True)
class Case:
    """One measurement: the layers that ran, and what they took. `group`: the network; groups are left out whole. `weight`: how much it
    counts in the fit."""

    name: str
    group: str
    layers: tuple[Layer, ...]
    latency_ns: float
    energy_nj: float | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Coefficient:
    """One fitted coefficient: its value in the profile's unit, standard error (relative), value in the base, and share that the
    measurements settle."""

    name: str
    value: float
    error: float | None
    base: float
    settled: float


@dataclass(frozen=True)
class Quantity:
    """The fit of 'latency' or 'energy'. measured, held_out: [cases] in ns or nJ; held_out from fits without the case's network."""

    what: str
    spread: float
    scale: float
    coefficients: list[Coefficient]
    measured: np.ndarray
    in_sample: np.ndarray
    held_out: np.ndarray
    warnings: list[str] = field(default_factory=list)

    @property
    def errors(self) -> dict[str, float]:
        """Errors as a profile states them."""
        held = named(f"{self.what}_held_out", error_statistics(self.held_out, self.measured), ("median", "max", "within_10pct"))
        return named(f"{self.what}_in_sample", error_statistics(self.in_sample, self.measured), ("median",)) | held


@dataclass(frozen=True)
class Calibration:
    """A calibrated profile as a document, and how it came about."""

    document: dict[str, Any]
    cases: Sequence[Case]
    quantities: list[Quantity]
    warnings: list[str]


def calibrate(
    base: Profile, cases: Sequence[Case], *, name: str, origin: str, data_type: str | None = None, operating_point: str | None = None
) -> Calibration:
    """Fit the cost model of `base` to measured cases.

    name : of the new profile; origin : what was measured and how, for its sources.
    Raises BadInput for too few cases, cases without time, and cost models that cannot be calibrated.
    """
    model = load_model(base.parameters.model)
    if not hasattr(model, "parts"):
        raise BadInput(f"profiles with the cost model '{base.parameters.model}' cannot be calibrated", file=base.path, field="cost_model.model")
    data_type = data_type or base.data_type
    if data_type not in base.data_types:
        raise unknown("data type", data_type, base.data_types, file=base.path, field="data_type")
    place = operating_point or base.default_operating_point
    point = base.point(place)
    groups = list(dict.fromkeys(case.group for case in cases))
    if len(groups) < FEWEST:
        raise BadInput(f"{len(groups)} networks are too few to fit and to check; measure at least {FEWEST}")
    for case in cases:
        if not (np.isfinite(case.latency_ns) and case.latency_ns > 0):
            raise BadInput(f"latency must be a positive number, got {case.latency_ns / 1e6:g} ms", field=f"latency_ms of '{case.name}'")
    fold = _folds(cases, groups)
    latency = _fit("latency", cases, np.array([case.latency_ns for case in cases]), fold, model, model.parts, base, data_type, point)
    quantities, warnings = [latency], list(latency.warnings)
    document = _latency_document(base, model, data_type, latency)
    measured = [case.energy_nj for case in cases]
    if all(value is not None and value > 0 for value in measured):
        energy, document = _energy(document, base, cases, np.array(measured, float), fold, model, data_type, place, point)
        quantities.append(energy)
        warnings += energy.warnings
    elif any(value is not None for value in measured):
        warnings.append("some cases have no energy, so none was fitted")
    document = _finish(document, base, name, origin, cases, quantities, data_type, place)
    return Calibration(document, cases, quantities, warnings)


def _folds(cases: Sequence[Case], groups: list[str]) -> np.ndarray:
    """The fold of each case, int [cases]; cases of one network together; each network alone where there are few."""
    count = len(groups) if len(groups) <= LEAVE_ONE_OUT_UP_TO else FOLDS
    shuffled = np.random.default_rng(0).permutation(len(groups))
    of_group = {groups[index]: place % count for place, index in enumerate(shuffled)}
    return np.array([of_group[case.group] for case in cases])


def _design(cases: Sequence[Case], parts: Callable[[Layer], dict[str, float]], units: Callable[[Layer], dict[str, float]]):
    """Columns in base contributions [cases, terms], their names, the base's share of each (1, or 0 for added ones), and nominal values."""
    base: dict[str, np.ndarray] = {}
    unit: dict[str, np.ndarray] = {}
    for row, case in enumerate(cases):
        for layer in case.layers:
            for found, amounts in ((base, parts(layer)), (unit, units(layer))):
                for name, amount in amounts.items():
                    if amount:
                        found.setdefault(name, np.zeros(len(cases)))[row] += amount
    columns, expected, nominal = {}, {}, {}
    by_kind: dict[str, np.ndarray] = {}
    for name, column in base.items():
        kind = name.split(".")[0]
        by_kind[kind] = by_kind.get(kind, 0) + column
    for name in sorted({*base, *unit}, key=lambda name: (name not in base, name)):
        if name in base:
            columns[name], expected[name] = base[name], 1.0
        elif (whole := by_kind.get(name.split(".")[0])) is not None and whole.sum():
            nominal[name] = NOMINAL * whole.sum() / unit[name].sum()
            columns[name], expected[name] = unit[name] * nominal[name], 0.0
    return np.stack(list(columns.values()), axis=1), list(columns), np.array(list(expected.values())), nominal


def _search(design, measured, expected, fold, weight) -> tuple[float, float]:
    """The scale of the base on this device, and the spread with the smallest cross-validated error."""
    scale = _weighted_median(measured / np.maximum(design @ expected, 1e-300), weight)
    found = []
    for spread in SPREADS:
        held = np.full(len(measured), np.nan)
        for index in np.unique(fold):
            seen = fold != index
            if seen.any():
                held[~seen] = design[~seen] @ fit_towards(design[seen], measured[seen], scale * expected, spread, weight=weight[seen]).coefficients
        errors, known = np.minimum(np.abs(held / measured - 1), 0.5), np.isfinite(held)
        found.append(float(np.average(errors[known], weights=weight[known])))
    return scale, SPREADS[int(np.argmin(found))]


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)])


def _cross_validated(cases: Sequence[Case], design, measured, expected, fold) -> tuple[np.ndarray, float, float, Shrunk]:
    """Predictions of each fold by fits that have not seen it, then scale, spread and coefficients from everything."""
    weight = np.array([case.weight for case in cases])
    held = np.full(len(measured), np.nan)
    for index in np.unique(fold):
        seen = fold != index
        scale, spread = _search(design[seen], measured[seen], expected, fold[seen], weight[seen])
        held[~seen] = design[~seen] @ fit_towards(design[seen], measured[seen], scale * expected, spread, weight=weight[seen]).coefficients
    scale, spread = _search(design, measured, expected, fold, weight)
    return held, scale, spread, fit_towards(design, measured, scale * expected, spread, weight=weight)


def _fit(what, cases, measured, fold, model, parts, base, data_type, point) -> Quantity:
    price = lambda function: lambda layer: function(layer, data_type, base.parameters, point) or {}  # noqa: E731
    unpriced = sorted({layer.kind for case in cases for layer in case.layers if not base.knows(layer.kind, data_type)})
    if unpriced:
        raise BadInput(f"the base has no cost for layers of kind {', '.join(unpriced)}", file=base.path, field="cost_model")
    design, names, expected, nominal = _design(cases, price(parts), price(model.units))
    held, scale, spread, fitted = _cross_validated(cases, design, measured, expected, fold)
    rates = base.parameters.data_types if what == "latency" else base.parameters.energy
    coefficients = []
    for index, name in enumerate(names):
        kind, rate = name.split(".")
        factor, of_base = fitted.coefficients[index], float(getattr(rates[data_type][kind], rate))
        value = nominal[name] * factor if name in nominal else of_base * factor
        relative = float(fitted.error[index] / factor) if factor > 0 else None
        coefficients.append(Coefficient(name, float(value), relative, of_base, float(fitted.settled[index])))
    warnings = _warnings(what, names, fitted, design / measured[:, None], len({case.group for case in cases}), base.name)
    return Quantity(what, spread, scale, coefficients, measured, design @ fitted.coefficients, held, warnings)


def _warnings(what: str, names: list[str], fitted: Shrunk, relative: np.ndarray, networks: int, base: str) -> list[str]:
    """What the measurements cannot tell apart: coefficients that matter, are unsettled, and what each is mixed up with."""
    found = []
    weight = (relative * fitted.coefficients).mean(axis=0)
    for index in np.argsort(-weight):
        if fitted.settled[index] >= SETTLED or weight[index] < 0.02:
            continue
        others = np.abs(fitted.together[index] * (np.arange(len(names)) != index))
        likeness = np.array([_cosine(relative[:, index], relative[:, other]) if other != index else 0.0 for other in range(len(names))])
        partner = int(np.argmax(np.maximum(others, likeness)))
        found.append(
            f"{what}: {networks} networks cannot separate {names[index].replace('.', ' ')} from {names[partner].replace('.', ' ')}; "
            f"their ratio is that of {base} for {1 - fitted.settled[index]:.0%}, and {weight[index]:.0%} of the {what} hangs on it"
        )
    return found


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / size if size else 0.0


def _latency_document(base: Profile, model, data_type: str, fitted: Quantity) -> dict[str, Any]:
    document = base.data.model_dump(exclude_unset=True)
    document.pop("schema_version", None)
    document["cost_model"] = _changed(document["cost_model"], model, data_type, fitted, "data_types")
    return document


def _changed(cost_model: dict, model, data_type: str, fitted: Quantity, section: str) -> dict:
    """All coefficients of the section scaled, and those that were fitted set."""
    kinds = cost_model[section][data_type]
    everything = {f"{kind}.{rate}": fitted.scale for kind, rates in kinds.items() if rates for rate, value in rates.items() if value}
    factors = {item.name: item.value / item.base for item in fitted.coefficients if item.base}
    added = {item.name: item.value for item in fitted.coefficients if not item.base and item.value > 0}
    scaled = model.changed(cost_model, data_type, everything | factors, added, section)
    for rates in scaled[section][data_type].values():
        for rate in rates or {}:
            rates[rate] = significant(rates[rate])
    return scaled


def _energy(document, base, cases, measured, fold, model, data_type, place: str, point: OperatingPoint):
    """The energy fitted, and the document with it: in the cost model where it gives energy, else as power by kind of layer."""
    rates = (getattr(base.parameters, "energy", None) or {}).get(data_type) or {}
    if all(rates.get(layer.kind) is not None for case in cases for layer in case.layers):
        fitted = _fit("energy", cases, measured, fold, model, model.energy_parts, base, data_type, point)
        document["cost_model"] = _changed(document["cost_model"], model, data_type, fitted, "energy")
        return fitted, document
    document["cost_model"].pop("energy", None)
    new = load_model(base.parameters.model).Parameters.model_validate(document["cost_model"])
    known = {"default": 1.0, **{kind: value for kind, value in (point.active_mw or {}).items() if value}}
    design, names = np.zeros((len(cases), len(known))), list(known)
    for row, case in enumerate(cases):
        for layer in case.layers:
            kind = layer.kind if layer.kind in known else "default"
            design[row, names.index(kind)] += sum(model.parts(layer, data_type, new, point).values()) * known[kind] * 1e-3
    used = design.any(axis=0)
    held, scale, spread, fitted = _cross_validated(cases, design[:, used], measured, np.ones(int(used.sum())), fold)
    factors = np.full(len(names), scale)
    factors[used] = fitted.coefficients
    document["operating_points"][place]["active_mw"] = {kind: significant(known[kind] * factors[index]) for index, kind in enumerate(names)}
    kept = [name for name, there in zip(names, used, strict=True) if there]
    coefficients = [
        Coefficient(f"{kind} mW", float(known[kind] * factor), float(error / factor) if factor else None, float(known[kind]), float(settled))
        for kind, factor, error, settled in zip(kept, fitted.coefficients, fitted.error, fitted.settled, strict=True)
    ]
    warnings = _warnings("energy", kept, fitted, design[:, used] / measured[:, None], len({case.group for case in cases}), base.name)
    return Quantity("energy", spread, scale, coefficients, measured, design[:, used] @ fitted.coefficients, held, warnings), document


def _finish(document, base: Profile, name: str, origin: str, cases: Sequence[Case], quantities, data_type: str, place: str) -> dict[str, Any]:
    """Names, sources and the range of sizes of the calibrated profile."""
    document["name"], document["data_type"] = name, data_type
    document["cost_model"].pop("input", None)  # the layers explain whole networks, with what is done to their input
    document["title"] = f"{document['title']}, calibrated"
    spans: dict[str, dict[str, list[int]]] = {}
    for case in cases:
        for layer in case.layers:
            span = spans.setdefault(layer.kind, {"macs": [layer.macs, layer.macs], "elements": [layer.elements, layer.elements]})
            for size, value in (("macs", layer.macs), ("elements", layer.elements)):
                span[size] = [min(span[size][0], value), max(span[size][1], value)]
    document["fitted_over"] = {**document.get("fitted_over", {}), data_type: spans}
    document.pop("measured_layers", None)
    document["notes"] = [f"Calibrated from {base.name} on {len(cases)} measurements: {origin}.", *document.get("notes", [])]
    errors = {key: value for quantity in quantities for key, value in quantity.errors.items()}
    covers = {True: [], False: []}
    for quantity in quantities:
        section = "data_types" if quantity.what == "latency" else "energy"
        for item in quantity.coefficients:
            if "." in item.name:
                covers[item.settled >= SETTLED].append(f"cost_model.{section}.{data_type}.{item.name}")
            else:
                covers[item.settled >= SETTLED].append(f"operating_points.{place}.active_mw.{item.name.removesuffix(' mW')}")
    rest = f"as in {base.name}, scaled to this device: no measured network has it"
    tied = f"{origin}; their ratios stay near those of {base.name}, for these networks do not settle each; errors on networks left out of the fit"
    for section in ("data_types", "energy"):
        if document["cost_model"].get(section):
            document["cost_model"][section] = {data_type: document["cost_model"][section][data_type]}
    sources = [source("fitted", f"{origin}; errors on networks left out of the fit", covers[True], errors)] if covers[True] else []
    if covers[False]:
        sources.append(source("fitted", tied, covers[False], errors))
    sources.append(source("assumed", rest, ["cost_model.data_types.*", "cost_model.energy.*"]))
    others = [f"cost_model.{key}" for key in ("cache_kib", "channel_multiple") if document["cost_model"].get(key) is not None]
    if others:
        sources.append(source("assumed", f"as in {base.name}", others))
    powers = len(quantities) > 1 and not document["cost_model"].get("energy")
    for entry in document["sources"]:
        gone = ("cost_model.*", "cost_model.data_types", "cost_model.energy", "cost_model.input")
        kept = [path for path in entry["covers"] if not path.startswith(gone)]
        if powers:
            kept = [path for path in kept if "active_mw" not in path]
        if len(quantities) == 1 and entry["kind"] in ("fitted", "measured"):  # energies were not measured here
            power = [path for path in kept if "_mw" in path]
            kept = [path for path in kept if path not in power]
            if power:
                sources.append(source("assumed", f"power of {base.name}, not measured for this calibration ({entry['kind']} there)", power))
        if kept:
            sources.append({**entry, "covers": kept})
    if powers:
        sources.append(source("assumed", rest, ["operating_points.*.active_mw.*"]))
    document["sources"] = sources
    document.pop("uncertainty", None)
    return document
