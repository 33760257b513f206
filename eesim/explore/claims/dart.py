"""DART (arXiv 2603.12269): speed-up, energy and DAES over static, beside BranchyNet and plain thresholds, and what each of its parts adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from eesim.explore.claims.claim import Claim, points, span
from eesim.explore.compare import judged
from eesim.mechanisms import ThresholdMechanism, load_mechanism
from eesim.mechanisms.base import Values
from eesim.network.network import read_network
from eesim.result import Result
from eesim.simulation import cached_price, simulate
from eesim.tuning import Tuned, tune, tune_priced
from eesim.workload import Workload, bundled_workloads, load_workload

NETWORKS = ("alexnet", "vgg16", "resnet18", "cifar10-resnet8")
FULL_WIDTH = ("alexnet", "vgg16", "resnet18")
"""Networks of the paper whose full-width layer table is bundled: priced with what the reduced network's exits said."""
FULL_DEVICE = "h200"
DEVICES = ("h200", "raspberry-pi-5-onnxruntime", "stm32h7a3-xcubeai")
DROP = 0.02
"""The paper's DART loses 0 to 3 points on its CNNs (Table I)."""
BETA = 0.3
"""How much difficulty moves the bar: the paper's value. It is not tuned here, so that parts differ in nothing but what they are named after."""
PLAIN = {"BranchyNet (entropy)": ("entropy", False), "max-softmax, shared": ("max-softmax", False), "max-softmax, per exit": ("max-softmax", True)}
"""Plain threshold rules, from BranchyNet towards DART: which, and whether each exit has a threshold of its own."""
PARTS = {
    "DART": {},
    "without difficulty": {"beta_diff": 0.0},
    "sign inverse": {"difficulty_sign": "inverse"},
    "without joint optimisation": {},
    "adaptive, class-aware": {"adaptive": "class-aware"},
    "adaptive, ucb1": {"adaptive": "ucb1"},
    "adaptive, labels never": {"adaptive": "class-aware", "labels": "never"},
}
"""The method and its ablations, by what is given; the thresholds are tuned."""


def dart(networks: Sequence[str | Workload] = NETWORKS, devices: Sequence[str] = DEVICES, drop: float = DROP) -> Claim:
    """Static, plain thresholds and DART with its ablations on a GPU, a mobile CPU and a microcontroller; networks without a trace are left out."""
    recorded = bundled_workloads()[0]
    chosen = [load_workload(name) for name in networks if not isinstance(name, str) or name in recorded]
    cases = [(workload, device) for workload in chosen for device in devices]
    cases += [(full, FULL_DEVICE) for workload in chosen if (full := full_width(workload)) is not None and FULL_DEVICE in devices]
    table = pd.DataFrame([row for workload, device in cases for row in _rows(workload, device, drop)])
    return Claim(
        "DART: faster and less energy than static",
        "arXiv 2603.12269, Table I and text",
        "up to 3.3 times faster and 5.1 times less energy than static, DAES up to 14.8 times static's (A100, full-width networks)",
        f"The bundled networks, width-reduced where their name says so. Every method tuned on the calibration split for the least latency that loses "
        f"at most {100 * drop:g} points of accuracy; figures of the test split, without waiting. Beside DART stand BranchyNet (entropy, one "
        f"threshold for all exits) and max-softmax with one threshold and with one for each exit. DART has beta_diff = {BETA:g} (the paper's) in all "
        "but 'without difficulty', and all parts the same search (the optima of DART's objective, then one exit after the other), except one "
        "threshold in place of joint optimisation, and coefficients that adapt while it runs, which take the optima as they are. "
        "'Without difficulty' is the rule of max-softmax with a threshold for each exit, found by another search: how far the two are apart is what "
        "the search is worth. "
        "DAES is computed from mean latencies and energies, where the paper takes medians. Rows with 'full-width costs' price the "
        "paper's full network on the GPU and take the answers from the quarter-width trace: a what-if, for no full-width trace was recorded.",
        table,
        tuple(_found(table)),
    )


def _rows(workload: Workload, device: str, drop: float) -> list[dict[str, Any]]:
    from eesim.hardware import load_profile

    profile = load_profile(device)
    shares = cost_shares(workload, profile)
    runs: list[tuple[str, Result]] = [("static", simulate(workload, profile, "static", arrivals="closed"))]
    betas: dict[str, float | None] = {}
    wanted = {"accuracy_drop": drop, "objective": "latency"}
    for name, (rule, each) in PLAIN.items():
        runs.append((name, _run(workload, profile, tune(workload, profile, rule, per_exit=each, **wanted))))
    for part, given in PARTS.items():
        given = {"beta_diff": BETA, **given, "cost_share": shares}
        if part == "without joint optimisation":
            tuned = _shared(workload, profile, drop)
        else:
            tuned = tune(workload, profile, "dart", parameters=given, per_exit="adaptive" not in given, **wanted)
        runs.append((part, _run(workload, profile, tuned)))
        betas[part] = tuned.parameters.get("beta_diff")
    static = runs[0][1]
    rows = []
    for item in judged(runs, "latency"):
        result = item.result
        speed = static["latency_ms.mean"] / result["latency_ms.mean"]
        energies = static["active_mj_mean"], result["active_mj_mean"]
        rows.append({
            "network": _name(workload), "device": profile.name, "method": item.asked, "runs as": result["mechanism"],
            "beta_diff": betas.get(item.asked), "accuracy": result["accuracy"], "accuracy lost": static["accuracy"] - result["accuracy"],
            "latency, ms": result["latency_ms.mean"], "energy, mJ": energies[1], "speed-up": speed,
            "energy gain": None if None in energies else energies[0] / energies[1], "DAES": item.daes, "ECE": item.ece,
            "MACs saved": 1 - result["macs_mean"] / static["macs_mean"],
        })  # fmt: skip
    return rows


def full_width(workload: Workload) -> Workload | None:
    """The workload with the full network's layers, where its folder holds them; the trace stays that of the reduced network."""
    path = workload.folder / "network-full.yaml"
    if workload.name not in FULL_WIDTH or not path.is_file():
        return None
    return replace(workload, network=read_network(path), memo={})


def cost_shares(workload: Workload, profile: Any) -> tuple[float, ...]:
    """Latency up to each recorded exit but the last, heads on the way included, as shares of the static network's on one device."""
    priced = cached_price(workload, profile, None, None)
    full = sum(priced.segment_ns) + priced.head_ns[-1]
    return tuple(
        round(min(sum(priced.segment_ns[: exit + 1]) + sum(priced.head_ns[: exit + 1]), full) / full, 6) for exit in range(len(priced.head_ns) - 1)
    )


def _shared(workload: Workload, profile: Any, drop: float) -> Tuned:
    """DART with one threshold for all exits, the best of a fine grid."""

    class Shared(type(load_mechanism("dart"))):
        """DART whose candidates are single thresholds."""

        def candidates(self, view, count: int, given: Values | None = None) -> list[Values]:
            """One threshold for all exits."""
            return ThresholdMechanism.candidates(self, view, count, given)

    price = cached_price(workload, profile, None, None)
    return tune_priced(
        workload, price, Shared(), accuracy_drop=drop, objective="latency", metric="accuracy", per_exit=False, exits=workload.enabled(None),
        parameters={"beta_diff": BETA},
    )  # fmt: skip


def _name(workload: Workload) -> str:
    recorded = workload.trace.header.network
    return recorded if workload.network is load_workload(workload.folder).network else f"{recorded}, full-width costs"


def _run(workload: Workload, profile: Any, tuned: Tuned) -> Result:
    return simulate(workload, profile, tuned.mechanism, tuned.parameters, arrivals="closed")


def _found(table: pd.DataFrame) -> Iterator[str]:
    cases = {case: rows.set_index("method") for case, rows in table.groupby(["network", "device"], sort=False)}
    yield from _verdict(cases)
    for (network, device), row in cases.items():
        name = f"{network} on {device}"
        if (row["runs as"] == "static").all():
            yield (
                f"{name}: nothing within the drop was faster than static in calibration: asking after an exit (which on a GPU waits for the host) "
                "and its head cost more than the layers that are spared where leaving is right."
            )
            continue
        ratio = row.loc["DART", "DAES"] / row.loc["static", "DAES"]
        yield (
            f"{name}: DART {_told(row.loc['DART'])}"
            + ("" if row.loc["DART", "runs as"] == "static" else _energy(row.loc["DART", "energy gain"]))
            + ("" if np.isnan(ratio) or row.loc["DART", "runs as"] == "static" else f"; DAES {ratio:.2f} times static's")
            + ". "
            + "; ".join(f"{method} {_told(row.loc[method])}" for method in PLAIN)
            + ". DART "
            + ", ".join(f"{'' if part.startswith(('without', 'adaptive')) else 'with '}{part} {_speed(row.loc[part])}" for part in list(PARTS)[1:])
            + "."
        )


def _verdict(cases: dict[tuple[str, str], pd.DataFrame]) -> Iterator[str]:
    kept = {case: rows for case, rows in cases.items() if rows.loc["DART", "runs as"] != "static"}
    faster = [rows for rows in kept.values() if rows.loc["DART", "speed-up"] > 1]
    told = f"Verdict: DART is faster than static in {len(faster)} of {len(cases)} cases (a network on a device)"
    if len(kept) > len(faster):
        told += f", slower on the test split in {len(kept) - len(faster)}, where calibration promised a gain"
    yield told + (f"; in the other {len(cases) - len(kept)} nothing within the drop was faster in calibration." if len(kept) < len(cases) else ".")
    ladder = [*PLAIN, "DART"]
    full = [rows for rows in kept.values() if (rows.loc[ladder, "runs as"] != "static").all()]
    if not full:
        return

    def against(part: str, other: str) -> tuple[list[float], list[float]]:
        """By how many percent a method is faster than another, and how many points it loses more, case by case."""
        return (
            [100 * (rows.loc[part, "speed-up"] / rows.loc[other, "speed-up"] - 1) for rows in full],
            [100 * (rows.loc[part, "accuracy lost"] - rows.loc[other, "accuracy lost"]) for rows in full],
        )

    yield (
        f"In {len(full)} cases every rule runs. Rung by rung, each against the one before (speed, and points of accuracy lost more): "
        + "; ".join(
            f"{method} against {before}: {span(speeds, ' %')}, {span(lost, digits=2)} points"
            for before, method in pairwise(ladder)
            for speeds, lost in [against(method, before)]
        )
        + f". DART against {ladder[0]} in all: {span(against('DART', ladder[0])[0], ' %')}."
    )
    (difficulty, harder), (sign, turned) = against("DART", "without difficulty"), against("DART", "sign inverse")
    search = against("without difficulty", "max-softmax, per exit")[0]
    noise = max(abs(value) for value in search)
    above = [sum(abs(value) > noise for value in values) for values in (difficulty, sign)]
    larger = f"larger than what the search is worth in {above[0]} and {above[1]} of {len(full)} cases" if any(above) else "never more than the search"
    yield (
        f"What the search alone is worth (the same rule, found in two ways): {span(search, ' %')}. DART against itself without difficulty: "
        f"{span(difficulty, ' %')}, {span(harder, digits=2)} points lost more; against the inverse sign {span(sign, ' %')}, {span(turned, digits=2)} "
        f"points: {larger}. Against one threshold for all exits: {span(against('DART', 'without joint optimisation')[0], ' %')}; against "
        f"class-aware coefficients: {span(against('DART', 'adaptive, class-aware')[0], ' %')}."
    )


def _speed(row: pd.Series) -> str:
    if row["runs as"] == "static":
        return "keeps static"
    speed = round(row["speed-up"], 2)
    return f"{speed:.2f}{' (slower than static)' if speed < 1 else ''}"


def _told(row: pd.Series) -> str:
    """Speed and loss in words."""
    if row["runs as"] == "static":
        return "finds nothing faster within the drop and keeps static"
    speed = round(row["speed-up"], 2)
    words = f"is {speed:.2f} times as fast as static" + (" (slower)" if speed < 1 else "")
    return f"{words} and {points(row['accuracy lost'])}"


def _energy(gain: float | None) -> str:
    if gain is None or np.isnan(gain):
        return ""
    return f", with {gain:.2f} times less energy" if round(gain, 2) > 1 else f", with {1 / gain:.2f} times the energy"
