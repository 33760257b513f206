"""`eesim compare`."""

from __future__ import annotations

import json

import click

from eesim.cli.options import (
    device_options,
    emit,
    example,
    format_option,
    load_options,
    log,
    names,
    parse_exits,
    progress,
    tuning_options,
)  # fmt: skip
from eesim.errors import BadInput
from eesim.files import check_writable


@click.command()
@click.option("--workload", "-w", required=True, metavar="W", help="Bundled name or folder.")
@click.option("--profiles", "-p", metavar="LIST", help="Names or files, separated by commas; by default all bundled ones.")
@click.option("--mechanisms", "-m", metavar="LIST", help="Names or Python files, separated by commas; by default all bundled ones.")
@click.option("--accuracy-drop", default="1%", show_default=True, metavar="DROP", help="Against the static network, on the calibration split.")
@tuning_options
@click.option("--shared", is_flag=True, help="One threshold for all exits; without --shared and --per-exit the cheaper in calibration counts.")
@click.option("--exits", metavar="LIST", help="Recorded exits to enable, e.g. 0,2,5; the final one always is.")
@load_options
@device_options
@click.option("--replications", type=int, default=1, metavar="R", show_default=True)
@click.option("--out", metavar="DIR", help="Write comparison.parquet and plots into a folder.")
@click.option("--full", is_flag=True, help="All columns in the table.")
@format_option
@example(
    "eesim compare -w ecg-mitbih -p stm32l4r5-xcubeai,raspberry-pi-5-litert --accuracy-drop 1% --arrivals poisson:2/s",
    "eesim compare -w ecg-mitbih -m max-softmax,entropy,my_rule.py --out results/compare",
)
def compare(workload, profiles, mechanisms, exits, out, form, per_exit, shared, full, **options) -> None:
    """All mechanisms side by side, each tuned to the same loss of accuracy.

    Tuning looks at the calibration split only; figures are from the test split. A mechanism that does not pay on a device
    is shown as what tuning came to, "= static". Threshold rules are tuned with one threshold for all exits and with one for
    each, and the cheaper in calibration counts. Differences are to the best plain rule (the cheapest of max-softmax,
    entropy, margin and patience in calibration), paired sample by sample, with 95 % intervals.
    """
    from eesim.bundled import profile_names
    from eesim.explore.compare import comparison, rules, unbalanced
    from eesim.explore.space import named
    from eesim.hardware import load_profile

    if shared and per_exit:
        raise BadInput("thresholds are either shared or per exit; leave both out to try both", field="--shared")
    options["per_exit"] = True if per_exit else False if shared else None
    if out is not None:
        check_writable(out, folder=True)
    chosen, devices = names(mechanisms), [load_profile(name) for name in named(names(profiles), profile_names(), "profiles")]
    rows, summaries, warnings = [], [], {}
    with progress(len(devices) * len(rules(chosen)), "comparing") as done:
        for item in comparison(workload, devices, chosen, exits=parse_exits(exits), progress=done, remark=warnings.setdefault, **options):
            summary = item.result.summary()
            rows.append(item.row())
            if form == "csv":
                del rows[-1]["brief"]
            rows[-1]["parameters"] = json.dumps(summary["parameters"]) if form == "csv" else summary["parameters"]
            summaries.append({**summary, "mechanism": item.asked, "runs_as": summary["mechanism"], **item.record()})
            said = [warning for warning in item.result.warnings if "is a bound" not in warning]  # every table holds the bounds
            warnings |= dict.fromkeys(f"{summary['profile']}: {warning}" for warning in said)
    if any(row["dropped"] for row in rows):
        warnings["requests are dropped: differences are over those that both rules served, so they may not be those of the accuracies shown"] = None
    for warning in (*warnings, *unbalanced(rows)):
        log(f"warning: {warning}")
    if out is not None:
        from eesim.plot.files import write_comparison

        for path in write_comparison(rows, out):
            log(f"wrote {path}")
    if form == "json":
        from eesim.report.plain import to_json

        emit(to_json(summaries))
    elif form == "csv":
        from eesim.report.plain import to_csv

        emit(to_csv(rows))
    else:
        from eesim.report.figures import print_comparison

        print_comparison(rows, options["objective"], options["metric"], full=full)
