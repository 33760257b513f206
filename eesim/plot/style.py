"""One look for all pictures: a colour and a marker for each mechanism, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F00", "#6A3D9A", "#1B9E77")
"""Okabe and Ito's palette, told apart by most colour-blind people, and four more."""
MARKERS = "osD^vP<>Xh"
BOUNDS = {
    "static": {"color": "black", "marker": "s", "label": "static (no exits)"},
    "first-exit": {"color": "dimgray", "marker": ">", "label": "always first exit"},
    "oracle": {"color": "goldenrod", "marker": "*", "label": "per-sample oracle"},
    "constant": {"color": "gray", "marker": "_", "label": "constant answer"},
}
SETTINGS = {"axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "figure.dpi": 120}


def looks(mechanisms: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each mechanism that is no bound, in alphabetical order."""
    names = sorted({name for name in mechanisms if name not in BOUNDS})
    return {name: {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]} for index, name in enumerate(names)}


def figure(panels: int, *, width: float = 4.2, height: float = 3.2, columns: int = 3):
    """A grid of panels; returns the figure and its axes as a flat list. Needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        across = min(panels, columns)
        down = -(-panels // across)
        made = Figure(figsize=(width * across, height * down + 0.7), layout="constrained")
        FigureCanvasAgg(made)
        axes = made.subplots(down, across, squeeze=False).ravel().tolist()
        for spare in axes[panels:]:
            spare.axis("off")
        return made, axes


def legend(made, axes) -> None:
    """One legend for all panels, below them."""
    entries: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    made.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(len(entries), 6), frameon=False)
