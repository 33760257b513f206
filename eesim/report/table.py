"""Tables for the terminal."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

UNKNOWN = "–"


def console() -> Console:
    """Standard output; as wide as need be when it is not a terminal."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=max(shutil.get_terminal_size((400, 50)).columns, 400))


def print_table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], title: str | None = None, *, sections: str | None = None) -> None:
    """Print rows. columns: key -> heading; headings are right-aligned unless the first value is a word.

    sections: a column; a line is drawn where its value changes, and it is only shown where it does.
    """
    rows = list(rows)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for key, heading in columns.items():
        words = any(isinstance(row.get(key), str) for row in rows)
        table.add_column(heading, justify="left" if words else "right", no_wrap=True)
    before: Any = None
    for index, row in enumerate(rows):
        if sections and index and row.get(sections) != before:
            table.add_section()
            table.add_row(*[""] * len(columns))
        cells = [("" if key == sections and row.get(key) == before else cell(row.get(key))) for key in columns]
        table.add_row(*[Text(text) for text in cells])
        before = row.get(sections) if sections else None
    output = console()
    if title:
        output.print(Text(title, style="bold"))
    output.print(table)


def cell(value: Any) -> str:
    """One value as text: words as they are, numbers to four significant digits, a dash for what is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return ",".join(cell(item) for item in value)
    return str(value)


def number(value: float, digits: int = 4) -> str:
    """Four significant digits without an exponent where that stays short."""
    if value == 0:
        return "0"
    if math.isinf(value):
        return "never" if value > 0 else "-inf"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 7:
        return f"{value:.{max(digits - 1 - size, 0)}f}"
    return f"{value:.{digits - 1}e}"


def percent(value: float | None) -> str:
    """0.1234 -> '12.3 %'."""
    return UNKNOWN if value is None else f"{100 * value:.1f} %"


def parameters(values: Mapping[str, Any]) -> str:
    """{'threshold': 0.8} -> 'threshold 0.8'."""

    def show(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return ",".join(show(item) for item in value)
        return value if isinstance(value, str) else f"{value:.5g}"

    return ", ".join(f"{name} {show(value)}" for name, value in values.items())


def wide(figures: Sequence[tuple[str, Sequence[Any]]], headings: Sequence[str], title: str) -> None:
    """A table with a figure per row and a case per column."""
    rows = [{"figure": name, **{str(index): value for index, value in enumerate(values)}} for name, values in figures]
    print_table(rows, {"figure": "", **{str(index): heading for index, heading in enumerate(headings)}}, title)
