"""Temporal Decisions (arXiv 2403.07958): does the order of a stream save computing, and does it stop to when the order is lost?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from eesim.cost import MechanismCost
from eesim.explore.claims.claim import Claim
from eesim.hardware import load_profile
from eesim.mechanisms import load_mechanism
from eesim.result import Result
from eesim.simulation import cached_price, simulate
from eesim.trace.describe import describe
from eesim.tuning import evaluate, tune
from eesim.workload import Workload, load_workload

STREAMS = ("kws-wakeword-stream", "cifar10-stream", "har-wisdm", "ecg-rhythm", "ecg-mitbih")
RULES = ("difference-detection", "temporal-patience", "max-softmax")
DROP = 0.05
DEVICE = "raspberry-pi-5-onnxruntime"
"""Operations do not depend on the device; one is needed to ask for them."""


def temporal(workloads: Sequence[str | Workload] = STREAMS, rules: Sequence[str] = RULES, drop: float = DROP) -> Claim:
    """Operations saved within 5 points of balanced accuracy, in recorded and in shuffled order, beside the bounds."""
    rows = [row for name in workloads for row in _rows(load_workload(name), rules, drop)]
    table = pd.DataFrame(rows)
    return Claim(
        "Temporal Decisions: order saves computing",
        "arXiv 2403.07958, abstract",
        "up to 80 % fewer mean operations per inference within 5 points of the accuracy of the full model, and better than confidence-based "
        "exits on correlated streams",
        f"Difference Detection, Temporal Patience and max-softmax, each tuned on the calibration split for the fewest MACs that lose at most "
        f"{100 * drop:g} points of balanced accuracy; figures of the test split, in recorded order and with the same settings in shuffled order. "
        "`max-softmax at equal` is what a shared confidence threshold saves where it reaches the same balanced accuracy on the test split.",
        table,
        tuple(_found(table)),
    )


def _rows(workload: Workload, rules: Sequence[str], drop: float) -> list[dict[str, Any]]:
    persistence = describe(workload.trace)["splits"]["test"]["persistence"]
    static = simulate(workload, DEVICE, "static", arrivals="closed")
    rows = []
    for name in (*rules, "first-exit", "constant"):
        row: dict[str, Any] = {"workload": workload.name, "persistence": persistence, "mechanism": name}
        if name in rules:
            tuned = tune(workload, DEVICE, name, accuracy_drop=drop, objective="macs", metric="balanced_accuracy")
            run = {order: simulate(workload, DEVICE, tuned.mechanism, tuned.parameters, arrivals="closed", order=order)
                   for order in ("recorded", "shuffled")}  # fmt: skip
            row["runs as"] = tuned.mechanism.name
        else:
            run = {"recorded": simulate(workload, DEVICE, name, arrivals="closed")}
            row["runs as"] = name
        for order, result in run.items():
            row[f"saved, {order}"] = saved(result, static)
            row[f"balanced lost, {order}"] = static["balanced_accuracy"] - result["balanced_accuracy"]
            row[f"accuracy lost, {order}"] = static["accuracy"] - result["accuracy"]
        row["max-softmax at equal"] = None if name == "max-softmax" else confidence_at(workload, run["recorded"]["balanced_accuracy"], static)
        rows.append(row)
    return rows


def saved(result: Result, static: Result) -> float:
    """Share of the full network's MACs that were not done."""
    return 1 - result["macs_mean"] / static["macs_mean"]


def confidence_at(workload: Workload, balanced: float, static: Result) -> float | None:
    """The largest share of MACs that a shared max-softmax threshold saves with at least this balanced accuracy on the test split."""
    view, rule = workload.view("test"), load_mechanism("max-softmax")
    price = cached_price(workload, load_profile(DEVICE), None, None)
    settings = [rule.settle(values, view) for values in rule.candidates(view, 500)]
    said = evaluate(view, rule, settings, MechanismCost(price, view.recorded_exits, rule, view.classes))
    able = said.balanced_accuracy >= balanced - 1e-12
    return float(1 - said.cost["macs"][able].min() / static["macs_mean"]) if able.any() else None


def _found(table: pd.DataFrame) -> list[str]:
    lines = []
    for name, rows in table.groupby("workload", sort=False):
        row = rows.set_index("mechanism")
        confidence = row.loc[RULES[2]]
        told = []
        for rule in RULES[:2]:
            one = row.loc[rule]
            told.append(
                f"{rule} saves {_percent(one['saved, recorded'])} for {_points(one['balanced lost, recorded'])} points "
                f"(max-softmax at equal balanced accuracy {_percent(one['max-softmax at equal'])}), in shuffled order "
                f"{_percent(one['saved, shuffled'])} for {_points(one['balanced lost, shuffled'])}"
            )
        lines.append(
            f"{name} (label persistence {confidence.persistence:.2f}): {'; '.join(told)}. Max-softmax tuned alike saves "
            f"{_percent(confidence['saved, recorded'])} for {_points(confidence['balanced lost, recorded'])}, always-first-exit "
            f"{_percent(row.loc['first-exit', 'saved, recorded'])} for {_points(row.loc['first-exit', 'balanced lost, recorded'])}."
        )
    return lines


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _percent(share: float | None) -> str:
    return "nothing" if share is None or np.isnan(share) else f"{100 * share:.1f} %"
