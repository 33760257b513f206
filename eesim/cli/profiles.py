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


@profiles.command("compare")
@click.argument("devices", nargs=-1, metavar="[PROFILE]...")
@click.option("--network", "-n", "models", multiple=True, metavar="MODEL", help="Workload, .onnx, .tflite or .yaml; else MLPerf Tiny's four.")
@format_option
@example("eesim profiles compare stm32l4r5-tflm stm32l4r5-xcubeai", "eesim profiles compare --network resnet18")
def compare(devices, models, form) -> None:
    """The same networks on several devices: latency, energy, their 1 sigma, and what is guessed. All bundled ones by default."""
    from eesim.bundled import data_folder, profile_names
    from eesim.cli.cost import network_of
    from eesim.cost import price_network
    from eesim.hardware import load_profile
    from eesim.report.plain import to_csv, to_json
    from eesim.report.table import percent, print_table
    from eesim.support import support_record

    wanted = models or [str(path) for path in sorted(data_folder("hwprofiles").glob("networks/*.yaml"))]
    rows = []
    for model in wanted:
        for profile in map(load_profile, devices or profile_names()):
            network = network_of(model, profile)
            for point in profile.operating_points:
                priced = price_network(network, profile, point)
                said = support_record(priced)
                energies = [cost.nj for _, cost in priced.layers]
                rows.append({
                    "network": network.name, "profile": profile.name, "operating_point": point, "data_type": priced.data_type,
                    "latency_ms": sum(cost.ns for _, cost in priced.layers) / 1e6, "latency_sigma": said["latency_sigma"],
                    "energy_mj": None if None in energies else sum(energies) / 1e6, "energy_sigma": said["energy_sigma"],
                    "energy_of": profile.energy_scope.rail, "fits": said["fits"], "support": said["verdict"],
                })  # fmt: skip
    if form == "table":
        sigmas = ("latency_sigma", "energy_sigma")
        shown = [{**row, **{key: None if row[key] is None else f"±{percent(row[key])}" for key in sigmas}} for row in rows]
        columns = {"network": "network", "profile": "profile", "operating_point": "at", "data_type": "type"}
        columns |= {"latency_ms": "ms", "latency_sigma": "1 sigma", "energy_mj": "mJ", "energy_sigma": "1 sigma "}
        columns |= {"fits": "fits", "support": "support"}
        print_table(shown, columns, sections="network")
        print("Energies are of different rails (`profiles show` names them); a network whose own numbers are quantised keeps its data type.")
    else:
        emit(to_json(rows) if form == "json" else to_csv(rows))


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
