"""How plans look on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eesim.report.figures import COMPARISON, comparison_row
from eesim.report.table import number, parameters, print_table
from eesim.result import flatten

if TYPE_CHECKING:
    from eesim.explore.plan import Plan

WORDS = {
    "rate": "load", "min_accuracy": "accuracy", "min_balanced_accuracy": "balanced accuracy", "max_mean": "mean", "max_p95": "p95", "max_p99": "p99",
    "max_energy": "energy", "max_active_energy": "active energy", "max_miss_rate": "misses", "fits": "memory",
}  # fmt: skip


def print_plan(plan: Plan, top: int) -> None:
    """The best deployments with their margins, then for each device without one what it breaks and by how much."""
    units = {constraint.name: constraint.unit for constraint in plan.constraints}

    def margin(item: Any) -> str:
        parts = []
        for constraint in plan.constraints:
            value = item.margins[constraint.name]
            if constraint.name == "fits":
                continue
            if value is not None:
                shown = f"{100 * value:.1f} %" if not constraint.unit else f"{number(value, 3)} {constraint.unit}"
                parts.append(f"{shown} of capacity" if constraint.name == "rate" else f"{WORDS[constraint.name]} {shown}")
        return "; ".join(parts)

    def row(item: Any) -> dict[str, Any]:
        summary = item.summary
        return {
            **comparison_row(_flat(summary)), "workload": summary["workload"], "exits_used": ",".join(map(str, summary["exits"])),
            "margin": margin(item), "flash": item.memory["flash_kib"], "sram": item.memory["sram_kib"],
        }  # fmt: skip

    columns = {key: COMPARISON[key] for key in ("profile", "rule")} | {"exits_used": "exits"}
    columns |= {key: COMPARISON[key] for key in ("accuracy", "balanced", "latency", "p99", "active", "energy", "utilization")}
    if len({item.summary["workload"] for item in [*plan.deployments, *plan.rejected]}) > 1:
        columns = {"workload": "workload"} | columns
    if plan.deployments:
        more = {"flash": "flash KiB", "sram": "RAM KiB", "margin": "to spare"}
        print_table([row(item) for item in plan.deployments[:top]], columns | more, f"Deployments, best {plan.objective} first")
    if plan.bounds:
        print_table([row(item) for item in plan.bounds], columns, "Bounds, whatever the constraints")
    for item in plan.rejected:
        summary = item.summary
        rule = f"{summary['mechanism']} {parameters(summary['parameters'])}".strip()
        where = f"{summary['workload']} on {summary['profile']} at {summary['operating_point']}"
        print(f"rejected: {where}: {'; '.join(_breach(plan, item, units))} (nearest: {rule}, exits {','.join(map(str, summary['exits']))})")


def _breach(plan: Plan, item: Any, units: dict[str, str]) -> list[str]:
    found = []
    for constraint in plan.constraints:
        if constraint.name not in item.broken:
            continue
        value, word, unit = item.broken[constraint.name], WORDS[constraint.name], units[constraint.name]
        if constraint.name == "fits":
            memory = item.memory
            found.append(
                f"does not fit: {memory['flash_kib']:.0f} KiB flash, {memory['sram_kib']:.0f} KiB RAM ({memory['largest']})"
                if value is not None
                else "memory not known"
            )
        elif value is None:
            found.append(f"{word} is not known on this device")
        elif constraint.name == "rate":
            found.append(f"{value:.2f} times the load it can sustain")
        else:
            shown, limit, by = (
                (f"{100 * item:.4g} %" for item in (value, constraint.limit, abs(value - constraint.limit)))
                if not unit
                else (f"{number(item)} {unit}" for item in (value, constraint.limit, abs(value - constraint.limit)))
            )
            found.append(f"{word} {shown} against {limit}, {'short' if constraint.sense > 0 else 'over'} by {by}")
    return found


def _flat(summary: dict[str, Any]) -> dict[str, Any]:
    return {**flatten({key: value for key, value in summary.items() if key not in ("parameters", "tuned")}), "parameters": summary["parameters"]}
