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
@example("eesim trace check trace.parquet", "eesim trace check ecg-mitbih")
def check(file) -> None:
    """Say what is wrong with a trace, by column and row (exit status 2), or that nothing is.

    FILE may be the name of a bundled workload, or a workload's folder. What only looks wrong is a warning.
    """
    read = _trace(file)
    if read.header.content_hash and read.header.content_hash != read.content_hash:
        raise BadInput("is not that of the columns; they were changed after recording", file=file, field="eesim.header.content_hash")
    _warn(file, read)
    print(f"{file}: {_size(read)}: nothing wrong")


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
    """The trace in a file, of a bundled workload or of a workload's folder. Of one that ships without, BadInput says what makes it."""
    from eesim.bundled import workload_names
    from eesim.errors import nearest
    from eesim.trace import read_trace
    from eesim.workload import load_workload

    path = Path(file)
    if file in workload_names() or path.is_dir():
        return load_workload(file).trace
    if not path.exists():
        if (path.parent / "workload.yaml").is_file() and load_workload(path.parent).recorded is None:
            return load_workload(path.parent).trace
        close = nearest(file, workload_names()) if not path.suffix else []
        raise BadInput("no such trace file" + (f"; did you mean the bundled workload '{close[0]}'?" if close else ""), file=file)
    return read_trace(file)


def _warn(file: str, read) -> None:
    """What looks wrong with a trace, on stderr."""
    from eesim.trace.doubts import doubts

    for doubt in doubts(read):
        log(f"warning: {file}: {doubt}")


def _size(read) -> str:
    return f"{len(read)} samples, {read.exits} exit{'s' * (read.exits > 1)}, {read.classes} classes"


def _listed(text: str | None, option: str) -> list[str] | None:
    """Names separated by commas, spaces around them left out."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise BadInput(f"'{text}' holds an empty name; write names separated by single commas", field=option)
    return names


@trace.command("convert")
@click.argument("source")
@click.argument("target")
@click.option("--from", "form", metavar="FORMAT", help="npz, npy, csv, apparate or torch; by default told by the file's name.")
@click.option("--network", metavar="NAME", help="Name of the network, for the header; by default the file's.")
@click.option(
    "--classes", metavar="LIST", help="Class names in the order of the logits, separated by commas; labels that are words are looked up there."
)
@click.option("--labels", metavar="FILE", help="For .npy logits: a .npy file of labels [N].")
@click.option("--logits", metavar="PATTERN", default="logit_{exit}_{class}", show_default=True, help="For CSV: names of the columns of logits.")
@click.option("--columns", metavar="LIST", help="Columns or arrays of other names, e.g. label=target,stream_id=subject,time_ns=t,split=set.")
@click.option("--calibration", metavar="SHARE", help="Make this share the calibration split, e.g. 20%: the first streams, or of one the first rows.")
@click.option("--probabilities", is_flag=True, help="The source holds probabilities (a softmax was applied): take their logarithm.")
@example(
    "eesim trace convert logits.npz trace.parquet --classes cat,dog --calibration 20%",
    "eesim trace convert exits.csv trace.parquet --logits 'exit{exit}_class{class}' --columns label=target,stream_id=subject",
    "eesim trace convert words.csv trace.parquet --classes cat,dog",
    "eesim trace convert apparate.json trace.parquet",
)
def convert(source, target, form, network, classes, labels, logits, columns, calibration, probabilities) -> None:
    """Convert what you have to a trace.

    SOURCE is a Parquet trace; `.npz` or `.npy` logits [E, N, K]; CSV with a column for each logit; Apparate's conf/acc tables
    as JSON or .npz; or a `.pt` of tensors, opened with weights_only. Foreign pickles are never opened: they can run code.
    """
    from dataclasses import replace

    from eesim.trace import read_trace
    from eesim.trace.converters import COLUMNS, Given, with_calibration
    from eesim.trace.converters import convert as convert_trace
    from eesim.trace.doubts import logits_of
    from eesim.trace.parquet import write_checked
    from eesim.units import fraction

    if Path(target).suffix.lower() != ".parquet":
        raise BadInput("a trace is written as .parquet", file=target)
    check_writable(target)
    names = dict(part.partition("=")[::2] for part in (columns or "").split(",") if part.strip())
    for name, theirs in names.items():
        if name.strip() not in COLUMNS or not theirs.strip():
            raise BadInput(f"'{name}={theirs}' is not of the form ours=theirs; ours is one of {', '.join(COLUMNS)}", field="--columns")
    chosen = _listed(classes, "--classes")
    if Path(source).suffix.lower() == ".parquet":
        if names or labels or form:
            raise BadInput("a .parquet source is a trace already; leave --columns, --labels and --from out", file=source)
        read = read_trace(source)
        if chosen and len(chosen) != read.classes:
            raise BadInput(f"{len(chosen)} class names for {read.classes} classes", field="--classes")
        header = replace(read.header, classes=chosen or read.header.classes)
        read = replace(read, header=header, logits=logits_of(read.logits, source) if probabilities else read.logits)
    else:
        given = Given(labels, logits, {name.strip(): theirs.strip() for name, theirs in names.items()}, chosen, probabilities)
        try:
            read = convert_trace(source, form=form, given=given)
        except MemoryError:
            raise BadInput("does not fit into memory", file=source) from None
    if calibration is not None:
        read = with_calibration(read, fraction(calibration, "calibration"))
    read = write_checked(replace(read, header=replace(read.header, network=network or read.header.network)), target, source)
    _warn(target, read)
    log(f"wrote {target}: {_size(read)}")


@trace.command("record")
@click.argument("model")
@click.argument("dataset")
@click.option("--out", "-o", required=True, metavar="FILE", help="The trace to write, .parquet.")
@click.option(
    "--features",
    is_flag=True,
    help="Also write what enters each head, averaged over positions, to NAME.features.parquet beside it (features.parquet beside trace.parquet).",
)
@click.option("--dimensions", type=click.IntRange(min=1), default=16, show_default=True, help="At most so many features an exit; more are reduced.")
@click.option("--no-difficulty", is_flag=True, help="Leave DART's difficulty of each input out.")
@click.option("--input-range", metavar="LOW,HIGH", help="What is scaled to [0, 1] for difficulty; by default 0,255 for uint8, else the extremes.")
@click.option("--tau-edge", type=float, metavar="X", help="Threshold of the edge density; by default the median gradient.")
@click.option("--logits", type=click.Choice(["float16", "float32"]), default="float16", show_default=True)
@click.option("--probabilities", is_flag=True, help="The model ends in a softmax: record the logarithm of its probabilities.")
@click.option("--outputs", metavar="LIST", help="Outputs of the model that are exits, in order; by default all.")
@click.option("--final-head", metavar="NODE", help="Where the final head begins; by default the last global pooling or fully connected layer.")
@click.option("--batch", type=click.IntRange(min=1, max=512), default=64, show_default=True)
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

        try:
            trace = record_trace(
                module_of(model) if ".py:" in model or model.endswith(".py") else model,
                dataset,
                out,
                input_range=span,
                difficulty=not no_difficulty,
                classes=_listed(classes, "--classes"),
                outputs=_listed(outputs, "--outputs"),
                source={name: text for name, text in about.items() if text},
                progress=report,
                warn=lambda text: log(f"warning: {text}"),
                **{name: value for name, value in options.items() if value is not None},
            )
        except MemoryError:
            raise BadInput("does not fit into memory; record fewer samples at a time, or an iterable of batches (in Python)", file=dataset) from None
    log(f"wrote {out}: {_size(trace)}")
    unsaid = [option for option, value in (("--dataset-name", dataset_name), ("--training-mode", options["training_mode"])) if not value]
    if unsaid:
        log(f"the header leaves open what {' and '.join(unsaid)} would say")
