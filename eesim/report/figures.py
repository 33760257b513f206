"""How results look on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eesim.report.table import number, parameters, percent, print_table, wide
from eesim.result import Result

if TYPE_CHECKING:
    import pandas

    from eesim.explore.plan import Plan
    from eesim.hardware import Profile
    from eesim.workload import Workload

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


def notes(summary: dict[str, Any]) -> str:
    """What the figures rest on."""
    classes = ", ".join(summary["balanced_classes"])
    scope = summary["energy_scope"]
    lines = [
        f"engine {summary['engine']}; percentiles {summary['percentiles']}; balanced over {classes or 'no class (too few labels)'}",
        f"energy is of: {scope['rail']}; idle power {scope['idle']} in active figures; the weakest numbers of this profile are {summary['trust']}",
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
    shown = parameters(row["parameters"]) if isinstance(row.get("parameters"), dict) else row.get("parameters_text", "")
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
        "exits": " ".join(f"{100 * share:.0f}" for share in exits),
    }


def print_comparison(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Devices and mechanisms below each other; exits in percent."""
    print_table([comparison_row(row) for row in rows], COMPARISON, title, sections="profile")


def print_sweep(frame: pandas.DataFrame) -> None:
    """A sweep summed up: for each device and mechanism its cheapest setting that stays near the static network, and its range."""
    rows = []
    for (workload, profile, point, exits), device in frame.groupby(["workload", "profile", "operating_point", "exits"], sort=False):
        static = device[device.mechanism == "static"].accuracy.max()
        for mechanism, points in device.groupby("mechanism", sort=False):
            near = points[points.accuracy >= static - NEAR_STATIC]
            best = near.sort_values("active_mj_mean" if near.active_mj_mean.notna().any() else "latency_ms_mean").iloc[0] if len(near) else None
            shown = points.iloc[points.accuracy.fillna(0).argmax()] if best is None else best
            row = comparison_row({**{name: _known(value) for name, value in shown.items()}, "parameters_text": _settings(shown)})
            rows.append({**row, "device": f"{workload} on {profile} at {point}, exits {exits}", "points": len(points), "near": len(near)})
    columns = {"device": "", "rule": "mechanism", "points": "points", "near": "near", **{key: value for key, value in COMPARISON.items() if key not in ("profile", "rule")}}
    for row in rows:
        row.setdefault("device", "")
    names = list(dict.fromkeys(row["device"] for row in rows))
    for name in names:
        chosen = [row for row in rows if row["device"] == name]
        print_table(chosen, {key: value for key, value in columns.items() if key != "device"}, name)
    print(
        f"Each line is the cheapest of a mechanism's points within {100 * NEAR_STATIC:.0f} point of static accuracy on the test split (its most accurate\n"
        "point where none is); `near` counts those. Sweeps describe; `eesim compare` tunes on the calibration split. Exits in %."
    )


def _settings(row: Any) -> str:
    import json

    return parameters(json.loads(row["parameters"])) if row["mechanism"] != "constant" else ""


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


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
                parts.append(f"{WORDS[constraint.name]} {shown}")
        return "; ".join(parts)

    def row(item: Any) -> dict[str, Any]:
        summary = item.summary
        return {
            **comparison_row({**_flat(summary)}), "exits_used": ",".join(map(str, summary["exits"])), "margin": margin(item), "workload": summary["workload"],
            "flash": item.memory["flash_kib"], "sram": item.memory["sram_kib"],
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


WORDS = {
    "rate": "load", "min_accuracy": "accuracy", "min_balanced_accuracy": "balanced accuracy", "max_mean": "mean", "max_p95": "p95", "max_p99": "p99",
    "max_energy": "energy", "max_active_energy": "active energy", "max_miss_rate": "misses", "fits": "memory",
}  # fmt: skip


def _breach(plan: Plan, item: Any, units: dict[str, str]) -> list[str]:
    found = []
    for constraint in plan.constraints:
        if constraint.name not in item.broken:
            continue
        value, word, unit = item.broken[constraint.name], WORDS[constraint.name], units[constraint.name]
        if constraint.name == "fits":
            memory = item.memory
            found.append(f"does not fit: {memory['flash_kib']:.0f} KiB flash, {memory['sram_kib']:.0f} KiB RAM ({memory['largest']})" if value is not None else "memory not known")
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
    from eesim.result import flatten

    return {**flatten({key: value for key, value in summary.items() if key not in ("parameters", "tuned")}), "parameters": summary["parameters"]}


def print_cost(model: str, record: dict[str, Any]) -> None:
    """A layer table and the totals, with a bar for each layer's share of the time."""
    whole = record["latency_ms"] or 1.0
    rows = [{**layer, "macs": f"{layer['macs']:,}", "bar": "█" * round(30 * layer["latency_ms"] / whole) or "▏"} for layer in record["layers"]]
    columns = {"name": "layer", "op": "op", "kind": "kind", "macs": "MACs", "latency_ms": "ms", "energy_mj": "mJ", "bound": "bound", "bar": "share of time"}
    print_table(rows, columns, f"{model} on {record['profile']} at {record['operating_point']}, {record['data_type']}")
    energy = "energy unknown" if record["energy_mj"] is None else f"{number(record['energy_mj'])} mJ"
    fits = {True: "fits", False: "does not fit", None: "memory of the device unknown"}[record["fits"]]
    print(f"total {number(record['latency_ms'])} ms, {energy}, {record['macs']:,} MACs, {record['params']:,} parameters; flash {record['flash_kib']:.1f} KiB, RAM {record['sram_kib']:.1f} KiB: {fits} ({record['largest']})")
    print(f"energy is of: {record['energy_scope']['rail']}; idle power {record['energy_scope']['idle']}")


def print_profile(profile: Profile) -> None:
    """A profile as a data sheet."""
    print(f"{profile.name}: {profile.title}\n{profile.vendor}, {profile.board}, {profile.core}, {profile.runtime}")
    memory = profile.memory
    print(f"memory: flash {_kib(memory.flash_kib)}, RAM {_kib(memory.sram_kib)}; energy of: {profile.energy_scope.rail} (idle {profile.energy_scope.idle})")
    points = [
        {"name": name + (" (default)" if name == profile.default_operating_point else ""), "clock": point.clock_mhz, "supply": point.supply_v,
         "active": point.active_power_mw("default"), "idle": point.idle_mw, "sleep": point.sleep_mw}
        for name, point in profile.operating_points.items()
    ]  # fmt: skip
    print_table(points, {"name": "operating point", "clock": "MHz", "supply": "V", "active": "active mW", "idle": "idle mW", "sleep": "sleep mW"})
    rows = [
        {"type": data_type, "kind": kind, "rates": ", ".join(f"{name} {value:g}" for name, value in rates.model_dump(exclude_unset=True).items()) if rates else "–",
         "source": getattr(profile.source(f"cost_model.data_types.{data_type}.{kind}.{next(iter(rates.model_fields_set), '')}") if rates else None, "kind", "–")}
        for data_type, kinds in profile.parameters.data_types.items() for kind, rates in kinds.items()
    ]  # fmt: skip
    unit = getattr(profile.parameters, "time_unit", "see the model")
    print_table(rows, {"type": "type", "kind": "layer kind", "rates": f"rates ({profile.parameters.model}, {unit})", "source": "source"}, sections="type")
    for note in profile.notes:
        print(f"note: {note}")
    for source in profile.sources:
        errors = "" if not source.error else " [" + ", ".join(f"{name} {100 * value:.1f} %" for name, value in source.error.items()) + "]"
        print(f"{source.kind}: {', '.join(source.covers)}: {source.origin}{errors}")


def _kib(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g} KiB" if value < 2**20 else f"{value / 2**20:.3g} GiB"


def print_trace(record: dict[str, Any]) -> None:
    """What a trace holds."""
    print(f"{record['network']}: {record['exits']} exits, heads trained {record['training_mode'] or '–'}; {record['dataset'].get('name', 'dataset not named')}")
    if record["split_rule"]:
        print(f"split: {record['split_rule']}")
    for split, about in record["splits"].items():
        classes = ", ".join(f"{name} {count}" for name, count in about["class_counts"].items())
        print(
            f"{split}: {about['samples']} samples in {about['streams']} streams ({classes}); a constant answer is right on {percent(about['majority'])}, "
            f"some exit on {percent(about['oracle'])}; a label repeats the one before it on {percent(about['persistence'])}"
        )
        rows = [
            {"exit": str(index), **{key: percent(exit[key]) for key in ("accuracy", "balanced_accuracy", "agreement", "mean_confidence")},
             **{f"recall {name}": percent(value) for name, value in zip(about["class_counts"], exit["recall"], strict=True)}}
            for index, exit in enumerate(about["exits"])
        ]  # fmt: skip
        heads = {"exit": "exit", "accuracy": "accuracy", "balanced_accuracy": "balanced", "agreement": "agrees", "mean_confidence": "confidence"}
        recalls = {f"recall {name}": f"recall {name}" for name in about["class_counts"]} if len(about["class_counts"]) <= 12 else {}
        print_table(rows, heads | recalls)


def print_workload(workload: Workload, record: dict[str, Any]) -> None:
    """A workload: its trace, its network, its card."""
    print(f"{workload.name}: {workload.title} (arrivals {workload.arrivals}; card {record['card']})")
    print_trace(record)
    network = workload.network
    total, rows = 0, []
    for exit in range(network.exits):
        total += network.segment_macs[exit]
        rows.append({"exit": str(exit), "macs": f"{total + network.head_macs[exit]:,}", "head": f"{network.head_macs[exit]:,}", "layers": len(network.segments[exit]) + len(network.heads[exit])})
    print_table(rows, {"exit": "exit", "macs": "MACs up to it", "head": "of these its head", "layers": "layers"}, f"network: {network.params:,} parameters, {len(network.layers)} layers")
