"""`eesim plan`."""

from __future__ import annotations

import click

from eesim.cli.options import emit, example, format_option, log, names, parse_exits, progress
from eesim.errors import ConstraintError
from eesim.files import check_writable


@click.command()
@click.option("--workloads", "-w", metavar="LIST", help="Names or folders, separated by commas; by default all bundled ones.")
@click.option("--profiles", "-p", metavar="LIST", help="Names or files, separated by commas; by default all bundled ones.")
@click.option("--mechanisms", "-m", metavar="LIST", help="Names or Python files, separated by commas; by default all bundled ones.")
@click.option("--rate", metavar="RATE", help="Poisson arrivals that must be sustained, e.g. 10/s; by default the workload's own arrivals.")
@click.option("--arrivals", metavar="PROCESS", help="Any other arrival process instead of a rate.")
@click.option("--min-accuracy", metavar="SHARE", help="At least, e.g. 0.92 or 92%.")
@click.option("--min-balanced-accuracy", metavar="SHARE", help="At least.")
@click.option("--max-mean", metavar="TIME", help="Mean latency at most, e.g. 20ms.")
@click.option("--max-p95", metavar="TIME", help="95th percentile of latency at most.")
@click.option("--max-p99", metavar="TIME", help="99th percentile of latency at most.")
@click.option("--max-energy", metavar="ENERGY", help="Energy per inference at most, idling included, e.g. 1mJ.")
@click.option("--max-active-energy", metavar="ENERGY", help="Energy per inference at most, without idling.")
@click.option("--deadline", metavar="TIME", help="For --max-miss-rate.")
@click.option("--max-miss-rate", metavar="SHARE", help="Missed deadlines at most, e.g. 1%.")
@click.option("--fits", is_flag=True, help="Weights must fit the flash and activations the RAM.")
@click.option("--objective", default="energy", show_default=True, metavar="WHAT", help="energy, latency, macs or accuracy.")
@click.option("--exits", metavar="LIST", help="One set of exits, e.g. 0,2,4; by default 'subsets': every subset is tried.")
@click.option("--operating-points", metavar="LIST", help="Names, or 'all'; by default each profile's default.")
@click.option("--data-type", metavar="TYPE", help="int8, fp32, …; by default the profile's, or the model's own if quantised.")
@click.option("--requests", type=int, metavar="N", help="How many to simulate; by default one pass.")
@click.option("--servers", type=int, default=1, show_default=True, metavar="K")
@click.option("--queue", type=int, metavar="N", help="Waiting places; by default unlimited.")
@click.option("--overflow", metavar="RULE", default="reject", show_default=True, help="reject or drop-oldest.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="How many deployments to print.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", metavar="FILE", help="Write the whole plan as JSON.")
@format_option
@example("eesim plan -w ecg-mitbih --rate 2/s --min-accuracy 0.92 --max-p99 100ms --max-active-energy 1mJ --fits")
def plan(workloads, profiles, mechanisms, exits, operating_points, top, out, form, **options) -> None:
    """Which device, mechanism, thresholds and exits meet my constraints?

    Settings are chosen on the calibration split; every figure printed is from the test split. Exit status 1 when nothing
    meets every constraint.
    """
    from eesim.bundled import profile_names
    from eesim.explore.plan import plan as search
    from eesim.explore.space import devices_of, named, workloads_of
    from eesim.report.plain import to_csv, to_json
    from eesim.result import flatten

    if out is not None:
        check_writable(out)
    points = "all" if operating_points == "all" else names(operating_points)
    chosen = named(names(profiles), profile_names(), "profiles")
    total = len(devices_of(chosen, points, options["data_type"])) * len(workloads_of(names(workloads))[0])
    with progress(total, "planning") as done:
        found = search(
            names(workloads),
            chosen,
            names(mechanisms),
            exits="subsets" if exits in (None, "subsets") else parse_exits(exits),
            operating_points=points,
            progress=done,
            **options,
        )
    for remark in found.remarks:
        log(remark)
    scopes = {(item.summary["energy_scope"]["rail"], item.summary["energy_scope"]["idle"]) for item in found.deployments}
    if len(scopes) > 1:
        log("energies of these devices were measured on different rails, so compare them with care: eesim profiles show")
    record = found.record()
    if out is not None:
        emit(to_json(record), out)
    if form == "json":
        emit(to_json(record))
    elif form == "csv":
        emit(to_csv([flatten(item) for item in record["deployments"]]))
    else:
        from eesim.report.plans import print_plan

        print_plan(found, top)
    if not found.deployments:
        raise ConstraintError("nothing meets every constraint")
    log(
        f"{len(found.deployments)} deployments meet every constraint; "
        f"{found.candidates} settings were weighed on the calibration split, {found.replayed} replayed on the test split"
    )
