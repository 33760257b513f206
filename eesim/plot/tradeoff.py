"""What a mechanism pays for accuracy: one panel for each workload and device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from eesim.errors import unknown
from eesim.explore.pareto import pareto_front
from eesim.plot.style import BOUNDS, figure, legend, looks

if TYPE_CHECKING:
    import pandas

COSTS = {
    "active_mj_mean": "energy per inference, mJ (idling left out)",
    "energy_mj_mean": "energy per inference, mJ (idling included)",
    "latency_ms_mean": "mean latency, ms",
    "latency_ms_p99": "99th percentile of latency, ms",
    "macs_mean": "MACs per inference",
}
VALUES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}


def tradeoff(frame: pandas.DataFrame, cost: str | None = None, value: str = "accuracy", *, columns: int = 3):
    """Accuracy over cost, a panel for each device; returns (figure, axes).

    frame : rows of `eesim.sweep` or `eesim.compare`.
    cost : a column to pay in; active energy by default, latency where no device gives energy.
    value : 'accuracy' or 'balanced_accuracy'.

    Each mechanism's settings are joined in order of cost; the Pareto front over all of them is drawn broad and grey. The
    static network, always-first-exit, the per-sample oracle and the constant answer are drawn as bounds.
    """
    for name in (cost, value):
        if name is not None and name not in frame.columns:
            raise unknown("column", name, frame.columns)
    if cost is None:
        cost = "active_mj_mean" if frame.active_mj_mean.notna().any() else "latency_ms_mean"
    keys = ["workload", "profile", "operating_point"]
    groups = list(frame.groupby(keys, sort=False))
    made, axes = figure(len(groups), columns=columns)
    style = looks(frame.mechanism)
    several = {key: frame[key].nunique() > 1 for key in keys}
    for panel, (names, rows) in zip(axes, groups, strict=False):
        _panel(panel, rows, cost, value, style)
        shown = [name for key, name in zip(keys, names, strict=True) if several[key] or key == "profile"]
        panel.set_title(", ".join(shown), fontsize=9)
        panel.set_xlabel(COSTS.get(cost, cost.replace("_", " ")))
        panel.set_ylabel(VALUES.get(value, value.replace("_", " ")))
    legend(made, axes[: len(groups)])
    return made, np.array(axes[: len(groups)])


def _panel(panel, rows: pandas.DataFrame, cost: str, value: str, style: dict) -> None:
    rules = rows[~rows.mechanism.isin(list(BOUNDS))].dropna(subset=[cost, value])
    real = rows[rows.mechanism.isin([*style, "static", "first-exit"])].dropna(subset=[cost, value])
    front = real.iloc[pareto_front(real[cost].to_numpy(float), real[value].to_numpy(float))]
    panel.plot(front[cost], front[value], color="0.75", linewidth=5, solid_capstyle="round", zorder=1, label="Pareto front")
    for name, points in rules.groupby("mechanism"):
        points = points.sort_values(cost)
        panel.plot(points[cost], points[value], linewidth=1, markersize=3.5, alpha=0.9, label=name, zorder=3, **style[name])
    for name, look in BOUNDS.items():
        points = rows[rows.mechanism == name].dropna(subset=[cost, value])
        if name == "constant":
            for level in points[value].unique():
                _constant(panel, level, real[value].min(), rows[value].max(), look)
        elif len(points):
            panel.plot(points[cost], points[value], linestyle="none", markersize=11 if name == "oracle" else 7, zorder=4, **look)
        if name in ("static", "oracle"):
            for level in points[value].unique():
                panel.axhline(level, color=look["color"], linestyle="--", linewidth=0.8, zorder=1)
    if (rows[cost] > 0).any() and rows[cost].max() > 20 * rows[cost][rows[cost] > 0].min():
        panel.set_xscale("log")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if rows[cost].max() < 300 * rows[cost][rows[cost] > 0].min() else (1,), numticks=12))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
    else:
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(5))


def _constant(panel, level: float, lowest: float, highest: float, look: dict) -> None:
    """The constant answer as a line; far below everything else only a word says where it is, so that the rest stays readable."""
    if lowest - level < highest - lowest:
        panel.axhline(level, color=look["color"], linestyle=":", linewidth=1, label=look["label"])
    else:
        text = f"constant answer: {level:.3f}, below"
        panel.text(0.98, 0.02, text, transform=panel.transAxes, ha="right", va="bottom", fontsize=7.5, color=look["color"])
