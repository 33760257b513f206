"""`eesim workloads`."""

from __future__ import annotations

import click

from eesim.cli.options import emit, example, format_option


@click.group()
@example("eesim workloads list", "eesim workloads show ecg-mitbih")
def workloads() -> None:
    """The recorded workloads: what is bundled, and what each holds."""


@workloads.command("list")
@format_option
@example("eesim workloads list")
def list_workloads(form) -> None:
    """Bundled workloads, a line each."""
    from eesim.bundled import workload_names
    from eesim.report.plain import to_csv, to_json
    from eesim.report.table import percent, print_table
    from eesim.trace.describe import describe
    from eesim.workload import load_workload

    rows = []
    for name in workload_names():
        workload = load_workload(name)
        about = describe(workload.trace)
        last = about["splits"]["test"]["exits"][-1]
        rows.append({
            "name": name, "title": workload.title, "network": workload.trace.header.network, "exits": workload.network.exits,
            "classes": len(workload.trace.header.classes), "samples": len(workload.trace), "streams": about["splits"]["test"]["streams"],
            "heads": workload.trace.header.training_mode, "accuracy": last["accuracy"], "balanced_accuracy": last["balanced_accuracy"],
            "macs": sum(workload.network.segment_macs) + workload.network.head_macs[-1], "params": workload.network.params,
            "arrivals": workload.arrivals,
        })  # fmt: skip
    if form == "table":
        shown = [
            {**row, "accuracy": percent(row["accuracy"]), "balanced_accuracy": percent(row["balanced_accuracy"]), "macs": f"{row['macs']:,}"}
            for row in rows
        ]
        columns = {"name": "name", "title": "what", "exits": "exits", "classes": "classes", "samples": "samples", "heads": "heads", "macs": "MACs"}
        print_table(shown, {**columns, "accuracy": "accuracy", "balanced_accuracy": "balanced"})
    else:
        emit(to_json(rows) if form == "json" else to_csv(rows))


@workloads.command("show")
@click.argument("workload")
@format_option
@example("eesim workloads show ecg-mitbih")
def show(workload, form) -> None:
    """What a workload holds: network, exits, splits, classes; and where its card is."""
    from eesim.report.plain import to_csv, to_json
    from eesim.report.sheets import print_workload
    from eesim.result import flatten
    from eesim.trace.describe import describe
    from eesim.workload import load_workload

    loaded = load_workload(workload)
    record = {
        "name": loaded.name,
        "title": loaded.title,
        "arrivals": loaded.arrivals,
        "card": str(loaded.folder / loaded.card),
        **describe(loaded.trace),
    }
    record["macs"] = {"segments": loaded.network.segment_macs, "heads": loaded.network.head_macs}
    if form == "table":
        print_workload(loaded, record)
    else:
        emit(to_json(record) if form == "json" else to_csv([flatten(record)]))
