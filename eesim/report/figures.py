"""How results look on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eesim.mechanisms import load_mechanism, mechanism_names
from eesim.mechanisms.describe import brief
from eesim.report.table import number, parameters, percent, print_table, wide
from eesim.result import Result

if TYPE_CHECKING:
    import pandas


NEAR_STATIC = 0.01
"""Points of a sweep within this much of the static network's accuracy count as near it."""


def headline(summary: dict[str, Any]) -> str:
    """One line about what was simulated."""
    rule = summary["mechanism"] + (f" ({parameters(summary['parameters'])})" if summary["parameters"] else "")
    load = f"{summary['arrivals']}, {summary['requests']} requests" + (f" on {summary['servers']} servers" if summary["servers"] > 1 else "")
    return f"{summary['workload']} on {summary['profile']} at {summary['operating_point']}, {rule}, {load}"


def print_run(result: Result, bounds: Sequence[Result]) -> None:
    """A run between its bounds, a figure per row."""
    summaries = [result.summary(), *[bound.summary() for bound in bounds]]
    main = summaries[0]

    def row(name: str, get) -> tuple[str, list[str]]:
        return name, [get(summary) for summary in summaries]

    def of(group: str, key: str):
        return lambda summary: "–" if summary[group][key] is None else number(summary[group][key])

    rows = [
        row("accuracy", lambda s: percent(s["accuracy"])),
        row("balanced accuracy", lambda s: percent(s["balanced_accuracy"])),
        row("agrees with full network", lambda s: percent(s["agreement"])),
        row("latency mean, ms", of("latency_ms", "mean")),
        row("latency p50, ms", of("latency_ms", "p50")),
        row("latency p95, ms", of("latency_ms", "p95")),
        row("latency p99, ms", of("latency_ms", "p99")),
        row("wait mean, ms", of("wait_ms", "mean")),
        row("wait p99, ms", of("wait_ms", "p99")),
        row("energy per inference, mJ", lambda s: "–" if s["active_mj_mean"] is None else number(s["active_mj_mean"])),
        row("  with idling, mJ", of("energy_mj", "mean")),
        row("MACs", lambda s: f"{s['macs_mean']:,.0f}" if s["macs_mean"] is not None else "–"),
        row("utilisation", lambda s: percent(s["utilization"])),
        row("throughput, /s", lambda s: "–" if s["throughput_hz"] is None else number(s["throughput_hz"])),
    ]
    if main["queue"] is not None:
        rows.append(row("dropped", lambda s: f"{s['dropped']}" if isinstance(s["dropped"], int) else number(s["dropped"])))
    if main["deadline_ms"] is not None:
        rows.append(row(f"missed {main['deadline_ms']:g} ms", lambda s: percent(s["deadline_miss_rate"])))
    rows += [row(f"exit {exit}", lambda s, exit=exit: percent(s["exit_fractions"][exit])) for exit in range(len(main["exit_fractions"]))]
    headings = [main["mechanism"], *[summary["mechanism"] for summary in summaries[1:]]]
    wide(rows, headings, headline(main))
    print(notes(main))
    if "confidence" in main:
        intervals = main["confidence"]["latency_ms"]
        shown = ", ".join(f"{name} {number(low)}–{number(high)}" for name, (low, high) in intervals.items())
        print(f"95 % intervals of latency over {main['confidence']['replications']} replications, ms: {shown}")


def trusted(summary: dict[str, Any]) -> str:
    """How wide the profile's own error makes the figures, and what they rest on."""
    sigmas = summary["uncertainty"]
    known = [f"{what} ±{percent(sigmas[key])}" for what, key in (("service time", "latency"), ("active energy", "energy")) if sigmas[key] is not None]
    shares = ", ".join(f"{percent(share)} {grade}" for grade, share in sigmas["shares"].items() if share)
    return f"1 sigma of the device's costs: {', '.join(known) or 'unknown'}; of the time, {shares or 'nothing was run'}"


def notes(summary: dict[str, Any]) -> str:
    """What the figures rest on."""
    classes = ", ".join(summary["balanced_classes"])
    scope = summary["energy_scope"]
    lines = [
        f"engine {summary['engine']}; percentiles {summary['percentiles']}; balanced over {classes or 'no class (too few labels)'}",
        f"energy is of: {scope['rail']}; idle power {scope['idle']} in active figures",
        trusted(summary),
    ]
    if summary["subset"] == "approximate":
        lines.append("some exits are disabled in a network whose heads were trained jointly: approximate")
    return "\n".join(lines)


COMPARISON = {
    "profile": "device",
    "rule": "mechanism",
    "accuracy": "accuracy",
    "balanced": "balanced",
    "agreement": "agrees",
    "latency": "latency ms",
    "p99": "p99 ms",
    "wait": "wait ms",
    "wait99": "p99 wait",
    "active": "mJ/inference",
    "energy": "with idling",
    "macs": "MACs",
    "utilization": "utilised",
    "exits": "exits",
}
MEASURES = {"ece": "ECE", "daes": "DAES", "cost": "cost vs best", "points": "accuracy vs best", "verdict": "verdict"}
"""Further columns of `eesim compare`."""


def comparison_row(row: dict[str, Any]) -> dict[str, Any]:
    """A flat result row as the comparison table shows it."""
    exits = [row[name] for name in row if name.startswith("exit_fraction_")]
    asked, runs = row["mechanism"], row.get("runs_as", row["mechanism"])
    brief = row.get("brief", row.get("parameters"))
    shown = parameters(brief) if isinstance(brief, dict) else row.get("parameters_text", "")
    rule = f"{asked} = {runs}" if asked != runs else f"{asked} {shown}".strip() if asked != "constant" else asked
    return {
        "profile": row["profile"],
        "rule": rule,
        "accuracy": percent(row["accuracy"]),
        "balanced": percent(row["balanced_accuracy"]),
        "agreement": percent(row["agreement"]),
        "latency": row["latency_ms_mean"],
        "p99": row["latency_ms_p99"],
        "wait": row["wait_ms_mean"],
        "wait99": row["wait_ms_p99"],
        "active": row["active_mj_mean"],
        "energy": row["energy_mj_mean"],
        "macs": f"{row['macs_mean']:,.0f}",
        "utilization": percent(row["utilization"]),
        "exits": " ".join(f"{100 * share:.0f}" for share in exits if share is not None),
    }


def print_comparison(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Devices and mechanisms below each other; exits in percent. Columns about waiting are left out where nothing waits."""
    waits = any(row["wait_ms_mean"] for row in rows)
    columns = {key: value for key, value in COMPARISON.items() if waits or key not in ("wait", "wait99")}
    shown = []
    for row in rows:
        cost, points = (_interval(row, name, 1 if name == "cost_difference" else 2) for name in ("cost_difference", "accuracy_difference"))
        mark = "best threshold rule" if any(row["mechanism"] == other["versus"] for other in rows if other["profile"] == row["profile"]) else None
        shown.append({**comparison_row(row), "ece": percent(row["ece"]), "daes": row["daes"], "cost": cost, "points": points,
                      "verdict": row["verdict"] or mark or ""})  # fmt: skip
    print_table(shown, {**columns, **MEASURES}, title, sections="profile")
    print(
        "ECE: expected calibration error of the answers given (15 bins of equal mass). DAES: accuracy x speed-up x energy gain over static,\n"
        "divided by 1 + mean input difficulty. Versus best: the threshold rule that was cheapest in calibration; cost in %, accuracy in points,\n"
        "with paired 95 % bootstrap intervals; a tie is where both hold 0."
    )


def _interval(row: dict[str, Any], name: str, digits: int) -> str:
    """'-3.1 [-4.0, -2.2]', in percent or points; nothing where there is no difference to tell."""
    value, low, high = (row[f"{name}_{part}"] for part in ("value", "low", "high"))
    return "" if value is None else f"{100 * value:+.{digits}f} [{100 * low:+.{digits}f}, {100 * high:+.{digits}f}]"


def print_sweep(frame: pandas.DataFrame) -> None:
    """A sweep summed up: for each device and mechanism its cheapest setting that stays near the static network, and its range."""
    rows = []
    for (workload, profile, point, exits), device in frame.groupby(["workload", "profile", "operating_point", "exits"], sort=False):
        static = device[device.mechanism == "static"].accuracy.max()
        for _, points in device.groupby("mechanism", sort=False):
            near = points[points.accuracy >= static - NEAR_STATIC]
            best = near.sort_values("active_mj_mean" if near.active_mj_mean.notna().any() else "latency_ms_mean").iloc[0] if len(near) else None
            shown = points.iloc[points.accuracy.fillna(0).argmax()] if best is None else best
            row = comparison_row({**{name: _known(value) for name, value in shown.items()}, "parameters_text": _settings(shown)})
            rows.append({**row, "device": f"{workload} on {profile} at {point}, exits {exits}", "points": len(points), "near": len(near)})
    columns = {
        "device": "",
        "rule": "mechanism",
        "points": "points",
        "near": "near",
        **{key: value for key, value in COMPARISON.items() if key not in ("profile", "rule")},
    }
    for row in rows:
        row.setdefault("device", "")
    names = list(dict.fromkeys(row["device"] for row in rows))
    for name in names:
        chosen = [row for row in rows if row["device"] == name]
        print_table(chosen, {key: value for key, value in columns.items() if key != "device"}, name)
    print(
        f"Each line is the cheapest of a mechanism's points within {100 * NEAR_STATIC:.0f} point of static accuracy on the test split\n"
        "(its most accurate point where none is); `near` counts those. Sweeps describe; `eesim compare` tunes on the calibration\n"
        "split. Exits in %."
    )


def _settings(row: Any) -> str:
    import json

    values = json.loads(row["parameters"])
    if row["mechanism"] == "constant":
        return ""
    if row["mechanism"] in mechanism_names():
        values = brief(load_mechanism(row["mechanism"]), values)
    return parameters(values)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value
