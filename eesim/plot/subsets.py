"""Fronts over subsets of exits: a colour for each subset, a marker for each mechanism, and the subset's name beside its points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eesim.plot.layout import LETTER, Sheet
from eesim.plot.style import BOUNDS, COLOURS

if TYPE_CHECKING:
    import pandas

OTHER = "0.6"
"""Colour of subsets that are on fronts too rarely to have one of their own."""


def exit_colours(fronts: list[pandas.DataFrame]) -> dict[str, str]:
    """A colour for each of the subsets that stand most often on these fronts; others are grey."""
    counts: dict[str, int] = {}
    for best in fronts:
        for exits in best.exits:
            counts[exits] = counts.get(exits, 0) + 1
    chosen = sorted(counts, key=lambda exits: (-counts[exits], exits))[: len(COLOURS)]
    return dict(zip(sorted(chosen, key=lambda exits: (-len(exits), exits)), COLOURS, strict=False))


def draw_subsets(sheet: Sheet, panel, best: pandas.DataFrame, cost: str, value: str, style: dict) -> None:
    """The points of a front by their exits, with labels beside them."""
    coloured, looks = style["exits"], {**BOUNDS, **style["mechanisms"]}
    for exits, points in best.groupby("exits", sort=False):
        for mechanism, same in points.groupby("mechanism", sort=False):
            panel.plot(
                same[cost], same[value], linestyle="none", markersize=4, zorder=5, gid=f"{exits} {mechanism}",
                marker=looks[mechanism]["marker"], color=coloured.get(exits, OTHER),
            )  # fmt: skip
    for exits, colour in coloured.items():
        panel.plot([], [], linestyle="none", marker="o", markersize=5, color=colour, label=f"exits {exits}")
    if set(best.exits) - set(coloured):
        panel.plot([], [], linestyle="none", marker="o", markersize=5, color=OTHER, label="other exits")
    for name in [name for name in style["mechanisms"] if name in set(best.mechanism)]:
        marker = style["mechanisms"][name]["marker"]
        panel.plot([], [], linestyle="none", marker=marker, markersize=5, color="0.3", markerfacecolor="none", label=f"by {name}")
    _labels(sheet, panel, best, cost, value, coloured)


def _labels(sheet: Sheet, panel, best: pandas.DataFrame, cost: str, value: str, coloured: dict[str, str]) -> None:
    """Name each subset once, below and to the right of its middle point, where a front leaves room; crowded ones stay to the legend."""
    wide, high = sheet.panel_inches
    taken: list[tuple[float, float, float]] = []
    for exits, points in sorted(best.groupby("exits"), key=lambda pair: -len(pair[1])):
        length = len(exits) * LETTER * 0.8 + 0.05
        for place in sorted(range(len(points)), key=lambda index: abs(index - len(points) // 2)):
            row = points.iloc[place]
            x, y = panel.transAxes.inverted().transform(panel.transData.transform((row[cost], row[value])))
            x, y = x * wide + 0.09, y * high - 0.11
            clear = all(x + length < left or left + wide_too < x or abs(y - base) > 0.13 for left, wide_too, base in taken)
            if clear and x + length < wide and y > 0.25:
                taken.append((x, length, y))
                panel.annotate(
                    exits, (row[cost], row[value]), (6.5, -8), textcoords="offset points", va="center", fontsize=7, color=coloured.get(exits, "0.4")
                )
                break
