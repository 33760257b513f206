"""Many settings of one mechanism over one view at once, in lanes: decisions, whether they are right, and waits where requests queue.

Threshold rules go through bit planes (`planes`, `lanes`). Every other rule with a compiled step is asked sample by sample
with a few dozen settings side by side, so that what a sample shows is read once for all of them and their memories stay in
the cache. Rules that have only array code, or that answer before they finish computing, are decided one by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit

from eesim.engine.lanes import waits
from eesim.engine.planes import tally
from eesim.jit import fingerprint, jittable
from eesim.mechanisms._asking import AGAIN, carried_state, compiled, observations, refuse_again, rehearse, working_room
from eesim.mechanisms._deciding import decide
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Mechanism, Path, Values, paths_by_exit
from eesim.trace.view import TraceView, score_answers

LANES = 32
"""Settings that are asked side by side."""
FEWEST = 5
"""Below this many settings, deciding them one by one is quicker than compiling for lanes."""
MOST_EXITS = 10
"""Up to here the visited heads of a lane are counted in a table."""
EARLY = -2
"""Written where a step answers before computing ends: lanes count one path only, so such rules are decided one by one."""


@dataclass(frozen=True)
class Replayed:
    """What P settings do with the N samples of a view.

    settings: their places among those asked for; counts int64 [P, len(paths)]; exits int64 [P, E] by answering exit;
    correct, agrees int64 [P]; class_correct int64 [P, K]; samples: N.
    """

    settings: np.ndarray
    paths: tuple[Path, ...]
    counts: np.ndarray
    exits: np.ndarray
    correct: np.ndarray
    agrees: np.ndarray
    class_correct: np.ndarray


def replay(view: TraceView, mechanism: Mechanism, settings: Sequence[Values]) -> Iterator[Replayed]:
    """Replay all settings over the view, group by group; every setting is in exactly one group. Time plays no part.

    Raises BadInput where the mechanism's step cannot be compiled or misbehaves.
    """
    for places, rule in groups(mechanism, settings):
        chosen = [settings[place] for place in places]
        if isinstance(rule, ThresholdMechanism):
            yield _threshold(view, rule, chosen, places)
        elif in_lanes(view, rule) and len(chosen) >= FEWEST:
            yield from _lanes(view, rule, chosen, places)
        else:
            yield from (_one(view, rule, values, place) for values, place in zip(chosen, places, strict=True))


def groups(mechanism: Mechanism, settings: Sequence[Values]) -> Iterator[tuple[np.ndarray, Mechanism]]:
    """Settings that observe the same, by their places, and the variant of the mechanism that decides them."""
    found: dict[tuple, list[int]] = {}
    for place, values in enumerate(settings):
        found.setdefault((type(mechanism.variant(values)), mechanism.group(values)), []).append(place)
    for places in found.values():
        yield np.array(places), mechanism.variant(settings[places[0]])


def in_lanes(view: TraceView, mechanism: Mechanism) -> bool:
    """Whether a rule's step can be asked for many settings side by side."""
    return hasattr(mechanism, "step") and type(mechanism).decide is Mechanism.decide and view.exits <= MOST_EXITS


def _threshold(view: TraceView, mechanism: ThresholdMechanism, settings: Sequence[Values], places: np.ndarray) -> Replayed:
    return replay_bars(view, mechanism, settings[0], np.stack([mechanism.bars(values, view) for values in settings]), places)


def replay_bars(view: TraceView, mechanism: ThresholdMechanism, values: Values, bars: np.ndarray, places: np.ndarray | None = None) -> Replayed:
    """P vectors of bars float64 [P, E - 1] of a threshold rule, whose other values are `values`."""
    scored, bars = mechanism.scored(view, values), bars.copy()
    bars[:, : scored.first] = np.inf  # exits that are not asked cannot be passed
    right = score_answers(scored.answers, view.label[:, None]) == 1
    counted = tally(scored.score, bars, right, scored.answers == view.answers[:, -1:], (view.label, view.classes))
    paths = paths_by_exit(view.exits, every_head=True, first=scored.first)
    places = np.arange(len(bars)) if places is None else places
    return Replayed(places, paths, counted.exits, counted.exits, counted.correct, counted.agrees, counted.class_correct)


def threshold_waits(view: TraceView, mechanism: ThresholdMechanism, settings: Sequence[Values], service_ns: np.ndarray, times: np.ndarray):
    """Total waits and last completions int64 [H, P] of one group; service_ns int64 [H, E] by exit. Raises OverflowError."""
    scored, bars = mechanism.scored(view, settings[0]), np.stack([mechanism.bars(values, view) for values in settings])
    bars[:, : scored.first] = np.inf
    return waits(scored.score, bars, service_ns, times)


def _one(view: TraceView, mechanism: Mechanism, values: Values, place: int) -> Replayed:
    decisions = decide(mechanism, view, values)
    right = score_answers(decisions.prediction, view.label) == 1
    exits = np.bincount(decisions.exit[decisions.exit >= 0], minlength=view.exits)
    by_class = np.bincount(view.label[right], minlength=view.classes)
    counts = np.bincount(decisions.path, minlength=len(decisions.paths))
    agrees = int((decisions.prediction == view.answers[:, -1]).sum())
    return Replayed(np.array([place]), decisions.paths, counts[None], exits[None], np.array([right.sum()]), np.array([agrees]), by_class[None])


def _lanes(view: TraceView, mechanism: Mechanism, settings: Sequence[Values], places: np.ndarray) -> Iterator[Replayed]:
    found = lanes_tally(view, mechanism, settings)
    if found is None:
        yield from (_one(view, mechanism, values, place) for values, place in zip(settings, places, strict=True))
        return
    masks, exits, hits = found
    seen = np.flatnonzero(masks.any(axis=0))
    yield Replayed(places, tuple(Path(int(mask)) for mask in seen), masks[:, seen], exits, hits[:, 0], hits[:, 1], hits[:, 2:])


def lanes_tally(
    view: TraceView, mechanism: Mechanism, settings: Sequence[Values], service_ns: np.ndarray | None = None, gaps: np.ndarray | None = None
):
    """P settings of one group in lanes: counts int64 [P, 2^E] by visited heads and [P, E] by exit, hits int64 [P, 2 + K].

    hits: how many are right, how many agree with the full network, how many of each class are right.
    With service_ns int64 [H, 2^E] by visited heads and the gaps before arrivals int64 [N * laps], also the total waits
    and the work left at the last arrival, int64 [H, P] each: memory starts anew at each lap. None where the rule answers early.
    """
    observed = observations(mechanism, view, settings[0])
    streams, memory = carried_state(mechanism, view, settings[0])
    packed = np.stack([mechanism.pack(values, view) for values in settings])
    rehearse(mechanism, observed, streams, memory, packed[0])
    full, labels = np.ascontiguousarray(view.answers[:, -1]), view.label
    remembers = mechanism.state in ("stream", "global")
    timed = service_ns is not None
    services = service_ns if timed else np.zeros((0, 1 << view.exits), np.int64)
    steps = gaps if timed else np.zeros(len(view), np.int64)
    kernel = compiled(lanes_kernel, mechanism)

    def block(begin: int):
        chosen = packed[begin : begin + LANES]
        lanes = len(chosen)
        written = (
            np.zeros((lanes, 1 << view.exits), np.int64), np.zeros((lanes, view.exits), np.int64), np.zeros((lanes, 2 + view.classes), np.int64),
            np.zeros((services.shape[0], lanes), np.int64), np.zeros((services.shape[0], lanes), np.int64), np.zeros(1, np.int64),
        )  # fmt: skip
        memories = np.zeros((lanes, *memory.shape))
        room = memories, *working_room(mechanism)
        kernel(observed, view.answers, streams, labels, full, room, chosen, remembers, services, steps, written)
        refuse_again(mechanism, written[5])
        return written

    begins = range(0, len(packed), LANES)
    first = block(0)  # compiled before threads ask for it
    with ThreadPoolExecutor(max(min(len(begins), os.cpu_count() or 1), 1)) as pool:
        parts = [first, *pool.map(block, begins[1:])]
    if any(part[5][0] == EARLY for part in parts):
        return None
    masks, exits, hits = (np.concatenate([part[index] for part in parts]) for index in range(3))
    if not timed:
        return masks, exits, hits
    return masks, exits, hits, *(np.concatenate([part[index] for part in parts], axis=1) for index in (3, 4))


@cache
def lanes_kernel(step, lean):
    """The compiled loop over samples and lanes, specialised on `step`. Twin: `tests/twins.py:decide`.

    lean: see `eesim.mechanisms._asking.compiled`.
    """
    function, mark = jittable(step), fingerprint(step)

    @njit(cache=True, nogil=True, **({"_nrt": False} if lean else {}))
    def run(observed, answers, streams, labels, full, room, parameters, remembers, services, gaps, written):
        memories, scratch, answer, situation = room
        masks, exits, hits, waiting, left, odd = written
        lanes, samples, last = parameters.shape[0], observed.shape[0], observed.shape[1] - 1
        for request in range(gaps.size):
            sample = request % samples
            if request > 0 and sample == 0:
                memories[:] = 0.0
            row = observed[sample]
            for lane in range(lanes):
                scratch[:] = 0.0
                answer[:] = -1
                memory, values = memories[lane, streams[sample]], parameters[lane]
                exit, mask = -1, mark * 0
                while exit != last or remembers:
                    following = function(exit, row, scratch, memory, values, situation, answer)
                    if answer[1] >= 0:
                        odd[0] = EARLY
                        return
                    if following < 0 or (exit == last and following >= last):
                        break
                    exit = min(following, last)
                    if mask >> exit & 1:
                        odd[0] = AGAIN
                        return
                    mask |= 1 << exit
                if mask >> last & 1:
                    exit = last
                for device in range(services.shape[0]):
                    wait = max(left[device, lane] - gaps[request], 0)
                    waiting[device, lane] += wait
                    left[device, lane] = wait + services[device, mask]
                if request >= samples:
                    continue
                masks[lane, mask] += 1
                if exit >= 0:
                    exits[lane, exit] += 1
                prediction = answer[0] if answer[0] >= 0 or exit < 0 else answers[sample, exit]
                if prediction == full[sample]:
                    hits[lane, 1] += 1
                if labels[sample] >= 0 and prediction == labels[sample]:
                    hits[lane, 0] += 1
                    hits[lane, 2 + labels[sample]] += 1

    return run
