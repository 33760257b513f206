"""Comparing mechanisms at equal accuracy: each tuned on the calibration split to the same allowed drop, then replayed.

Every mechanism is set beside the best baseline, the plain threshold rule that was cheapest in calibration, sample by
sample: differences of accuracy and cost with paired bootstrap intervals, and a tie where the data do not tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eesim.bundled import profile_names
from eesim.errors import BadInput
from eesim.explore.space import named
from eesim.hardware import load_profile
from eesim.measures.calibration import expected_calibration_error
from eesim.measures.daes import daes
from eesim.measures.paired import Difference, difference, units
from eesim.mechanisms._dart_difficulty import difficulty
from eesim.mechanisms.describe import brief
from eesim.mechanisms.registry import load_mechanism, mechanism_names
from eesim.result import Result, flatten
from eesim.simulation import simulate
from eesim.workload import Workload, load_workload

if TYPE_CHECKING:
    import pandas

BASELINES = ("max-softmax", "entropy", "margin", "patience")
"""Rules that need no training and no state: the best of them is what the others are measured against."""
COSTS = {"energy": "active_mj_mean", "latency": "latency_ms.mean", "macs": "macs_mean"}


@dataclass(frozen=True)
class Compared:
    """One mechanism on one device. `asked` is its name, `result` what tuning came to, `brief` the parameters that are not at their defaults.

    ece: expected calibration error of the answers given (15 bins of equal mass); daes: DART's score against static; None
    where not known. accuracy, cost: differences to the baseline `versus` (cost relative, in the objective), None for bounds.
    """

    asked: str
    result: Result
    brief: dict[str, Any]
    ece: float | None
    daes: float | None
    versus: str | None = None
    accuracy: Difference | None = None
    cost: Difference | None = None

    def record(self) -> dict[str, Any]:
        """The measures by name, for tables and JSON."""
        return {
            "ece": self.ece, "daes": self.daes, "versus": self.versus,
            "accuracy_difference": _record(self.accuracy), "cost_difference": _record(self.cost), "verdict": self.verdict,
        }  # fmt: skip

    @property
    def verdict(self) -> str | None:
        """In words how it stands against the baseline; 'tie' where neither interval leaves 0 out."""
        if self.accuracy is None or self.cost is None:
            return None
        words = [word for item, less, more in ((self.cost, "cheaper", "dearer"), (self.accuracy, "less accurate", "more accurate"))
                 if (word := "" if item.tie else less if item.value < 0 else more)]  # fmt: skip
        return ", ".join(words) or "tie"

    def row(self) -> dict[str, Any]:
        """One flat row: the figures of `simulate`, then the measures."""
        summary = self.result.summary()
        figures = flatten({key: value for key, value in summary.items() if key != "tuned"})
        return {**figures, "mechanism": self.asked, "runs_as": summary["mechanism"], **flatten(self.record()), "brief": self.brief}


def compare(
    workload: str | Path | Workload,
    profiles: Any = None,
    mechanisms: Any = None,
    *,
    accuracy_drop: str | float = "1%",
    objective: str = "energy",
    metric: str = "accuracy",
    per_exit: bool = False,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> pandas.DataFrame:
    """One row for each device and mechanism, all tuned to the same accuracy drop on the calibration split, figures from the test split.

    profiles, mechanisms : names, paths or objects; all bundled ones by default, without those that lack what they need
        (features, difficulty). Bounds and baselines always join.
    per_exit : one threshold for each exit, for mechanisms that have them.   **options : those of `simulate`.

    Column `mechanism` is what was asked for, `runs_as` what tuning came to: 'static' where the mechanism does not pay.
    `ece`, `daes`; `versus` names the baseline, and the columns `accuracy_difference_…` and `cost_difference_…` (relative)
    hold the differences to it with 95 % intervals `_low` and `_high`.
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
    per_exit: bool,
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
        for rule in asked:
            able = bool(rule.parameters) and rule.parameters[0].per_exit
            try:
                result = simulate(
                    workload, profile, rule, accuracy_drop=accuracy_drop, objective=objective, metric=metric, per_exit=per_exit and able, **options
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
        yield from judged(results, objective)


def judged(results: Sequence[tuple[str, Result]], objective: str) -> Iterator[Compared]:
    """Results on one device with their measures, each against the best baseline among them (static where there is none)."""
    static = next(result for name, result in results if name == "static")
    baseline, base = best_baseline(results, objective)
    alpha = _mean_difficulty(static)
    for name, result in results:
        scenario = result.outcomes[0].scenario
        accuracy = cost = versus = None
        if result.setting["mechanism"] not in ("constant", "oracle") and name != baseline:
            versus, accuracy, cost = baseline, *differences(result, base, objective)
        told = brief(scenario.mechanism, scenario.values)
        yield Compared(name, result, told, answer_calibration(result), _daes(result, static, alpha), versus, accuracy, cost)


def best_baseline(results: Sequence[tuple[str, Result]], objective: str) -> tuple[str, Result]:
    """The baseline that was cheapest on the calibration split, among those that tuning kept; static where there is none."""
    found = [(name, result) for name, result in results if name in BASELINES and result.setting["mechanism"] == name]
    if not found:
        return next((name, result) for name, result in results if name == "static")
    unit = {"energy": "energy_mj", "latency": "latency_ms", "macs": "macs"}[objective]
    return min(found, key=lambda item: item[1].setting["tuned"]["calibration"][unit])


def differences(ours: Result, theirs: Result, objective: str) -> tuple[Difference | None, Difference | None]:
    """Accuracy (absolute) and cost (relative) of one result against another, paired by sample; None where they served different samples."""
    mine, other = (result.outcomes[0] for result in (ours, theirs))
    if len(mine.decided) != len(other.decided) or not np.array_equal(mine.decided.verdicts.sample_id, other.decided.verdicts.sample_id):
        return None, None
    served = (mine.weights > 0) & (other.weights > 0)
    scenario = mine.scenario
    rows = np.resize(scenario.rows, len(mine.decided)) if len(mine.decided) != len(scenario.rows) else scenario.rows
    unit = units(scenario.view.streams[0][rows][served])
    right = [np.where(outcome.decided.verdicts.correct < 0, np.nan, outcome.decided.verdicts.correct)[served] for outcome in (mine, other)]
    costs = [_per_sample(outcome.decided, objective) for outcome in (mine, other)]
    known = all(cost is not None for cost in costs)
    return difference(*right, unit), difference(*(cost[served].astype(float) for cost in costs), unit, relative=True) if known else None


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


def _record(item: Difference | None) -> dict[str, float | None]:
    return {name: None if item is None else getattr(item, name) for name in ("value", "low", "high")}
