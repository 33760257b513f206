"""Several networks measured in turns, so that a machine whose speed changes meanwhile changes for all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eesim.measure.measuring import SECONDS, Measurement, measure_model
from eesim.measure.timing import clock_of

PASSES = {"wall": 5, "own": 2}
"""How often each network has its turn, by clock. Shared machines were seen to change their speed by 1.6 within minutes."""
ALIKE, UNLIKE = 1.1, 1.25
"""Passes within the first of the fastest are taken for the same speed; beyond the second a note is made."""


def measure_in_turns(
    models: Sequence[str | Path],
    *,
    passes: int | None = None,
    repeats: int | None = None,
    seconds: float | None = None,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> list[Measurement]:
    """`measure_model` for several networks, each `passes` times in turns; of each the middle one of its undisturbed passes.

    repeats, seconds : for each network, shared out among its passes; options : as of `measure_model`. One network has one pass.
    progress is called with 1, ROUNDS times for each network and pass. Raises BadInput as `measure_model` does.
    """
    passes = 1 if len(models) == 1 else passes or turns(options.get("clock", "wall"))
    share = {"repeats": -(-repeats // passes)} if repeats is not None else {"seconds": (seconds or SECONDS) / passes}
    found: dict[int, list[Measurement]] = {place: [] for place in range(len(models))}
    for _ in range(passes):
        for place, model in enumerate(models):
            found[place].append(measure_model(model, progress=progress, **share, **options))
    return [_middle(tried) for tried in found.values()]


def turns(clock: str) -> int:
    """How often each of several networks has its turn. Raises BadInput for an unknown clock."""
    clock_of(clock)
    return PASSES[clock]


def _middle(tried: list[Measurement]) -> Measurement:
    """Of the passes within ALIKE of the fastest the (lower) middle one, for the fastest of many was lucky; the others met a slower machine.

    Passes during which the machine was slow all along count only if it was so in all of them.
    """
    steady = [measurement for measurement in tried if not measurement.totals.scaled.any()] or tried
    ordered = sorted(steady, key=lambda measurement: measurement.latency_ms)
    alike = [measurement for measurement in ordered if measurement.latency_ms <= ALIKE * ordered[0].latency_ms]
    kept = alike[(len(alike) - 1) // 2]
    least, most = ordered[0].latency_ms, ordered[-1].latency_ms
    if most <= UNLIKE * least:
        return kept
    note = f"{len(alike)} of {len(ordered)} passes agreed and count; the slowest took {most / least:.1f} times as long: the machine changed its speed"
    return replace(kept, notes=[*kept.notes, note])
