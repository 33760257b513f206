"""How devices, workloads, traces and networks look on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eesim.report.table import UNKNOWN, number, percent, print_table

if TYPE_CHECKING:
    from eesim.hardware import Profile
    from eesim.workload import Workload


def print_cost(model: str, record: dict[str, Any]) -> None:
    """A layer table and the totals, with a bar for each layer's share of the time."""
    whole = record["latency_ms"] or 1.0
    rows = [{**layer, "macs": f"{layer['macs']:,}", "bar": "█" * round(30 * layer["latency_ms"] / whole) or "▏"} for layer in record["layers"]]
    columns = {
        "name": "layer",
        "op": "op",
        "kind": "kind",
        "macs": "MACs",
        "latency_ms": "ms",
        "energy_mj": "mJ",
        "bound": "bound",
        "trust": "price is",
        "bar": "share of time",
    }
    print_table(rows, columns, f"{model} on {record['profile']} at {record['operating_point']}, {record['data_type']}")
    within = {what: "" if not record[f"{what}_sigma"] else f" ± {percent(record[f'{what}_sigma'])}" for what in ("latency", "energy")}
    energy = "energy unknown" if record["energy_mj"] is None else f"{number(record['energy_mj'])} mJ{within['energy']}"
    fits = {True: "fits", False: "does not fit", None: "memory of the device unknown"}[record["fits"]]
    print(
        f"total, all heads: {number(record['latency_ms'])} ms{within['latency']}, {energy} (1 sigma), "
        f"{record['macs']:,} MACs, {record['params']:,} parameters; "
        f"flash {record['flash_kib']:.1f} KiB, RAM {record['sram_kib']:.1f} KiB: {fits} ({record['largest']})"
    )
    print(f"energy is of: {record['energy_scope']['rail']}; idle power {record['energy_scope']['idle']}")


def print_profile(profile: Profile) -> None:
    """A profile as a data sheet."""
    print(f"{profile.name}: {profile.title}\n{profile.vendor}, {profile.board}, {profile.core}, {profile.runtime}")
    memory = profile.memory
    print(
        f"memory: flash {_kib(memory.flash_kib)}, RAM {_kib(memory.sram_kib)}; "
        f"energy of: {profile.energy_scope.rail} (idle {profile.energy_scope.idle})"
    )
    points = [
        {"name": name + (" (default)" if name == profile.default_operating_point else ""), "clock": point.clock_mhz, "supply": point.supply_v,
         "active": point.active_power_mw("default"), "idle": point.idle_mw, "sleep": point.sleep_mw}
        for name, point in profile.operating_points.items()
    ]  # fmt: skip
    print_table(points, {"name": "operating point", "clock": "MHz", "supply": "V", "active": "active mW", "idle": "idle mW", "sleep": "sleep mW"})
    rows = [_rates(profile, data_type, kind) for data_type, kinds in profile.parameters.data_types.items() for kind in kinds]
    unit = getattr(profile.parameters, "time_unit", "see the model")
    print_table(
        rows, {"type": "type", "kind": "layer kind", "rates": f"rates ({profile.parameters.model}, {unit})", "source": "source"}, sections="type"
    )
    for note in profile.notes:
        print(f"note: {note}")
    for source in profile.sources:
        errors = "" if not source.error else " [" + ", ".join(f"{name} {100 * value:.1f} %" for name, value in source.error.items()) + "]"
        print(f"{source.kind}: {', '.join(source.covers)}: {source.origin}{errors}")


def _rates(profile: Profile, data_type: str, kind: str) -> dict[str, str]:
    """One line of the cost model: what a kind of layer costs, and how that is known."""
    rates = profile.parameters.data_types[data_type][kind]
    if rates is None:
        return {"type": data_type, "kind": kind, "rates": UNKNOWN, "source": UNKNOWN}
    given = rates.model_dump(exclude_unset=True)
    source = profile.source(f"cost_model.data_types.{data_type}.{kind}.{next(iter(given), '')}")
    shown = ", ".join(f"{name} {value:g}" for name, value in given.items())
    return {"type": data_type, "kind": kind, "rates": shown, "source": source.kind if source else UNKNOWN}


def _kib(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g} KiB" if value < 2**20 else f"{value / 2**20:.3g} GiB"


def print_trace(record: dict[str, Any]) -> None:
    """What a trace holds."""
    print(
        f"{record['network']}: {record['exits']} exits, heads trained {record['training_mode'] or UNKNOWN}; "
        f"{record['dataset'].get('name', 'dataset not named')}"
    )
    if record["split_rule"]:
        print(f"split: {record['split_rule']}")
    for split, about in record["splits"].items():
        classes = ", ".join(f"{name} {count}" for name, count in about["class_counts"].items())
        print(
            f"{split}: {about['samples']} samples in {about['streams']} streams ({classes}); "
            f"a constant answer is right on {percent(about['majority'])}, some exit on {percent(about['oracle'])}; "
            f"a label repeats the one before it on {percent(about['persistence'])}"
        )
        shown = ("accuracy", "balanced_accuracy", "agreement", "mean_confidence", "calibration_error")
        rows = [
            {"exit": str(index), **{key: percent(exit[key]) for key in shown},
             **{f"recall {name}": percent(value) for name, value in zip(about["class_counts"], exit["recall"], strict=True)}}
            for index, exit in enumerate(about["exits"])
        ]  # fmt: skip
        heads = {
            "exit": "exit",
            "accuracy": "accuracy",
            "balanced_accuracy": "balanced",
            "agreement": "agrees",
            "mean_confidence": "confidence",
            "calibration_error": "ECE",
        }
        recalls = {f"recall {name}": f"recall {name}" for name in about["class_counts"]} if len(about["class_counts"]) <= 12 else {}
        print_table(rows, heads | recalls)


def print_workload(workload: Workload, record: dict[str, Any]) -> None:
    """A workload: its trace, its network, its card."""
    print(f"{workload.name}: {workload.title} (arrivals {workload.arrivals}; card {record['card']})")
    if workload.recorded is None:
        print(f"no trace: {workload.without_trace}")
    else:
        print_trace(record)
    network = workload.network
    total, rows = 0, []
    for exit in range(network.exits):
        total += network.segment_macs[exit]
        rows.append(
            {
                "exit": str(exit),
                "macs": f"{total + network.head_macs[exit]:,}",
                "head": f"{network.head_macs[exit]:,}",
                "layers": len(network.segments[exit]) + len(network.heads[exit]),
            }
        )
    print_table(
        rows,
        {"exit": "exit", "macs": "MACs up to it", "head": "of these its head", "layers": "layers"},
        f"network: {network.params:,} parameters, {len(network.layers)} layers",
    )
