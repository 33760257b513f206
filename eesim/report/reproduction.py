"""The table of reproduced claims as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from eesim.report.table import number

if TYPE_CHECKING:
    from eesim.explore.claims import Claim

SHARES = ("accuracy", "saved", "missed", "ECE", "at equal", "share", "coverage")
"""A column whose name holds one of these is a share, written in percent."""
POINTS = "lost"
"""A column whose name holds this is a difference of shares, written in points."""
SETTINGS = ("trade-off", "largest weight", "beta_diff")
PERSISTENCE = "persistence"
VARIES = ("method", "setting")
"""Columns that name a row: neighbours that differ in nothing else are one row."""


def markdown(claims: Iterable[Claim], command: str) -> str:
    """All claims one after the other: what is claimed, what was done, what came out."""
    parts = [
        "# Claims of the papers, replayed on the bundled traces",
        f"Written by `{command}`. Nothing here was edited by hand: numbers stand as they came out, misses included. Our networks, data and devices "
        "are not the papers': what can be compared is the direction and the size of an effect, not its digits.",
    ]
    for claim in claims:
        parts += [
            f"## {claim.title}",
            f"**Claimed** ({claim.source}): {claim.claimed}.",
            f"**Done**: {claim.shown}",
            "**What came out**:",
            "\n".join(f"- {sentence}" for sentence in claim.found),
            table(claim),
        ]
    return "\n\n".join(parts) + "\n"


def table(claim: Claim) -> str:
    """The claim's table in Markdown; rows that differ in their names only are folded into one."""
    columns = list(claim.table.columns)
    lines = ["| " + " | ".join(f"{name}, points" if POINTS in name else name for name in columns) + " |", "|" + "---|" * len(columns)]
    names = [place for place, column in enumerate(columns) if column in VARIES]
    rows: list[list[str]] = []
    for row in claim.table.itertuples(index=False):
        cells = [_cell(name, value) for name, value in zip(columns, row, strict=True)]
        if names and rows and all(old == new for place, (old, new) in enumerate(zip(rows[-1], cells, strict=True)) if place not in names):
            for place in names:
                rows[-1][place] += f"; {cells[place]}"
        else:
            rows.append(cells)
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _cell(name: str, value: Any) -> str:
    if value is None or value != value:
        return "–"
    if not isinstance(value, (int, float)):
        return str(value)
    if POINTS in name:
        return f"{100 * value + 0.0:.1f}"
    if name in SETTINGS:
        return f"{value:g}"
    if name.startswith(PERSISTENCE):
        return f"{value:.3f}"
    return f"{100 * value:.1f} %" if any(word in name for word in SHARES) else number(float(value))
