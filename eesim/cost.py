"""What a network costs on a profile: every segment, head and decision in whole nanoseconds and nanojoules.

Each segment, head and decision is rounded once, half to even; everything after is integer sums, so it does not matter in
which order they are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import prod

import numpy as np

from eesim.errors import BadInput, unknown
from eesim.hardware import trust
from eesim.hardware.models import LayerCost
from eesim.hardware.profile import Profile
from eesim.mechanisms.base import Charge, Mechanism, Path, Site, Values, Work
from eesim.network.layer import Layer, work
from eesim.network.memory import footprint
from eesim.network.network import Network
from eesim.trace.view import TraceView
from eesim.units import round_half_even

QUANTISED = ("int8", "uint8")
INPUT = "input"
"""Kind of the pseudo-layer for what is done to the network's input before its first layer."""


@dataclass(frozen=True, eq=False)
class NetworkCost:
    """A network priced on one operating point of a profile. Energies are None where the profile cannot give them."""

    network: Network
    profile: Profile
    operating_point: str
    data_type: str
    segment_ns: list[int]
    head_ns: list[int]
    segment_nj: list[int] | None
    head_nj: list[int] | None
    segments: list[list[tuple[Layer, LayerCost]]] = field(repr=False)
    heads: list[list[tuple[Layer, LayerCost]]] = field(repr=False)
    """Layers with their costs; what is done to the input stands first in segment 0 as a layer of kind 'input'."""
    warnings: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list, repr=False)
    """Warnings about the work of mechanisms, found when it is priced."""
    _needs: dict = field(default_factory=dict, repr=False)
    _scale: tuple[float, float] = (1.0, 1.0)
    """What times and energies are multiplied with, decisions included; see `scaled`."""

    @property
    def layers(self) -> list[tuple[Layer, LayerCost]]:
        """All layers with their costs: those of all segments, then those of all heads."""
        return [row for part in (*self.segments, *self.heads) for row in part]

    def decision(self, pieces: Sequence[Work], *, asks: bool) -> tuple[int, int | None]:
        """Whole ns and nJ of one decision: the device's own cost where it `asks`, and the mechanism's work."""
        point = self.profile.point(self.operating_point)
        ns, nj = self.profile.decision_cost(point) if asks else (0.0, 0.0)
        for piece in pieces:
            cost, warning = self.profile.price(work(piece.kind, piece.elements, piece.kind, piece.macs, piece.macs), self.data_type, point)
            if warning and not any(warning in other for other in self.warnings):
                self.remarks.append(warning)
            ns += cost.ns
            nj = None if nj is None or cost.nj is None else nj + cost.nj
        return round_half_even(ns * self._scale[0]), None if nj is None else round_half_even(nj * self._scale[1])

    def grade(self, layer: Layer, quantity: str) -> str:
        """How far the 'latency' or 'energy' of a layer can be trusted, see `eesim.hardware.trust`."""
        return trust.grade(self.profile, layer, self.data_type, quantity, self.operating_point)

    def grade_of_decision(self, pieces: Sequence[Work], *, asks: bool) -> str:
        """How far what `decision` gives can be trusted."""
        unit = "cycles" if self.profile.decision.ns is None else "ns"
        grades = {trust.grade_of_numbers(self.profile, [f"decision.{unit}"])} if asks else set()
        own = {trust.grade(self.profile, work(piece.kind, piece.elements, piece.kind, piece.macs, piece.macs), self.data_type) for piece in pieces}
        return trust.worst(grades | own)

    @cached_property
    def by_grade(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """For 'latency' in ns and 'energy' in nJ: what each segment and each head holds of each grade, float64 [E, 5] twice.

        Energy is left out where it is not known.
        """
        found = {quantity: ([], []) for quantity in trust.QUANTITIES}
        for place, parts in enumerate((self.segments, self.heads)):
            for part in parts:
                sums = {quantity: np.zeros(len(trust.GRADES)) for quantity in trust.QUANTITIES}
                for layer, cost in part:
                    sums["latency"][trust.GRADES.index(self.grade(layer, "latency"))] += cost.ns
                    sums["energy"][trust.GRADES.index(self.grade(layer, "energy"))] += cost.nj or 0.0
                for quantity, amounts in sums.items():
                    found[quantity][place].append(amounts)
        known = trust.QUANTITIES if self.segment_nj is not None else trust.QUANTITIES[:1]
        return {quantity: tuple(np.array(part) for part in found[quantity]) for quantity in known}

    def sigma(self, quantity: str) -> float | None:
        """Relative 1-sigma of the 'latency' or 'energy' of the whole network, all heads included; None where it is not known."""
        if quantity not in self.by_grade:
            return None
        amounts = sum(part.sum(axis=0) for part in self.by_grade[quantity])
        return trust.band(self.profile, quantity, dict(zip(trust.GRADES, amounts.tolist(), strict=True)))

    def scaled(self, latency: float, energy: float) -> NetworkCost:
        """The same network with all times and energies multiplied, rounded once."""
        parts = {"segment_ns": latency, "head_ns": latency, "segment_nj": energy, "head_nj": energy}
        values = {name: (part := getattr(self, name)) and [round_half_even(value * factor) for value in part] for name, factor in parts.items()}
        return replace(self, **values, remarks=[], _needs={}, _scale=(self._scale[0] * latency, self._scale[1] * energy))

    def memory(self, exits: Sequence[int] | None = None, state_bytes: int = 0) -> dict:
        """Flash and RAM in KiB for the enabled exits, whether they fit, and what is largest; None where it is not known.

        state_bytes : what a mechanism keeps from sample to sample, which lies in RAM beside the activations.
        """
        key = None if exits is None else tuple(exits)
        if key not in self._needs:
            self._needs[key] = footprint(self.network, self.data_type, exits)
        need, has = self._needs[key], self.profile.memory
        flash = (need.weights_bytes / 1024) + (has.code_kib or 0)
        sram = (need.peak_activation_bytes + state_bytes) / 1024
        known = [(flash, has.flash_kib), (sram, has.sram_kib)]
        fits = all(needed <= there for needed, there in known if there is not None) if any(there is not None for _, there in known) else None
        largest = f"activations peak at layer '{need.peak_layer}'"
        return {"flash_kib": flash, "sram_kib": sram, "state_kib": state_bytes / 1024, "fits": fits, "largest": largest}


STATE_ITEM_BYTES = 4
"""A mechanism's memory is counted as float32 on the device."""


def state_bytes(mechanism: Mechanism, view: TraceView, values: Values) -> int:
    """RAM that a mechanism keeps from sample to sample on one device, which serves one stream."""
    return STATE_ITEM_BYTES * mechanism.memory(view, values) if mechanism.state in ("stream", "global") else 0


def price_network(network: Network, profile: Profile, operating_point: str | None = None, data_type: str | None = None) -> NetworkCost:
    """Price every layer of a network on a profile.

    The data type is `data_type`, else the network's own if it is quantised, else the profile's. Raises BadInput for an
    unknown operating point or a data type the profile has no costs for. Layer kinds without a cost become warnings.
    """
    data_type = data_type or (network.data_type if network.data_type in QUANTISED and network.data_type in profile.data_types else profile.data_type)
    if data_type not in profile.data_types:
        raise unknown("data type", data_type, profile.data_types, file=profile.name, field="data_type")
    name = operating_point or profile.default_operating_point
    point = profile.point(name)
    warnings: dict[str, None] = dict.fromkeys(network.warnings)

    def priced(layers: Sequence[Layer]) -> list[tuple[Layer, LayerCost]]:
        rows = []
        for layer in layers:
            cost, warning = profile.price(layer, data_type, point)
            rows.append((layer, cost))
            if warning:
                warnings[warning] = None
        return rows

    segments, heads = [priced(segment) for segment in network.segments], [priced(head) for head in network.heads]
    elements = sum(prod(shape) for shape in network.inputs.values())
    if (cost := profile.price_input(elements, data_type, point)) is not None:
        segments[0].insert(0, (Layer("input", "Input", INPUT, (1, elements), (1, elements), elements_in=elements, elements_out=elements), cost))
    sums = {part: [_rounded(rows) for rows in groups] for part, groups in (("segment", segments), ("head", heads))}
    known = all(nj is not None for part in sums.values() for _, nj in part)
    whole = {f"{part}_ns": [ns for ns, _ in values] for part, values in sums.items()}
    whole |= {f"{part}_nj": [nj for _, nj in values] if known else None for part, values in sums.items()}
    return NetworkCost(network, profile, name, data_type, segments=segments, heads=heads, warnings=tuple(warnings), **whole)


def _rounded(rows: Sequence[tuple[Layer, LayerCost]]) -> tuple[int, int | None]:
    """Whole ns and nJ of some layers; no energy where one of them has none."""
    joules = [cost.nj for _, cost in rows]
    return round_half_even(sum(cost.ns for _, cost in rows)), None if None in joules else round_half_even(sum(joules))


@dataclass(frozen=True)
class PathCosts:
    """What each path through the enabled exits costs. One stage = the segments up to a head, the head, and the decision there;
    first the stages of the heads evaluated when the answer leaves, then the others, each in order of depth.

    service_ns, response_ns: int64 [P]; energy_nj: int64 [P] or None; macs, operations: int64 [P];
    stage_ns: int64 [P, S], zero-padded; stages, answer_stage: int64 [P], how many stages, and after which the answer leaves.
    by_grade: 'latency' in ns and 'energy' in nJ (left out where it is not known): float64 [P, 5], how much of it has each grade of
    trust (`trust.GRADES`).
    """

    service_ns: np.ndarray
    response_ns: np.ndarray
    energy_nj: np.ndarray | None
    macs: np.ndarray
    operations: np.ndarray
    stage_ns: np.ndarray
    stages: np.ndarray
    answer_stage: np.ndarray
    by_grade: dict[str, np.ndarray]


@dataclass(frozen=True)
class MechanismCost:
    """A priced network as one mechanism uses it: the enabled exits only, decisions included."""

    cost: NetworkCost
    exits: tuple[int, ...]
    mechanism: Mechanism
    classes: int

    def __post_init__(self) -> None:
        last = self.cost.network.exits - 1
        if self.exits[-1] != last or list(self.exits) != sorted(set(self.exits)) or self.exits[0] < 0:
            raise BadInput(f"exits {list(self.exits)} are not ascending exits that end with the final one, {last}", field="exits")

    def used_by(self, mechanism: Mechanism) -> MechanismCost:
        """The same network and exits under another mechanism."""
        return replace(self, mechanism=mechanism)

    def _merge(self, parts: list[int]) -> np.ndarray:
        """Sums of what lies between enabled exits, int64 [E enabled]."""
        edges = [-1, *self.exits]
        return np.array([sum(parts[low + 1 : high + 1]) for low, high in pairwise(edges)], np.int64)

    @cached_property
    def segment_ns(self) -> np.ndarray:
        """Time from one enabled exit to the next, int64 [E]."""
        return self._merge(self.cost.segment_ns)

    @cached_property
    def decision_ns(self) -> np.ndarray:
        """Time of the decision after each enabled head, 0 after the last, int64 [E]."""
        return np.array([ns for ns, _ in self._decisions], np.int64)

    @cached_property
    def head_ns(self) -> np.ndarray:
        """Time of each enabled head, int64 [E]; 0 for those that the mechanism puts modules of its own in place of."""
        return np.array([0 if self._replaced(place) else self.cost.head_ns[exit] for place, exit in enumerate(self.exits)], np.int64)

    @property
    def sample_ns(self) -> int:
        """Time of the mechanism's work once per sample, before the first segment."""
        return self._per_sample[0]

    @cached_property
    def site(self) -> Site:
        """Where the mechanism works: the shapes its own work depends on."""
        network = self.cost.network
        entries = [network.heads[exit][0] for exit in self.exits]
        return Site(
            self.classes, len(self.exits), network.segments[0][0].input_shape, tuple(prod(layer.input_shape) for layer in entries),
            tuple(layer.input_shape[1] if len(layer.input_shape) in (2, 4) else layer.input_shape[-1] for layer in entries),
        )  # fmt: skip

    @cached_property
    def charge(self) -> Charge:
        """The mechanism's own work."""
        return self.mechanism.charge(self.site)

    def _replaced(self, place: int) -> bool:
        return self.mechanism.replaces_heads and place < len(self.exits) - 1

    @cached_property
    def _decisions(self) -> list[tuple[int, int | None]]:
        """Whole ns and nJ of the decision after each enabled head; nothing after the last."""
        priced: dict[tuple, tuple[int, int | None]] = {}
        for place in range(len(self.exits) - 1):
            pieces = self.charge.at(place)
            if pieces not in priced:
                priced[pieces] = self.cost.decision(pieces, asks=self.mechanism.asks)
        return [priced[self.charge.at(place)] for place in range(len(self.exits) - 1)] + [(0, 0)]

    @cached_property
    def _per_sample(self) -> tuple[int, int | None]:
        return self.cost.decision(self.charge.sample, asks=False)

    @cached_property
    def _head_macs(self) -> list[int]:
        own = [sum(piece.macs for piece in self.charge.at(place)) for place in range(len(self.exits) - 1)]
        return [own[place] if self._replaced(place) else self.cost.network.head_macs[exit] for place, exit in enumerate(self.exits)]

    @cached_property
    def _operations(self) -> list[int]:
        return [sum(piece.operations for piece in self.charge.at(place)) for place in range(len(self.exits) - 1)] + [0]

    def paths(self, paths: Sequence[Path]) -> PathCosts:
        """Price every path."""
        network = self.cost.network
        between = self._merge(network.segment_macs)
        per_sample = sum(piece.operations for piece in self.charge.sample)
        widest = max([path.visited.bit_count() for path in paths] + [1])
        count = len(paths)
        service, response, macs, ops = (np.zeros(count, np.int64) for _ in range(4))
        stage_ns = np.zeros((count, widest), np.int64)
        stages, answer_stage = np.zeros(count, np.int64), np.zeros(count, np.int64)
        energies = self._stage_nj
        energy = None if energies is None else np.zeros(count, np.int64)
        for index, path in enumerate(paths):
            answered = path.visited if path.answered < 0 else path.answered
            heads = [exit for part in (answered, path.visited & ~answered) for exit in range(len(self.exits)) if part >> exit & 1]
            reached = -1
            for place, head in enumerate(heads):
                reaching = slice(reached + 1, head + 1)
                stage_ns[index, place] = self.segment_ns[reaching].sum() + self.head_ns[head] + self.decision_ns[head]
                macs[index] += between[reaching].sum() + self._head_macs[head]
                if energy is not None:
                    energy[index] += energies[0][reaching].sum() + energies[1][head] + energies[2][head]
                ops[index] += self._operations[head]
                reached = max(reached, head)
            stage_ns[index, 0] += self.sample_ns
            ops[index] += per_sample
            if energy is not None:
                energy[index] += self._per_sample[1]
            stages[index], answer_stage[index] = max(len(heads), 1), max(answered.bit_count(), 1)
            service[index] = stage_ns[index].sum()
            response[index] = stage_ns[index, : answer_stage[index]].sum()
        return PathCosts(service, response, energy, macs, ops, stage_ns, stages, answer_stage, self._by_grade(paths))

    def _by_grade(self, paths: Sequence[Path]) -> dict[str, np.ndarray]:
        visited = np.array([[path.visited >> exit & 1 for exit in range(len(self.exits))] for path in paths], float).reshape(-1, len(self.exits))
        reached = np.array([[path.deepest >= exit for exit in range(len(self.exits))] for path in paths], float).reshape(visited.shape)
        return {quantity: once + reached @ between + visited @ heads for quantity, (once, between, heads) in self._grades.items()}

    @cached_property
    def _grades(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For 'latency' and 'energy': what the work once per sample, each segment, and each head with its decision hold of each grade."""
        found = {}
        for quantity, (segments, heads) in self.cost.by_grade.items():
            place = int(quantity == "energy")
            between = np.array([segments[low + 1 : high + 1].sum(axis=0) for low, high in pairwise([-1, *self.exits])])
            own = np.array([np.zeros(len(trust.GRADES)) if self._replaced(index) else heads[exit] for index, exit in enumerate(self.exits)])
            for index in range(len(self.exits) - 1):
                grade = self.cost.grade_of_decision(self.charge.at(index), asks=self.mechanism.asks)
                own[index, trust.GRADES.index(grade)] += self._decisions[index][place] or 0
            once = np.zeros(len(trust.GRADES))
            once[trust.GRADES.index(self.cost.grade_of_decision(self.charge.sample, asks=False))] = self._per_sample[place] or 0
            found[quantity] = once, between, own
        return found

    @cached_property
    def _stage_nj(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Energy of segments, heads and decisions, each int64 [E]; None where something is not known."""
        cost, decisions = self.cost, [nj for _, nj in self._decisions]
        if cost.segment_nj is None or cost.head_nj is None or None in decisions or self._per_sample[1] is None:
            return None
        heads = [0 if self._replaced(place) else cost.head_nj[exit] for place, exit in enumerate(self.exits)]
        return self._merge(cost.segment_nj), np.array(heads, np.int64), np.array(decisions, np.int64)


def cost_record(priced: NetworkCost) -> dict:
    """A priced network as plain data: totals in ms and mJ, memory, and one entry for each layer."""
    energies = [cost.nj for _, cost in priced.layers]
    network = priced.network
    memory = priced.memory()
    return {
        "network": network.name,
        "profile": priced.profile.name,
        "operating_point": priced.operating_point,
        "data_type": priced.data_type,
        "latency_ms": sum(cost.ns for _, cost in priced.layers) / 1e6,
        "energy_mj": None if any(energy is None for energy in energies) else sum(energies) / 1e6,
        "latency_sigma": priced.sigma("latency"),
        "energy_sigma": priced.sigma("energy"),
        "trust": trust.worst(priced.grade(layer, "latency") for layer, _ in priced.layers),
        "energy_scope": {"rail": priced.profile.energy_scope.rail, "idle": priced.profile.energy_scope.idle},
        "macs": sum(layer.macs for layer, _ in priced.layers),
        "params": network.params,
        **{key: memory[key] for key in ("flash_kib", "sram_kib", "fits", "largest")},
        "layers": [
            {
                "name": layer.name, "op": layer.op, "kind": layer.kind, "macs": layer.macs, "latency_ms": cost.ns / 1e6,
                "energy_mj": None if cost.nj is None else cost.nj / 1e6, "bound": cost.bound, "trust": priced.grade(layer, "latency"),
            }
            for layer, cost in priced.layers
        ],
        "warnings": list(priced.warnings),
    }  # fmt: skip
