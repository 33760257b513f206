"""`eesim workloads`."""

from __future__ import annotations

import click

from eesim.cli.options import Group, emit, example, format_option


@click.group(cls=Group)
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
    from eesim.workload import load_workload

    rows = [_line(load_workload(name)) for name in workload_names()]
    if form == "table":
        shown = [
            {
                **row, "heads": row["heads"] if row["trace"] else "no trace", "accuracy": percent(row["accuracy"]),
                "balanced_accuracy": percent(row["balanced_accuracy"]), "macs": f"{row['macs']:,}",
            }
            for row in rows
        ]  # fmt: skip
        columns = {"name": "name", "network": "network", "exits": "exits", "classes": "classes", "samples": "samples", "heads": "heads"}
        columns |= {"macs": "MACs", "accuracy": "accuracy", "balanced_accuracy": "balanced", "title": "what"}
        print_table(shown, columns)
        print("accuracy: of the last exit on the test split; -w0.25 in a network's name: a quarter of the paper's channels")
    else:
        emit(to_json(rows) if form == "json" else to_csv(rows))


def _line(workload) -> dict:
    """A workload in the list; what a trace would tell is None where there is none."""
    from eesim.trace.describe import describe

    row = {
        "name": workload.name, "title": workload.title, "network": workload.network.name, "exits": workload.network.exits,
        "classes": workload.network.classes, "trace": workload.recorded is not None,
        **dict.fromkeys(("samples", "streams", "heads", "accuracy", "balanced_accuracy")),
        "macs": sum(workload.network.segment_macs) + workload.network.head_macs[-1], "params": workload.network.params,
        "arrivals": workload.arrivals,
    }  # fmt: skip
    if workload.recorded is None:
        return row
    header, about = workload.trace.header, describe(workload.trace)["splits"]["test"]
    last = about["exits"][-1]
    return row | {
        "network": header.network, "classes": len(header.classes), "samples": len(workload.trace), "streams": about["streams"],
        "heads": header.training_mode, "accuracy": last["accuracy"], "balanced_accuracy": last["balanced_accuracy"],
    }  # fmt: skip


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
        **(describe(loaded.recorded) if loaded.recorded is not None else _untold(loaded)),
    }
    record["macs"] = {"segments": loaded.network.segment_macs, "heads": loaded.network.head_macs}
    if form == "table":
        print_workload(loaded, record)
    else:
        emit(to_json(record) if form == "json" else to_csv([flatten(record)]))


def _untold(workload) -> dict:
    """What can be said of a workload without a trace."""
    return {
        "network": workload.network.name,
        "exits": workload.network.exits,
        "classes": workload.network.classes,
        "without_trace": workload.without_trace,
        "splits": {},
    }
