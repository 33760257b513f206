"""Mechanisms against the best plain threshold rule: differences of cost and accuracy with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eesim.errors import BadInput
from eesim.plot.layout import Sheet, label_inches
from eesim.plot.style import BOUNDS, GREY, looks
from eesim.plot.words import checked, device, setting, workloads

if TYPE_CHECKING:
    import pandas

KEYS = ["profile", "operating_point"]
QUANTITIES = {"cost_difference": "cost against the best threshold rule, %", "accuracy_difference": "accuracy against it, points"}
MOST_ROWS = 40


def versus(frame: pandas.DataFrame):
    """Cost and accuracy of each mechanism minus those of the best threshold rule, with 95 % intervals. Returns (figure, axes).

    frame : rows of `eesim.compare`. Two panels for each device; hollow markers are ties, whose interval holds 0. A
    difference far beyond the others (static, always first exit) is cut off at the edge with its value.
    """
    needed = [f"{name}_{part}" for name in QUANTITIES for part in ("value", "low", "high")]
    frame = checked(frame, *needed)
    groups = [rows for _, rows in frame.groupby(KEYS, sort=False) if rows.cost_difference_value.notna().any()]
    if not groups:
        raise BadInput("no row has a difference to draw: it wants rows of `eesim.compare`", field="frame")
    if max(map(len, groups)) > MOST_ROWS:
        raise BadInput(f"more than {MOST_ROWS} rows of one device are too many", field="frame")
    groups = [rows[rows.cost_difference_value.notna()].sort_values("cost_difference_value", kind="stable") for rows in groups]
    labels = [[_label(row) for _, row in rows.iterrows()] for rows in groups]
    left = label_inches([label for some in labels for label in some])
    sheet = Sheet(2 * len(groups), width=left + 3.4, height=0.24 * max(map(len, labels)) + 1.05, columns=2, left=left, title_lines=2)
    look = looks(frame.mechanism)
    for index, (rows, words) in enumerate(zip(groups, labels, strict=True)):
        for panel, (name, heading) in zip(sheet.axes[2 * index : 2 * index + 2], QUANTITIES.items(), strict=True):
            _differences(panel, rows, name, words, look)
            panel.set_xlabel(heading)
            best = rows.versus.dropna().unique()
            sheet.head(panel, device(rows.iloc[0]), [f"best threshold rule in calibration: {', '.join(best)}"])
    name = workloads(frame)
    notes = [
        setting(frame),
        "Left of 0 is cheaper, right of 0 is more accurate; bars are paired 95 % bootstrap intervals; hollow: a tie, the interval holds 0.",
    ]
    made, axes = sheet.finish(f"{name + ': m' if name else 'M'}echanisms tuned to the same drop of accuracy", notes, legend=False)
    return made, np.array(axes)


def _differences(panel, rows: pandas.DataFrame, name: str, labels: list[str], look: dict) -> None:
    values, low, high = (100 * rows[f"{name}_{part}"].to_numpy(float) for part in ("value", "low", "high"))
    limit = _limit(low, high, whole=name == "accuracy_difference")
    panel.axvline(0, color="black", linewidth=0.8, zorder=1)
    for place, mechanism in enumerate(rows.mechanism):
        style = look.get(mechanism) or {"color": BOUNDS[mechanism]["color"], "marker": BOUNDS[mechanism]["marker"]}
        value, tie = values[place], low[place] <= 0 <= high[place]
        if abs(value) > limit:
            side = np.sign(value)
            text = f"{value:+,.0f} ▸" if side > 0 else f"◂ {value:+,.0f}"
            panel.text(side * limit * 0.98, place, text, ha="right" if side > 0 else "left", va="center", fontsize=7.5, color=GREY)
            continue
        panel.plot([max(low[place], -limit), min(high[place], limit)], [place, place], color=style["color"], linewidth=1.6, alpha=0.8, label="_")
        panel.plot([value], [place], linestyle="none", markersize=6, markerfacecolor="white" if tie else style["color"], label=labels[place], **style)
    panel.set_yticks(np.arange(len(labels)), labels)
    panel.set_ylim(len(labels) - 0.45, -0.55)
    panel.set_xlim(-limit * 1.03, limit * 1.03)
    panel.grid(axis="y", visible=False)


def _limit(low: np.ndarray, high: np.ndarray, *, whole: bool) -> float:
    """Where the axis ends: behind everything, or at three times the typical reach so that what lies far off does not squeeze the others."""
    reach = np.maximum(np.abs(low), np.abs(high))
    if whole:
        return float(max(reach.max(), 0.5))
    return float(min(max(3 * np.median(reach), 0.5), max(reach.max(), 0.5)))


def _label(row) -> str:
    return row.mechanism if row.get("runs_as", row.mechanism) == row.mechanism else f"{row.mechanism} = {row.runs_as}"
