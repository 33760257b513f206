"""`eesim bench`."""

from __future__ import annotations

import platform

import click

from eesim.cli.options import emit, example, format_option, log


@click.command()
@click.option(
    "--requests",
    type=click.IntRange(min=10_000),
    default=1_000_000,
    show_default=True,
    metavar="N",
    help="Per case; the SimPy side takes about 10 us each.",
)
@click.option("--workload", "-w", default="ecg-mitbih", show_default=True, metavar="W")
@click.option("--profile", "-p", default="stm32l4r5-xcubeai", show_default=True, metavar="P")
@format_option
@example("eesim bench", "eesim bench --requests 100000 --format json")
def bench(requests, workload, profile, form) -> None:
    """How fast eesim is on this machine: ratios against SimPy and numpy, measured in one run, results compared.

    Takes about a minute at the default size, nearly all of it the SimPy side.
    """
    from eesim.bench.cases import Bench, memory_of_long_run, seconds_of_command

    rows = []
    for row in Bench(workload, profile, requests).cases():
        log(f"{row.name}: {row.ratio:,.0f} times as fast as {row.baseline}")
        rows.append(row.record())
    long = memory_of_long_run(workload, profile, 100 * requests)
    starts = {
        "help_s": seconds_of_command("--help"),
        "run_s": seconds_of_command("run", "-w", workload, "-p", profile, "-m", "max-softmax", "--set", "threshold=0.8", "--format", "json"),
    }
    record = {"machine": f"{platform.machine()}, Python {platform.python_version()}", "cases": rows, "long_run": long, **starts}
    if form == "json":
        from eesim.report.plain import to_json

        emit(to_json(record))
    elif form == "csv":
        from eesim.report.plain import to_csv

        emit(to_csv(rows))
    else:
        from eesim.report.table import print_table

        shown = [{**row, "ratio": f"{row['ratio']:,.0f}x", "at_least": f"{row['at_least']:,.0f}x"} for row in rows]
        columns = {
            "case": "case",
            "against": "against",
            "size": "size",
            "eesim_s": "eesim s",
            "baseline_s": "baseline s",
            "ratio": "ratio",
            "at_least": "at least",
            "equal": "equal",
        }
        print_table(shown, columns, record["machine"])
        print(f"{long['requests']:,} requests, summary only: {long['seconds']:.1f} s, {long['peak_mb']:.0f} MB (under 1,000 MB wanted)")
        print(f"eesim --help: {starts['help_s']:.2f} s (0.2 s wanted); eesim run, first result: {starts['run_s']:.2f} s (1.5 s wanted)")
    if not all(row["equal"] for row in rows):
        raise SystemExit(1)
