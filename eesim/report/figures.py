"""How results look on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eesim.mechanisms import load_mechanism, mechanism_names
from eesim.mechanisms.describe import brief
from eesim.report.table import number, parameters, percent, print_table, wide
from eesim.result import Result
from eesim.units import points

if TYPE_CHECKING:
    import pandas


NEAR_STATIC = 0.01
"""Points of a sweep within this much of the static network's accuracy count as near it."""


def headline(summary: dict[str, Any]) -> str:
    """One line about what was simulated."""
    rule = summary["mechanism"] + (f" ({parameters(summary['parameters'])})" if summary["parameters"] else "")
    load = f"{summary['arrivals']}, {summary['requests']} requests" + (f" on {summary['servers']} servers" if summary["servers"] > 1 else "")
    return f"{summary['workload']} on {summary['profile']} at {summary['operating_point']}, {rule}, {load}"


def print_run(result: Result, band: dict[str, Any] | None, bounds: Sequence[Result]) -> None:
    """A run between its bounds, a figure per row. band: `Result.band()`, where it was computed."""
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
    if band is not None:
        shown = [f"{name} {number(pair[0])}–{number(pair[1])}" for name, pair in band["latency_ms"].items() if pair and name != "max"]
        energy = band["energy_mj"]["mean"]
        joules = f"; energy with idling, mJ {number(energy[0])}–{number(energy[1])}" if energy else ""
        which = "" if "confidence" not in main else " (first replication)"
        print(f"with costs 1 sigma lower and higher{which}: latency, ms: {', '.join(shown)}{joules}")
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


OBJECTIVES = {"energy": "active energy per inference", "latency": "mean latency", "macs": "mean MACs"}
"""What each objective of tuning is the mean of."""
NAME_WIDTH = 36
"""Where the short table of `eesim compare` cuts a mechanism's settings off."""


def print_comparison(rows: Sequence[dict[str, Any]], objective: str, metric: str, *, full: bool = False) -> None:
    """A table for each device: what each mechanism was tuned to, how it stands against the best plain rule, and its figures.

    Exits in percent. Columns about waiting are left out where nothing waits; the short form leaves more out.
    """
    waits = any(row["wait_ms_mean"] for row in rows)
    drop, said = rows[0]["tuned_accuracy_drop"], metric.replace("_", " ")
    cost = {"energy": "energy", "latency": "latency", "macs": "MACs"}[objective]
    columns = {
        "rule": "mechanism", "verdict": "verdict", "cost": f"{cost} vs best, %", "points": "points vs best", "accuracy": "accuracy", "lost": "lost",
    }  # fmt: skip
    rest = {key: heading for key, heading in COMPARISON.items() if key not in ("profile", "rule", "accuracy")}
    short = {"balanced" if metric == "balanced_accuracy" else "", "active", "latency", "exits", *(("macs",) if objective == "macs" else ())}
    short |= {"p99"} if waits else set()
    columns |= {key: heading for key, heading in rest.items() if (full or key in short) and (waits or key not in ("wait", "wait99"))}
    columns |= {"thresholds": "thresholds", "ece": "ECE", "daes": "DAES"} if full else {"active": "mJ"}
    first = rows[0]
    print(
        f"{first['workload']}, {first['arrivals']}: each tuned for {objective} to lose at most {points(drop)} of {said} against static on the\n"
        f"calibration split; figures of the {first['split']} split"
    )
    for device in dict.fromkeys(row["profile"] for row in rows):
        some = [row for row in rows if row["profile"] == device]
        bests = {row["versus"] for row in some}
        shown = []
        for row in some:
            form = f", {row['thresholds']}" if row["thresholds"] else ""
            mark = f"best plain rule{form}" if row["mechanism"] in bests and row["mechanism"] != "static" else ""
            fields = comparison_row(row if full else {**row, "brief": _short(row["brief"])})
            if not full and len(fields["rule"]) > NAME_WIDTH:
                fields["rule"] = fields["rule"][: NAME_WIDTH - 1].rstrip(" ,") + "…"
            shown.append({
                **fields, "verdict": row["verdict"] or mark, "cost": _interval(row, "cost_difference", 1),
                "points": _interval(row, "accuracy_difference", 1), "lost": _lost(row), "ece": percent(row["ece"]), "daes": row["daes"],
                "thresholds": row["thresholds"] or "",
            })  # fmt: skip
        print()
        print_table(shown, columns, device)
        print(_best(some, objective))
    print("\n" + "\n".join(_explained(rows, objective, said, drop, full)))


def _explained(rows: Sequence[dict[str, Any]], objective: str, metric: str, drop: float, full: bool) -> list[str]:
    """What the columns mean, below the table."""
    names = {row["mechanism"] for row in rows}
    drawn = next((row["intervals_draw"] for row in rows if row["intervals_draw"]), None)
    both = any(row["calibration_cost_shared"] is not None and row["calibration_cost_per_exit"] is not None for row in rows)
    lines = [
        f"vs best: {OBJECTIVES[objective]} in % and accuracy in points against the best plain rule, paired sample by sample, with 95 %\n"
        f"bootstrap intervals{f' that draw {drawn} again' if drawn else ''}; a tie is where both hold 0."
        + (" Rules that take thresholds per exit were\ntuned with one for all as well, and the cheaper in calibration is shown." if both else ""),
        f"lost: points of {metric} below static on this split; ! more than the {points(drop)} allowed in calibration.",
        "exits: % of requests by the exit that answers. Settings at their defaults are left out"
        + ("." if full else ", the others rounded and cut; --full shows more."),
    ]
    if full:
        lines += [
            "agrees: same answer as the full network. balanced: mean recall over classes with at least 50 labelled samples. utilised: time the",
            "device is busy. with idling: all energy of the run over its requests. ECE: expected calibration error of the answers given (15 bins",
            "of equal mass). DAES: accuracy x speed-up x energy gain over static (of means; its paper takes medians), over 1 + mean difficulty.",
        ]
    alone = [name for name in ("temporal-patience", "queue-aware") if any(row["mechanism"] == name and row["thresholds"] == "shared" for row in rows)]
    if alone and any(row["thresholds"] == "per exit" for row in rows):
        lines.append(f"{' and '.join(alone)}: tuned with a shared threshold only, though thresholds per exit can be set.")
    if certified := [name for name in ("calm", "risk-control") if name in names]:
        lines.append(f"{' and '.join(certified)}: tuned to the drop as all are, so what they certify for a risk given beforehand does not hold here.")
    if early := sorted({row["mechanism"] for row in rows if row["answers_early"]}):
        lines.append(f"{', '.join(early)}: answers leave at the exits told, computing runs to the end; tuned for latency.")
    return lines


def _best(rows: Sequence[dict[str, Any]], objective: str) -> str:
    """Which plain rule the others of one device are measured against, in which form, and what each form cost in calibration."""
    best = next((row["versus"] for row in rows if row["versus"]), "static")
    if best == "static":
        return "best plain rule: none is cheaper than static within the drop, so static stands in"
    row = next(row for row in rows if row["mechanism"] == best)
    unit = {"energy": "mJ", "latency": "ms", "macs": "MACs"}[objective]
    costs = [f"{name} {number(row[key])} {unit}" for key, name in (("calibration_cost_per_exit", "per exit"), ("calibration_cost_shared", "shared"))
             if row[key] is not None]  # fmt: skip
    form = f" with thresholds {row['thresholds']}" if row["thresholds"] else ""
    form = form.replace("thresholds shared", "one shared threshold")
    return f"best plain rule: {best}{form}, the cheapest in calibration" + (f" ({', '.join(costs)})" if costs else "")


def _short(values: dict[str, Any]) -> dict[str, Any]:
    """Settings to three digits."""

    def rounded(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(map(rounded, value))
        return float(f"{value:.3g}") if isinstance(value, float) else value

    return {name: rounded(value) for name, value in values.items()}


def _lost(row: dict[str, Any]) -> str:
    """Points below static, marked where they are more than was allowed."""
    return "" if row["lost"] is None else f"{100 * row['lost'] + 0.0:.2f}" + (" !" if row["over_drop"] else "")


def _interval(row: dict[str, Any], name: str, digits: int) -> str:
    """'-3.1 [-4.0, -2.2]', in percent or points, with as many digits as it takes to see that it is not 0; nothing where there is none."""
    value, low, high = (row[f"{name}_{part}"] for part in ("value", "low", "high"))
    if value is None:
        return ""
    telling = [value] + [min(low, high, key=abs)] * (low > 0 or high < 0)
    while digits < 4 and any(each and not float(f"{100 * each:.{digits}f}") for each in telling):
        digits += 1
    digits = 0 if abs(value) >= 1 else digits
    value, low, high = (f"{round(100 * each, digits) + 0.0:+.{digits}f}" for each in (value, low, high))
    return f"{value} [{low}, {high}]"


def print_sweep(frame: pandas.DataFrame) -> None:
    """A sweep summed up: for each device and mechanism its cheapest setting that stays near the static network, and its range."""
    rows = []
    for (workload, profile, point, exits), device in frame.groupby(["workload", "profile", "operating_point", "exits"], sort=False):
        static = device[device.mechanism == "static"].accuracy.max()
        for _, rules in device.groupby("mechanism", sort=False):
            near = rules[rules.accuracy >= static - NEAR_STATIC]
            best = near.sort_values("active_mj_mean" if near.active_mj_mean.notna().any() else "latency_ms_mean").iloc[0] if len(near) else None
            shown = rules.iloc[rules.accuracy.fillna(0).argmax()] if best is None else best
            row = comparison_row({**{name: _known(value) for name, value in shown.items()}, "parameters_text": _settings(shown)})
            rows.append({**row, "device": f"{workload} on {profile} at {point}, exits {exits}", "points": len(rules), "near": len(near)})
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
