"""One look for all pictures: a mechanism has the same colour and marker in every one of them.

The bundled names have fixed places in `MECHANISMS`. A mechanism from a user's file gets one of the places behind them,
chosen by its name alone, so that it too looks the same wherever it is drawn; two that fall on one place move apart.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

MECHANISMS = (
    "max-softmax", "entropy", "margin", "patience", "dart", "jei-dnn", "difference-detection", "temporal-patience", "f-pabee", "pcee", "budgeted",
    "anytime", "eenet", "berxit", "zero-time-waste", "class-means", "calm", "risk-control", "apparate", "queue-aware",
)  # fmt: skip
"""Every bundled name, in an order that never changes: new ones are added at the end."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette without yellow and black: most colour-blind people tell them apart."""
MARKERS = "osD^vPX"
"""As many as have no divisor in common with the colours: 42 different pairs."""
PLACES = len(COLOURS) * len(MARKERS)
BOUNDS = {
    "static": {"color": "black", "marker": "s", "label": "static (no exits), its accuracy dashed"},
    "first-exit": {"color": "dimgray", "marker": ">", "label": "always first exit"},
    "oracle": {"color": "#8A6D00", "marker": "*", "label": "per-sample oracle"},
    "constant": {"color": "gray", "marker": "_", "label": "constant answer"},
}
FRONT = {"color": "0.15", "linewidth": 1.1, "drawstyle": "steps-post", "label": "Pareto front"}
GREY = "0.35"
SETTINGS = {
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "figure.dpi": 120,
}


def looks(mechanisms: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each mechanism that is no bound: bundled ones in their fixed order, then users' by name."""
    names = set(mechanisms) - set(BOUNDS)
    places = {name: MECHANISMS.index(name) for name in sorted(names & set(MECHANISMS), key=MECHANISMS.index)}
    taken = set()
    for name in sorted(names - set(MECHANISMS)):
        place = _place(name)
        while place in taken and len(taken) < PLACES - len(MECHANISMS):
            place = len(MECHANISMS) + (place + 1 - len(MECHANISMS)) % (PLACES - len(MECHANISMS))
        taken.add(place)
        places[name] = place
    return {name: {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]} for name, place in places.items()}


def _place(name: str) -> int:
    """A place behind the bundled ones that depends on the name only."""
    return len(MECHANISMS) + zlib.crc32(name.encode()) % (PLACES - len(MECHANISMS))
