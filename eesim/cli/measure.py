"""`eesim measure`."""

from __future__ import annotations

import click

from eesim.cli.options import emit, example, format_option, log, progress
from eesim.files import check_writable


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--runtime", type=click.Choice(["onnxruntime", "torch"]), default="onnxruntime", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Inside one operator, each on a core.")
@click.option("--warmup", type=click.IntRange(min=0), metavar="N", help="Runs before; by default until the time is stable.")
@click.option("--repeats", type=click.IntRange(min=1), metavar="N", help="Runs of each network that are timed.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Instead of --repeats; by default 3 for each network.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of made-up inputs, and of weights where a file has none.")
@click.option(
    "--clock", type=click.Choice(["wall", "own"]), default="wall", show_default=True, help="own: the machine at its fastest, others left out."
)
@click.option("--csv", "csv_file", metavar="FILE", help="Write network, layer, latency_ms, energy_mj, as `eesim calibrate` reads them.")
@click.option("--out", "-o", metavar="P.yaml", help="Write a profile of this machine.")
@format_option
@example(
    "eesim measure network.onnx",
    "eesim measure ecg-mitbih cifar10-resnet8 vgg16 --seconds 10 --csv here.csv -o here.yaml",
    "eesim measure model.py:build --runtime torch --device cuda",
)
def measure(models, runtime, device, threads, warmup, repeats, seconds, seed, clock, csv_file, out, form) -> None:
    """What networks take on this machine: as a whole, layer by layer, and exit by exit.

    MODEL is an ONNX file or a bundled workload; with --runtime torch FILE.py:NAME, a function that returns (module,
    example_inputs); its code runs. Other programs disturb: the table says how much. Energy is measured where the machine has a
    counter that may be read.
    """
    from eesim.errors import BadInput
    from eesim.measure import measure_in_turns, to_csv
    from eesim.measure.measuring import ROUNDS
    from eesim.measure.profile import write_measured_profile
    from eesim.measure.turns import turns

    if repeats is not None and seconds is not None:
        raise BadInput("give --repeats or --seconds, not both")
    for file in (csv_file, out):
        if file is not None:
            check_writable(file)
    passes = turns(clock) if len(models) > 1 else 1
    with progress(ROUNDS * len(models) * passes, "measuring") as done:
        measured = measure_in_turns(
            models, runtime=runtime, device=device, threads=threads, warmup=warmup, repeats=repeats, seconds=seconds, seed=seed, clock=clock,
            progress=done,
        )  # fmt: skip
    for measurement in measured:
        for note in measurement.notes:
            log(f"{measurement.name}: {note}")
    if csv_file is not None:
        to_csv(measured, csv_file)
        log(f"wrote {csv_file}")
    if out is not None:
        write_measured_profile(measured, out)
        log(f"wrote {out}")
    records = [measurement.record() for measurement in measured]
    if form == "json":
        from eesim.report.plain import to_json

        emit(to_json(records if len(records) > 1 else records[0]))
    elif form == "csv":
        from eesim.report.plain import to_csv as rows_to_csv

        emit(rows_to_csv([row for measurement in measured for row in measurement.rows().to_dict("records")]))
    else:
        for record in records:
            _print(record)


def _print(record: dict) -> None:
    """Tables of one measurement."""
    from eesim.report.table import percent, print_table

    machine = record["machine"]
    where = f"{record['runtime']} {machine['versions'].get(record['runtime'], '')}, {record['threads']} thread{'s' * (record['threads'] != 1)}"
    title = f"{record['network']} on {machine['accelerator'] or machine['cpu'] or machine['architecture']}: {where}"
    rows = [
        {**row, "what": "whole network" if row["exit"] is None else f"exit {row['exit']}"}
        | {"share": percent(row["disturbed"]), "drift": percent(row["drift"])}
        for row in record["totals"]
    ]
    columns = {"what": "", "latency_ms": "latency ms", "iqr_ms": "IQR", "min_ms": "least", "p95_ms": "p95", "repeats": "repeats"}
    columns |= {"share": "disturbed", "drift": "drift", "calls": "calls", "energy_mj": "energy mJ"}
    print_table(rows, columns, title)
    if record["layers"]:
        layers = [{**row, "inside": f"inside {row['inside']}" if row["inside"] else ""} for row in record["layers"]]
        columns = {"part": "part", "layer": "layer", "op": "operator", "macs": "MACs", "bytes": "bytes", "latency_ms": "latency ms", "iqr_ms": "IQR"}
        if any(row["inside"] for row in layers):
            columns["inside"] = ""
        print_table(layers, columns)
