"""`eesim workloads`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from eesim.cli.options import Group, emit, example, format_option, log
from eesim.errors import BadInput


@click.group(cls=Group)
@example("eesim workloads list", "eesim workloads show ecg-mitbih", "eesim workloads new my-task --onnx network.onnx --trace trace.parquet")
def workloads() -> None:
    """The recorded workloads: what is bundled, what each holds, and how to make your own."""


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


@workloads.command("new")
@click.argument("folder")
@click.option("--onnx", required=True, metavar="FILE", help="The network with one output per exit; weights may be missing.")
@click.option("--trace", required=True, metavar="FILE", help="Its exit trace, .parquet (or .npz).")
@click.option("--final-head", metavar="NODE", help="Where the final head begins; by default the last global pooling or fully connected layer.")
@click.option("--title", metavar="TEXT", help="One line that says what it is.")
@click.option("--arrivals", default="closed", show_default=True, metavar="PROCESS", help="Default arrivals, e.g. poisson:10/s or recorded.")
@example("eesim workloads new my-task --onnx network.onnx --trace trace.parquet --arrivals recorded")
def new(folder, onnx, trace, final_head, title, arrivals) -> None:
    """Make a workload of your own network and trace; every verb then takes FOLDER as --workload.

    Copies both files (and the weights and the features that lie beside them), reads the layers of the network into
    network.yaml, and checks that all go together.
    """
    import shlex
    import shutil

    from eesim.network import write_network
    from eesim.network.onnx_files import external_files
    from eesim.network.onnx_import import import_onnx
    from eesim.schema import to_yaml
    from eesim.trace import read_trace, write_trace
    from eesim.workload import load_workload

    target = Path(folder)
    if target.exists():
        raise BadInput("exists already; name a folder that does not", file=folder)
    network, read = import_onnx(onnx, final_head=final_head, name=target.name), read_trace(trace)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished")
    try:
        unfinished.mkdir(parents=True)
        shutil.copyfile(onnx, unfinished / "network.onnx")
        for name in external_files(Path(onnx)):
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(onnx).parent / name, unfinished / name)
        write_network(replace(network, onnx="network.onnx"), unfinished / "network.yaml")
        if Path(trace).suffix.lower() != ".npz":
            shutil.copyfile(trace, unfinished / "trace.parquet")
        else:
            write_trace(read, unfinished / "trace.parquet")
        features, notes = _features_of(trace, read)
        if features:
            shutil.copyfile(features, unfinished / "features.parquet")
        about = {"schema_version": 1, "name": target.name, "title": title or f"{read.header.network}, {network.exits} exits", "arrivals": arrivals}
        (unfinished / "workload.yaml").write_text(to_yaml(about), encoding="utf-8")
        (unfinished / "README.md").write_text(
            f"# {target.name}\n\nOrigin and licence of the data, how it was split, how the network was trained, known weaknesses: to be written.\n"
        )
        load_workload(unfinished)
        unfinished.rename(target)
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror or error}", file=folder) from None
    except BadInput as error:
        name = Path(str(error.file)).name if error.file else None
        raise BadInput(error.problem, file={"trace.parquet": trace, "network.yaml": onnx}.get(name, name), field=error.field) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for warning in (*network.warnings, *notes):
        log(f"warning: {warning}")
    place = shlex.quote(folder if "/" in folder else f"./{folder}")
    counted = f"{network.exits} exit{'s' * (network.exits > 1)}, {len(read)} samples"
    log(f"wrote {folder}: {counted}; try: eesim run --workload {place} --profile stm32l4r5-xcubeai")


def _features_of(trace: str, read) -> tuple[Path | None, list[str]]:
    """The file of features beside a trace that was recorded with it, or None and why none is taken."""
    from eesim.trace.features import features_beside, read_features

    there = [path for path in dict.fromkeys((features_beside(trace), Path(trace).with_name("features.parquet"))) if path.is_file()]
    for path in there:
        if read_features(path).header.get("trace", read.content_hash) == read.content_hash:
            return path, []
    return None, [f"{path} was recorded with another trace, so it is not copied" for path in there[:1]]
