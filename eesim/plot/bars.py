"""Mechanisms side by side: where they exit, and what they do to the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import numpy as np

from eesim.plot.style import figure, legend

if TYPE_CHECKING:
    import pandas


def exits(frame: pandas.DataFrame):
    """Share of requests that leave at each exit, a bar for each row; rows of one device. Returns (figure, axes)."""
    rows = frame[frame.mechanism != "constant"]
    names = [name for name in rows.columns if name.startswith("exit_fraction_")]
    made, (axes,) = figure(1, width=6.5, height=0.32 * len(rows) + 0.9, left=1.4)
    left = np.zeros(len(rows))
    labels = [_label(row) for _, row in rows.iterrows()]
    colours = matplotlib.colormaps["viridis"](np.linspace(0.9, 0.1, len(names)))
    for index, (name, colour) in enumerate(zip(names, colours, strict=True)):
        share = rows[name].to_numpy(float) * 100
        axes.barh(np.arange(len(rows)), share, left=left, color=colour, label=f"exit {index}", height=0.75)
        left += share
    axes.set_yticks(np.arange(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("requests, %")
    axes.grid(axis="y", visible=False)
    legend(made, [axes])
    return made, np.array([axes])


def queueing(frame: pandas.DataFrame):
    """Mean latency split into wait and service, with the 99th percentile as a tick; a panel for each device. Returns (figure, axes).

    frame : one row for each mechanism and device, as `eesim.compare` gives them.
    """
    groups = list(frame[frame.mechanism != "constant"].groupby(["profile", "operating_point"], sort=False))
    most = max(len(rows) for _, rows in groups)
    made, axes = figure(len(groups), height=0.27 * most + 1.0, left=1.15)
    for panel, ((profile, point), rows) in zip(axes, groups, strict=False):
        places = np.arange(len(rows))
        wait = rows.wait_ms_mean.to_numpy(float)
        service = rows.latency_ms_mean.to_numpy(float) - wait
        panel.barh(places, service, color="#0072B2", height=0.7, label="computing, mean")
        panel.barh(places, wait, left=service, color="#E69F00", height=0.7, label="waiting, mean")
        panel.plot(
            rows.latency_ms_p99.to_numpy(float),
            places,
            linestyle="none",
            marker="|",
            color="black",
            markersize=9,
            markeredgewidth=2,
            label="latency, 99th percentile",
        )
        panel.set_yticks(places, [_label(row) for _, row in rows.iterrows()])
        panel.invert_yaxis()
        panel.set_xlim(left=0)
        panel.set_xlabel("ms")
        panel.grid(axis="y", visible=False)
        busy = rows.utilization.max()
        panel.set_title(f"{profile}, {point} (up to {busy:.0%} busy)", fontsize=9)
    legend(made, axes[: len(groups)])
    return made, np.array(axes[: len(groups)])


def _label(row) -> str:
    runs = row.get("runs_as", row.mechanism)
    return row.mechanism if runs == row.mechanism else f"{row.mechanism} = {runs}"
