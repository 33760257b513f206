"""`eesim trace`."""

from __future__ import annotations

from pathlib import Path

import click

from eesim.cli.options import Group, emit, example, format_option, log


@click.group(cls=Group)
@example("eesim trace check trace.parquet", "eesim trace convert logits.npz trace.parquet")
def trace() -> None:
    """Exit traces: check one, show what it holds, convert what you have."""


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
@example("eesim trace show workloads/ecg-mitbih/trace.parquet")
def show(file, form) -> None:
    """What a trace holds: exits, accuracy, classes, streams."""
    from eesim.report.plain import to_csv, to_json
    from eesim.report.sheets import print_trace
    from eesim.result import flatten
    from eesim.trace import read_trace
    from eesim.trace.describe import describe

    record = describe(read_trace(file))
    if form == "table":
        print_trace(record)
    else:
        emit(to_json(record) if form == "json" else to_csv([flatten(record)]))


@trace.command("convert")
@click.argument("source")
@click.argument("target")
@click.option("--network", metavar="NAME", help="Name of the network, for the header; by default the file's.")
@click.option("--classes", metavar="LIST", help="Class names, separated by commas.")
@example("eesim trace convert logits.npz trace.parquet --classes cat,dog")
def convert(source, target, network, classes) -> None:
    """Convert a trace to Parquet. SOURCE is .npz with `logits [E, N, K]` and `labels [N]`, or a Parquet trace. Nothing is unpickled."""
    from dataclasses import replace

    from eesim.errors import BadInput
    from eesim.trace import read_trace, write_trace

    if Path(target).suffix != ".parquet":
        raise BadInput("a trace is written as .parquet", file=target)
    read = read_trace(source)
    header = read.header
    if classes:
        given = [name.strip() for name in classes.split(",")]
        if len(given) != read.classes:
            raise BadInput(f"{len(given)} class names for {read.classes} classes", field="--classes")
        header = replace(header, classes=given)
    try:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        write_trace(replace(read, header=replace(header, network=network or header.network)), target)
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", file=target) from None
    log(f"wrote {target}: {len(read)} samples, {read.exits} exits, {read.classes} classes")
