"""One claim of a paper, and what replaying it came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Claim:
    """title, source; `claimed` in the paper's numbers; `shown`: how it was replayed; `table`; `found`: sentences with numbers from the table."""

    title: str
    source: str
    claimed: str
    shown: str
    table: pandas.DataFrame
    found: tuple[str, ...]


def points(lost: float, digits: int = 1) -> str:
    """What a loss of accuracy is in words: 'loses 2.3 points', 'gains 0.4 points', 'loses nothing'."""
    amount = f"{100 * abs(lost):.{digits}f}"
    return "loses nothing" if not float(amount) else f"{'loses' if lost > 0 else 'gains'} {amount} points"


def spelled(names: Iterable[str]) -> str:
    """Words in a row: 'a, b and c', or 'none'."""
    *before, last = list(names) or ["none"]
    return f"{', '.join(before)} and {last}" if before else last


def span(values: Iterable[float], unit: str = "", digits: int = 1) -> str:
    """Mean and range of signed numbers: '+1.0 % on average (-0.3 to +2.1)'."""
    values = [round(float(value), digits) + 0.0 for value in values]
    mean = f"{sum(values) / len(values):+.{digits}f}{unit}"
    return mean if len(values) == 1 else f"{mean} on average ({min(values):+.{digits}f} to {max(values):+.{digits}f})"
