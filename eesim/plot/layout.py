"""A sheet of panels: heading above, one legend below or in the hole that the panels leave. All sizes in inches.

Margins are computed from the words that stand in them: letting matplotlib find them would draw everything twice.
"""

from __future__ import annotations

import io
import textwrap
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eesim.plot.style import GREY, SETTINGS

LETTER = 0.064
"""Mean width of a letter at 9 points."""
LINE = 0.165
RIGHT = 0.15
BELOW = 0.48
"""Under a panel, for its ticks and the name of its axis."""


class Picture(Figure):
    """A figure that shows itself in a notebook without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=80)
        return data.getvalue()


class Sheet:
    """A figure of `panels` equal panels in `columns` columns, each `width` by `height` inches with its margins.

    Draw into `axes`, then call `finish`, which sets the figure's size and places heading and legend. `below` is the room
    under a panel: less than BELOW where only the lowest panels name their axis.
    """

    def __init__(
        self, panels: int, *, width: float, height: float, columns: int = 3, left: float = 0.62, right: float = RIGHT, below: float = BELOW,
        title_lines: int = 1,
    ):  # fmt: skip
        self.width, self.height, self.left, self.right, self.below = width, height, left, right, below
        self.above = 0.12 + LINE * title_lines
        self.across = min(panels, columns)
        self.down = -(-panels // self.across)
        with matplotlib.rc_context(SETTINGS):
            self.figure = Picture(figsize=(width * self.across, height * self.down))
            FigureCanvasAgg(self.figure)
            every = self.figure.subplots(self.down, self.across, squeeze=False).ravel().tolist()
        self.axes, self.spare = every[:panels], every[panels:]
        for spare in self.spare:
            spare.axis("off")

    @property
    def panel_inches(self) -> tuple[float, float]:
        """Width and height of the area inside a panel's axes."""
        return self.width - self.left - self.right, self.height - self.above - self.below

    def outer(self, index: int) -> tuple[bool, bool]:
        """Whether a panel stands in the left column, and whether none stands under it."""
        return index % self.across == 0, index + self.across >= len(self.axes)

    def head(self, panel, title: str, facts: list[str]) -> None:
        """A panel's own title, with small lines of facts under it."""
        letters = int((self.width - self.left) / LETTER * 9 / 7)
        lines = [textwrap.shorten(fact, letters, placeholder=" …") for fact in facts]
        panel.annotate(title, (0, 1), (0, 4 + 10 * len(lines)), xycoords="axes fraction", textcoords="offset points", fontsize=9, weight="bold")
        if lines:
            panel.annotate(
                "\n".join(lines), (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", fontsize=7, color=GREY, linespacing=1.25
            )
        panel.set_label(title)

    def finish(self, title: str, notes: list[str], *, legend_title: str | None = None, legend: bool = True):
        """Set the size, write heading and legend (unless the ticks name everything); returns (figure, list of axes)."""
        wide = self.width * self.across
        lines = [line for note in notes if note for line in textwrap.wrap(note, int((wide - self.left) / LETTER * 9 / 8.5))]
        title = textwrap.fill(title, int((wide - self.left) / LETTER * 9 / 12))
        head = 0.3 + 0.2 * title.count("\n") + LINE * len(lines)
        foot = (self._legend(wide, legend_title) if legend else 0.0) + max(BELOW - self.below, 0.0)
        high = self.height * self.down + head + foot
        self.figure.set_size_inches(wide, high)
        inside = self.panel_inches
        self.figure.subplots_adjust(
            left=self.left / wide, right=1 - self.right / wide, top=1 - (head + self.above) / high, bottom=(foot + self.below) / high,
            wspace=(self.left + self.right) / max(inside[0], 0.1), hspace=(self.above + self.below) / max(inside[1], 0.1),
        )  # fmt: skip
        edge = min(self.left, 0.15) / wide
        self.figure.suptitle(title, x=edge, y=1 - 0.08 / high, ha="left", va="top", fontsize=11, weight="bold")
        top = 0.3 + 0.2 * title.count("\n")
        self.figure.text(edge, 1 - top / high, "\n".join(lines), ha="left", va="top", fontsize=8.5, color=GREY, linespacing=1.3)
        return self.figure, self.axes

    def _legend(self, wide: float, title: str | None) -> float:
        """One legend for all panels; returns the inches it needs at the foot: none where it fills a hole."""
        entries: dict[str, Any] = {}
        for panel in self.axes:
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        if not entries:
            return 0.0
        style = {"frameon": False, "fontsize": 8.5, "title": title, "title_fontsize": 8.5}
        longest = max(map(len, entries)) * LETTER + 0.6
        columns = -(-len(entries) // max(int((self.panel_inches[1] - 0.1) / 0.19), 1))
        if self.spare and (columns == 1 or columns * longest <= self.panel_inches[0] + self.right):
            self.spare[0].legend(entries.values(), entries.keys(), loc="center left", ncols=columns, **style)
            return 0.0
        most = max(int((wide - 0.2) / longest), 1)
        rows = -(-len(entries) // most)
        self.figure.legend(
            entries.values(),
            entries.keys(),
            loc="lower center",
            ncols=-(-len(entries) // rows),
            bbox_to_anchor=(0.5, 0.0),
            borderaxespad=0.2,
            **style,
        )
        return 0.19 * (rows + (title is not None)) + 0.12


def columns_for(panels: int, most: int) -> int:
    """The most columns, up to `most`, that leave no hole or one, which the legend fills."""
    if panels <= most:
        return panels
    return max(range(1, most + 1), key=lambda columns: (-panels % columns <= 1 and columns > 1, columns))


def label_inches(labels: list[str]) -> float:
    """Room for words beside an axis."""
    return max(map(len, labels)) * LETTER * 1.05 + 0.25
