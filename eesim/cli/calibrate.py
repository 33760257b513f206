"""`eesim calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from eesim.cli.options import emit, example, format_option, log


@click.command()
@click.option("--measurements", "-m", required=True, metavar="FILE.csv", help="Columns network, latency_ms; optional energy_mj, layer.")
@click.option("--networks", "-n", required=True, metavar="DIR", help="Folder or zip with <network>.onnx, .tflite or .yaml.")
@click.option("--base", "-b", required=True, metavar="P", help="Profile to start from; what the measurements do not say stays as it is there.")
@click.option("--out", "-o", required=True, metavar="NEW.yaml", help="The profile to write; NEW.png beside it shows predicted against measured.")
@click.option("--columns", metavar="LIST", default="", help="Columns that have other names: network=arch_idx,latency_ms=lat_ms_median.")
@click.option("--where", metavar="LIST", default="", help="Only rows with these values: framework=onnx,device=pi5.")
@click.option("--operating-point", metavar="NAME", help="Where the measurements were made; the base's default otherwise.")
@click.option("--data-type", metavar="TYPE", help="Numbers that the networks ran with; the base's otherwise.")
@click.option("--origin", metavar="TEXT", help="Where the measurements come from, for the profile's sources; the file's name otherwise.")
@format_option
@example(
    "eesim calibrate -m measured.csv -n networks/ -b raspberry-pi-4-tflite-fp32 -o my-board.yaml",
    "eesim calibrate -m calibration.csv -n onnx.zip -b raspberry-pi-5-litert --columns network=arch_idx,latency_ms=lat_ms_median "
    "--where framework=litert -o pi5.yaml",
)
def calibrate(measurements, networks, base, out, columns, where, operating_point, data_type, origin, form) -> None:
    """Fit a profile to measurements of your own device, and say how far it can be trusted.

    Every coefficient of the base may move, none below zero; errors are relative and outliers count little. Printed are the
    errors on networks left out of the fit, each coefficient with its standard error, and what the measurements cannot tell apart.
    """
    from eesim.files import check_writable, whole
    from eesim.hardware import load_profile
    from eesim.hardware.calibrate import calibrate as fit
    from eesim.hardware.document import write_profile
    from eesim.measure.table import read_cases
    from eesim.plot.predicted import predicted
    from eesim.report.calibration import calibration_record, print_calibration

    target = Path(out)
    if target.suffix not in (".yaml", ".yml"):
        target = target.with_name(target.name + ".yaml")
    check_writable(target)
    profile = load_profile(base)
    cases = read_cases(measurements, networks, columns=_pairs(columns, "columns"), where=_pairs(where, "where"), passes=profile.graph_passes)
    log(f"{len(cases)} measurements of {len({case.group for case in cases})} networks; fitting")
    said = origin or f"{Path(measurements).name}" + (f", {where}" if where else "")
    found = fit(profile, cases, name=target.stem, origin=said, data_type=data_type, operating_point=operating_point)
    write_profile(found.document, target, f"# Written by `eesim calibrate` from {Path(measurements).name}, starting from {profile.name}.\n")
    panels = [
        {"what": quantity.what, "unit": unit, "measured": quantity.measured / 1e6, "predicted": quantity.held_out / 1e6}
        for quantity, unit in zip(found.quantities, ("ms", "mJ"), strict=False)
    ]
    figure, _ = predicted(panels, f"{target.stem}: predicted against measured", [f"Each network is predicted by a fit that has not seen it. {said}"])
    picture = target.with_suffix(".png")
    with whole(picture) as unfinished:
        figure.savefig(unfinished, format="png", dpi=150)
    record = calibration_record(found)
    if form == "table":
        print_calibration(record)
    else:
        from eesim.report.plain import to_csv, to_json

        emit(to_json(record) if form == "json" else to_csv(record["coefficients"]))
    for warning in found.warnings:
        log(f"warning: {warning}")
    log(f"wrote {target} and {picture}")


def _pairs(text: str, field: str) -> dict[str, str]:
    """`a=b,c=d` as a dictionary."""
    from eesim.errors import BadInput

    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise BadInput(f"'{part}' is not NAME=VALUE", field=field)
        found[name.strip()] = value.strip()
    return found
