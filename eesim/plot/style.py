"""One look for all pictures: a colour and a marker for each mechanism, the same everywhere."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F00", "#6A3D9A", "#1B9E77")
"""Okabe and Ito's palette, told apart by most colour-blind people, and four more."""
MARKERS = "osD^vP<>Xh"
BOUNDS = {
    "static": {"color": "black", "marker": "s", "label": "static (no exits)"},
    "first-exit": {"color": "dimgray", "marker": ">", "label": "always first exit"},
    "oracle": {"color": "goldenrod", "marker": "*", "label": "per-sample oracle"},
    "constant": {"color": "gray", "marker": "_", "label": "constant answer"},
}
LEGEND = 0.62
"""Inches at the foot of a figure for its legend."""
SETTINGS = {
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "figure.dpi": 120,
}


class Picture(Figure):
    """A figure that shows itself in a notebook without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=80)
        return data.getvalue()


def looks(mechanisms: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each mechanism that is no bound, in alphabetical order."""
    names = sorted({name for name in mechanisms if name not in BOUNDS})
    return {name: {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]} for index, name in enumerate(names)}


def figure(panels: int, *, width: float = 4.2, height: float = 3.2, columns: int = 3, left: float = 0.62):
    """A grid of panels of so many inches; returns the figure and its axes as a flat list. Needs no display.

    Margins are fixed (`left` inches for the labels of a panel): letting matplotlib find them would draw everything twice.
    """
    with matplotlib.rc_context(SETTINGS):
        across = min(panels, columns)
        down = -(-panels // across)
        wide, high = width * across, height * down + LEGEND
        made = Picture(figsize=(wide, high))
        FigureCanvasAgg(made)
        axes = made.subplots(down, across, squeeze=False).ravel().tolist()
        above, below = 0.3, 0.5
        made.subplots_adjust(
            left=left / wide, right=1 - 0.15 / wide, top=1 - above / high, bottom=(LEGEND + below) / high,
            wspace=(left + 0.2) / max(width - left - 0.2, 0.1), hspace=(above + below) / max(height - above - below, 0.1),
        )  # fmt: skip
        for spare in axes[panels:]:
            spare.axis("off")
        return made, axes


def legend(made, axes) -> None:
    """One legend for all panels, below them."""
    entries: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    across = max(min(len(entries), int(made.get_figwidth() / 1.6)), 1)
    made.legend(entries.values(), entries.keys(), loc="lower center", ncols=across, frameon=False, bbox_to_anchor=(0.5, 0.0), borderaxespad=0.1)
