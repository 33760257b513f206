"""`eesim run`."""

from __future__ import annotations

from pathlib import Path

import click

from eesim.cli.options import device_options, emit, example, format_option, load_options, log, parse_exits, parse_set, tuning_options
from eesim.errors import BadInput
from eesim.files import check_writable, whole


@click.command()
@click.option("--workload", "-w", required=True, metavar="W", help="Bundled name or folder.")
@click.option("--profile", "-p", required=True, metavar="P", help="Bundled name or YAML file.")
@click.option("--mechanism", "-m", default="static", show_default=True, metavar="M", help="Bundled name or a Python file of your own.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A parameter; a list gives one value for each exit but the last.")
@click.option("--exits", metavar="LIST", help="Recorded exits to enable, e.g. 0,2,5; the final one always is.")
@click.option("--accuracy-drop", metavar="DROP", help="Tune the mechanism on the calibration split to lose at most this much, e.g. 1%.")
@tuning_options
@load_options
@device_options
@click.option("--replications", type=int, default=1, metavar="R", show_default=True, help="Repeat with other seeds; figures get 95 % intervals.")
@click.option("--band/--no-band", default=None, help="Simulate again with costs 1 sigma lower and higher; by default up to 1,000,000 requests.")
@click.option("--engine", default="auto", show_default=True, metavar="NAME", help="auto, counts, lindley, k-server, calendar, simpy.")
@click.option("--out", metavar="FILE", help="Write requests (.parquet, .csv) or the summary (.json) to a file.")
@format_option
@example(
    "eesim run -w ecg-mitbih -p stm32l4r5-xcubeai -m max-softmax --set threshold=0.8 --arrivals poisson:5/s",
    "eesim run -w ecg-mitbih -p raspberry-pi-5-litert -m entropy --accuracy-drop 1% --format json",
)
def run(workload, profile, mechanism, pairs, exits, accuracy_drop, band, out, form, **options) -> None:
    """Replay one workload on one device under one mechanism and one load.

    The table shows the run between its bounds: the network without exits, the first exit alone, the per-sample oracle,
    and the constant answer. JSON and CSV hold the run itself.
    """
    from eesim.simulation import simulate

    _refuse_idle()
    if out is not None:
        _check_out(out)
    chosen, parameters = parse_exits(exits), parse_set(pairs)
    result = simulate(workload, profile, mechanism, parameters, exits=chosen, accuracy_drop=accuracy_drop, **options)
    for warning in result.warnings:
        log(f"warning: {warning}")
    summary = result.summary()
    if band or (band is None and summary["requests"] <= MOST_FOR_BAND):
        summary["band"] = result.band()
    if out is not None:
        _write(result, summary, out)
    if form == "json":
        from eesim.report.plain import to_json

        emit(to_json(summary))
    elif form == "csv":
        from eesim.report.plain import to_csv
        from eesim.result import flatten

        emit(to_csv([flatten(summary)]))
    else:
        from eesim.report.figures import print_run

        print_run(result, summary.get("band"), _bounds(workload, profile, chosen, options))


MOST_FOR_BAND = 1_000_000
NEEDS = {"objective": "accuracy_drop", "metric": "accuracy_drop", "per_exit": "accuracy_drop", "overflow": "queue"}
"""Options that have no effect without another."""


def _refuse_idle() -> None:
    """Raise BadInput for an option that was given without the one that it is about."""
    context = click.get_current_context()
    for name, other in NEEDS.items():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE and context.params[other] is None:
            option, needed = (f"--{text.replace('_', '-')}" for text in (name, other))
            raise BadInput(f"has no effect without {needed}; give that too, or leave it out", field=option)


def _bounds(workload: str, profile: str, exits, options: dict) -> list:
    """The same load under the bounds and baselines that can be had here."""
    from eesim.mechanisms import load_mechanism, mechanism_names
    from eesim.simulation import simulate

    tuning = ("objective", "metric", "per_exit", "engine")
    load = {name: value for name, value in options.items() if name not in tuning}
    bounds = []
    for name in mechanism_names():
        if load_mechanism(name).bound:
            try:
                bounds.append(simulate(workload, profile, name, exits=exits, **load))
            except BadInput:  # the constant answer needs a calibration split
                continue
    return bounds


def _check_out(out: str) -> None:
    check_writable(out)
    if Path(out).suffix not in (".json", ".parquet", ".csv"):
        raise BadInput(f"'{Path(out).suffix}' is not a known kind of file; choose .json, .parquet or .csv", file=out, field="--out")


def _write(result, summary: dict, out: str) -> None:
    if out.endswith(".json"):
        from eesim.report.plain import to_json

        emit(to_json(summary), out)
        return
    with whole(out) as unfinished:
        if out.endswith(".parquet"):
            result.requests.to_parquet(unfinished, index=False)
        else:
            result.requests.to_csv(unfinished, index=False)
