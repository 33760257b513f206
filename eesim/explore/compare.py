"""Comparing mechanisms at equal accuracy: each tuned on the calibration split to the same allowed drop, then replayed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eesim.bundled import profile_names
from eesim.explore.space import named
from eesim.hardware import load_profile
from eesim.mechanisms.registry import load_mechanism, mechanism_names
from eesim.result import Result, flatten
from eesim.simulation import simulate
from eesim.workload import Workload, load_workload

if TYPE_CHECKING:
    import pandas


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

    profiles, mechanisms : names, paths or objects; all bundled ones by default. Bounds and baselines always join.
    per_exit : one threshold for each exit, for mechanisms that have them.   **options : those of `simulate`.

    Column `mechanism` is what was asked for, `runs_as` what tuning came to: 'static' where the mechanism does not pay.
    """
    import pandas as pd

    rows = []
    for result, name in comparison(
        workload, profiles, mechanisms, accuracy_drop=accuracy_drop, objective=objective, metric=metric, per_exit=per_exit, **options
    ):
        summary = result.summary()
        rows.append({**flatten({key: value for key, value in summary.items() if key != "tuned"}), "mechanism": name, "runs_as": summary["mechanism"]})
        if progress:
            progress(1)
    return pd.DataFrame(rows)


def rules(mechanisms: Any) -> list:
    """The mechanisms named, bounds and baselines first."""
    chosen = [load_mechanism(name) for name in named(mechanisms, mechanism_names(), "mechanisms")]
    bounds = [rule for name in mechanism_names() if (rule := load_mechanism(name)).bound]
    return bounds + [rule for rule in chosen if not rule.bound]


def comparison(workload: Any, profiles: Any, mechanisms: Any, *, per_exit: bool, accuracy_drop: Any, objective: str, metric: str, **options: Any):
    """Yields (result, name of the mechanism asked for), device by device."""
    workload = load_workload(workload)
    for profile in [load_profile(name) for name in named(profiles, profile_names(), "profiles")]:
        for rule in rules(mechanisms):
            able = bool(rule.parameters) and rule.parameters[0].per_exit
            result: Result = simulate(
                workload, profile, rule, accuracy_drop=accuracy_drop, objective=objective, metric=metric, per_exit=per_exit and able, **options
            )
            yield result, rule.name
