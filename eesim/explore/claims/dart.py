"""DART (arXiv 2603.12269): speed-up, energy and DAES over static, beside BranchyNet, and what each of its parts adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from eesim.explore.claims.claim import Claim
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
    """Static, BranchyNet and DART with its ablations on a GPU, a mobile CPU and a microcontroller; networks without a trace are left out."""
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
        f"at most {100 * drop:g} points of accuracy; figures of the test split, without waiting. Ablations: difficulty off, the inverse sign, one "
        "threshold for all exits in place of joint optimisation, coefficients that adapt while it runs. Rows with 'full-width costs' price the "
        "paper's full network on the GPU and take the answers from the quarter-width trace: a what-if, for no full-width trace was recorded.",
        table,
        tuple(_found(table)),
    )


def _rows(workload: Workload, device: str, drop: float) -> list[dict[str, Any]]:
    from eesim.hardware import load_profile

    profile = load_profile(device)
    shares = cost_shares(workload, profile)
    runs: list[tuple[str, Result]] = [("static", simulate(workload, profile, "static", arrivals="closed"))]
    branchy = tune(workload, profile, "entropy", accuracy_drop=drop, objective="latency")
    runs.append(("BranchyNet (entropy)", _run(workload, profile, branchy)))
    for part, given in PARTS.items():
        tuned = _shared(workload, profile, drop) if part == "without joint optimisation" else tune(
            workload, profile, "dart", accuracy_drop=drop, objective="latency", parameters={**given, "cost_share": shares}
        )  # fmt: skip
        runs.append((part, _run(workload, profile, tuned)))
    static = runs[0][1]
    rows = []
    for item in judged(runs, "latency"):
        result = item.result
        speed = static["latency_ms.mean"] / result["latency_ms.mean"]
        energies = static["active_mj_mean"], result["active_mj_mean"]
        rows.append({
            "network": _name(workload), "device": profile.name, "method": item.asked, "runs as": result["mechanism"],
            "accuracy": result["accuracy"], "latency, ms": result["latency_ms.mean"], "energy, mJ": energies[1], "speed-up": speed,
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
        parameters={"beta_diff": 0.3},
    )  # fmt: skip


def _name(workload: Workload) -> str:
    recorded = workload.trace.header.network
    return recorded if workload.network is load_workload(workload.folder).network else f"{recorded}, full-width costs"


def _run(workload: Workload, profile: Any, tuned: Tuned) -> Result:
    return simulate(workload, profile, tuned.mechanism, tuned.parameters, arrivals="closed")


def _found(table: pd.DataFrame) -> list[str]:
    lines = []
    for (network, device), rows in table.groupby(["network", "device"], sort=False):
        row = rows.set_index("method")
        if (rows["runs as"] == "static").all():
            lines.append(
                f"{network} on {device}: nothing is faster than static within the drop; at batch 1, asking after an exit (which waits for the "
                "host on a GPU) and its head cost more than the layers that leaving there spares."
            )
            continue
        gain = row.loc["DART", "energy gain"]
        daes = row.DAES / row.loc["static", "DAES"]
        lines.append(
            f"{network} on {device}: DART is {row.loc['DART', 'speed-up']:.2f} times faster"
            + ("" if gain is None or gain != gain else f" and takes {gain:.2f} times less energy")
            + f" for {100 * (row.loc['static', 'accuracy'] - row.loc['DART', 'accuracy']):.1f} points (BranchyNet "
            f"{row.loc['BranchyNet (entropy)', 'speed-up']:.2f} for "
            f"{100 * (row.loc['static', 'accuracy'] - row.loc['BranchyNet (entropy)', 'accuracy']):.1f}); DAES {daes['DART']:.2f} times static's. "
            f"Speed-up without difficulty {row.loc['without difficulty', 'speed-up']:.2f}, without joint optimisation "
            f"{row.loc['without joint optimisation', 'speed-up']:.2f}, adaptive {row.loc['adaptive, class-aware', 'speed-up']:.2f}."
        )
    return lines
