"""Several networks measured in turns, so that a machine whose speed changes meanwhile changes for all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eesim.measure.measuring import SECONDS, Measurement, measure_model

PASSES = 5
"""How often each network has its turn. Shared machines were seen to change their speed by 1.6 within minutes."""


def measure_in_turns(
    models: Sequence[str | Path],
    *,
    passes: int = PASSES,
    repeats: int | None = None,
    seconds: float | None = None,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> list[Measurement]:
    """`measure_model` for several networks, each `passes` times in turns; of each the pass in which the whole network was fastest.

    repeats, seconds : for each network, shared out among its passes; options : as of `measure_model`. One network has one pass.
    progress is called with 1, ROUNDS times for each network and pass. Raises BadInput as `measure_model` does.
    """
    passes = 1 if len(models) == 1 else passes
    share = {"repeats": -(-repeats // passes)} if repeats is not None else {"seconds": (seconds or SECONDS) / passes}
    found: dict[int, list[Measurement]] = {place: [] for place in range(len(models))}
    for _ in range(passes):
        for place, model in enumerate(models):
            found[place].append(measure_model(model, progress=progress, **share, **options))
    return [_fastest(tried) for tried in found.values()]


def _fastest(tried: list[Measurement]) -> Measurement:
    best = min(tried, key=lambda measurement: measurement.latency_ms)
    slowest = max(measurement.latency_ms for measurement in tried)
    if slowest <= 1.25 * best.latency_ms:
        return best
    times = slowest / best.latency_ms
    note = f"of {len(tried)} passes the fastest is kept; the slowest took {times:.1f} times as long: the machine changed its speed"
    return replace(best, notes=[*best.notes, note])
