"""Predicted against measured costs, with a 10 % band; and the layers of one network as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from eesim.errors import BadInput
from eesim.plot.layout import Sheet
from eesim.plot.style import GREY

BAND = 0.1
MOST_LAYERS = 45
BOUND_COLOURS = {"compute": "#1f77b4", "memory": "#ff7f0e", "overhead": "#7f7f7f"}


def predicted(panels: Sequence[dict[str, Any]], title: str, notes: Sequence[str] = (), *, dots: str = "a network left out of the fit"):
    """One panel for each entry: `what` (heading), `measured` and `predicted` [cases], `unit`. Returns (figure, axes).

    dots : what a point is, for the legend

    Axes are logarithmic and equal; the grey band is 10 % either way. Cases that are not numbers are left out.
    """
    if not panels:
        raise BadInput("nothing to draw", field="panels")
    sheet = Sheet(len(panels), width=3.6, height=3.5, columns=3, left=0.72, title_lines=2)
    for axis, panel in zip(sheet.axes, panels, strict=True):
        measured, said = (np.asarray(panel[name], float) for name in ("measured", "predicted"))
        known = np.isfinite(measured) & np.isfinite(said) & (measured > 0) & (said > 0)
        measured, said = measured[known], said[known]
        if not measured.size:
            raise BadInput(f"no case of '{panel['what']}' has both numbers", field="panels")
        low, high = min(measured.min(), said.min()) * 0.8, max(measured.max(), said.max()) * 1.25
        line = np.array([low, high])
        axis.fill_between(line, line * (1 - BAND), line * (1 + BAND), color=GREY, alpha=0.18, linewidth=0, label="within 10 %")
        axis.plot(line, line, color=GREY, linewidth=0.8, label="_")
        size = 5 if measured.size < 60 else 2.5
        look = {"linestyle": "none", "marker": "o", "markersize": size, "alpha": 0.6, "markeredgewidth": 0, "color": "#1f77b4"}
        axis.plot(measured, said, label=dots, **look)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(low, high)
        axis.set_ylim(low, high)
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_minor_locator(NullLocator())
            scale.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,), numticks=12))
            scale.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
        axis.set_xlabel(f"measured, {panel['unit']}")
        if sheet.outer(sheet.axes.index(axis))[0]:
            axis.set_ylabel(f"predicted, {panel['unit']}")
        errors = np.abs(said / measured - 1)
        inside = np.mean(errors <= BAND)
        sheet.head(axis, panel["what"], [f"{measured.size} cases: median error {np.median(errors):.1%}, {inside:.0%} within 10 %"])
    figure, axes = sheet.finish(title, list(notes))
    return figure, np.array(axes)


def layers(record: dict[str, Any]):
    """Time of each layer of a priced network (`eesim.cost.cost_record`) as bars, coloured by what limits it. Returns (figure, axes).

    Beyond 45 layers, the shortest are drawn as one bar.
    """
    rows = record["layers"]
    shown = list(rows)
    if len(rows) > MOST_LAYERS:
        keep = set(sorted(range(len(rows)), key=lambda index: -rows[index]["latency_ms"])[: MOST_LAYERS - 1])
        rest = [row for index, row in enumerate(rows) if index not in keep]
        shown = [row for index, row in enumerate(rows) if index in keep]
        shown.append({"name": f"{len(rest)} shorter layers", "kind": "", "latency_ms": sum(row["latency_ms"] for row in rest), "bound": "overhead"})
    names = [f"{row['name']} ({row['kind']})" if row["kind"] else row["name"] for row in shown]
    left = min(max(map(len, names)) * 0.055 + 0.3, 4.5)
    sheet = Sheet(1, width=left + 5.2, height=0.19 * len(shown) + 1.0, columns=1, left=left)
    axis = sheet.axes[0]
    for bound, colour in BOUND_COLOURS.items():
        places = [place for place, row in enumerate(shown) if row["bound"] == bound]
        if places:
            axis.barh(places, [shown[place]["latency_ms"] for place in places], color=colour, height=0.75, label=f"limited by {bound}")
    axis.set_yticks(range(len(shown)), names, fontsize=7)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlabel("ms")
    axis.grid(axis="y", visible=False)
    band = "" if record.get("latency_sigma") is None else f" ± {record['latency_sigma']:.0%}"
    notes = [f"{record['operating_point']}, {record['data_type']}; {record['latency_ms']:.4g} ms{band} in all (1 sigma)"]
    figure, axes = sheet.finish(f"{record['network']} on {record['profile']}", notes)
    return figure, axes[0]
