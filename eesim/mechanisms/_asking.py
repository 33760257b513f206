"""Deciding a sequence of samples with a mechanism's compiled `step`, one after the other, carrying its state."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from numba import njit
from numba.core.errors import NumbaError

from eesim.errors import BadInput
from eesim.jit import fingerprint, jittable
from eesim.mechanisms.base import STOP, Decisions, Mechanism, Path, Values
from eesim.mechanisms.registry import USER_MODULE
from eesim.trace.view import TraceView

MOST_EXITS = 62
"""Evaluated heads are kept as bits of an int64."""
AGAIN = -1
"""Written in place of the evaluated heads where a step asked for a head twice; the loop ends there."""


def step_of(mechanism: Mechanism):
    """The mechanism's `step` as the plain function it is."""
    step = type(mechanism).__dict__.get("step") or mechanism.step
    return getattr(step, "__func__", step)


_ALLOCATING: set = set()
"""Steps that make arrays of their own. (On disk both kernels of a step have one name, so a later process finds the one that compiled.)"""


def compiled(kernel: Callable, mechanism: Mechanism) -> Callable:
    """How `kernel(step, lean)` is called with a mechanism's step; calls raise BadInput when the step cannot be compiled.

    lean : without counting references to arrays, which takes several times as long as most steps do. Neither the kernel nor
        the step can allocate then, so steps that do are compiled the other way.
    """
    step = step_of(mechanism)

    def call(*arguments) -> None:
        if step not in _ALLOCATING:
            try:
                kernel(step, True)(*arguments)
                return
            except NumbaError:
                _ALLOCATING.add(step)
        try:
            kernel(step, False)(*arguments)
        except NumbaError as error:
            raise cannot_compile(mechanism, error) from None

    return call


@cache
def decider(step, lean):
    """The compiled loop over samples, specialised on `step`; lean: see `compiled`. Twin: `tests/twins.py:decide`."""
    function, mark = jittable(step), fingerprint(step)

    @njit(cache=True, **({"_nrt": False} if lean else {}))
    def decide(observed, streams, memory, room, parameters, remembers, written):
        scratch, answer, situation = room
        visited, answered, exits, classes = written
        last = observed.shape[1] - 1
        for sample in range(observed.shape[0]):
            scratch[:] = 0.0
            answer[:] = -1
            carried = memory[streams[sample]]
            exit, mask, left = -1, 0, -1
            while exit != last or remembers:
                following = STOP if mark == 0 else function(exit, observed[sample], scratch, carried, parameters, situation, answer)
                if exit >= 0 and answer[1] >= 0 and left < 0:
                    left = mask
                if following < 0 or (exit == last and following >= last):
                    break
                exit = min(following, last)
                if mask >> exit & 1:
                    visited[sample] = AGAIN
                    return
                mask |= 1 << exit
            visited[sample] = mask
            answered[sample] = mask if left < 0 else left
            exits[sample] = answer[1] if answer[1] >= 0 else last if mask >> last & 1 else exit
            classes[sample] = answer[0]

    return decide


def decide_in_order(mechanism: Mechanism, view: TraceView, values: Values) -> Decisions:
    """Decisions for every sample of the view in order. Raises BadInput when the step cannot be compiled."""
    samples, exits = len(view), view.exits
    if exits > MOST_EXITS:
        raise BadInput(f"{exits} exits; at most {MOST_EXITS} can be decided")
    observed = observations(mechanism, view, values)
    streams, memory = carried_state(mechanism, view, values)
    written = tuple(np.zeros(samples, np.int64) for _ in range(4))
    room, remembers, parameters = working_room(mechanism), mechanism.state in ("stream", "global"), mechanism.pack(values, view)
    rehearse(mechanism, observed, streams, memory, parameters)
    compiled(decider, mechanism)(observed, streams, memory, room, parameters, remembers, written)
    refuse_again(mechanism, written[0])
    return assemble(view, *written)


def assemble(
    view: TraceView, visited: np.ndarray, answered: np.ndarray, exit: np.ndarray, label: np.ndarray, rows: np.ndarray | None = None
) -> Decisions:
    """Decisions from what a compiled loop wrote for each sample; `rows` says which row of the view each sample is."""
    for name, values, limit in (("answer[1]", exit, view.exits), ("answer[0]", label, view.classes)):
        odd = values[(values >= limit) | (values < -1)]
        if odd.size:
            raise BadInput(f"the mechanism's step set {name} to {odd[0]}; legal is -1 to {limit - 1}")
    unseen = (exit >= 0) & (answered >> np.maximum(exit, 0) & 1 == 0)
    if unseen.any():
        raise BadInput(f"the mechanism's step set answer[1] to {exit[unseen][0]}, an exit that was not evaluated when the answer left")
    if view.exits <= 31:  # both masks in one number: sorting numbers is far cheaper than sorting pairs
        codes, path = np.unique(visited | answered << 31, return_inverse=True)
        keys = np.stack([codes & (2**31 - 1), codes >> 31])
    else:
        keys, path = np.unique(np.stack([visited, answered]), axis=1, return_inverse=True)
    answers = view.answers if rows is None else view.answers[rows]
    own = np.take_along_axis(answers, np.maximum(exit, 0)[:, None], axis=1)[:, 0]
    prediction = np.where(label >= 0, label, np.where(exit >= 0, own, -1)).astype(np.int32)
    paths = tuple(Path(int(seen), -1 if seen == left else int(left)) for seen, left in keys.T)
    return Decisions(paths, path.ravel(), exit.astype(np.int16), prediction)


def observations(mechanism: Mechanism, view: TraceView, values: Values) -> np.ndarray:
    """What the mechanism observes, as contiguous float64 [N, E, D]."""
    with blamed(mechanism, "observe"):
        observed = np.asarray(mechanism.observe(view, values), np.float64)
    if observed.shape[:2] != (len(view), view.exits) or observed.ndim not in (2, 3):
        raise BadInput(
            f"mechanism '{mechanism.name}': observe returned shape {observed.shape}, wanted ({len(view)}, {view.exits}) or with a third axis"
        )
    return np.ascontiguousarray(observed.reshape(len(view), view.exits, -1))


def carried_state(mechanism: Mechanism, view: TraceView, values: Values) -> tuple[np.ndarray, np.ndarray]:
    """For each sample the row of its memory, and the zeroed memories [streams or 1, size]. Raises BadInput for a size that cannot be."""
    streams, count = view.streams if mechanism.state == "stream" else (np.zeros(len(view), np.int32), 1)
    with blamed(mechanism, "memory"):
        size = mechanism.memory(view, values)
    if not isinstance(size, (int, np.integer)) or size < 0:
        said = f"mechanism '{mechanism.name}': memory returned {str(size)[:40]}; legal is a whole number of at least 0"
        raise BadInput(said, file=own_file(mechanism))
    if size and mechanism.state not in ("stream", "global"):
        said = f"mechanism '{mechanism.name}': memory returned {size}, but its state is '{mechanism.state}'; what is kept takes 'stream' or 'global'"
        raise BadInput(said, file=own_file(mechanism))
    return np.ascontiguousarray(streams, np.int32), np.zeros((count, max(int(size), 1)))


def working_room(mechanism: Mechanism) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a step writes to and looks at beside the memory: scratch, answer, and the situation where time plays no part."""
    return np.zeros(max(mechanism.scratch, 1)), np.zeros(2, np.int64), np.array([0.0, np.inf, np.inf])


REHEARSED = 16
"""Samples that a step from outside this package is asked about in plain Python, before it is compiled."""
_REHEARSED: set = set()


def rehearse(mechanism: Mechanism, observed: np.ndarray, streams: np.ndarray, memory: np.ndarray, parameters: np.ndarray) -> None:
    """Ask a user's step about a few samples in plain Python, once: compiled code reads and writes past the end of an array unnoticed.

    Raises BadInput for an index that is out of range; all else is left to the compiled run.
    """
    step = step_of(mechanism)
    known = (step, observed.shape[1:], memory.shape[1])
    if type(mechanism).__module__.startswith("eesim.mechanisms.") or known in _REHEARSED:
        return
    rows = np.unique(np.linspace(0, len(observed) - 1, min(REHEARSED, len(observed))).astype(int))
    written = tuple(np.zeros(rows.size, np.int64) for _ in range(4))
    remembers = mechanism.state in ("stream", "global")
    try:
        with np.errstate(all="ignore"):
            decider(step, True).py_func(observed[rows], streams[rows], memory.copy(), working_room(mechanism), parameters, remembers, written)
    except IndexError as error:
        room = f"scratch holds {max(mechanism.scratch, 1)} numbers, memory {memory.shape[1]}, observed {observed.shape[1]} x {observed.shape[2]}"
        raise BadInput(f"mechanism '{mechanism.name}': IndexError in its step: {error} ({room})", file=own_file(mechanism)) from error
    except Exception:  # whatever else it raises it raises again when it is really asked, where it is reported
        pass
    _REHEARSED.add(known)


def own_file(mechanism: Mechanism) -> str | None:
    """The user's file that a mechanism was read from; None for bundled ones and for those defined in Python."""
    module = type(mechanism).__module__
    return getattr(sys.modules.get(module), "__file__", None) if module.startswith(USER_MODULE) else None


@contextmanager
def blamed(mechanism: Mechanism, what: str) -> Iterator[None]:
    """Whatever the code of a user's file raises becomes one line that names it; elsewhere errors stay as they are."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if (file := own_file(mechanism)) is None:
            raise
        raise BadInput(f"mechanism '{mechanism.name}': {type(error).__name__} in its {what}: {error}", file=file) from error


def refuse_again(mechanism: Mechanism, visited: np.ndarray) -> None:
    """Raise BadInput where the step asked for a head that was evaluated already: it would never end."""
    if (visited == AGAIN).any():
        raise BadInput(f"mechanism '{mechanism.name}': its step asks for a head that this sample has evaluated already; return another, or STOP")


def cannot_compile(mechanism: Mechanism, error: Exception) -> BadInput:
    """One line about a step that numba refuses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    failed = [place for place, line in enumerate(lines) if "Failed in" in line and place + 1 < len(lines)]
    telling = lines[failed[-1] + 1] if failed else lines[0] if lines else ""  # the innermost function that failed, here the step or a caller
    if any(line.startswith(">>> ") for line in lines) and f">>> {step_of(mechanism).__name__}(" not in str(error):
        telling = "what it returns must be a whole number on every path"
    return BadInput(f"mechanism '{mechanism.name}': its step cannot be compiled ({telling[:200]})", file=own_file(mechanism))
