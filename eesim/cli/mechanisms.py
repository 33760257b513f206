"""`eesim mechanisms`."""

from __future__ import annotations

from textwrap import fill

import click

from eesim.cli.options import Group, emit, example, format_option

RULE_WIDTH, PARAMETERS_WIDTH = 64, 28
"""Where the list wraps."""


@click.group(cls=Group)
@example("eesim mechanisms list", "eesim mechanisms show dart", "eesim mechanisms show my_rule.py")
def mechanisms() -> None:
    """The decision mechanisms: what each does, where it is from, and its parameters."""


@mechanisms.command("list")
@format_option
@example("eesim mechanisms list --format json")
def list_mechanisms(form) -> None:
    """Bundled mechanisms, a line each; bounds and baselines first."""
    from eesim.mechanisms import load_mechanism, mechanism_names
    from eesim.mechanisms.describe import describe
    from eesim.report.plain import to_csv, to_json
    from eesim.report.table import print_table

    rows = [describe(load_mechanism(name)) for name in mechanism_names()]
    flat = [{**row, "parameters": ", ".join(parameter["name"] for parameter in row["parameters"] if not parameter["optional"])} for row in rows]
    flat = [{**row, "reads": ", ".join(row["reads"])} for row in flat]
    if form == "table":
        shown = [{**row, "rule": fill(row["rule"], RULE_WIDTH), "parameters": fill(row["parameters"], PARAMETERS_WIDTH)} for row in flat]
        shown = [{**row, "state": row["state"] + (f"; reads\n{row['reads']}" if row["reads"] else "")} for row in shown]
        print_table(shown, {"name": "name", "rule": "rule", "parameters": "parameters", "state": "state", "fitted": "fitted"})
        print("fitted: on the calibration split, before it decides. Threshold rules also take min_exit, max_exit, temperature and class_offset.")
        print("`eesim mechanisms show NAME` tells the whole rule and its source.")
    else:
        emit(to_json(rows) if form == "json" else to_csv(flat))


@mechanisms.command("show")
@click.argument("mechanism")
@format_option
@example("eesim mechanisms show temporal-patience")
def show(mechanism, form) -> None:
    """One mechanism, a bundled name or a Python file: its text, source and parameters with ranges and defaults."""
    from eesim.mechanisms import load_mechanism
    from eesim.mechanisms.describe import describe
    from eesim.report.plain import to_csv, to_json
    from eesim.report.table import print_table

    record = describe(load_mechanism(mechanism))
    if form == "json":
        emit(to_json(record))
    elif form == "csv":
        emit(to_csv(record["parameters"]))
    else:
        state = f"state: {record['state']}" + (f"; reads: {' and '.join(record['reads'])}" if record["reads"] else "")
        print(f"{record['name']}\n\n{record['text']}\n\nsource: {record['source'] or 'not said'}; {state}\n")
        if record["parameters"]:
            print_table(record["parameters"], {"name": "parameter", "default": "default", "range": "range", "help": ""})
        else:
            print("no parameters")
