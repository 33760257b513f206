"""`eesim validate`."""

from __future__ import annotations

from pathlib import Path

import click

from eesim.cli.options import emit, example, format_option, log, names, progress

PARTS = ("profiles", "microcontrollers", "machine", "serving")
SERVED = ("ecg-mitbih", "cifar10-resnet8")
PAGE = "FIDELITY.md"
SECONDS, RUNS, CLOCK, LEARN_S = 3.0, 5, "own", 15.0


@click.command()
@click.option("--only", metavar="LIST", help=f"Of {', '.join(PARTS)}; all by default.")
@click.option("--out", "-o", metavar="DIR", help=f"Write {PAGE} and its figure into this folder.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=SECONDS, show_default=True, help="Measured for each network here.")
@click.option("--runs", type=click.IntRange(min=1), default=RUNS, show_default=True, help="Of serving, each with other arrivals.")
@click.option(
    "--clock", type=click.Choice(["wall", "own"]), default=CLOCK, show_default=True, help="own: the machine at its fastest, others left out."
)
@format_option
@example("eesim validate --only microcontrollers", "EESIM_RAW_DATA=DIR eesim validate --out hwprofiles")
def validate(only, out, seconds, runs, clock, form) -> None:
    """Hold every profile against measurements that its fit has not seen, and the simulation against this machine.

    profiles: every bundled profile fitted again from the raw data (the folder that EESIM_RAW_DATA names), without what is then
    predicted. microcontrollers: all published MLPerf Tiny systems, from a bundled table. machine: exits of bundled networks on this
    machine, predicted from other networks. serving: a real queue against a simulated one. Takes some minutes.
    """
    from eesim.errors import BadInput, unknown
    from eesim.fidelity import checks
    from eesim.files import check_writable, whole, write_text
    from eesim.report import fidelity as report

    chosen = names(only) or list(PARTS)
    for name in chosen:
        if name not in PARTS:
            raise unknown("part", name, PARTS, field="only")
    if out is not None:
        check_writable(out, folder=True)
    findings, serving = [], {}
    if "profiles" in chosen:
        from eesim.fidelity.build import raw_folder

        try:
            folder = raw_folder()
        except BadInput as error:
            if only:
                raise
            log(f"profiles are left out: {error}")
        else:
            log("fitting every profile again")
            findings += checks.from_raw_data(folder)
    if "microcontrollers" in chosen:
        with progress(checks.SYSTEMS, "leaving networks out") as done:
            findings += checks.microcontrollers(done)
    if clock == "own" and {"machine", "serving"} & set(chosen):
        from eesim.measure.yardstick import yardstick

        log(f"finding out for {LEARN_S:.0f} s how fast this machine can be")
        yardstick().learn(LEARN_S)
    if "machine" in chosen:
        findings += _machine(seconds, clock)
    if "serving" in chosen:
        serving = _serving(runs, clock)
    if form == "json":
        from eesim.report.plain import to_json

        emit(to_json(report.record(findings, serving)))
    elif form == "csv":
        from eesim.report.plain import to_csv

        emit(to_csv([{**item.record(), "limits": ""} for item in findings]))
    else:
        report.print_fidelity(findings, serving)
    if out is not None:
        from eesim.plot.fidelity import fidelity

        picture = Path(out) / "fidelity.png"
        figure, _ = fidelity(findings, "Profiles against measurements that their fits have not seen")
        with whole(picture) as unfinished:
            figure.savefig(unfinished, format="png", dpi=110)
        given = [("only", only, None), ("seconds", seconds, SECONDS), ("runs", runs, RUNS), ("clock", clock, CLOCK)]
        options = "".join(f" --{name} {value}" for name, value, usual in given if value != usual)
        command = f"eesim validate{options} --out {out}"
        write_text(Path(out) / PAGE, report.markdown(findings, serving, picture.name, command))
        log(f"wrote {Path(out) / PAGE} and {picture}")


def _machine(seconds: float, clock: str) -> list:
    """The exits of bundled networks on this machine, each network predicted from the others."""
    import tempfile

    from eesim.fidelity.machine import NETWORKS, exits_of_other_networks
    from eesim.measure import measure_in_turns
    from eesim.measure.measuring import ROUNDS
    from eesim.measure.turns import turns

    with progress(ROUNDS * len(NETWORKS) * turns(clock), "measuring this machine") as done:
        measured = measure_in_turns(NETWORKS, seconds=seconds, clock=clock, progress=done)
    with tempfile.TemporaryDirectory() as folder, progress(len(NETWORKS), "predicting each from the others") as done:
        return [exits_of_other_networks(measured, Path(folder), done)]


def _serving(runs: int, clock: str) -> dict:
    """Differences of simulated from real queues, by network."""
    from eesim.errors import BadInput
    from eesim.measure.recorded import recorded_inputs
    from eesim.measure.serving import FIGURES, serving_versus_simulation
    from eesim.workload import load_workload

    found = {}
    for name in SERVED:
        workload = load_workload(name)
        try:
            inputs, labels = recorded_inputs(workload, "test")
        except BadInput as error:
            log(f"{name}: made-up inputs, and requests leave where the trace says: {error}")
            inputs = labels = None
        log(f"serving {name}")
        compared = serving_versus_simulation(workload, inputs, labels, runs=runs, clock=clock)
        real = compared.runs[compared.runs.source == "real"]
        found[name] = {
            "differences": {row.pop("source"): {key: row[key] for key in FIGURES} for row in compared.differences.to_dict("records")},
            "exits_equal": float(real.exit_agreement.median()), "runs": runs, "disturbed": float(real.disturbed.median()),
            "requests": compared.requests, "load": compared.load, "clock": clock,
        }  # fmt: skip
        for note in compared.notes:
            log(f"{name}: {note}")
    return found
