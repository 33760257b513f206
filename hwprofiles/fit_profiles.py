#!/usr/bin/env python3
"""Rewrite the device profiles beside this file from the measured data they rest on, and print their errors.

Usage: ``EESIM_RAW_DATA=<folder> python hwprofiles/fit_profiles.py``. The folder holds `hardware/{mlperf_tiny,rpi4_mlperf,nb201_pi5,gpu}`.
The same data give the same files. The fits themselves are in `eesim.hardware.fit`; what each device needs is in `fits/`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from fits import cpu, gpu, mcu, mlperf_tiny, reference_networks  # noqa: E402
from fits.document import write  # noqa: E402

from eesim.network.network import write_network  # noqa: E402


def build(folder: Path) -> tuple[list[dict], list[dict]]:
    """All profiles as documents, and the rows of the error table, from the folder `hardware` of the raw data."""
    found = [
        *mcu.documents(mlperf_tiny.rows_from_measured(folder / "mlperf_tiny" / "measured.csv"), folder / "mlperf_tiny" / "power_traces.csv"),
        *cpu.documents(folder),
        gpu.document(folder / "gpu"),
    ]
    return [document for document, _ in found], [row for _, rows in found for row in rows]


def main() -> int:
    """Write everything; exit status 2 with one sentence without the raw data."""
    raw = os.environ.get("EESIM_RAW_DATA")
    folder = Path(raw or "") / "hardware"
    if not raw or not folder.is_dir():
        print("Set EESIM_RAW_DATA to the folder that holds the raw data ('hardware/' among it).", file=sys.stderr)
        return 2
    for name, network in reference_networks.networks_from_table(folder / "mlperf_tiny" / "layers.csv").items():
        write_network(network, reference_networks.FOLDER / f"mlperf-tiny-{name}.yaml")
    mlperf_tiny.write_published(mlperf_tiny.rows_from_measured(folder / "mlperf_tiny" / "measured.csv"))
    documents, table = build(folder)
    for document in documents:
        write(document, HERE)
    show(table)
    return 0


def show(table: list[dict]) -> None:
    """Print held-out errors in percent: of each network where there are four, else their median and share within 10 %."""
    for row in table:
        name = f"{row['profile']:28s} {row['point']:14s} {row['what']:8s}"
        errors = np.abs(row["held_out"][np.isfinite(row["held_out"])])
        print(f"{name} held out: median {100 * np.median(errors):5.1f} %, within 10 %: {100 * np.mean(errors <= 0.1):3.0f} %, {len(errors)} cases")
        if "networks" in row:
            for label in ("held_out", "alone", "in_sample"):
                values = " ".join(
                    f"{network} {100 * error:+9.1f}" for network, error in zip(row["networks"], row[label], strict=True) if np.isfinite(error)
                )
                print(f"{'':28s} {'':14s} {'':8s} {label.replace('_', ' '):10s} {values}")


if __name__ == "__main__":
    sys.exit(main())
