"""Comparing mechanisms at equal accuracy: each tuned on the calibration split to the same allowed drop, then replayed.

All have the same freedom: a rule whose threshold may differ by exit is tuned with one for all exits and with one for each,
and the cheaper of the two in calibration counts, for baselines as for the others. Every mechanism is then set beside the
best baseline, the plain threshold rule that was cheapest in calibration, sample by sample: differences of accuracy and
cost with paired bootstrap intervals, and a tie where the data do not tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eesim.bundled import profile_names
from eesim.engine.chooser import KEPT_REQUESTS
from eesim.engine.outcome import Outcome
from eesim.errors import BadInput
from eesim.explore.space import named
from eesim.hardware import load_profile
from eesim.measures.calibration import expected_calibration_error
from eesim.measures.daes import daes
from eesim.measures.paired import ENOUGH_STREAMS, RUNS, Difference, difference, units
from eesim.mechanisms._dart_difficulty import difficulty
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Mechanism
from eesim.mechanisms.describe import brief
from eesim.mechanisms.registry import load_mechanism, mechanism_names
from eesim.result import Result, flatten
from eesim.simulation import simulate
from eesim.tuning import tune
from eesim.units import points
from eesim.workload import Workload, load_workload

if TYPE_CHECKING:
    import pandas

BASELINES = ("max-softmax", "entropy", "margin", "patience")
"""Rules that need no training and no state: the best of them is what the others are measured against."""
SHARED, PER_EXIT = "shared", "per exit"
"""Forms of a threshold: one for all exits, or one for each."""
UNITS = {"energy": "energy_mj", "latency": "latency_ms", "macs": "macs"}
"""What tuning calls the cost it saw, by objective."""


@dataclass(frozen=True)
class Compared:
    """One mechanism on one device. `asked` is its name, `result` what tuning came to, `brief` the parameters that are not at their defaults.

    ece: expected calibration error of the answers given (15 bins of equal mass); daes: DART's score against static; None
    where not known. accuracy, cost: differences to the baseline `versus` (cost relative, in the objective), None for bounds;
    drawn: what their intervals draw again. lost, balanced_lost: what accuracy (in the metric of tuning) and balanced accuracy
    lie below static. tried: cost in calibration of each form of the threshold that was tuned.
    """

    asked: str
    result: Result
    brief: dict[str, Any]
    ece: float | None
    daes: float | None
    versus: str | None = None
    accuracy: Difference | None = None
    cost: Difference | None = None
    versus_thresholds: str | None = None
    drawn: str | None = None
    lost: float | None = None
    balanced_lost: float | None = None
    tried: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The measures by name, for tables and JSON."""
        return {
            "ece": self.ece, "daes": self.daes, "versus": self.versus,
            "accuracy_difference": _record(self.accuracy), "cost_difference": _record(self.cost), "verdict": self.verdict,
            "thresholds": form(self.result), "versus_thresholds": self.versus_thresholds, "intervals_draw": self.drawn,
            "lost": self.lost, "balanced_lost": self.balanced_lost, "over_drop": self.over, "nothing_to_tune": self.fixed,
            "answers_early": self.result.outcomes[0].scenario.mechanism.answers_early,
            "calibration_cost": {"shared": self.tried.get(SHARED), "per_exit": self.tried.get(PER_EXIT)},
        }  # fmt: skip

    @property
    def fixed(self) -> bool:
        """Whether it is as it is: a bound, or a rule that tuning cannot change."""
        bound = self.asked in mechanism_names() and load_mechanism(self.asked).bound
        return bound or any("has nothing to tune" in warning for warning in self.result.warnings)

    @property
    def over(self) -> bool | None:
        """Whether it loses more on this split than it was tuned to lose in calibration; None for what is not tuned to a drop."""
        tuned = self.result.setting["tuned"]
        return None if tuned is None or self.lost is None or self.fixed else bool(self.lost > tuned["accuracy_drop"] + 1e-12)

    @property
    def verdict(self) -> str | None:
        """In words how it stands against the baseline; 'tie' where neither interval leaves 0 out."""
        if self.accuracy is None or self.cost is None:
            return None
        words = [word for item, less, more in ((self.cost, "cheaper", "dearer"), (self.accuracy, "less accurate", "more accurate"))
                 if (word := "" if item.tie else less if item.value < 0 else more)]  # fmt: skip
        return ", ".join(words) or "tie"

    def row(self) -> dict[str, Any]:
        """One flat row: the figures of `simulate` with what tuning saw (`tuned_…`), then the measures."""
        summary = self.result.summary()
        figures = flatten({key: value for key, value in summary.items() if key != "tuned" or value is not None})
        return {**figures, "mechanism": self.asked, "runs_as": summary["mechanism"], **flatten(self.record()), "brief": self.brief}


def compare(
    workload: str | Path | Workload,
    profiles: Any = None,
    mechanisms: Any = None,
    *,
    accuracy_drop: str | float = "1%",
    objective: str = "energy",
    metric: str = "accuracy",
    per_exit: bool | None = None,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> pandas.DataFrame:
    """One row for each device and mechanism, all tuned to the same accuracy drop on the calibration split, figures from the test split.

    profiles, mechanisms : names, paths or objects; all bundled ones by default, without those that lack what they need
        (features, difficulty). Bounds and baselines always join.
    per_exit : by default thresholds are tuned both shared and per exit, and the cheaper in calibration counts; False: shared
        only; True: one for each exit where a rule takes them.   **options : those of `simulate`.

    Column `mechanism` is what was asked for, `runs_as` what tuning came to: 'static' where the mechanism does not pay;
    `thresholds` is 'shared' or 'per exit', `calibration_cost_shared` and `…_per_exit` what either cost in calibration,
    `tuned_…` what tuning was asked for and saw. `lost` is how far `metric` lies below static, `over_drop` whether that is more
    than the drop. `ece`, `daes`; `versus` names the baseline, and the columns `accuracy_difference_…` and `cost_difference_…`
    (relative, in the objective) hold the differences to it with 95 % intervals `_low` and `_high`. Differences are over the
    requests that both served: where none are dropped, they are those of the accuracies beside them.
    """
    import pandas as pd

    rows = []
    for item in comparison(
        workload, profiles, mechanisms, accuracy_drop=accuracy_drop, objective=objective, metric=metric, per_exit=per_exit,
        progress=progress, **options,
    ):  # fmt: skip
        rows.append({key: value for key, value in item.row().items() if key != "brief"})
    return pd.DataFrame(rows)


def rules(mechanisms: Any) -> list:
    """The mechanisms named, bounds and baselines first."""
    chosen = [load_mechanism(name) for name in named(mechanisms, mechanism_names(), "mechanisms")]
    bounds = [rule for name in mechanism_names() if (rule := load_mechanism(name)).bound]
    return bounds + [rule for rule in chosen if not rule.bound]


def comparison(
    workload: Any,
    profiles: Any,
    mechanisms: Any,
    *,
    per_exit: bool | None,
    accuracy_drop: Any,
    objective: str,
    metric: str,
    progress: Callable[[int], None] | None = None,
    remark: Callable[[str], None] | None = None,
    **options: Any,
) -> Iterator[Compared]:
    """Every mechanism on every device, device by device. `remark` is told of mechanisms that are left out."""
    workload, all_of_them = load_workload(workload), mechanisms is None or mechanisms == "all"
    asked = rules(mechanisms)
    for profile in [load_profile(name) for name in named(profiles, profile_names(), "profiles")]:
        results: list[tuple[str, Result]] = []
        tried: dict[str, dict[str, float]] = {}
        for rule in asked:
            try:
                result, tried[rule.name] = tuned_run(
                    workload, profile, rule, per_exit=per_exit, accuracy_drop=accuracy_drop, objective=objective, metric=metric, **options
                )
            except BadInput as error:
                if not all_of_them or rule.bound or rule.name in BASELINES:
                    raise
                if remark:
                    remark(f"'{rule.name}' is left out: {error}")
            else:
                results.append((rule.name, result))
            if progress:
                progress(1)
        yield from judged(results, objective, tried)


def tuned_run(
    workload: Workload, profile: Any, rule: Mechanism, *, per_exit: bool | None, accuracy_drop: Any, objective: str, metric: str, **options: Any
) -> tuple[Result, dict[str, float]]:
    """One mechanism tuned and run, with the cost in calibration of each form of its threshold that was tried.

    per_exit=None tries both forms where the rule has them; a shared threshold that costs the same in calibration is kept, as
    the simpler one.
    """
    aim = {"accuracy_drop": accuracy_drop, "objective": objective, "metric": metric}
    able = isinstance(rule, ThresholdMechanism) and rule.parameters[0].per_exit
    given = options.get("parameters") or {}
    both = able and per_exit is None and rule.parameters[0].name not in given and isinstance(rule.variant(given), ThresholdMechanism)
    result = simulate(workload, profile, rule, **aim, per_exit=both or (able and per_exit is True), **options)
    tried = {name: calibration_cost(result, objective)} if (name := form(result)) else {}
    if both:
        named = {name: options[name] for name in ("exits", "operating_point", "data_type", "parameters") if name in options}
        shared = tune(workload, profile, rule, **aim, per_exit=False, **named)
        cost = shared.calibration[UNITS[shared.objective]]
        if cost <= calibration_cost(result, objective) * (1 + 1e-9):
            result = simulate(workload, profile, rule, **aim, per_exit=False, **options)
        if shared.mechanism.name == rule.name:
            name = _form(shared.mechanism, shared.parameters)
            tried[name] = min(cost, tried.get(name, cost))  # a rule whose shared search tries vectors too (dart) has one form
    return result, tried


def form(result: Result) -> str | None:
    """Whether a result's thresholds are shared or per exit; None for a mechanism without a threshold."""
    scenario = result.outcomes[0].scenario
    return _form(scenario.mechanism, scenario.values)


def _form(mechanism: Mechanism, values: Mapping[str, Any]) -> str | None:
    first = mechanism.parameters[0] if mechanism.parameters else None
    if first is None or first.name != "threshold" or first.name not in values:
        return None
    return PER_EXIT if isinstance(values[first.name], tuple) else SHARED


def calibration_cost(result: Result, objective: str) -> float:
    """What a tuned result cost on the calibration split, in mJ, ms or MACs; a rule that answers early is tuned for latency always."""
    tuned = result.setting["tuned"]
    seen = tuned["calibration"]
    return float(seen[UNITS[objective]] if UNITS[objective] in seen else seen[UNITS[tuned["objective"]]])


def judged(results: Sequence[tuple[str, Result]], objective: str, tried: Mapping[str, Mapping[str, float]] | None = None) -> Iterator[Compared]:
    """Results on one device with their measures, each against the best baseline among them (static where there is none)."""
    static = next(result for name, result in results if name == "static")
    baseline, base = best_baseline(results, objective)
    alpha = _mean_difficulty(static)
    for name, result in results:
        scenario = result.outcomes[0].scenario
        accuracy = cost = versus = None
        if result.setting["mechanism"] not in ("constant", "oracle") and name != baseline:
            versus, accuracy, cost = baseline, *differences(result, base, objective)
        metric = (result.setting["tuned"] or {}).get("metric", "accuracy")
        yield Compared(
            name, result, brief(scenario.mechanism, scenario.values), answer_calibration(result), _daes(result, static, alpha), versus, accuracy,
            cost, form(base) if versus else None, _drawn(scenario) if accuracy or cost else None, _lost(result, static, metric),
            _lost(result, static, "balanced_accuracy"), (tried or {}).get(name, {}),
        )  # fmt: skip


def unbalanced(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A warning for each device on which mechanisms tuned for accuracy lose much more balanced accuracy than was allowed."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lost, balanced, drop = row["lost"], row["balanced_lost"], row.get("tuned_accuracy_drop")
        if row.get("tuned_metric") != "accuracy" or row["nothing_to_tune"] or None in (lost, balanced, drop):
            continue
        if balanced > max(drop, lost + drop / 2):  # where it falls as accuracy does, the column of what is lost says it
            found.setdefault(row["profile"], []).append(row)
    lines = []
    for device, several in found.items():
        worst = max(several, key=lambda row: row["balanced_lost"])
        many = f"{len(several)} mechanisms" if len(several) > 1 else f"'{worst['mechanism']}'"
        most = f" ('{worst['mechanism']}' most)" if len(several) > 1 else ""
        lines.append(
            f"{device}: of {many}, tuned to lose {points(worst['tuned_accuracy_drop'])} of accuracy, balanced accuracy falls by "
            f"{'up to ' if most else ''}{100 * worst['balanced_lost']:.1f} points{most}; --metric balanced_accuracy tunes to that instead"
        )
    return lines


def best_baseline(results: Sequence[tuple[str, Result]], objective: str) -> tuple[str, Result]:
    """The baseline that was cheapest on the calibration split, among those that tuning kept; static where there is none.

    Each result is the cheaper form of its rule, shared thresholds or per exit, so this is the cheapest of all of them.
    """
    found = [(name, result) for name, result in results if name in BASELINES and result.setting["mechanism"] == name]
    if not found:
        return next((name, result) for name, result in results if name == "static")
    return min(found, key=lambda item: calibration_cost(item[1], objective))


def differences(ours: Result, theirs: Result, objective: str) -> tuple[Difference | None, Difference | None]:
    """Accuracy (absolute) and cost (relative) of one result against another, paired by request over all replications.

    Each counts the requests that both served after the warm-up. None where request i was not the same sample in both, where no
    label is known, and where the profile gives no such cost.
    """
    rows, weights, right, costs = [], [], ([], []), ([], [])
    for pair in zip(ours.outcomes, theirs.outcomes, strict=True):
        if pair[0].scenario.requests != pair[1].scenario.requests:
            return None, None
        scenario, lengths = pair[0].scenario, {len(outcome.decided) for outcome in pair}
        places = scenario.requests if len(lengths) > 1 else lengths.pop()  # rules asked in time decide about every request
        ids = [np.resize(outcome.decided.verdicts.sample_id, places) for outcome in pair]
        if not np.array_equal(*ids):
            return None, None
        count = _both_served(*pair, places)
        met = count > 0
        rows.append(np.resize(scenario.rows, places)[met])
        weights.append(count[met])
        for side, outcome in enumerate(pair):
            said = outcome.decided.verdicts.correct
            right[side].append(np.resize(np.where(said < 0, np.nan, said), places)[met])
            cost = _per_sample(outcome.decided, objective)
            costs[side].append(np.full(int(met.sum()), np.nan) if cost is None else np.resize(cost, places)[met].astype(float))
    row, weight = np.concatenate(rows), np.concatenate(weights)
    view = ours.outcomes[0].scenario.view
    met, unit = np.bincount(row, minlength=len(view)) > 0, np.zeros(len(view), np.int64)
    unit[met] = units(view.streams[0][met])  # of samples, so that one that is met again is drawn with itself
    unit = unit[row]
    accuracy, cost = ([np.concatenate(side) for side in both] for both in (right, costs))
    return difference(*accuracy, unit, weight), difference(*cost, unit, weight, relative=True)


def _both_served(mine: Outcome, other: Outcome, places: int) -> np.ndarray:
    """How many counted requests both runs served at each of `places` places, int64; request i is at place i mod `places`."""
    scenario = mine.scenario
    if places < scenario.requests and (scenario.requests > KEPT_REQUESTS or mine.dropped == other.dropped == 0):
        return np.minimum(mine.weights, other.weights)  # exact unless requests are dropped: runs too long to keep tell no more
    counted = np.ones(scenario.requests, bool)
    counted[: scenario.warmup] = False
    for outcome in (mine, other):
        if len(outcome.decided) == scenario.requests:
            counted &= outcome.weights > 0
        elif outcome.dropped:
            counted &= outcome.timeline.start >= 0
    return np.bincount(np.flatnonzero(counted) % places, minlength=places)


def _per_sample(decided: Any, objective: str) -> np.ndarray | None:
    if objective == "energy":
        return decided.energy_nj
    return decided.response_ns if objective == "latency" else decided.costs.macs[decided.verdicts.path]


def answer_calibration(result: Result) -> float | None:
    """Expected calibration error of the answers that were given, each sample of the pass counted once; None without labels."""
    outcome = result.outcomes[0]
    verdicts = outcome.decided.verdicts
    known = (outcome.weights > 0) & (verdicts.correct >= 0) & ~np.isnan(verdicts.confidence)
    return expected_calibration_error(verdicts.confidence[known], verdicts.correct[known]) if known.any() else None


def _mean_difficulty(result: Result) -> float | None:
    view = result.outcomes[0].scenario.view
    try:
        return float(difficulty(view).mean())
    except BadInput:
        return None


def _daes(result: Result, static: Result, alpha: float | None) -> float | None:
    """DAES of service times and active energies, waiting left out; None where a figure is missing."""
    ours, base = (figures["latency_ms"]["mean"] - figures["wait_ms"]["mean"] if figures["latency_ms"]["mean"] is not None else None
                  for figures in (result.summary(), static.summary()))  # fmt: skip
    energies = [item["active_mj_mean"] for item in (result, static)]
    accuracy = result["accuracy"]
    if alpha is None or None in (ours, base, *energies, accuracy) or not ours or not energies[0]:
        return None
    return daes(accuracy, base / ours, energies[1] / energies[0], alpha)


def _lost(result: Result, static: Result, metric: str) -> float | None:
    ours, base = result[metric], static[metric]
    return None if None in (ours, base) else base - ours


def _drawn(scenario: Any) -> str:
    """What the paired bootstrap draws again, see `eesim.measures.paired`."""
    met = np.unique(scenario.rows[scenario.warmup : scenario.requests] if scenario.requests < scenario.places else scenario.rows)
    streams = np.unique(scenario.view.streams[0][met]).size
    return f"{streams} streams" if streams >= ENOUGH_STREAMS else f"{min(RUNS, met.size)} runs of neighbouring samples"


def _record(item: Difference | None) -> dict[str, float | None]:
    return {name: None if item is None else getattr(item, name) for name in ("value", "low", "high")}
