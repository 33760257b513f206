"""One claim of a paper, and what replaying it came to."""

from __future__ import annotations

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
