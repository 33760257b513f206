"""The table of reproduced claims as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from eesim.report.table import number

if TYPE_CHECKING:
    from eesim.explore.claims import Claim

SHARES = ("accuracy", "saved", "lost", "missed", "ECE", "max-softmax at equal", "share", "coverage")
"""A column whose name holds one of these is a share, written in percent."""


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
    """The claim's table in Markdown."""
    columns = list(claim.table.columns)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in claim.table.itertuples(index=False):
        lines.append("| " + " | ".join(_cell(name, value) for name, value in zip(columns, row, strict=True)) + " |")
    return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    if value is None or value != value:
        return "–"
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{100 * value:.1f} %" if any(word in name for word in SHARES) else number(float(value))
