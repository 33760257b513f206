"""Temporal Decisions (arXiv 2403.07958): does the order of a stream save computing, and does it stop to when the order is lost?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from eesim.cost import MechanismCost
from eesim.explore.claims.claim import Claim, points, spelled
from eesim.hardware import load_profile
from eesim.mechanisms import load_mechanism
from eesim.result import Result
from eesim.simulation import cached_price, simulate
from eesim.tuning import search, tune
from eesim.workload import Workload, load_workload

STREAMS = ("kws-wakeword-stream", "cifar10-stream", "har-wisdm", "ecg-rhythm", "ecg-mitbih")
RULES = ("difference-detection", "temporal-patience")
CONFIDENCE = {"max-softmax": False, "max-softmax, per exit": True}
"""The confidence rules beside them: whether each exit has a threshold of its own."""
DROP = 0.05
CLAIMED = 0.8
"""Share of the operations that the paper saves, within `DROP`."""
WEAK = 0.1
"""Where shuffling takes less than this from the label persistence, it is no control."""
DEVICE = "raspberry-pi-5-onnxruntime"
"""Operations do not depend on the device; one is needed to ask for them."""


def temporal(workloads: Sequence[str | Workload] = STREAMS, drop: float = DROP) -> Claim:
    """Operations saved within 5 points of balanced accuracy, in recorded and in shuffled order, beside confidence rules and bounds."""
    table = pd.DataFrame([row for name in workloads for row in _rows(load_workload(name), drop)])
    return Claim(
        "Temporal Decisions: does order save computing?",
        "arXiv 2403.07958, abstract",
        "up to 80 % fewer mean operations per inference within 5 points of the accuracy of the full model, and better than confidence-based "
        "exits on correlated streams",
        "Difference Detection, Temporal Patience and max-softmax (one threshold for all exits, and one for each), tuned on the calibration split for "
        f"the fewest MACs that lose at most {100 * drop:g} points of balanced accuracy; figures of the test split, in recorded order and with the "
        "same settings in shuffled order. Shuffling mixes the order of all samples, but state is kept per stream, so each sample still meets its own "
        "stream only (a patient, a subject): `persistence` says how often a label repeats the one before it in its stream, before and after. "
        "`at equal` is the most that max-softmax thresholds save on the test split with at least the same balanced accuracy as the rule; they are "
        "chosen on the test split itself, which favours them.",
        table,
        tuple(_found(table, drop)),
    )


def _rows(workload: Workload, drop: float) -> list[dict[str, Any]]:
    static = simulate(workload, DEVICE, "static", arrivals="closed")
    rows = []
    for name in (*RULES, *CONFIDENCE, "first-exit", "constant"):
        row: dict[str, Any] = {"workload": workload.name, "persistence": None, "persistence, shuffled": None, "mechanism": name}
        if name in RULES or name in CONFIDENCE:
            options = {"accuracy_drop": drop, "objective": "macs", "metric": "balanced_accuracy", "per_exit": CONFIDENCE.get(name, False)}
            tuned = tune(workload, DEVICE, "max-softmax" if name in CONFIDENCE else name, **options)
            run = {order: simulate(workload, DEVICE, tuned.mechanism, tuned.parameters, arrivals="closed", order=order)
                   for order in ("recorded", "shuffled")}  # fmt: skip
            row["runs as"] = tuned.mechanism.name
            row["persistence"], row["persistence, shuffled"] = (persistence(result) for result in run.values())
        else:
            run = {"recorded": simulate(workload, DEVICE, name, arrivals="closed")}
            row |= {"runs as": name, **{key: rows[0][key] for key in ("persistence", "persistence, shuffled")}}
        for order, result in run.items():
            row[f"saved, {order}"] = saved(result, static)
            row[f"balanced lost, {order}"] = static["balanced_accuracy"] - result["balanced_accuracy"]
            row[f"accuracy lost, {order}"] = static["accuracy"] - result["accuracy"]
        for rule, each in CONFIDENCE.items():
            known = confidence_at(workload, run["recorded"]["balanced_accuracy"], static, per_exit=each) if name in RULES else None
            row[f"{rule} at equal"] = known
        rows.append(row)
    return rows


def saved(result: Result, static: Result) -> float:
    """Share of the full network's MACs that were not done."""
    return 1 - result["macs_mean"] / static["macs_mean"]


def persistence(result: Result) -> float | None:
    """How often, in the order of a pass, a label repeats the one before it in its stream; None without pairs."""
    scenario = result.outcomes[0].scenario
    order = scenario.rows[np.argsort(scenario.view.streams[0][scenario.rows], kind="stable")]
    label, stream = scenario.view.label[order], scenario.view.streams[0][order]
    pairs = (stream[1:] == stream[:-1]) & (label[1:] >= 0) & (label[:-1] >= 0)
    return float((label[1:] == label[:-1])[pairs].mean()) if pairs.any() else None


def confidence_at(workload: Workload, balanced: float, static: Result, *, per_exit: bool = False) -> float | None:
    """The largest share of MACs that max-softmax thresholds save with at least this balanced accuracy on the test split."""
    view, rule = workload.view("test"), load_mechanism("max-softmax")
    cost = MechanismCost(cached_price(workload, load_profile(DEVICE), None, None), view.recorded_exits, rule, view.classes)
    least = balanced - 1e-12
    said = search(view, rule, cost, least=least, objective="macs", metric="balanced_accuracy", per_exit=per_exit, given={})[1]
    able = said.balanced_accuracy >= least
    return float(1 - said.cost["macs"][able].min() / static["macs_mean"]) if able.any() else None


def _found(table: pd.DataFrame, drop: float) -> Iterator[str]:
    yield from _verdict(table, drop)
    for name, rows in table.groupby("workload", sort=False):
        row = rows.set_index("mechanism")
        told = [
            f"{rule} saves {_percent(one['saved, recorded'])} and {points(one['balanced lost, recorded'])} (max-softmax at equal balanced accuracy "
            f"saves {_percent(one['max-softmax at equal'])}, with a threshold for each exit {_percent(one['max-softmax, per exit at equal'])}), in "
            f"shuffled order {_percent(one['saved, shuffled'])} and {points(one['balanced lost, shuffled'])}"
            for rule, one in ((rule, row.loc[rule]) for rule in RULES)
        ]
        alone = [f"{_percent(row.loc[rule, 'saved, recorded'])} and {points(row.loc[rule, 'balanced lost, recorded'])}"
                 for rule in (*CONFIDENCE, "first-exit")]  # fmt: skip
        yield (
            f"{name} (label persistence {_share(row.persistence.iloc[0])}, shuffled {_share(row['persistence, shuffled'].iloc[0])}): "
            f"{'; '.join(told)}. Tuned alike, max-softmax saves {alone[0]}, with a threshold for each exit {alone[1]}; always leaving at the first "
            f"exit saves {alone[2]}."
        )


def _verdict(table: pd.DataFrame, drop: float) -> Iterator[str]:
    streams = list(dict.fromkeys(table.workload))
    for rule in RULES:
        rows = table[table.mechanism == rule].set_index("workload")
        others = rows[[f"{name} at equal" for name in CONFIDENCE]].astype(float).max(axis=1).fillna(0.0)
        beats = rows["saved, recorded"] > others
        above = rows["saved, recorded"] > rows["max-softmax at equal"].astype(float).fillna(0.0)
        holds = [name for name in streams if beats[name] and rows.loc[name, "saved, shuffled"] < rows.loc[name, "saved, recorded"]]
        shared = [name for name in streams if above[name] and not beats[name]]
        reached = [name for name in streams if rows.loc[name, "saved, recorded"] >= CLAIMED and rows.loc[name, "balanced lost, recorded"] <= drop]
        yield (
            f"Verdict, {rule}: it saves more than confidence thresholds at equal balanced accuracy, and less once the order is lost, on {len(holds)} "
            f"of {len(streams)} streams ({spelled(holds)})"
            + (f"; more than one shared threshold, but not more than one for each exit, on {spelled(shared)}" if shared else "")
            + f". {100 * CLAIMED:g} % saved within {100 * drop:g} points: {spelled(reached)}."
        )
    gone = table.set_index("workload")[["persistence", "persistence, shuffled"]].astype(float).groupby(level=0, sort=False).first()
    weak = gone[gone["persistence"] - gone["persistence, shuffled"] < WEAK]
    if len(weak):
        names = spelled(f"{name} ({_share(row.iloc[0])} to {_share(row.iloc[1])})" for name, row in weak.iterrows())
        yield f"Shuffling is hardly a control where labels persist within a stream in any order: {names}; what is saved there says little."
    over = table[table.mechanism.isin([*RULES, *CONFIDENCE]) & (table["balanced lost, recorded"] > drop)]
    if len(over):
        names = spelled(f"{row.mechanism} on {row.workload} ({100 * row['balanced lost, recorded']:.1f})" for _, row in over.iterrows())
        yield f"More than the {100 * drop:g} points that calibration allowed was lost on the test split by {names}."


def _percent(share: float | None) -> str:
    return "nothing" if share is None or np.isnan(share) else f"{100 * share:.1f} %"


def _share(value: float | None) -> str:
    return "not known" if value is None or np.isnan(value) else f"{value:.3f}"
