"""Errors of profiles on cases that their fits have not seen: a row for each profile, a point for each case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from eesim.errors import BadInput
from eesim.plot.layout import Sheet, label_inches
from eesim.plot.style import GREY

if TYPE_CHECKING:
    from eesim.fidelity.checks import Finding

EDGE = 0.6
"""Errors beyond this are drawn at the edge, as arrows."""
MOST_POINTS = 300
BAND = 0.1
COLOUR = "#1f77b4"


def fidelity(findings: Sequence[Finding], title: str):
    """Signed errors of latency and energy in percent. Returns (figure, axes). Of more than 300 cases every n-th is drawn, by size."""
    panels = [quantity for quantity in ("latency", "energy") if any(item.quantity == quantity for item in findings)]
    if not panels:
        raise BadInput("nothing to draw", field="findings")
    rows = {quantity: [item for item in findings if item.quantity == quantity] for quantity in panels}
    labels = {quantity: [_label(item) for item in rows[quantity]] for quantity in panels}
    left = label_inches([label for some in labels.values() for label in some])
    sheet = Sheet(len(panels), width=left + 3.6, height=0.21 * max(map(len, rows.values())) + 1.1, columns=2, left=left, title_lines=1)
    for axis, quantity in zip(sheet.axes, panels, strict=True):
        axis.axvspan(-100 * BAND, 100 * BAND, color=GREY, alpha=0.15, linewidth=0, label="within 10 %")
        for place, item in enumerate(rows[quantity]):
            errors = np.sort(item.errors[np.isfinite(item.errors)])
            shown = errors[:: max(errors.size // MOST_POINTS, 1)]
            inside = np.abs(shown) <= EDGE
            dots = {"markersize": 3.5, "alpha": 0.7 if shown.size < 30 else 0.25, "color": COLOUR, "markeredgewidth": 0}
            axis.plot(100 * shown[inside], np.full(inside.sum(), place), "o", label="a case", **dots)
            for side, marker in ((1, ">"), (-1, "<")):
                if (beyond := int(np.sum(side * shown > EDGE))) > 0:
                    axis.plot([side * 100 * EDGE], [place], marker=marker, markersize=5, color=COLOUR, label="_", clip_on=False)
                    axis.annotate(str(beyond), (side * 100 * EDGE, place), (0, 3), textcoords="offset points", fontsize=6, ha="center", color=GREY)
            axis.plot([100 * np.median(errors)], [place], "|", color="black", markersize=9, markeredgewidth=1.6, label="median")
        axis.axvline(0, color="black", linewidth=0.7)
        axis.set_xlim(-100 * EDGE * 1.04, 100 * EDGE * 1.04)
        axis.set_yticks(range(len(labels[quantity])), labels[quantity], fontsize=7.5)
        axis.set_ylim(len(labels[quantity]) - 0.4, -0.6)
        axis.set_xlabel("predicted against measured, %")
        axis.grid(axis="y", visible=False)
        sheet.head(axis, quantity, [])
    notes = [f"Cases that took no part in the fit; arrows: how many are off by more than {EDGE:.0%}."]
    figure, axes = sheet.finish(title, notes)
    return figure, np.array(axes)


def _label(item: Finding) -> str:
    return item.profile if item.at in ("default", "all", "") else f"{item.profile}, {item.at}"
