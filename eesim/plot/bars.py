"""Mechanisms side by side: where they exit, and what they do to the queue."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pandas as pd

from eesim.errors import BadInput
from eesim.mechanisms.registry import load_mechanism, mechanism_names
from eesim.plot.layout import Sheet, columns_for, label_inches
from eesim.plot.style import GREY
from eesim.plot.words import busy, checked, device, overloaded, setting, workloads

if TYPE_CHECKING:
    import pandas

KEYS = ["profile", "operating_point"]
MOST_ROWS = 40
"""Bars of one device that still can be read."""
ALIKE = 5.0
"""Panels share their scale where the longest bars of devices differ by less than this factor."""
NUMBER = 0.38
"""Inches for a column of numbers beside the bars."""


def exits(frame: pandas.DataFrame):
    """Share of requests that leave at each exit, in percent: a bar for each row with its numbers beside it. Returns (figure, axes).

    frame : rows of `eesim.compare`, or chosen rows of a sweep; devices that exit alike share a panel, which names them. Rules whose
    answer leaves before computing ends are hatched.
    """
    names = [name for name in getattr(frame, "columns", ()) if name.startswith("exit_fraction_")]
    if not names:
        raise BadInput("has no columns exit_fraction_0, exit_fraction_1, …: it wants rows of `eesim.compare` or `eesim.sweep`", field="frame")
    frame = checked(frame, *names)
    groups = _alike(_groups(frame[frame[names].sum(axis=1) > 0]), names)
    labels = [_labels(rows) for rows, _ in groups]
    left = label_inches([label for some in labels for label in some])
    across = columns_for(len(groups), 2)
    right = NUMBER * len(names) + 0.2
    sheet = Sheet(
        len(groups), width=left + right + 3.2, height=0.24 * max(map(len, labels)) + 1.05, columns=across, left=left, right=right, title_lines=2
    )
    colours = matplotlib.colormaps["YlGnBu"](np.linspace(0.25, 0.98, len(names)))
    for panel, (rows, devices), words in zip(sheet.axes, groups, labels, strict=True):
        _shares(panel, rows, names, colours, words, sheet.panel_inches[0])
        more = [f"and alike: {', '.join(devices[1:])}"] if len(devices) > 1 else []
        sheet.head(panel, devices[0], more)
        panel.set_xlabel("requests that leave at an exit, %")
    name = workloads(frame)
    early = sorted(frame.mechanism[_early(frame)].unique())
    deeper = "Darker is deeper in the network: more computing, more energy"
    deeper += f"; hatched ({', '.join(early)}): answers leave there, computing runs to the end." if early else "."
    made, axes = sheet.finish(f"{name + ': w' if name else 'W'}here requests exit", [facts(frame), deeper])
    return made, np.array(axes)


def facts(frame: pandas.DataFrame) -> str:
    """`setting`, with spaces that only let the line break behind a comma."""
    return re.sub(r"(?<!,) ", "\xa0", setting(frame))


def _early(rows: pandas.DataFrame) -> np.ndarray:
    """Which rows are of rules that answer before computing ends, bool [rows]."""
    if "answers_early" in rows.columns:
        return (rows.answers_early == True).to_numpy(bool)  # noqa: E712 (unknown is not early)
    runs = rows.runs_as if "runs_as" in rows.columns else rows.mechanism
    return np.array([name in mechanism_names() and load_mechanism(name).answers_early for name in runs], bool)


def _shares(panel, rows: pandas.DataFrame, names: list[str], colours, labels: list[str], inches: float) -> None:
    places, left, early = np.arange(len(rows)), np.zeros(len(rows)), _early(rows)
    for index, (name, colour) in enumerate(zip(names, colours, strict=True)):
        share = rows[name].to_numpy(float) * 100
        bars = panel.barh(places, share, left=left, color=colour, label=f"exit {index}", height=0.75)
        for bar in np.array(bars.patches)[early]:
            bar.set(hatch="////", edgecolor="white", linewidth=0)
        left = left + share
        x = 1 + (0.3 + NUMBER * index) / inches
        panel.text(x, 1.0, f"exit {index}", transform=panel.transAxes, ha="center", va="bottom", fontsize=6.5, color=GREY)
        for place, number in zip(places, share, strict=True):
            text = _percent(number)
            panel.text(x, place, text, transform=panel.get_yaxis_transform(), ha="center", va="center", fontsize=7.5)
    _bar_axes(panel, labels)
    panel.set_xlim(0, 100)


def queueing(frame: pandas.DataFrame):
    """Mean latency split into computing and waiting, with the 99th percentile as a tick; a panel for each device. Returns (figure, axes).

    frame : one row for each mechanism and device, as `eesim.compare` gives them.

    The accuracy reached stands beside each bar. A row in overload, whose waits grow with the length of the run, is cut off
    and says so. Where nothing waits, the title says that too.
    """
    frame = checked(frame, "latency_ms_mean", "wait_ms_mean", "latency_ms_p99", "accuracy")
    groups = _groups(frame[frame.mechanism != "constant"].dropna(subset=["latency_ms_mean", "wait_ms_mean"]))
    labels = [_labels(rows) for rows in groups]
    left = label_inches([label for some in labels for label in some])
    balanced = "balanced_accuracy" in frame.columns and pd.to_numeric(frame.balanced_accuracy, errors="coerce").notna().any()
    right = 0.65 + (0.6 if balanced else 0)
    sheet = Sheet(
        len(groups), width=left + right + 3.0, height=0.25 * max(map(len, labels)) + 1.05, columns=columns_for(len(groups), 2), left=left,
        right=right, title_lines=2,
    )  # fmt: skip
    limits, shared = _limits(groups)
    waits = any((rows.wait_ms_mean > 0).any() for rows in groups)
    for panel, rows, words, limit in zip(sheet.axes, groups, labels, limits, strict=True):
        _latencies(panel, rows, words, limit, waits)
        _accuracies(panel, rows, balanced, sheet.panel_inches[0])
        waiting = (rows.wait_ms_mean > 0).any()
        sheet.head(panel, device(rows.iloc[0]), [", ".join(filter(None, [busy(rows), "" if waiting else "no waiting"]))])
    name = workloads(frame)
    scale = [] if len(groups) == 1 else ["All panels share their scale." if shared else "Each device has its own scale."]
    where = "this device" if len(groups) == 1 else "any of these devices"
    notes = [facts(frame), " ".join([*scale, *([] if waits else [f"No request waits on {where}."])])]
    made, axes = sheet.finish(f"{name + ': q' if name else 'Q'}ueueing, latency and accuracy", notes)
    return made, np.array(axes)


def _latencies(panel, rows: pandas.DataFrame, labels: list[str], limit: float, waits: bool) -> None:
    """Bars of one device in ms, µs or s; `limit` ms is the end of the axis, where bars in overload are cut off."""
    factor, unit = (1e-3, "s") if limit >= 5000 else (1e3, "µs") if limit < 0.5 else (1.0, "ms")
    places, over = np.arange(len(rows)), overloaded(rows).to_numpy(bool)
    wait = rows.wait_ms_mean.to_numpy(float)
    service, end = rows.latency_ms_mean.to_numpy(float) - wait, limit * factor
    shown = np.where(over, np.minimum(service * factor, end), service * factor)
    panel.barh(places, shown, color="#0072B2", height=0.7, label="computing, mean")
    if waits:
        panel.barh(places, np.where(over, end - shown, wait * factor), left=shown, color="#E69F00", height=0.7, label="waiting, mean")
    p99 = np.where(over, np.nan, rows.latency_ms_p99.to_numpy(float) * factor)
    panel.plot(
        p99, places, linestyle="none", marker="|", color="black", markersize=11, markeredgewidth=2, clip_on=False, label="latency, 99th percentile"
    )
    for place in places[over]:
        text = f"overload: {_time(rows.latency_ms_mean.iloc[place])} mean in this run, and growing ▸"
        panel.text(
            end * 0.985, place, text, ha="right", va="center", fontsize=7, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
        )
    _bar_axes(panel, labels)
    panel.set_xlim(0, end)
    panel.set_xlabel(f"latency, {unit}")


def _accuracies(panel, rows: pandas.DataFrame, balanced: bool, inches: float) -> None:
    """Columns of numbers to the right of the bars."""
    columns = [("accuracy", "accuracy", 0.36)] + ([("balanced_accuracy", "balanced", 0.92)] if balanced else [])
    for name, heading, x in columns:
        across = 1 + x / inches
        panel.text(across, 1.0, heading, transform=panel.transAxes, ha="center", va="bottom", fontsize=7, color=GREY)
        for place, level in enumerate(pd.to_numeric(rows[name], errors="coerce")):
            text = "–" if np.isnan(level) else f"{100 * level:.1f} %"
            panel.text(across, place, text, transform=panel.get_yaxis_transform(), ha="center", va="center", fontsize=8)


def _limits(groups: list[pandas.DataFrame]) -> tuple[list[float], bool]:
    """Where each panel's axis ends, in ms: behind the longest bar or percentile that is not in overload; whether it is one for all."""
    ends = []
    for rows in groups:
        steady = rows[~overloaded(rows)]
        service = rows.latency_ms_mean - rows.wait_ms_mean
        longest = np.nanmax(steady[["latency_ms_mean", "latency_ms_p99"]].to_numpy(float)) if len(steady) else 2 * service.max()
        ends.append((longest if longest > 0 else 1.0) * 1.04)
    shared = max(ends) < ALIKE * min(ends)
    return [max(ends)] * len(ends) if shared else ends, shared


def _groups(frame: pandas.DataFrame) -> list[pandas.DataFrame]:
    """Rows by device. Raises BadInput where there are none, or more than can be drawn as bars."""
    groups = [rows for _, rows in frame.groupby(KEYS, sort=False)]
    if not groups:
        raise BadInput("no row has figures to draw", field="frame")
    most = max(map(len, groups))
    if most > MOST_ROWS:
        raise BadInput(f"{most} rows of one device are too many for bars, which take {MOST_ROWS}: choose some rows of the sweep", field="frame")
    return groups


def _alike(groups: list[pandas.DataFrame], names: list[str]) -> list[tuple[pandas.DataFrame, list[str]]]:
    """Groups with the same shares put together: (rows, devices)."""
    found: dict[tuple, tuple[pandas.DataFrame, list[str]]] = {}
    for rows in groups:
        key = (tuple(_labels(rows)), rows[names].to_numpy(float).round(6).tobytes())
        found.setdefault(key, (rows, []))[1].append(device(rows.iloc[0]))
    return list(found.values())


def _labels(rows: pandas.DataFrame) -> list[str]:
    """A name for each row: the mechanism, what tuning made of it, and its parameters where the mechanism stands more than once."""
    labels = []
    for _, row in rows.iterrows():
        runs = row.get("runs_as", row.mechanism)
        label = row.mechanism if runs == row.mechanism else f"{row.mechanism} = {runs}"
        if (rows.mechanism == row.mechanism).sum() > 1:
            values = [row[name] for name in rows.columns if name.startswith("parameters_") and pd.notna(row[name])]
            label += "".join(f" {value:.4g}" if isinstance(value, float) else f" {value}" for value in values)
        labels.append(label)
    return labels


def _bar_axes(panel, labels: list[str]) -> None:
    panel.set_yticks(np.arange(len(labels)), labels)
    panel.set_ylim(len(labels) - 0.45, -0.55)
    panel.grid(axis="y", visible=False)


def _percent(number: float) -> str:
    """A share in percent to one digit; nearly none and nearly all are told from none and all."""
    if number in (0, 100):
        return "–" if number == 0 else "100"
    return "<0.1" if number < 0.05 else ">99.9" if number > 99.95 else f"{number:.1f}"


def _time(ms: float) -> str:
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"
