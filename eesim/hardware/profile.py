"""A device profile: the schema of the files in `hwprofiles/`, and how one is read and checked.

The classes below are the documentation of the format. Units stand in the keys. Unknown is `null`, never 0. Every number is
covered by an entry of `sources` that says where it comes from and whether it was measured, fitted, taken from a datasheet
or assumed.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from eesim.bundled import find_profile
from eesim.errors import BadInput, unknown
from eesim.hardware.models import LayerCost, load_model, model_names
from eesim.network.layer import ITEM_BYTES, KINDS, Layer
from eesim.schema import Strict, read_yaml, stamp, validate

SCHEMA_VERSION = 1
TRUST = ("measured", "fitted", "datasheet", "assumed")
"""Kinds of origin, the most trustworthy first."""

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Memory(Strict):
    """Memories in KiB. `code_kib` is what runtime and program take of the flash before any network."""

    flash_kib: Positive | None = None
    sram_kib: Positive | None = None
    code_kib: NonNegative | None = None


class OperatingPoint(Strict):
    """A clock and supply voltage, and the power drawn there. Powers in mW, wake-up in us and uJ."""

    clock_mhz: Positive | None = None
    supply_v: Positive | None = None
    active_mw: dict[str, NonNegative] | None = None
    """While a kind of layer runs; `default` serves the kinds that are not named."""
    energy_scale: Positive = 1.0
    """Factor on the energies of a cost model that gives energy directly, against the point where it was fitted."""
    idle_mw: NonNegative | None = None
    sleep_mw: NonNegative | None = None
    wake_us: NonNegative | None = None
    wake_uj: NonNegative | None = None

    def active_power_mw(self, kind: str) -> float | None:
        """Power while a layer of `kind` runs, or None where it is not known."""
        return None if self.active_mw is None else self.active_mw.get(kind, self.active_mw.get("default"))


class EnergyScope(Strict):
    """What the energies include: which supply rail was measured, and whether idle power is inside the active figures."""

    rail: str
    idle: Literal["included", "subtracted"]


class Decision(Strict):
    """Cost of asking "stop here?" once: a branch on a microcontroller, a host synchronisation on a GPU."""

    cycles: NonNegative | None = None
    ns: NonNegative | None = None
    nj: NonNegative | None = None
    """None: time multiplied by the default active power, where that is known."""


class Link(Strict):
    """A way off the device. Bandwidth in Mbit/s, round trip in ms, energy in nJ per byte."""

    bandwidth_mbps: Positive | None = None
    round_trip_ms: NonNegative | None = None
    nj_per_byte: NonNegative | None = None


class Batch(Strict):
    """Batch behaviour: the largest batch the runtime takes."""

    largest: Annotated[int, Field(ge=1)] = 1


class Source(Strict):
    """Where numbers come from. `covers` holds dotted paths of this file, `*` matches anything (dots too)."""

    covers: list[str]
    kind: Literal["measured", "fitted", "datasheet", "assumed"]
    origin: str
    error: dict[str, NonNegative] | None = None
    """For fitted numbers: errors on held-out cases by name, as fractions (0.09 is 9 %)."""


def _ascending(span: list[int]) -> list[int]:
    if not 0 <= span[0] <= span[1]:
        raise ValueError(f"{span} must be the smallest and the largest size, in this order")
    return span


Sizes = Annotated[list[int], Field(min_length=2, max_length=2), AfterValidator(_ascending)]


class Span(Strict):
    """Sizes of the layers of one kind that a fit has seen: smallest and largest MACs, and elements read, written and stored."""

    macs: Sizes
    elements: Sizes


class Uncertainty(Strict):
    """Relative 1-sigma by grade (see `eesim.hardware.trust`), where it is known better than the default."""

    latency: dict[Literal["measured", "fitted", "extrapolated", "assumed"], NonNegative] = {}
    energy: dict[Literal["measured", "fitted", "extrapolated", "assumed"], NonNegative] = {}


class MeasuredLayer(Strict):
    """What one layer took: median time in ns, and energy in nJ where it was measured."""

    ns: NonNegative
    nj: NonNegative | None = None


class _ProfileSchema(Strict):
    schema_version: int
    name: str
    title: str
    vendor: str
    board: str
    core: str
    runtime: str
    device_class: Literal["mcu", "npu", "cpu", "gpu"]
    data_type: str
    memory: Memory
    default_operating_point: str
    operating_points: dict[str, OperatingPoint]
    energy_scope: EnergyScope
    cost_model: dict[str, Any]
    decision: Decision
    links: dict[str, Link] = {}
    batch: Batch = Batch()
    graph_passes: list[Literal["zero-folding", "common-subexpressions"]] = []
    """What the runtime does to a graph before it runs it (`eesim.network.onnx_passes`), in order."""
    fitted_over: dict[str, dict[str, Span]] = {}
    """Data type -> layer kind -> sizes that the fit has seen."""
    uncertainty: Uncertainty | None = None
    measured_layers: dict[str, dict[str, MeasuredLayer]] = {}
    """Data type -> `Layer.signature` -> what that very layer took; it goes before the cost model, at the default operating point."""
    notes: list[str] = []
    sources: list[Source]


@dataclass(frozen=True, eq=False)
class Profile:
    """A device that can price layers. Read one with `load_profile`."""

    path: Path
    data: _ProfileSchema
    parameters: Strict
    content_hash: str

    def __getattr__(self, name: str) -> Any:
        if name in _ProfileSchema.model_fields:
            return getattr(self.data, name)
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"Profile({self.name!r})"

    @property
    def data_types(self) -> list[str]:
        """Data types the cost model has coefficients for."""
        return list(self.parameters.data_types)

    def point(self, name: str | None = None) -> OperatingPoint:
        """An operating point by name, the default one without. Raises BadInput for an unknown name."""
        name = name or self.default_operating_point
        if name not in self.operating_points:
            raise unknown("operating point", name, self.operating_points, file=self.name)
        return self.operating_points[name]

    def knows(self, kind: str, data_type: str) -> bool:
        """Whether a layer kind has a cost of its own."""
        return self.parameters.data_types[data_type].get(kind) is not None

    def measured(self, layer: Layer, data_type: str) -> MeasuredLayer | None:
        """What this very layer took where it was timed itself, else None."""
        known = self.data.measured_layers.get(data_type)
        return known.get(layer.signature) if known else None

    def price(self, layer: Layer, data_type: str, point: OperatingPoint) -> tuple[LayerCost, str | None]:
        """Cost of one layer, and a warning where its kind has no cost: then the dearest known kind stands in."""
        model = load_model(self.parameters.model)
        if (timed := self.measured(layer, data_type)) is not None and point is self.point():
            cost = model.price(layer, data_type, self.parameters, point) if self.knows(layer.kind, data_type) else None
            nj = timed.nj if timed.nj is not None or cost is None or cost.nj is None or not cost.ns else cost.nj * timed.ns / cost.ns
            return LayerCost(timed.ns, nj, cost.bound if cost else "overhead"), None
        if self.knows(layer.kind, data_type):
            return model.price(layer, data_type, self.parameters, point), None
        stand_ins = [Layer(**{**_fields(layer), "kind": kind}) for kind in KINDS if self.knows(kind, data_type)]
        if not stand_ins:
            raise BadInput(f"no layer kind has a cost for data type '{data_type}'", file=self.name, field="cost_model")
        costs = [(model.price(other, data_type, self.parameters, point), other.kind) for other in stand_ins]
        cost, kind = max(costs, key=lambda pair: pair[0].ns)
        return cost, f"{self.name}: layer kind '{layer.kind}' ({layer.op}) has no cost; assumed that of '{kind}', the dearest for it"

    def price_input(self, elements: int, data_type: str, point: OperatingPoint) -> LayerCost | None:
        """Cost of what is done to the numbers of the network's input before its first layer; None where nothing is."""
        model = load_model(self.parameters.model)
        return model.price_input(elements, data_type, self.parameters, point) if hasattr(model, "price_input") else None

    def decision_cost(self, point: OperatingPoint) -> tuple[float, float | None]:
        """Nanoseconds and nanojoules of one decision, unrounded."""
        decision = self.data.decision
        ns = decision.ns if decision.ns is not None else decision.cycles * 1e3 / point.clock_mhz
        power = point.active_power_mw("default")
        return ns, decision.nj if decision.nj is not None else None if power is None else ns * power * 1e-3

    def source(self, path: str) -> Source | None:
        """The entry of `sources` that covers the number at a dotted path; the first that matches counts."""
        return next((source for source in self.sources if any(fnmatch.fnmatchcase(path, pattern) for pattern in source.covers)), None)

    def stated_error(self, quantity: str, statistic: str = "median") -> float | None:
        """Error of 'latency' or 'energy' on networks that took no part in the fit, as the sources state it; None where none does.

        statistic : 'median' or 'max'. With several operating points or data types, the largest of theirs.
        """
        cases = ("unseen_network", "held_out", "leave_one_out")
        stated = [[self._worst_of(source.error, f"{quantity}_{case}", statistic) for case in cases] for source in self.sources if source.error]
        found = [next((error for error in errors if error is not None), None) for errors in stated]
        return max((error for error in found if error is not None), default=None)

    @staticmethod
    def _worst_of(errors: dict[str, float], case: str, statistic: str) -> float | None:
        """Where a case is split (energy of long-running and of short kernels), the larger error."""
        found = (errors.get(f"{case}{split}_{statistic}") for split in ("", "_steady", "_short"))
        return max((error for error in found if error is not None), default=None)

    @cached_property
    def worst_source(self) -> str:
        """The least trustworthy kind of origin among all numbers of the profile."""
        kinds = {source.kind for path in numbers(self.data.model_dump(exclude_unset=True)) if (source := self.source(path))}
        return max(kinds, key=TRUST.index) if kinds else "assumed"


def load_profile(name: str | Path | Profile) -> Profile:
    """A device profile by bundled name or by path to a YAML file; while the file stays as it is, the same object each time.

    Raises BadInput with one line (file, field, value, nearest valid choice) for anything the schema does not allow.
    """
    if isinstance(name, Profile):
        return name
    path = find_profile(name)
    return _read(path, stamp(path))


@lru_cache(maxsize=256)
def _read(path: Path, stamped: tuple) -> Profile:
    """The profile in a file. `stamped` is there for the cache."""
    raw = read_yaml(path)
    data = validate(_ProfileSchema, raw, path)
    if data.schema_version != SCHEMA_VERSION:
        raise BadInput(f"version {data.schema_version} is not known; this eesim reads version {SCHEMA_VERSION}", file=path, field="schema_version")
    model = data.cost_model.get("model")
    if model not in model_names():
        raise unknown("cost model", model, model_names(), file=path, field="cost_model.model")
    parameters = validate(load_model(model).Parameters, data.cost_model, path, "cost_model")
    profile = Profile(path, data, parameters, hashlib.sha256(path.read_bytes()).hexdigest()[:16])
    _check_consistency(profile)
    return profile


def _by_data_type(profile: Profile) -> Iterator[tuple[str, dict[str, Iterable[str]]]]:
    """Every table of the file that goes by data type: its place, and data type -> the layer kinds it names."""
    parameters, data = profile.parameters, profile.data
    yield "cost_model.data_types", parameters.data_types
    energy = getattr(parameters, "energy", None) or {}
    yield "cost_model.energy", {data_type: rates if isinstance(rates, dict) else () for data_type, rates in energy.items()}
    yield "cost_model.input", dict.fromkeys(getattr(parameters, "input", None) or {}, ())
    yield "fitted_over", data.fitted_over
    yield "measured_layers", dict.fromkeys(data.measured_layers, ())


def _check_consistency(profile: Profile) -> None:
    path, data = profile.path, profile.data
    for field, table in _by_data_type(profile):
        for data_type, kinds in table.items():
            if data_type not in ITEM_BYTES:
                raise unknown("data type", data_type, ITEM_BYTES, file=path, field=field)
            for kind in kinds:
                if kind not in KINDS:
                    raise unknown("layer kind", kind, KINDS, file=path, field=f"{field}.{data_type}")
    if data.data_type not in profile.parameters.data_types:
        raise unknown("data type", data.data_type, profile.parameters.data_types, file=path, field="data_type")
    if data.default_operating_point not in data.operating_points:
        raise unknown("operating point", data.default_operating_point, data.operating_points, file=path, field="default_operating_point")
    if (data.decision.cycles is None) == (data.decision.ns is None):
        raise BadInput("give exactly one of 'cycles' and 'ns'", file=path, field="decision")
    in_cycles = getattr(profile.parameters, "time_unit", "ns") == "cycles" or data.decision.cycles is not None
    for name, point in data.operating_points.items():
        if in_cycles and point.clock_mhz is None:
            raise BadInput("costs are in cycles, so the clock must be known", file=path, field=f"operating_points.{name}.clock_mhz")
        for kind in point.active_mw or ():
            if kind != "default" and kind not in KINDS:
                raise unknown("layer kind", kind, [*KINDS, "default"], file=path, field=f"operating_points.{name}.active_mw")


def check_profile(profile: Profile) -> list[str]:
    """What is missing in a profile that loads: layer kinds without a cost, numbers without a source, fits without an error.

    Returns one line a finding; an empty list means the profile is complete.
    """
    found = [
        f"cost_model.data_types.{data_type}: layer kind '{kind}' has no cost; give its rates, labelled 'assumed' with a reason if need be"
        for data_type in profile.data_types
        for kind in KINDS
        if not profile.knows(kind, data_type)
    ]
    energy = getattr(profile.parameters, "energy", None) or {}
    by_kind = {data_type: energy.get(data_type) or {} for data_type in profile.data_types if energy}
    found += [
        f"cost_model.energy.{data_type}: layer kind '{kind}' has no energy, so no network that holds it has one"
        for data_type, kinds in by_kind.items()
        if isinstance(kinds, dict)  # other models give one rate for all kinds
        for kind in KINDS
        if profile.knows(kind, data_type) and kinds.get(kind) is None
    ]
    for path in numbers(profile.data.model_dump(exclude_unset=True)):
        source = profile.source(path)
        if source is None:
            found.append(f"{path}: this number has no source; add its path to an entry of 'sources'")
        elif source.kind == "fitted" and not source.error:
            found.append(f"sources: the fit of '{source.covers[0]}' states no error on held-out cases")
    if profile.name != profile.path.stem:
        found.append(f"name: '{profile.name}' differs from the file's name '{profile.path.stem}'")
    return list(dict.fromkeys(found))


def numbers(data: Any, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all numbers in a profile, those about the file itself left out."""
    if isinstance(data, dict):
        for key, value in data.items():
            if prefix or key not in ("schema_version", "sources", "batch", "fitted_over", "uncertainty", "measured_layers"):
                yield from numbers(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(data, (int, float)) and not isinstance(data, bool):
        yield prefix


def _fields(layer: Layer) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in Layer.__dataclass_fields__}
