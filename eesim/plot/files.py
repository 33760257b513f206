"""Plots and tables that verbs write into a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eesim.errors import BadInput
from eesim.plot.bars import exits, queueing
from eesim.plot.tradeoff import tradeoff

if TYPE_CHECKING:
    import pandas


def write_sweep_plots(frame: pandas.DataFrame, folder: str | Path) -> Iterator[Path]:
    """Trade-off plots of a sweep, a set for each workload; yields the paths."""
    for workload, rows in frame.groupby("workload", sort=False):
        yield _save(tradeoff(rows)[0], Path(folder) / f"tradeoff-energy-{workload}.png")
        if rows.balanced_accuracy.notna().any():
            yield _save(tradeoff(rows, value="balanced_accuracy")[0], Path(folder) / f"tradeoff-balanced-{workload}.png")
        cost = "latency_ms_p99" if rows.latency_ms_p99.notna().any() else "latency_ms_mean"
        yield _save(tradeoff(rows, cost=cost)[0], Path(folder) / f"tradeoff-latency-{workload}.png")


def write_comparison(rows: Sequence[dict[str, Any]], folder: str | Path) -> Iterator[Path]:
    """comparison.parquet, a queueing plot, and where each mechanism exits on the first device; yields the paths."""
    import json

    import pandas as pd

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot be used as a folder: {error.strerror}", file=folder) from None
    frame = pd.DataFrame(rows)
    stored = frame.assign(parameters=[json.dumps(values) for values in frame.parameters])
    path = folder / "comparison.parquet"
    unfinished = path.with_name(path.name + ".unfinished")
    stored.to_parquet(unfinished, index=False)
    os.replace(unfinished, path)
    yield path
    yield _save(queueing(frame)[0], folder / "queueing.png")
    first = frame[frame.profile == frame.profile.iloc[0]]
    yield _save(exits(first)[0], folder / "exits.png")


def _save(made, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    made.savefig(unfinished, format="png", dpi=130)
    os.replace(unfinished, path)
    return path
