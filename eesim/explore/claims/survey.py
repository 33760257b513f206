"""Adaptive Inference through Early-Exit Networks (arXiv 2106.05022): each axis of its design space as a switch, and what the switch does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from eesim.explore.claims.claim import Claim, points
from eesim.explore.space import subsets_of
from eesim.hardware import load_profile
from eesim.result import Result
from eesim.simulation import cached_price, simulate
from eesim.tuning import tune
from eesim.workload import Workload, load_workload

DEVICE = "stm32h7a3-xcubeai"
MAIN = "har-wisdm"
TWINS = ("ecg-mitbih-frozen", "ecg-mitbih")
DROP = 0.01
LEARNED = ("max-softmax", "eenet", "berxit", "class-means", "zero-time-waste", "jei-dnn")
DEADLINES = (0.25, 0.5, 0.75, 1.0)
"""Deadlines as shares of the static network's latency."""
BUDGETS = (0.3, 0.5, 0.7, 0.9)
LOAD = 1.2
"""Offered load in the bursts, as a multiple of what the static network can serve."""


def survey(workload: str | Workload = MAIN, twins: tuple[str, str] = TWINS, device: str = DEVICE) -> Claim:
    """Every axis switched on one workload and one device; the training regime on the frozen and the joint twin."""
    main, profile = load_workload(workload), load_profile(device)
    rows: list[dict[str, Any]] = []
    for axis in (_placement, _sharing, _policy, _budgeted, _anytime, _load):
        rows += [{"axis": axis.__doc__.rstrip("."), "workload": main.name, **row} for row in axis(main, profile)]
    for name in twins:
        twin = load_workload(name)
        row = _tuned(twin, profile, "max-softmax")
        rows.append({"axis": "training regime", "workload": name, "setting": f"heads trained {twin.trace.header.training_mode}", **row})
    table = pd.DataFrame(rows)
    return Claim(
        "The design space: what each axis is worth",
        "arXiv 2106.05022, taxonomy",
        "no numbers: the survey names the axes (placement, training, policy, deployment as subnet, budgeted, anytime or by load)",
        f"On {profile.name}, tuned on the calibration split for the least energy that loses at most {100 * DROP:g} point of accuracy unless the "
        "setting says otherwise; figures of the test split. Savings are of active energy against the static network.",
        table,
        tuple(_found(table)),
    )


def _figures(result: Result, static: Result) -> dict[str, Any]:
    return {
        "runs as": result["mechanism"], "accuracy": result["accuracy"], "accuracy lost": static["accuracy"] - result["accuracy"],
        "energy saved": 1 - result["active_mj_mean"] / static["active_mj_mean"], "latency p95, ms": result["latency_ms.p95"],
        "deadline missed": result["deadline_miss_rate"],
    }  # fmt: skip


def _tuned(workload: Workload, profile: Any, mechanism: str, **options: Any) -> dict[str, Any]:
    tuned = tune(workload, profile, mechanism, accuracy_drop=DROP, **options)
    static = simulate(workload, profile, "static", arrivals="closed")
    kept = {name: options[name] for name in ("exits",) if name in options}
    return _figures(simulate(workload, profile, tuned.mechanism, tuned.parameters, arrivals="closed", **kept), static)


def _placement(workload: Workload, profile: Any) -> Iterator[dict[str, Any]]:
    """exit placement."""
    whole = workload.enabled()
    yield {"setting": f"all exits {list(whole)}", **_tuned(workload, profile, "max-softmax")}
    found = []
    for subset in subsets_of("subsets", workload):
        if len(subset) > 1:
            tuned = tune(workload, profile, "max-softmax", accuracy_drop=DROP, exits=subset)
            found.append((tuned.calibration["energy_mj"], subset))
    best = min(found)[1]
    yield {"setting": f"best of {len(found)} subsets {list(best)}", **_tuned(workload, profile, "max-softmax", exits=best)}


def _sharing(workload: Workload, profile: Any) -> Iterator[dict[str, Any]]:
    """thresholds."""
    yield {"setting": "one for all exits", **_tuned(workload, profile, "max-softmax")}
    yield {"setting": "one for each exit", **_tuned(workload, profile, "max-softmax", per_exit=True)}


def _policy(workload: Workload, profile: Any) -> Iterator[dict[str, Any]]:
    """rule or learned."""
    for name in LEARNED:
        yield {"setting": name, **_tuned(workload, profile, name)}


def _budgeted(workload: Workload, profile: Any) -> Iterator[dict[str, Any]]:
    """budgeted."""
    static = simulate(workload, profile, "static", arrivals="closed")
    for q in BUDGETS:
        result = simulate(workload, profile, "budgeted", {"q": q}, arrivals="closed")
        yield {"setting": f"each exit's share {q:g} times the one before", **_figures(result, static)}


def _anytime(workload: Workload, profile: Any) -> Iterator[dict[str, Any]]:
    """anytime."""
    priced = cached_price(workload, profile, None, None)
    full = sum(priced.segment_ns) + priced.head_ns[-1]
    static = simulate(workload, profile, "static", arrivals="closed")
    for share in DEADLINES:
        deadline = f"{round(share * full)}ns"
        for name in ("static", "anytime"):
            result = simulate(workload, profile, name, arrivals="closed", deadline=deadline)
            yield {"setting": f"{name}, deadline {share:g} x static", **_figures(result, static)}


def _load(workload: Workload, profile: Any) -> Iterator[dict[str, Any]]:
    """by load."""
    priced = cached_price(workload, profile, None, None)
    rate = 1e9 * LOAD / (sum(priced.segment_ns) + priced.head_ns[-1])
    arrivals = f"bursty:{rate / 4:.6g}/s,{rate:.6g}/s,{40 / rate:.6g}s,{40 / rate:.6g}s"
    static = simulate(workload, profile, "static", arrivals="closed")
    for name, parameters in (("static", {}), ("max-softmax", {"threshold": 0.9}), ("queue-aware", {"threshold": 0.9})):
        result = simulate(workload, profile, name, parameters, arrivals=arrivals)
        yield {"setting": f"{name}, bursts of {LOAD:g} times what static can serve", **_figures(result, static)}


def _found(table: pd.DataFrame) -> Iterator[str]:
    """One sentence for each axis with its extremes."""
    words: dict[str, Callable[[pd.DataFrame], str]] = {
        "anytime": lambda rows: (
            ", ".join(
                f"{row.setting}: {100 * row['deadline missed']:.0f} % missed at accuracy {100 * row.accuracy:.1f} %" for _, row in rows.iterrows()
            )
            + _needless(rows)
        ),
        "by load": lambda rows: ", ".join(
            f"{row.setting.split(',')[0]} p95 {row['latency p95, ms']:.3g} ms at accuracy {100 * row.accuracy:.1f} %" for _, row in rows.iterrows()
        ),
    }
    plain = lambda rows: ", ".join(  # noqa: E731
        f"{row.setting} ({row.workload}) saves {100 * row['energy saved']:.1f} % and {points(row['accuracy lost'], 2)}" for _, row in rows.iterrows()
    )
    for axis, rows in table.groupby("axis", sort=False):
        yield f"{axis}: {words.get(axis, plain)(rows)}."


def _needless(rows: pd.DataFrame) -> str:
    """What to know about deadlines that static keeps too, and keeps more accurately."""
    by = {tuple(setting.split(", ")): row for setting, (_, row) in zip(rows.setting, rows.iterrows(), strict=True)}
    found = [deadline.removeprefix("deadline ") for name, deadline in by if name == "static"
             and by[name, deadline]["deadline missed"] == 0 and by[name, deadline].accuracy > by["anytime", deadline].accuracy]  # fmt: skip
    if not found:
        return ""
    return (
        f". At {' and '.join(found)}, static is in time itself and more accurate: the heads that anytime evaluates on the way cost the "
        "time in which it would have reached the last exit"
    )
