"""Sweeps: every point of a space simulated, stored part by part, resumed where they stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eesim.engine.chooser import run
from eesim.errors import BadInput, unknown
from eesim.explore.means import mean_rows
from eesim.explore.rows import point_row
from eesim.explore.space import Part, Space, build_space, with_arrivals
from eesim.explore.store import Study
from eesim.mechanisms.base import Values
from eesim.result import Result
from eesim.simulation import Load, cached_price, compile_scenario, overload, setting

if TYPE_CHECKING:
    import pandas

Progress = Callable[[int], None]
"""Called with the number of points that were just finished."""


def sweep(
    workloads: Any = None,
    profiles: Any = None,
    mechanisms: Any = None,
    *,
    thresholds: Sequence[float] | None = None,
    settings: int = 20,
    exits: Any = None,
    operating_points: Any = None,
    arrivals: Any = None,
    out: str | Path | None = None,
    figures: str = "all",
    grid: dict[str, Sequence[Any]] | None = None,
    progress: Progress | None = None,
    **load: Any,
) -> pandas.DataFrame:
    """Simulate every point of a design space; one row a point, in the order of the space.

    workloads, profiles : names, paths or objects; all bundled ones by default.
    mechanisms : names, or ``{name: {parameter: [values]}}`` (all combinations); all bundled ones by default. The static
        network, always-first-exit, the per-sample oracle and the constant answer always join as bounds.
    thresholds, settings, grid, exits, operating_points : see `eesim.explore.space.build_space`.
    arrivals : one process or a list of them.   **load : the other options of `simulate`, such as requests, order, servers, seed.
    out : a folder to store the study in and to continue from.
    figures : 'all', or 'means' to leave out percentiles, which is much faster where requests queue for one server.

    Columns are the point's id, what was simulated, and the figures with joined names (``latency_ms_mean``).
    """
    space = build_space(
        workloads, profiles, mechanisms, thresholds=thresholds, settings=settings, grid=grid, exits=exits, operating_points=operating_points,
        loads=with_arrivals(load_of(load), arrivals),
    )  # fmt: skip
    return run_space(space, out=out, figures=figures, progress=progress)


def load_of(options: dict[str, Any]) -> Load:
    """A load from keyword options. Raises BadInput for unknown names and values out of range."""
    known = set(Load.__dataclass_fields__)
    for name in options:
        if name not in known:
            raise unknown("option", name, sorted(known), field=name)
    load = Load(**options)
    load.check()
    return load


def run_space(space: Space, *, out: str | Path | None = None, figures: str = "all", progress: Progress | None = None) -> pandas.DataFrame:
    """Simulate all points of a space, in memory or as a study in `out`."""
    import pandas as pd

    if figures not in ("all", "means"):
        raise BadInput(f"'{figures}' is neither 'all' nor 'means'", field="figures")
    if out is None:
        rows = [row for part in space.parts for row in _report(part_rows(part, figures), progress)]
        return pd.DataFrame(rows)
    study = Study(out, {**space.record, "figures": figures}, len(space.parts))
    for number, part in enumerate(space.parts):
        if study.has(number):
            if progress:
                progress(len(part))
        else:
            study.write(number, list(_report(part_rows(part, figures), progress)))
    study.finish()
    frame = pd.read_parquet(study.points)
    order = {part.point_id(values, device): index for index, (part, values, device) in enumerate(points(space))}
    return frame.sort_values("point", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)


def points(space: Space) -> Iterator[tuple[Part, Values, Any]]:
    """All points of a space in order."""
    return ((part, values, device) for part in space.parts for values in part.settings for device in part.devices)


def _report(rows: Iterable[dict[str, Any]], progress: Progress | None) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield row
        if progress:
            progress(1)


def part_rows(part: Part, figures: str) -> Iterator[dict[str, Any]]:
    """The rows of one part. What does not depend on the device is done once: arrivals, decisions, whether they are right."""
    workload, load = part.workload, part.load
    view = workload.view(load.split, part.exits)
    prices = [cached_price(workload, device.profile, device.operating_point, device.data_type) for device in part.devices]
    scenarios = [compile_scenario(workload, view, price, part.mechanism, part.settings[0], load) for price in prices]
    times = None if scenarios[0].process.closed else scenarios[0].times()
    if (fast := mean_rows(part, scenarios, times, percentiles=figures == "all")) is not None:
        yield from fast
        return
    for values in part.settings:
        verdicts = None
        for device, price, scenario in zip(part.devices, prices, scenarios, strict=True):
            scenario = replace(scenario, values=values, given_times=times, given_verdicts=verdicts)
            outcome = run(scenario)
            if not scenario.asks_in_time:
                verdicts = scenario.decided.verdicts
            result = Result((outcome,), setting(workload, price, part.mechanism, values, scenario, load), tuple(overload(outcome)))
            yield point_row(part, values, device, result.summary(), without_percentiles=figures == "means")
