"""`eesim sweep`."""

from __future__ import annotations

import click

from eesim.cli.options import emit, example, format_option, load_options, log, names, options, parse_exits, parse_set, progress
from eesim.files import check_writable


@click.command()
@click.option("--workloads", "-w", metavar="LIST", help="Names or folders, separated by commas; by default all bundled ones.")
@click.option("--profiles", "-p", metavar="LIST", help="Names or files, separated by commas; by default all bundled ones.")
@click.option("--mechanisms", "-m", metavar="LIST", help="Names or Python files, separated by commas; by default all bundled ones.")
@click.option("--thresholds", metavar="VALUES", help="For mechanisms that have a threshold, e.g. 0.5:0.99:50 or 0.7,0.8,0.9.")
@click.option(
    "--settings",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Without thresholds: about N settings of each mechanism, from calibration.",
)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUES", help="Values of another parameter, e.g. patience=1,2,3.")
@click.option("--exits", metavar="LIST", help="Recorded exits to enable, e.g. 0,2,5; or 'subsets' for every subset.")
@click.option("--operating-points", metavar="LIST", help="Names, or 'all'; by default each profile's default.")
@click.option("--data-type", metavar="TYPE", help="int8, fp32, …; by default the profile's, or the model's own if quantised.")
@options(load_options)
@click.option("--figures", default="all", show_default=True, metavar="WHICH", help="all, or means: no percentiles, much faster under queueing.")
@click.option("--out", metavar="DIR", help="Store points.parquet, manifest.json and plots here, and continue from here.")
@format_option
@example(
    "eesim sweep -w ecg-mitbih --thresholds 0.5:0.99:50 --arrivals poisson:2/s --out results/ecg",
    "eesim sweep -w ecg-mitbih -p stm32l4r5-xcubeai -m max-softmax --exits subsets --figures means",
)
def sweep(workloads, profiles, mechanisms, thresholds, settings, pairs, exits, operating_points, data_type, figures, out, form, **load) -> None:
    """Simulate every point of a design space.

    Finished parts are stored at once; the same command continues where it stopped, whatever stopped it. The bounds
    (static, first-exit, oracle, constant) always join. The table sums up each mechanism on each device; all points are in
    --out, or with --format json or csv on the terminal.
    """
    from eesim.explore.space import build_space, with_arrivals
    from eesim.explore.sweep import load_of, run_space
    from eesim.units import numbers

    if out is not None:
        check_writable(out, folder=True)
    grid = {name: value if isinstance(value, list) else [value] for name, value in parse_set(pairs).items()}
    arrivals = load.pop("arrivals")
    space = build_space(
        names(workloads), names(profiles), names(mechanisms), thresholds=None if thresholds is None else numbers(thresholds, "--thresholds"),
        settings=settings, grid=grid, exits="subsets" if exits == "subsets" else parse_exits(exits),
        operating_points="all" if operating_points == "all" else names(operating_points), data_type=data_type,
        loads=with_arrivals(load_of(load), arrivals),
    )  # fmt: skip
    for remark in space.remarks:
        log(remark)
    with progress(len(space), "sweeping") as done:
        frame = run_space(space, out=out, figures=figures, progress=done)
    for warning in sorted({text for text in frame.warnings if text}):
        affected = frame[frame.warnings == warning]
        log(f"warning: {len(affected)} points, first {affected.iloc[0].profile} {affected.iloc[0].mechanism}: {warning}")
    if out is not None:
        from eesim.plot.files import write_sweep_plots

        for path in write_sweep_plots(frame, out):
            log(f"wrote {path}")
    if form == "table":
        from eesim.report.figures import print_sweep

        print_sweep(frame)
    else:
        from eesim.report.plain import to_csv, to_json

        rows = frame.to_dict("records")
        emit(to_json(rows) if form == "json" else to_csv(rows))
