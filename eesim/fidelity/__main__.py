"""Rewrite the bundled device profiles from the measured data they rest on: ``EESIM_RAW_DATA=<folder> python -m eesim.fidelity``.

The folder holds `hardware/{mlperf_tiny,rpi4_mlperf,nb201_pi5,gpu}`. The same data give the same files.
"""

from __future__ import annotations

import sys

from eesim.bundled import data_folder
from eesim.errors import EesimError
from eesim.fidelity import mlperf_tiny, reference_networks
from eesim.fidelity.build import build, raw_folder
from eesim.fidelity.document import write
from eesim.network.network import write_network


def main() -> int:
    """Write everything; exit status 2 with one sentence without the raw data."""
    try:
        folder = raw_folder()
        for name, network in reference_networks.networks_from_table(folder / "mlperf_tiny" / "layers.csv").items():
            write_network(network, reference_networks.folder() / f"mlperf-tiny-{name}.yaml")
        mlperf_tiny.write_published(mlperf_tiny.rows_from_measured(folder / "mlperf_tiny" / "measured.csv"))
        for document, _ in build(folder):
            print(write(document, data_folder("hwprofiles")))
    except EesimError as error:
        print(f"eesim.fidelity: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
