"""The trace's own times: stream after stream, each beginning one mean interval after the last; `recorded:2` is twice as fast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from eesim.arrivals import BLOCK, Process, Recording, check_horizon
from eesim.errors import BadInput
from eesim.seeds import Seeds

SYNTAX = "recorded[:SPEED]"


@dataclass(frozen=True)
class Recorded(Process):
    """Arrival times of one pass in ns [T] and the length of a lap; longer runs repeat the pass."""

    pass_ns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)
    lap_ns: int = 0

    groups_streams = True

    def spacing(self, count: int) -> tuple[int, int] | None:
        """See `Process.spacing`."""
        size = self.pass_ns.size
        check_horizon((count / size + 1) * self.lap_ns)
        gaps = np.diff(self.pass_ns[: min(count, size)])
        smallest = min(int(gaps.min(initial=self.lap_ns)), self.lap_ns - int(self.pass_ns[-1]) if count > size else self.lap_ns)
        lap, place = divmod(count - 1, size)
        return smallest, lap * self.lap_ns + int(self.pass_ns[place])

    def blocks(self, seeds: Seeds, count: int, size: int = BLOCK) -> Iterator[np.ndarray]:
        """See `Process.blocks`."""
        check_horizon((count / self.pass_ns.size + 1) * self.lap_ns)
        for start in range(0, count, size):
            index = np.arange(start, min(start + size, count), dtype=np.int64)
            laps, places = np.divmod(index, self.pass_ns.size)
            yield laps * self.lap_ns + self.pass_ns[places]


def parse(argument: str, recording: Recording | None) -> Recorded:
    """An optional speed above 0."""
    try:
        speed = float(argument) if argument else 1.0
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise BadInput(f"speed '{argument}' must be a number above 0")
    if recording is None:
        raise BadInput("there is no recording here to take times from")
    times, streams = recording.time_ns, recording.stream
    same = streams[1:] == streams[:-1]
    gaps = np.diff(times)
    if not same.any():
        raise BadInput("every stream of the trace has one sample, so it has no intervals; use another arrival process")
    interval = int(np.rint(gaps[same].sum() / same.sum()))
    steps = np.where(same, gaps, interval)
    starts = np.concatenate([[0], np.cumsum(steps)])
    whole = int(starts[-1]) + interval
    if whole <= 0:
        raise BadInput("all samples of the trace have the same time; use another arrival process")
    check_horizon(whole / speed)
    scaled = starts if speed == 1 else np.rint(starts / speed).astype(np.int64)
    lap = whole if speed == 1 else round(whole / speed)
    if lap == 0:
        raise BadInput(f"speed '{argument}' squeezes the whole recording of {whole} ns into no time; write a lower one")
    return Recorded(f"recorded:{argument}" if argument else "recorded", times.size * 1e9 / lap, pass_ns=scaled, lap_ns=lap)
