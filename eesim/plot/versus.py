"""Mechanisms against the best plain rule: differences of cost and accuracy with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eesim.errors import BadInput
from eesim.plot.bars import facts
from eesim.plot.layout import Sheet, label_inches
from eesim.plot.style import BOUNDS, GREY, looks
from eesim.plot.words import checked, device, workloads
from eesim.units import points

if TYPE_CHECKING:
    import pandas

KEYS = ["profile", "operating_point"]
QUANTITIES = {"cost_difference": "{} against the best plain rule, %", "accuracy_difference": "accuracy against it, points"}
COSTS = {"energy": "active energy", "latency": "mean latency", "macs": "mean MACs"}
MOST_ROWS = 40
REACH = 3.0
"""An axis ends at this many times the typical reach of a panel's intervals, so that what lies far off does not squeeze the others."""


def versus(frame: pandas.DataFrame):
    """Cost and accuracy of each mechanism minus those of the best plain rule, with 95 % intervals. Returns (figure, axes).

    frame : rows of `eesim.compare`. Two panels for each device; a marker is hollow where its interval holds 0. An interval that
    goes on beyond the axis ends in an arrow, a difference beyond it is written there. What has nothing to tune is grey.
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
    look, objective = looks(frame.mechanism), _usual(frame, "tuned_objective")
    for index, (rows, words) in enumerate(zip(groups, labels, strict=True)):
        for panel, (name, heading) in zip(sheet.axes[2 * index : 2 * index + 2], QUANTITIES.items(), strict=True):
            _differences(panel, rows, name, words, look)
            panel.set_xlabel(heading.format(COSTS.get(objective, "cost")))
            sheet.head(panel, device(rows.iloc[0]), [f"best plain rule in calibration: {_best(rows)}"])
    name = workloads(frame)
    fixed = any(_fixed(rows).any() for rows in groups)
    notes = [
        facts(frame),
        "Left of 0 is cheaper, right of 0 is more accurate; bars: paired 95 % bootstrap intervals; hollow: the interval holds 0."
        + (" Grey names: nothing to tune, as they are." if fixed else ""),
    ]
    made, axes = sheet.finish(f"{name + ': m' if name else 'M'}echanisms tuned {_aim(frame, objective)}", notes, legend=False)
    return made, np.array(axes)


def _differences(panel, rows: pandas.DataFrame, name: str, labels: list[str], look: dict) -> None:
    values, low, high = (100 * rows[f"{name}_{part}"].to_numpy(float) for part in ("value", "low", "high"))
    left, right = _limits(values, low, high, whole=name == "accuracy_difference")
    panel.axvline(0, color="black", linewidth=0.8, zorder=1)
    for place, mechanism in enumerate(rows.mechanism):
        style = look.get(mechanism) or {"color": BOUNDS[mechanism]["color"], "marker": BOUNDS[mechanism]["marker"]}
        value, holds = values[place], low[place] <= 0 <= high[place]
        if value < left or value > right:  # so far off that it would squeeze the others
            text, at, side = (f"{value:+,.0f} ▸", right, "right") if value > 0 else (f"◂ {value:+,.0f}", left, "left")
            panel.text(at, place, text, ha=side, va="center", fontsize=7.5, color=GREY)
            continue
        ends = max(low[place], left), min(high[place], right)
        panel.plot(ends, [place, place], color=style["color"], linewidth=1.6, alpha=0.8, label="_")
        for end, beyond, marker in ((left, low[place] < left, "<"), (right, high[place] > right, ">")):
            if beyond:
                panel.plot([end], [place], linestyle="none", marker=marker, markersize=5, color=style["color"], clip_on=False, label="_")
        panel.plot(
            [value], [place], linestyle="none", markersize=6, markerfacecolor="white" if holds else style["color"], label=labels[place], **style
        )
    panel.set_yticks(np.arange(len(labels)), labels)
    for words, fixed in zip(panel.get_yticklabels(), _fixed(rows), strict=True):
        words.set_color("0.5" if fixed else "black")
    panel.set_ylim(len(labels) - 0.45, -0.55)
    panel.set_xlim(left, right)
    panel.grid(axis="y", visible=False)


def _limits(values: np.ndarray, low: np.ndarray, high: np.ndarray, *, whole: bool) -> tuple[float, float]:
    """Where the axis ends on either side of 0: behind everything, or at `REACH` times the typical reach."""
    known = np.isfinite(values) & np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return -1.0, 1.0
    values, low, high = values[known], low[known], high[known]
    reach = np.maximum(np.abs(low), np.abs(high))
    most = REACH * np.median(reach)
    if whole or reach.max() < 1.5 * most:  # to cut a little off would hide more than it shows
        most = reach.max()
    near = np.abs(values) <= most
    left, right = max(min(low[near].min(), 0.0), -most), min(max(high[near].max(), 0.0), most)
    span = max(right - left, 0.5)
    room = [0.3 if beyond.any() else 0.05 for beyond in (values < -most, values > most)]  # for numbers that are written at the edge
    return float(left - room[0] * span), float(right + room[1] * span)


def _aim(frame: pandas.DataFrame, objective: str | None) -> str:
    """What all were tuned to, as far as the rows say."""
    drop, metric = _usual(frame, "tuned_accuracy_drop"), _usual(frame, "tuned_metric")
    if None in (objective, drop, metric):
        return "to the same drop of accuracy"
    return f"for {objective} to lose at most {points(float(drop))} of {str(metric).replace('_', ' ')}"


def _usual(frame: pandas.DataFrame, name: str):
    """The most frequent value of a column; None where there is none. (A rule that answers early is tuned for latency whatever is asked.)"""
    found = frame[name].dropna().mode() if name in frame.columns else ()
    return found[0] if len(found) else None


def _best(rows: pandas.DataFrame) -> str:
    """Name of the rule compared with, and whether its thresholds are shared or per exit."""
    forms = rows.versus_thresholds.dropna().unique() if "versus_thresholds" in rows.columns else ()
    return ", ".join([*rows.versus.dropna().unique(), *(f"thresholds {form}" for form in forms)])


def _fixed(rows: pandas.DataFrame) -> np.ndarray:
    """Which rows stand for rules that have nothing to tune, bool [rows]."""
    known = rows.nothing_to_tune == True if "nothing_to_tune" in rows.columns else False  # noqa: E712 (unknown is tuned)
    return (rows.mechanism.isin(list(BOUNDS)) | known).to_numpy(bool)


def _label(row) -> str:
    return row.mechanism if row.get("runs_as", row.mechanism) == row.mechanism else f"{row.mechanism} = {row.runs_as}"
