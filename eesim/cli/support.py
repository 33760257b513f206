"""`eesim support`."""

from __future__ import annotations

import click

from eesim.cli.options import device_options, emit, example, format_option


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--workload", "-w", "workloads", multiple=True, metavar="W", help="Bundled name or folder; its network is looked at.")
@click.option("--profile", "-p", "profiles", required=True, metavar="LIST", help="Bundled names or YAML files; 'all' for every bundled one.")
@device_options
@format_option
@example("eesim support --workload ecg-mitbih --profile stm32l4r5-xcubeai", "eesim support network.onnx -p all")
def support(models, workloads, profiles, operating_point, data_type, form) -> None:
    """Is this network within what is known about this device: measured, interpolated, guessed or impossible?

    Says for each kind of layer how its cost is known and which share of the time it is; nothing is simulated.
    """
    from eesim.bundled import profile_names
    from eesim.cli.cost import network_of
    from eesim.cli.options import names
    from eesim.cost import price_network
    from eesim.errors import BadInput
    from eesim.hardware import load_profile
    from eesim.report.support import print_support
    from eesim.support import support_record

    wanted = [*workloads, *models]
    if not wanted:
        raise BadInput("give a workload or a model", field="workload")
    devices = profile_names() if profiles.strip() == "all" else names(profiles)
    if len(devices) > 1 and (operating_point or data_type):
        raise BadInput("belongs to one profile; give one", field="operating_point" if operating_point else "data_type")
    known = [load_profile(device) for device in devices]
    records = [support_record(price_network(network_of(model, device), device, operating_point, data_type)) for model in wanted for device in known]
    if form == "table":
        print_support(records)
    else:
        from eesim.report.plain import to_csv, to_json

        kinds = [{**{key: record[key] for key in ("network", "profile", "verdict")}, "kind": row["kind"], "layers": row["layers"],
                  "share": row["share"], "kind_verdict": row["verdict"]} for record in records for row in record["kinds"]]  # fmt: skip
        emit(to_json(records[0] if len(records) == 1 else records) if form == "json" else to_csv(kinds))
