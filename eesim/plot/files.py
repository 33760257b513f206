"""Plots and tables that verbs write into a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eesim.files import whole
from eesim.plot.bars import exits, queueing
from eesim.plot.tradeoff import tradeoff
from eesim.plot.versus import versus

if TYPE_CHECKING:
    import pandas

SERIES = "eesim.series"
"""Key of the PNG's text that holds what is drawn in it."""


def write_sweep_plots(frame: pandas.DataFrame, folder: str | Path) -> Iterator[Path]:
    """Trade-off plots of a sweep, a set for each workload; yields the paths."""
    for workload, rows in frame.groupby("workload", sort=False):
        yield write_picture(tradeoff(rows)[0], Path(folder) / f"tradeoff-energy-{workload}.png")
        if rows.balanced_accuracy.notna().any():
            yield write_picture(tradeoff(rows, value="balanced_accuracy")[0], Path(folder) / f"tradeoff-balanced-{workload}.png")
        cost = "latency_ms_p99" if rows.latency_ms_p99.notna().any() else "latency_ms_mean"
        yield write_picture(tradeoff(rows, cost=cost)[0], Path(folder) / f"tradeoff-latency-{workload}.png")


def write_comparison(rows: Sequence[dict[str, Any]], folder: str | Path) -> Iterator[Path]:
    """comparison.parquet; plots of the differences to the best threshold rule, of queueing, and of where requests exit. Yields the paths."""
    import pandas as pd

    folder = Path(folder)
    frame = pd.DataFrame(rows).drop(columns="brief", errors="ignore")
    words = {name: frame[name].map(str) for name in frame.columns if name.startswith("parameters_") and frame[name].map(type).nunique() > 1}
    stored = frame.assign(parameters=[json.dumps(values) for values in frame.parameters], **words)
    with whole(folder / "comparison.parquet") as unfinished:
        stored.to_parquet(unfinished, index=False)
    yield folder / "comparison.parquet"
    if "cost_difference_value" in frame and frame.cost_difference_value.notna().any():
        yield write_picture(versus(frame)[0], folder / "versus.png")
    yield write_picture(queueing(frame)[0], folder / "queueing.png")
    yield write_picture(exits(frame)[0], folder / "exits.png")


def write_picture(made, path: str | Path) -> Path:
    """Write a figure as PNG, whole or not at all; what is drawn in it travels along as text, so that it can be checked."""
    with whole(path) as unfinished:
        made.savefig(unfinished, format="png", dpi=130, metadata={SERIES: json.dumps(series(made))})
    return Path(path)


def series(made) -> dict[str, dict[str, list[list[float]]]]:
    """What a figure draws: {panel: {series: [xs, ys]}} to six digits."""
    return {
        str(panel.get_label()): {
            str(line.get_label()): [_digits(line.get_xdata()), _digits(line.get_ydata())]
            for line in panel.lines
            if not str(line.get_label()).startswith("_") and len(line.get_xdata())
        }
        for panel in made.axes
        if panel.axison
    }


def _digits(values) -> list[float]:
    return [float(f"{value:.6g}") for value in np.asarray(values, float)]
