"""When requests arrive: integer nanoseconds from t = 0, never decreasing.

One file per process, named by its keyword (`poisson:50/s` is read by `poisson.py`). Each defines

- ``SYNTAX``: how it is written, shown in messages and help,
- ``parse(argument, recording) -> Process``: from the text behind the keyword; `recording` holds the trace's own times.

A new process is one new file here, and a word in the help of `--arrivals`, which comes too soon to look for files.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eesim.errors import BadInput, unknown
from eesim.seeds import Seeds
from eesim.units import INT64_MAX

BLOCK = 1 << 18
"""Arrivals are drawn this many at a time; how they are cut never changes their values."""


@dataclass(frozen=True)
class Recording:
    """The trace's own timing: time within the stream [N] in ns and stream number [N], stream after stream."""

    time_ns: np.ndarray
    stream: np.ndarray


@dataclass(frozen=True)
class Process:
    """Base of arrival processes. `text` is the canonical spelling; `rate_hz` the long-run mean rate (None: closed loop)."""

    text: str
    rate_hz: float | None

    closed = False
    """True: there are no arrival times; the next request is issued when one completes."""
    random = False
    """True: another seed gives other times."""
    length: ClassVar[int | None] = None
    """How many arrivals exist, where that is limited."""
    groups_streams = False
    """True: samples must meet requests stream after stream, as the times do."""

    def blocks(self, seeds: Seeds, count: int, size: int = BLOCK) -> Iterator[np.ndarray]:
        """The first `count` arrival times as int64 arrays of at most `size`, in order. The cut never changes the values."""
        raise TypeError(f"{type(self).__name__} has no arrival times")

    def spacing(self, count: int) -> tuple[int, int] | None:
        """Smallest gap among the first `count` arrivals and the time of the last, where they are known without drawing."""
        return None

    def times(self, seeds: Seeds, count: int) -> np.ndarray:
        """The first `count` arrival times, int64 [count]."""
        return next(iter(self.blocks(seeds, count, count)))


def process_names() -> list[str]:
    """Keywords of the arrival processes that exist."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def syntax() -> list[str]:
    """How each process is written."""
    return [_module(name).SYNTAX for name in process_names()]


def _module(name: str):
    return importlib.import_module(f"{__name__}.{name}")


def parse_arrivals(text: str | np.ndarray | Process, recording: Recording | None = None) -> Process:
    """An arrival process from its text, e.g. ``'poisson:20/s'``; an array of times in integer ns serves as well.

    Raises BadInput for an unknown keyword or an argument that makes no sense, with the syntax that would.
    """
    if isinstance(text, Process):
        return text
    if isinstance(text, np.ndarray):
        return _module("file").given(text)
    keyword, _, argument = str(text).partition(":")
    if keyword not in process_names():
        raise unknown("arrival process", keyword, process_names(), field="arrivals")
    module = _module(keyword)
    try:
        return module.parse(argument, recording)
    except BadInput as error:
        if error.field is None and error.file is None:
            raise BadInput(f"{error.problem} (in '{text}'; the form is {module.SYNTAX})", field="arrivals") from None
        raise


def check_horizon(last_ns: float) -> None:
    """Raise when times would leave int64 (292 years)."""
    if float(last_ns) >= float(INT64_MAX):
        raise BadInput("the run is longer than int64 nanoseconds can hold (292 years); ask for fewer requests or a higher rate", field="arrivals")
