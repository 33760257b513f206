"""Tuning a mechanism on the calibration split: the cheapest setting that loses no more accuracy than allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from eesim.cost import MechanismCost, NetworkCost, price_network
from eesim.engine.replay import Replayed, replay, replay_bars
from eesim.errors import BadInput, unknown
from eesim.hardware.profile import Profile, load_profile
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Mechanism, Values
from eesim.mechanisms.registry import load_mechanism
from eesim.result import FEWEST_LABELLED
from eesim.trace.view import TraceView
from eesim.units import fraction
from eesim.workload import Workload, load_workload

OBJECTIVES = ("energy", "latency", "macs")
METRICS = ("accuracy", "balanced_accuracy")
SHARED_SETTINGS = 500
"""Thresholds tried when all exits share one."""
JOINT_SETTINGS = 200_000
"""Threshold vectors tried at most, exhaustively, before coordinate descent refines the best."""


@dataclass(frozen=True)
class Evaluation:
    """P settings on one view without time: accuracy and balanced accuracy float64 [P] (NaN unknown), cost float64 [P] by name.

    Costs are means per sample, energy in nJ (None: not known), latency in ns, macs; and p95 and p99 of the latency.
    """

    accuracy: np.ndarray
    balanced_accuracy: np.ndarray
    cost: dict[str, np.ndarray | None]


@dataclass(frozen=True)
class Tuned:
    """What tuning chose. `mechanism` is static where nothing else was within the drop and cheaper; bounds and rules that have
    nothing to tune are taken as they are, with a warning where they keep neither."""

    mechanism: Mechanism
    parameters: Values
    accuracy_drop: float
    objective: str
    metric: str
    calibration: dict[str, float]
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """For summaries: the rule of tuning and what it saw on the calibration split."""
        return {"accuracy_drop": self.accuracy_drop, "objective": self.objective, "metric": self.metric, "calibration": self.calibration}


def tune(
    workload: str | Path | Workload,
    profile: str | Path | Profile,
    mechanism: str | Path | Mechanism,
    *,
    accuracy_drop: str | float = 0.01,
    objective: str = "energy",
    metric: str = "accuracy",
    per_exit: bool = False,
    exits: Iterable[int] | None = None,
    operating_point: str | None = None,
    data_type: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Tuned:
    """Find the parameters that minimise the mean `objective` ('energy', 'latency' or 'macs') per sample on the calibration split.

    accuracy_drop : how many absolute points of `metric` may be lost against the static network, e.g. ``'1%'``.
    per_exit : one threshold for each exit instead of one for all.
    parameters : what stays as it is; the others are tuned.

    If no setting is within the drop and cheaper than static, the result is static, with a warning. Only the calibration
    split is looked at. Raises BadInput, among others when there is none, or when the profile cannot give the objective.
    """
    workload = load_workload(workload)
    priced = price_network(workload.network, load_profile(profile), operating_point, data_type)
    return tune_priced(
        workload, priced, load_mechanism(mechanism), accuracy_drop=accuracy_drop, objective=objective, metric=metric, per_exit=per_exit,
        exits=workload.enabled(exits), parameters=parameters or {},
    )  # fmt: skip


def tune_priced(
    workload: Workload,
    priced: NetworkCost,
    mechanism: Mechanism,
    *,
    accuracy_drop: str | float,
    objective: str,
    metric: str,
    per_exit: bool,
    exits: tuple[int, ...],
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> Tuned:
    """`tune` for a network that is already priced."""
    drop = fraction(accuracy_drop, "accuracy drop")
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES, field="objective")
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS, field="metric")
    view = workload.view("calibration", exits)
    cost = MechanismCost(priced, exits, mechanism, view.classes)
    static = load_mechanism("static")
    reference = evaluate(view, static, [{}], MechanismCost(priced, exits, static, view.classes))
    if reference.cost[objective] is None:
        raise BadInput(
            f"profile '{priced.profile.name}' gives no energy, so nothing can be tuned to it; choose 'latency' or 'macs'", field="objective"
        )
    least = getattr(reference, metric)[0] - drop - 1e-12
    if np.isnan(least):
        raise BadInput(f"{metric} of the calibration split is not known (too few labels)", field="metric")

    if mechanism.bound:
        values = mechanism.settle(parameters, view)
        seen = evaluate(view, mechanism, [values], cost)
        lost = float(getattr(reference, metric)[0] - getattr(seen, metric)[0])
        why = f"'{mechanism.name}' is a bound and has nothing to tune: it loses {100 * lost:.1f} points of {metric.replace('_', ' ')} in calibration"
        return Tuned(mechanism, values, drop, objective, metric, _seen(seen, 0, metric, objective), (why,) if lost > drop else ())
    given = mechanism.check(parameters, view)
    if mechanism.answers_early and objective != "latency":
        latency = tune_priced(
            workload, priced, mechanism, accuracy_drop=drop, objective="latency", metric=metric, per_exit=per_exit, exits=exits, parameters=parameters
        )
        return replace(latency, warnings=(*latency.warnings, f"'{mechanism.name}' saves latency only, so it was tuned for that"))
    settings, evaluation = search(view, mechanism, cost, least=least, objective=objective, metric=metric, per_exit=per_exit, given=given)
    if mechanism.live and len(settings) == 1:
        why = f"'{mechanism.name}' has nothing to tune: it decides by time, which tuning does not see"
        if evaluation.cost[objective][0] >= reference.cost[objective][0]:
            why += f"; with all the time it wants it costs more {objective} than static"
        return Tuned(mechanism, settings[0], drop, objective, metric, _seen(evaluation, 0, metric, objective), (why,))
    best = cheapest(evaluation, least=least, objective=objective, metric=metric)
    if best is None or evaluation.cost[objective][best] >= reference.cost[objective][0]:
        limits = f"within {drop:.3g} of static {metric.replace('_', ' ')} and cheaper in {objective}"
        why = f"no setting of '{mechanism.name}' on '{priced.profile.name}' is {limits}"
        return Tuned(static, {}, drop, objective, metric, _seen(reference, 0, metric, objective), (f"{why}; static is used",))
    return Tuned(mechanism, settings[best], drop, objective, metric, _seen(evaluation, best, metric, objective))


def cheapest(evaluation: Evaluation, *, least: float, objective: str, metric: str) -> int | None:
    """The cheapest setting with at least `least` of `metric`; among equals the more accurate, then the first. None if there is none."""
    value, cost = getattr(evaluation, metric), evaluation.cost[objective]
    within = np.flatnonzero(value >= least)
    if within.size == 0:
        return None
    return int(within[np.lexsort((-value[within], cost[within]))[0]])


def search(
    view: TraceView, mechanism: Mechanism, cost: MechanismCost, *, least: float, objective: str, metric: str, per_exit: bool, given: Values
) -> tuple[list[Values], Evaluation]:
    """Settings worth trying, evaluated. With `per_exit`: a joint grid over all exits, then coordinate descent around the best."""
    if not per_exit:
        settings = [mechanism.settle({**values, **given}, view) for values in mechanism.candidates(view, SHARED_SETTINGS, given)]
        return settings, evaluate(view, mechanism, settings, cost)
    if not isinstance(mechanism, ThresholdMechanism) or not mechanism.parameters[0].per_exit:
        raise BadInput(f"mechanism '{mechanism.name}' has no threshold per exit", field="per_exit")
    name, free = mechanism.parameters[0].name, view.exits - 1
    fixed = mechanism.settle({**given, name: "never"}, view)
    rule = mechanism.variant(fixed)
    if not isinstance(rule, ThresholdMechanism) or name in given:
        why = f"{name} is given" if name in given else f"with these values it keeps state '{rule.state}'"
        raise BadInput(f"thresholds of mechanism '{mechanism.name}' cannot be tuned per exit: {why}", field="per_exit")
    mechanism, cost = rule, cost if rule is mechanism else cost.used_by(rule)

    def spread(vector: Sequence[Any]) -> Values:
        full: list[Any] = ["never"] * (view.trace.exits - 1)
        for exit, value in zip(view.recorded_exits, vector, strict=False):
            full[exit] = value
        return {**fixed, name: tuple(full)}

    def tried(vectors: Sequence[Sequence[Any]]) -> Evaluation:
        bars = np.array([[np.inf if value == "never" else mechanism.bar(value) for value in vector] for vector in vectors])
        return _figures(view, len(vectors), [(replay_bars(view, mechanism, fixed, bars.reshape(len(vectors), -1)), cost)])

    levels = max(int(JOINT_SETTINGS ** (1 / max(free, 1))), 2)
    coarse = [_exit_levels(mechanism, view, fixed, exit, levels) for exit in range(free)]
    vectors = list(product(*coarse)) if np.prod([len(axis) for axis in coarse]) <= 4 * JOINT_SETTINGS else []
    shared = [candidate[name] for candidate in mechanism.candidates(view, SHARED_SETTINGS, given)]
    vectors += [tuple(value[exit] for exit in view.recorded_exits[:-1]) if isinstance(value, tuple) else (value,) * free for value in shared]
    evaluation = tried(vectors)
    fine = [_exit_levels(mechanism, view, fixed, exit, 128) for exit in range(free)]
    best = cheapest(evaluation, least=least, objective=objective, metric=metric)
    for _ in range(10):
        if best is None:
            break
        around = [vectors[best]] + [(*vectors[best][:exit], value, *vectors[best][exit + 1 :]) for exit in range(free) for value in fine[exit]]
        nearby = tried(around)
        better = cheapest(nearby, least=least, objective=objective, metric=metric)
        vectors, evaluation, best = around, nearby, better
        if better in (None, 0):
            break
    return [spread(vector) for vector in vectors], evaluation


def _exit_levels(mechanism: ThresholdMechanism, view: TraceView, values: Values, exit: int, count: int) -> list[Any]:
    """Thresholds worth trying at one exit, and 'never'."""
    return [float(value) for value in mechanism.levels(mechanism.scored(view, values).score[:, exit], view, max(count - 1, 2))] + ["never"]


def evaluate(view: TraceView, mechanism: Mechanism, settings: Sequence[Values], cost: MechanismCost) -> Evaluation:
    """Accuracy and mean cost of every setting, without time."""
    parts = []
    for part in replay(view, mechanism, settings):
        rule = mechanism.variant(settings[part.settings[0]])
        parts.append((part, cost if rule is mechanism else cost.used_by(rule)))
    return _figures(view, len(settings), parts)


def _figures(view: TraceView, settings: int, parts: Sequence[tuple[Replayed, MechanismCost]]) -> Evaluation:
    labelled = view.class_counts
    enough = labelled >= FEWEST_LABELLED
    names = ("energy", "latency", "macs", "p95", "p99")
    figures = {name: np.full(settings, np.nan) for name in ("accuracy", "balanced", *names)}
    for part, cost in parts:
        paths = cost.paths(part.paths)
        shares = part.counts / len(view)
        with np.errstate(invalid="ignore", divide="ignore"):
            figures["accuracy"][part.settings] = part.correct / labelled.sum()
        if enough.any():
            figures["balanced"][part.settings] = (part.class_correct[:, enough] / labelled[enough]).mean(axis=1)
        figures["energy"][part.settings] = np.nan if paths.energy_nj is None else shares @ paths.energy_nj
        figures["latency"][part.settings] = shares @ paths.response_ns
        figures["macs"][part.settings] = shares @ paths.macs
        for rank in (95, 99):
            figures[f"p{rank}"][part.settings] = _percentile(paths.response_ns, shares, rank)
    costs = {name: figures[name] for name in names}
    if np.isnan(costs["energy"]).any():
        costs["energy"] = None
    return Evaluation(figures["accuracy"], figures["balanced"], costs)


def _percentile(values: np.ndarray, shares: np.ndarray, rank: int) -> np.ndarray:
    """Nearest-rank percentile of values [V] that are met with shares [P, V]; float64 [P]."""
    order = np.argsort(values)
    reached = np.cumsum(shares[:, order], axis=1) >= rank / 100 - 1e-12
    return values[order][np.where(reached.any(axis=1), reached.argmax(axis=1), len(order) - 1)].astype(np.float64)


def _seen(evaluation: Evaluation, index: int, metric: str, objective: str) -> dict[str, float]:
    unit, scale = {"energy": ("energy_mj", 1e6), "latency": ("latency_ms", 1e6), "macs": ("macs", 1.0)}[objective]
    return {metric: float(getattr(evaluation, metric)[index]), unit: float(evaluation.cost[objective][index]) / scale}
