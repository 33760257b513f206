"""JEI-DNN (arXiv 2310.09163): joint gates and modules against thresholds on heads trained before, at equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from eesim.explore.claims.claim import Claim
from eesim.explore.compare import answer_calibration
from eesim.measures.calibration import conformal_quantiles, conformal_scores, conformal_sets, coverage, inefficiency
from eesim.mechanisms import load_mechanism
from eesim.mechanisms._deciding import decide
from eesim.simulation import simulate
from eesim.workload import Workload, load_workload

WORKLOADS = ("ecg-mitbih-frozen", "har-wisdm", "cifar10-resnet8")
DEVICE = "raspberry-pi-5-onnxruntime"
"""MACs do not depend on the device; one is needed to ask for them."""
TRADE_OFFS = (0.003, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 5.0)
RATIOS = tuple(round(p / 20, 2) for p in range(1, 40, 2))
ALPHA = 0.05
KINDS = (("fitted", 5.0), ("recorded", 5.0), ("recorded", 0.5))
"""Modules, and the largest weight in the gates' loss of samples that should leave: 5 in the public code, below 1 staying counts more."""


def jei_dnn(workloads: Sequence[str | Workload] = WORKLOADS) -> Claim:
    """Accuracy, calibration error and size of conformal sets over trade-offs, and those of budgeted thresholds at equal cost."""
    table = pd.DataFrame([row for name in workloads for row in _rows(load_workload(name))])
    return Claim(
        "JEI-DNN: more accurate at equal cost, and better calibrated",
        "arXiv 2310.09163, abstract",
        "gates and inference modules learned jointly beat thresholds on separately trained heads at equal cost, with smaller calibration errors and "
        "conformal sets",
        f"Linear modules on the recorded features and gates, learned together for {len(TRADE_OFFS)} trade-offs, and gates alone on the recorded "
        "heads; beside them budgeted max-softmax thresholds (MSDNet) on the recorded heads, interpolated to the same cost. Test split. The "
        "paper learns its modules on training images; here only the calibration split has features (some patients, subjects, images; 16 dimensions), "
        "while the recorded heads saw the training set: the learned modules are up against that. "
        f"Sets: conformal at alpha {ALPHA:g}, a quantile "
        "for each exit (variant gated) from the calibration split, where the modules judge out of fold.",
        table,
        tuple(_found(table)),
    )


def _rows(workload: Workload) -> list[dict[str, Any]]:
    static = simulate(workload, DEVICE, "static", arrivals="closed")
    plain = pd.DataFrame([_measured(workload, static, "budgeted", {"q": q}) for q in RATIOS]).sort_values("cost share")
    rows = []
    for (modules, weight), trade_off in product(KINDS, TRADE_OFFS):
        ours = _measured(workload, static, "jei-dnn", {"trade_off": trade_off, "modules": modules, "pos_weight_max": weight})
        theirs = {
            f"budgeted: {name}": float(np.interp(ours["cost share"], plain["cost share"], plain[name]))
            if plain["cost share"].min() <= ours["cost share"] <= plain["cost share"].max()
            else None
            for name in ("accuracy", "ECE", "set size")
        }
        rows.append(
            {
                "workload": workload.name,
                "static accuracy": static["accuracy"],
                "modules": modules,
                "largest weight": weight,
                "trade-off": trade_off,
                **ours,
                **theirs,
            }
        )
    return rows


def _measured(workload: Workload, static: Any, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    result = simulate(workload, DEVICE, name, parameters, arrivals="closed")
    sets, labels = conformal(workload, name, parameters)
    return {
        "cost share": result["macs_mean"] / static["macs_mean"], "accuracy": result["accuracy"], "ECE": answer_calibration(result),
        "set size": inefficiency(sets), "coverage": coverage(sets, labels),
    }  # fmt: skip


def conformal(workload: Workload, name: str, parameters: dict[str, Any], alpha: float = ALPHA) -> tuple[np.ndarray, np.ndarray]:
    """Conformal sets bool [N, K] of the test split, and its labels; quantiles from the calibration split."""
    rule = load_mechanism(name)
    seen = {}
    for split in ("calibration", "test"):
        view = workload.view(split)
        values = rule.settle(parameters, view, lambda: workload.view("calibration"))
        probabilities = rule.probabilities(view, values) if hasattr(rule, "probabilities") else view.probabilities
        seen[split] = view.label, probabilities, decide(rule, view, values).exit
    label, probabilities, exits = seen["calibration"]
    known = label >= 0
    quantiles = conformal_quantiles(conformal_scores(probabilities[known], label[known]), exits[known], alpha)
    label, probabilities, exits = seen["test"]
    return conformal_sets(probabilities, quantiles, exits), label


def _found(table: pd.DataFrame) -> list[str]:
    lines = []
    for (workload, modules, weight), rows in table.groupby(["workload", "modules", "largest weight"], sort=False):
        name = f"{workload}, {'modules learned with the gates' if modules == 'fitted' else 'recorded heads, gates only'}, weights up to {weight:g}"
        both = rows.dropna(subset=["budgeted: accuracy"])
        if not len(both):
            lines.append(f"{name}: no trade-off costs what any budget does, so there is nothing to compare.")
            continue
        gain = 100 * (both.accuracy - both["budgeted: accuracy"])
        error, size = 100 * (both.ECE - both["budgeted: ECE"]), both["set size"] - both["budgeted: set size"]
        span = f"{100 * both['cost share'].min():.0f} to {100 * both['cost share'].max():.0f} %"
        lines.append(
            f"{name}: over {len(both)} trade-offs that cost {span} of static, "
            f"accuracy against budgeted thresholds at equal cost {gain.mean():+.2f} points on average ({gain.min():+.2f} to {gain.max():+.2f}), "
            f"calibration error {error.mean():+.2f} points, conformal sets {size.mean():+.3f} classes."
        )
    return lines
