"""`eesim trace`."""

from __future__ import annotations

from pathlib import Path

import click

from eesim.cli.options import Group, emit, example, format_option, log
from eesim.errors import BadInput
from eesim.files import check_writable


@click.group(cls=Group)
@example(
    "eesim trace check trace.parquet",
    "eesim trace convert logits.npz trace.parquet",
    "eesim trace record network.onnx samples.npz -o trace.parquet",
)
def trace() -> None:
    """Exit traces: check one, show what it holds, convert what you have, record your own."""


@trace.command("check")
@click.argument("file")
@example("eesim trace check workloads/ecg-mitbih/trace.parquet")
def check(file) -> None:
    """Say what is wrong with a trace, by column and row (exit status 2), or that nothing is."""
    from eesim.trace import read_trace

    read = read_trace(file)
    if read.header.content_hash and read.header.content_hash != read.content_hash:
        log(f"warning: {file}: the content differs from the header's content_hash; it was changed after recording")
    if not (read.split == "calibration").any():
        log(f"warning: {file}: there is no calibration split, so no mechanism can be tuned on this trace")
    print(f"{file}: {len(read)} samples, {read.exits} exits, {read.classes} classes: nothing wrong")


@trace.command("show")
@click.argument("file")
@format_option
@example("eesim trace show workloads/ecg-mitbih/trace.parquet", "eesim trace show ecg-mitbih")
def show(file, form) -> None:
    """What a trace holds: exits, accuracy, classes, streams. FILE may be the name of a bundled workload."""
    from eesim.report.plain import to_csv, to_json
    from eesim.report.sheets import print_trace
    from eesim.result import flatten
    from eesim.trace.describe import describe

    record = describe(_trace(file))
    if form == "table":
        print_trace(record)
    else:
        emit(to_json(record) if form == "json" else to_csv([flatten(record)]))


def _trace(file: str):
    """The trace in a file or of a bundled workload. Of a workload that ships without one, BadInput says what makes it."""
    from eesim.bundled import workload_names
    from eesim.trace import read_trace
    from eesim.workload import load_workload

    folder = Path(file).parent
    if file in workload_names():
        return load_workload(file).trace
    if not Path(file).exists() and (folder / "workload.yaml").is_file() and load_workload(folder).recorded is None:
        return load_workload(folder).trace
    return read_trace(file)


@trace.command("convert")
@click.argument("source")
@click.argument("target")
@click.option("--from", "form", metavar="FORMAT", help="npz, npy, csv, apparate or torch; by default told by the file's name.")
@click.option("--network", metavar="NAME", help="Name of the network, for the header; by default the file's.")
@click.option("--classes", metavar="LIST", help="Class names, separated by commas.")
@click.option("--labels", metavar="FILE", help="For .npy logits: a .npy file of labels [N].")
@click.option("--logits", metavar="PATTERN", default="logit_{exit}_{class}", show_default=True, help="For CSV: names of the columns of logits.")
@click.option("--columns", metavar="LIST", help="Columns or arrays of other names, e.g. label=target,stream_id=subject,time_ns=t,split=set.")
@click.option("--calibration", metavar="SHARE", help="Make this share the calibration split, e.g. 20%: the first streams, or of one the first rows.")
@example(
    "eesim trace convert logits.npz trace.parquet --classes cat,dog --calibration 20%",
    "eesim trace convert exits.csv trace.parquet --logits 'exit{exit}_class{class}' --columns label=target,stream_id=subject",
    "eesim trace convert apparate.json trace.parquet",
)
def convert(source, target, form, network, classes, labels, logits, columns, calibration) -> None:
    """Convert what you have to a trace.

    SOURCE is a Parquet trace; `.npz` or `.npy` logits [E, N, K]; CSV with a column for each logit; Apparate's conf/acc tables
    as JSON or .npz; or a `.pt` of tensors, opened with weights_only. Foreign pickles are never opened: they can run code.
    """
    from dataclasses import replace

    from eesim.trace import read_trace, write_trace
    from eesim.trace.converters import COLUMNS, Given, with_calibration
    from eesim.trace.converters import convert as convert_trace
    from eesim.units import fraction

    if Path(target).suffix != ".parquet":
        raise BadInput("a trace is written as .parquet", file=target)
    check_writable(target)
    names = dict(part.partition("=")[::2] for part in (columns or "").split(",") if part.strip())
    for name, theirs in names.items():
        if name.strip() not in COLUMNS or not theirs.strip():
            raise BadInput(f"'{name}={theirs}' is not of the form ours=theirs; ours is one of {', '.join(COLUMNS)}", field="--columns")
    given = Given(labels, logits, {name.strip(): theirs.strip() for name, theirs in names.items()})
    read = read_trace(source) if Path(source).suffix == ".parquet" else convert_trace(source, form=form, given=given)
    if calibration is not None:
        read = with_calibration(read, fraction(calibration, "calibration"))
    header = read.header
    if classes:
        chosen = [name.strip() for name in classes.split(",")]
        if len(chosen) != read.classes:
            raise BadInput(f"{len(chosen)} class names for {read.classes} classes", field="--classes")
        header = replace(header, classes=chosen)
    write_trace(replace(read, header=replace(header, network=network or header.network)), target)
    read_trace(target)
    log(f"wrote {target}: {len(read)} samples, {read.exits} exits, {read.classes} classes")


@trace.command("record")
@click.argument("model")
@click.argument("dataset")
@click.option("--out", "-o", required=True, metavar="FILE", help="The trace to write, .parquet.")
@click.option("--features", is_flag=True, help="Also write what enters each head, averaged over positions, to features.parquet beside it.")
@click.option("--dimensions", type=click.IntRange(min=1), default=16, show_default=True, help="At most so many features an exit; more are reduced.")
@click.option("--no-difficulty", is_flag=True, help="Leave DART's difficulty of each input out.")
@click.option("--input-range", metavar="LOW,HIGH", help="What is scaled to [0, 1] for difficulty; by default 0,255 for uint8, else the extremes.")
@click.option("--tau-edge", type=float, metavar="X", help="Threshold of the edge density; by default the median gradient.")
@click.option("--logits", type=click.Choice(["float16", "float32"]), default="float16", show_default=True)
@click.option("--outputs", metavar="LIST", help="Outputs of the model that are exits, in order; by default all.")
@click.option("--final-head", metavar="NODE", help="Where the final head begins; by default the last global pooling or fully connected layer.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--network", metavar="NAME", help="Name of the network; by default the file's.")
@click.option("--classes", metavar="LIST", help="Class names, separated by commas.")
@click.option("--dataset-name", metavar="TEXT", help="For the header.")
@click.option("--licence", metavar="TEXT", help="Of the dataset, for the header.")
@click.option("--origin", metavar="TEXT", help="Of the dataset, for the header.")
@click.option("--split-rule", metavar="TEXT", help="How calibration and test were told apart, for the header.")
@click.option("--training-mode", metavar="MODE", help="frozen, joint or distilled, for the header.")
@click.option("--seed", type=int, help="Of the training, for the header.")
@example(
    "eesim trace record network.onnx samples.npz -o trace.parquet --features --training-mode joint",
    "eesim trace record model.py:build samples.npz -o trace.parquet",
)
def record(model, dataset, out, no_difficulty, input_range, classes, outputs, dataset_name, licence, origin, **options) -> None:
    """Run a network over a dataset and keep what every exit says.

    MODEL is an ONNX file with one output per exit, or FILE.py:NAME, a function that returns a torch module with one logits
    tensor per exit (its code runs). DATASET is .npz: an array per model input (`inputs` for the only one), `label`, and
    optionally split, stream_id, time_ns, sample_id, classes. Interrupted, the same command goes on where it stopped.
    """
    from eesim.cli.options import progress
    from eesim.recorder.recording import record as record_trace
    from eesim.recorder.torch_file import module_of
    from eesim.units import numbers

    check_writable(out)
    span = None
    if input_range is not None:
        span = tuple(numbers(input_range, "--input-range"))
        if len(span) != 2:
            raise BadInput(f"'{input_range}' must be two numbers, e.g. -1,1", field="--input-range")
    about = {"name": dataset_name, "licence": licence, "origin": origin}
    with progress(None, "recording") as done:
        seen = 0

        def report(count: int, total: int | None) -> None:
            nonlocal seen
            done(count - seen, total)
            seen = count

        trace = record_trace(
            module_of(model) if ".py:" in model else model,
            dataset,
            out,
            input_range=span,
            difficulty=not no_difficulty,
            classes=classes.split(",") if classes else None,
            outputs=outputs.split(",") if outputs else None,
            source={name: text for name, text in about.items() if text},
            progress=report,
            **{name: value for name, value in options.items() if value is not None},
        )
    log(f"wrote {out}: {len(trace)} samples, {trace.exits} exits, {trace.classes} classes")
