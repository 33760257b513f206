"""What a mechanism pays for accuracy: one panel for each device, on shared axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eesim.errors import BadInput
from eesim.explore.pareto import pareto_front
from eesim.plot.layout import Sheet, columns_for
from eesim.plot.scales import share_costs, value_range
from eesim.plot.style import BOUNDS, FRONT, GREY, looks
from eesim.plot.subsets import draw_subsets, exit_colours
from eesim.plot.words import VALUES, busy, checked, cost_words, device, idle_share, overloaded, rail, setting, workloads

if TYPE_CHECKING:
    import pandas

KEYS = ["workload", "profile", "operating_point", "arrivals"]
REAL_BOUNDS = ["static", "first-exit"]
FAR = 0.5
"""Settings this far below the worst bound, in shares of the range above it, are left out and counted."""
IDEAL = ["oracle", "constant"]
"""Bounds that no rule can be compared with by cost: left out of the front and of the axes' ranges."""


def tradeoff(frame: pandas.DataFrame, cost: str | None = None, value: str = "accuracy", *, columns: int | None = None):
    """Accuracy over cost, a panel for each device; returns (figure, axes).

    frame : rows of `eesim.sweep` or `eesim.compare`.
    cost : a column to pay in: 'active_mj_mean' by default (energy without idling; 'energy_mj_mean' has it), 'latency_ms_mean'
        where no device gives energy; 'latency_ms_p99', 'macs_mean', …
    value : 'accuracy' or 'balanced_accuracy'.
    columns : of panels; found from their number by default.

    A marker is one setting; a thin line joins a mechanism's settings in the order of its parameter where the cost follows
    it smoothly (percentiles do not). The Pareto front over all of them is drawn as steps: what a budget buys. Bounds far
    beyond the others (oracle, constant answer) are named at the edge. Where the rows differ in the exits that are enabled,
    only the front is drawn, coloured by these exits.
    """
    if cost is None:
        known = "active_mj_mean" in getattr(frame, "columns", ()) and frame.active_mj_mean.notna().any()
        cost = "active_mj_mean" if known else "latency_ms_mean"
    frame = checked(frame, cost, value)
    frame, left_out = _without_overload(frame, cost)
    usable = frame.dropna(subset=[cost, value])
    real = usable[~usable.mechanism.isin(IDEAL)]
    if not len(real):
        raise BadInput(f"no row has both {cost} and {value}, so there is nothing to draw", field="frame")
    keys = [key for key in KEYS if key in frame.columns]
    groups = [rows for _, rows in frame.groupby(keys, sort=False, dropna=False)]
    spread = real[cost].max() > 1000 * max(real[cost].min(), 1e-300)
    columns = columns or columns_for(len(groups), 2 if spread and len(groups) > 3 else 3)
    wide = {1: 6.4, 2: 5.8}.get(min(columns, len(groups)), 4.3)
    sheet = Sheet(
        len(groups), width=wide, height=3.5 if len(groups) < 4 else 3.0, columns=columns, left=0.72, below=0.3, title_lines=3 if "_mj_" in cost else 2
    )
    subsets = frame.exits.nunique() > 1 if "exits" in frame.columns else False
    share_costs(sheet.axes, real[cost].to_numpy(float))
    _share_values(sheet.axes, groups, cost, value)
    style = {"mechanisms": looks(frame.mechanism), "exits": exit_colours([front(rows, cost, value) for rows in groups]) if subsets else None}
    for index, (panel, rows) in enumerate(zip(sheet.axes, groups, strict=True)):
        _panel(sheet, panel, rows, cost, value, style)
        several = [rows[key].iloc[0] for key in ("workload", "arrivals") if key in keys and frame[key].nunique() > 1]
        below = int((rows[~rows.mechanism.isin(IDEAL)][value] < panel.get_ylim()[0]).sum())
        more = [f"{below} settings below {panel.get_ylim()[0]:.2g} left out"] if below else []
        facts = _facts(rows, cost, left_out)
        sheet.head(panel, ", ".join([*several, device(rows.iloc[0])]), ["; ".join([*facts[:1], *more]), *facts[1:]] if more else facts)
        first, last = sheet.outer(index)
        name, unit = cost_words(cost)
        panel.set_xlabel(f"{name}{', ' + unit if unit else ''}" if last else "")
        panel.set_ylabel(VALUES.get(value, value.replace("_", " ")) if first else "")
    made, axes = sheet.finish(_title(frame, cost, value, subsets), _notes(frame, cost, subsets, len(groups)))
    return made, np.array(axes)


def front(rows: pandas.DataFrame, cost: str, value: str) -> pandas.DataFrame:
    """The rows that no other beats, by rising cost; oracle and constant answer take no part, for they are no choices."""
    real = rows[~rows.mechanism.isin(IDEAL)].dropna(subset=[cost, value])
    return real.iloc[pareto_front(real[cost].to_numpy(float), real[value].to_numpy(float))]


def _panel(sheet: Sheet, panel, rows: pandas.DataFrame, cost: str, value: str, style: dict) -> None:
    best = front(rows, cost, value)
    if not len(best):
        panel.text(0.5, 0.5, "not known for this device", transform=panel.transAxes, ha="center", va="center", color=GREY)
        return
    panel.plot(best[cost], best[value], zorder=4, **FRONT)
    full = rows
    if style["exits"] is not None:
        draw_subsets(sheet, panel, best, cost, value, style)
        full = rows[rows.exits.str.len() == rows.exits.str.len().max()]
    else:
        for name, look in style["mechanisms"].items():
            _settings(panel, rows[rows.mechanism == name].dropna(subset=[cost, value]), cost, value, name, look)
    _bounds(panel, full.dropna(subset=[value]), cost, value)


def _settings(panel, points: pandas.DataFrame, cost: str, value: str, name: str, look: dict) -> None:
    """One mechanism's settings: hollow markers, so that one that lies on another shows it."""
    order = None if _jumps(cost) else _parameter(points)
    points = points if order is None else _ordered(points, order, cost)
    panel.plot(
        points[cost], points[value], label=name, zorder=3, linestyle="none" if order is None else "-", linewidth=0.6,
        markersize=4, markerfacecolor="none", markeredgewidth=0.8, alpha=0.9, **look,
    )  # fmt: skip


def _bounds(panel, rows: pandas.DataFrame, cost: str, value: str) -> None:
    low, high = panel.get_ylim()
    for name in ("static", "first-exit"):
        points = rows[rows.mechanism == name].dropna(subset=[cost])
        if len(points):
            panel.plot(
                points[cost], points[value], linestyle="--" if name == "static" else "none", linewidth=0.8, markersize=6, zorder=5, **BOUNDS[name]
            )
    for level in rows[value][rows.mechanism == "static"].unique():
        panel.axhline(level, color="black", linestyle="--", linewidth=0.8, zorder=1)
    oracle = rows[rows.mechanism == "oracle"].dropna(subset=[cost])
    for x, level in oracle[[cost, value]].itertuples(index=False):
        _oracle(panel, x, level, above=level > high)
    for level in rows[value][rows.mechanism == "constant"].unique():
        look = BOUNDS["constant"]
        if low <= level <= high:
            panel.axhline(level, color=look["color"], linestyle=":", linewidth=1, label=look["label"])
        else:
            _edge(panel, 0.985, 0.025, f"constant answer {level:.3f} {'↓' if level < low else '↑'}", ha="right", va="bottom", color=look["color"])


def _oracle(panel, x: float, level: float, *, above: bool) -> None:
    """The oracle in its place; far above everything else a star at the edge with its value."""
    y, transform = (0.93, panel.get_xaxis_transform()) if above else (level, panel.transData)
    look = BOUNDS["oracle"]
    panel.plot([x], [y], linestyle="none", markersize=9, zorder=5, transform=transform, **look)
    if above:
        across = panel.transAxes.inverted().transform(panel.transData.transform((x, level)))[0]
        left = across < 0.6
        _edge(
            panel,
            across + (0.025 if left else -0.025),
            0.93,
            f"oracle {level:.3f} ↑",
            ha="left" if left else "right",
            va="center",
            color=look["color"],
        )


def _edge(panel, x: float, y: float, text: str, **style) -> None:
    panel.text(x, y, text, transform=panel.transAxes, fontsize=7.5, zorder=6, **style)


def _share_values(axes, groups, cost: str, value: str) -> None:
    """One vertical scale for all panels of a workload."""
    for workload in {rows.workload.iloc[0] for rows in groups}:
        chosen = [(panel, rows) for panel, rows in zip(axes, groups, strict=True) if rows.workload.iloc[0] == workload]
        known = {name: [level for _, rows in chosen for level in rows[value][rows.mechanism == name].dropna()] for name in IDEAL}
        levels = [rows[value][~rows.mechanism.isin(IDEAL) & rows[cost].notna()].dropna().to_numpy(float) for _, rows in chosen]
        levels = np.concatenate(levels)
        worst = [level for _, rows in chosen for name in (*REAL_BOUNDS, "constant") for level in rows[value][rows.mechanism == name].dropna()]
        if worst and levels.size:  # one mechanism that fails must not squeeze all others
            levels = levels[levels >= min(worst) - FAR * (levels.max() - min(worst))]
        if levels.size:
            limits = value_range(levels, max(known["oracle"], default=None), min(known["constant"], default=None))
            for panel, _ in chosen:
                panel.set_ylim(*limits)


def _without_overload(frame: pandas.DataFrame, cost: str):
    """Latency and waits in overload grow with the length of the run: such rows are not drawn but counted."""
    lost = overloaded(frame) & cost.startswith(("latency", "wait"))
    return frame[~lost] if not lost.all() else frame, frame[lost]


def _facts(rows: pandas.DataFrame, cost: str, left_out: pandas.DataFrame) -> list[str]:
    """Small lines under a panel's title."""
    if "_mj_" in cost:
        real = rows[~rows.mechanism.isin(IDEAL)]
        measured = rail(rows)
        return [text for text in (idle_share(real), f"measured: {measured}" if measured else "") if text]
    facts = [text for text in (busy(rows),) if text]
    same = left_out[(left_out.profile == rows.profile.iloc[0]) & (left_out.operating_point == rows.operating_point.iloc[0])]
    if len(same):
        facts.append(f"{len(same)} settings in overload left out ({', '.join(dict.fromkeys(same.mechanism))})")
    return ["; ".join(facts)] if facts else []


def _title(frame: pandas.DataFrame, cost: str, value: str, subsets: bool) -> str:
    what = f"{VALUES.get(value, value)} over {cost_words(cost)[0]}"
    name = workloads(frame)
    return (f"{name}: {what}" if name else what[:1].upper() + what[1:]) + (", best of all subsets of exits" if subsets else "")


def _notes(frame: pandas.DataFrame, cost: str, subsets: bool, panels: int) -> list[str]:
    drawn = "only settings on the front are drawn, coloured by the exits that are enabled" if subsets else "a marker is one setting"
    notes = [setting(frame), f"Better is up and to the left; {drawn}" + ("; all panels share their axes." if panels > 1 else ".")]
    if cost == "active_mj_mean":
        notes.append("Idle energy is left out.")
    if "_mj_" in cost and "energy_scope_rail" in frame.columns and frame.energy_scope_rail.nunique() > 1:
        notes[-1] += " Devices were measured on different rails: compare their energies with care."
    return notes


def _jumps(cost: str) -> bool:
    """Percentiles and maxima are step functions of a threshold."""
    return cost.rsplit("_", 1)[-1] in ("p50", "p95", "p99", "max")


def _parameter(points: pandas.DataFrame) -> str | None:
    """The one parameter that differs between a mechanism's settings, None where there is none or more than one."""
    names = [name for name in points.columns if name.startswith("parameters_") and points[name].nunique() > 1]
    return names[0] if len(names) == 1 and points[names[0]].notna().all() else None


def _ordered(points: pandas.DataFrame, parameter: str, cost: str) -> pandas.DataFrame:
    """Settings by their parameter from cheap to dear, 'never' (infinite in its column) last: it does the most work."""
    never = np.isinf(points[parameter].to_numpy(float))
    steady = points[~never].sort_values(parameter, kind="stable")
    falling = len(steady) > 1 and steady[cost].iloc[0] > steady[cost].iloc[-1]
    return pd.concat([steady.iloc[::-1] if falling else steady, points[never]])
