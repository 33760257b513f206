"""`eesim profiles`."""

from __future__ import annotations

import click

from eesim.cli.options import Group, emit, example, format_option
from eesim.errors import BadInput


@click.group(cls=Group)
@example("eesim profiles list", "eesim profiles show stm32l4r5-xcubeai", "eesim profiles check my-board.yaml")
def profiles() -> None:
    """The devices: what is bundled, what is known about each, and whether a profile of your own is complete."""


@profiles.command("list")
@format_option
@example("eesim profiles list --format json")
def list_profiles(form) -> None:
    """Bundled devices, a line each."""
    from eesim.bundled import profile_names
    from eesim.hardware import load_profile
    from eesim.report.plain import to_csv, to_json
    from eesim.report.table import percent, print_table

    rows = []
    for name in profile_names():
        profile = load_profile(name)
        point = profile.point()
        rows.append({
            "name": name, "title": profile.title, "class": profile.device_class, "core": profile.core, "runtime": profile.runtime,
            "clock_mhz": point.clock_mhz, "data_type": profile.data_type, "operating_points": ", ".join(profile.operating_points),
            "latency_error": profile.stated_error("latency"), "latency_error_max": profile.stated_error("latency", "max"),
            "energy_error": profile.stated_error("energy"), "energy_error_max": profile.stated_error("energy", "max"),
            "weakest_source": profile.worst_source,
            "file": profile.path.name,
        })  # fmt: skip
    if form == "table":
        columns = {"name": "name", "class": "class", "core": "core", "clock_mhz": "MHz", "data_type": "type"}
        columns |= {"latency_error": "latency off", "energy_error": "energy off", "operating_points": "operating points"}
        shown = [
            {**row, **{f"{what}_error": f"{percent(row[f'{what}_error'])}, {percent(row[f'{what}_error_max'])}" for what in ("latency", "energy")}}
            for row in rows
        ]
        print_table(shown, columns)
        print("off: median and largest error on measurements that took no part in the fit, as the profile states them")
    else:
        emit(to_json(rows) if form == "json" else to_csv(rows))


@profiles.command("show")
@click.argument("profile")
@format_option
@example("eesim profiles show h200")
def show(profile, form) -> None:
    """Everything a profile says, and where each number comes from."""
    from eesim.hardware import load_profile
    from eesim.report.plain import to_csv, to_json
    from eesim.report.sheets import print_profile
    from eesim.result import flatten

    device = load_profile(profile)
    data = device.data.model_dump()
    if form == "table":
        print_profile(device)
    else:
        emit(to_json(data) if form == "json" else to_csv([flatten(data)]))


@profiles.command("check")
@click.argument("files", nargs=-1, metavar="[PROFILE]...")
@click.option("--all", "every", is_flag=True, help="Print every finding, not only the first.")
@example("eesim profiles check", "eesim profiles check my-board.yaml --all")
def check(files, every) -> None:
    """Check profiles: schema, a cost for every layer kind, a source for every number. All bundled ones by default."""
    from eesim.bundled import profile_names
    from eesim.hardware import load_profile
    from eesim.hardware.profile import check_profile

    faults = []
    for name in files or profile_names():
        profile = load_profile(name)
        found = check_profile(profile)
        faults += [BadInput(fault, file=profile.path) for fault in found]
        if not found:
            print(f"{profile.name}: complete")
    if every:
        for fault in faults:
            print(fault)
    if faults:
        more = f" (and {len(faults) - 1} more{'' if every else '; --all prints them'})" if len(faults) > 1 else ""
        raise BadInput(f"{faults[0].problem}{more}", file=faults[0].file)
