"""`eesim cost`."""

from __future__ import annotations

from pathlib import Path

import click

from eesim.cli.options import device_options, emit, example, format_option, log


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--profile", "-p", required=True, metavar="P", help="Bundled name or YAML file.")
@device_options
@click.option("--plot", metavar="FILE.png", help="Draw the time of each layer; the first model's.")
@format_option
@example("eesim cost network.onnx --profile stm32l4r5-xcubeai", "eesim cost workloads/ecg-mitbih/network.yaml -p h200 --format json")
def cost(models, profile, operating_point, data_type, plot, form) -> None:
    """What each layer of a network costs on a device, without exits or load.

    A multi-exit network is priced whole: all segments and all heads. Operators without a cost rule are named in a warning
    that says what was assumed.
    """
    from eesim.cost import cost_record, price_network
    from eesim.hardware import load_profile

    device, records = load_profile(profile), []
    for model in models:
        priced = price_network(network_of(model, device), device, operating_point, data_type)
        for warning in priced.warnings:
            log(f"warning: {warning}")
        records.append({"file": model, **cost_record(priced)} if len(models) > 1 else cost_record(priced))
    if plot is not None:
        from eesim.errors import BadInput
        from eesim.files import check_writable, whole
        from eesim.plot.predicted import layers

        check_writable(plot)
        if Path(plot).suffix != ".png":
            raise BadInput(f"'{Path(plot).suffix}' is not a kind of picture that is written; choose .png", file=plot, field="plot")
        figure, _ = layers(records[0])
        with whole(plot) as unfinished:
            figure.savefig(unfinished, format="png", dpi=150)
        log(f"wrote {plot}")
    if form == "json":
        from eesim.report.plain import to_json

        emit(to_json(records if len(models) > 1 else records[0]))
    elif form == "csv":
        from eesim.report.plain import to_csv

        emit(to_csv([{"file": model, **layer} for model, record in zip(models, records, strict=True) for layer in record["layers"]]))
    else:
        from eesim.report.sheets import print_cost

        for model, record in zip(models, records, strict=True):
            print_cost(model, record)


def network_of(model: str, profile):
    """The network of a workload (by bundled name or folder) or of a model file, as the profile's runtime runs it."""
    from eesim.bundled import workload_names
    from eesim.network.files import load_network

    if model in workload_names() or (Path(model) / "workload.yaml").is_file():
        from eesim.workload import load_workload

        return load_workload(model).network
    return load_network(model, profile.graph_passes)
