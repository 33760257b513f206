"""A multi-exit ONNX network that is really run in stages: every segment and every head is a session of its own.

Segment e gives what head e and later parts read; the head gives the logits of exit e. Tensors that pass between them are kept by
name, so a part may read whatever an earlier one wrote, and the network's inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from eesim.errors import BadInput
from eesim.measure.onnx_model import part_of, prepare, session, tensor_owners
from eesim.measure.timing import clock_of, undisturbed
from eesim.measure.yardstick import yardstick
from eesim.units import INT64_MAX

Sample = Mapping[str, np.ndarray]
SPIN_NS = 200_000
"""The last so many ns before a due time are spun, for sleeping wakes up late; what is longer is slept."""


PATIENCE_S = 60.0
"""By the clock 'own' a machine that is slow is waited for so long at most, for each run or block of repeats."""


@dataclass(frozen=True, eq=False)
class Part:
    """A session over one segment or head, and the names of what it reads and writes."""

    name: str
    reads: list[str]
    writes: list[str]
    session: Any

    def run(self, tensors: dict[str, np.ndarray]) -> None:
        """Read from `tensors` and write there."""
        tensors.update(zip(self.writes, self.session.run(self.writes, {name: tensors[name] for name in self.reads}), strict=True))


class StagedNetwork:
    """Segments and heads of a network as sessions of `threads` threads each. An exit without a segment of its own has None there.

    path, outputs, final_head : as in `import_onnx`; a network without weights gets random ones, drawn from `seed`.
    Raises BadInput where the network cannot be read, cut or run, or onnxruntime is missing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        outputs: Sequence[str] | None = None,
        final_head: str | None = None,
        threads: int = 1,
        device: str = "cpu",
        seed: int = 0,
    ):
        self.prepared = prepare(path, outputs=outputs, final_head=final_head, seed=seed)
        owners = tensor_owners(self.prepared)
        self.outputs = self.prepared.outputs
        self.segments: list[Part | None] = []
        self.heads: list[Part] = []
        for exit in range(self.prepared.exits):
            self.segments.append(self._part(exit, False, owners, threads, device))
            head = self._part(exit, True, owners, threads, device)
            if head is None:
                raise BadInput(f"output '{self.outputs[exit]}' has no layer of its own, so it has no head", file=path)
            self.heads.append(head)

    def _part(self, exit: int, head: bool, owners: dict[str, tuple[int, bool]], threads: int, device: str) -> Part | None:
        name = f"{'head' if head else 'segment'} {exit}"
        model = part_of(self.prepared, (exit, head), owners, name.replace(" ", ""))
        if model is None:
            return None
        reads, writes = ([value.name for value in values] for values in (model.graph.input, model.graph.output))
        return Part(name, reads, writes, session(model, threads=threads, device=device, file=self.prepared.path))

    @property
    def exits(self) -> int:
        """Number of exits, the final one included."""
        return len(self.heads)

    @property
    def inputs(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape, with the batch of 1, and type of each input."""
        return self.prepared.inputs

    def example(self, seed: int = 0) -> dict[str, np.ndarray]:
        """A made-up sample."""
        return self.prepared.example(seed)

    def samples(self, inputs: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Rows of arrays [N, …] as samples with a batch of 1, in the network's types; 'inputs' serves for an only input.

        Raises BadInput where one is missing or of another shape.
        """
        given = dict(inputs)
        if len(self.inputs) == 1 and "inputs" in given and "inputs" not in self.inputs:
            given[next(iter(self.inputs))] = given.pop("inputs")
        arrays = {}
        for name, (shape, kind) in self.inputs.items():
            if name not in given:
                raise BadInput(f"this input of the network is missing; given are {', '.join(sorted(given)) or 'none'}", field=name)
            values = np.asarray(given[name])
            if values.shape[1:] != shape[1:]:
                raise BadInput(f"is of shape {['N', *values.shape[1:]]}, the network takes {['N', *shape[1:]]}", field=name)
            arrays[name] = np.ascontiguousarray(values, kind)
        counts = {name: len(values) for name, values in arrays.items()}
        if len(set(counts.values())) != 1 or not min(counts.values()):
            raise BadInput(f"inputs must have as many samples each, at least one; they have {counts}")
        return [{name: values[row : row + 1] for name, values in arrays.items()} for row in range(min(counts.values()))]

    def run(self, sample: Sample, exit: int | None = None, every_head: bool = True) -> list[np.ndarray]:
        """Logits [K] of the heads evaluated up to `exit` (all by default); only that of `exit` without `every_head`."""
        exit = self.exits - 1 if exit is None else exit
        tensors, said = dict(sample), []
        for place in range(exit + 1):
            segment = self.segments[place]
            if segment is not None:
                segment.run(tensors)
            if every_head or place == exit:
                self.heads[place].run(tensors)
                said.append(tensors[self.outputs[place]][0])
        return said


@dataclass(frozen=True)
class StageTimes:
    """What each part took, for n samples one after the other on this machine: int64 [n, E] in ns, -1 for stages that were not reached.

    segment : running segment e; head : running head e; decision : the softmax of exit e and its comparison with a bar, 0 for the last;
    request : int64 [n]: everything else about a request (taking its input, the answer, giving memory back).
    """

    segment: np.ndarray
    head: np.ndarray
    decision: np.ndarray
    request: np.ndarray

    def __getitem__(self, rows: slice | np.ndarray) -> StageTimes:
        return StageTimes(self.segment[rows], self.head[rows], self.decision[rows], self.request[rows])

    @property
    def exit(self) -> np.ndarray:
        """Where each sample left, int64 [n]."""
        return (self.segment >= 0).sum(axis=1) - 1

    @property
    def each_ns(self) -> np.ndarray:
        """What each sample took, int64 [n]."""
        return sum((part.clip(0).sum(axis=1) for part in (self.segment, self.head, self.decision)), self.request)

    def means(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """segment_ns, head_ns, decision_ns and request_ns int64 [E]: the numbers that a simulation needs.

        Means, for they are what loads a server. Of stages over the samples that reached them (0 where none did), of requests over those that
        left there (over all, where none did).
        """

        def mean(values: np.ndarray, rows: np.ndarray, otherwise: float = 0.0) -> float:
            return float(values[rows].mean()) if rows.any() else otherwise

        exits, left, always = range(self.segment.shape[1]), self.exit, float(self.request.mean())
        stages = [[mean(part[:, e], part[:, e] >= 0) for e in exits] for part in (self.segment, self.head, self.decision)]
        found = [np.rint(values).astype(np.int64) for values in (*stages, [mean(self.request, left == e, always) for e in exits])]
        return found[0], found[1], found[2], found[3]

    def service_ns(self) -> np.ndarray:
        """Time of a request that leaves at each exit with every head and decision on the way, from the means, int64 [E]."""
        return service_times(*self.means())

    def draw(self, exits: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Service times int64 [m] of requests that leave at `exits` [m]: each that of a sample which left there (its mean, where none did)."""
        drawn, own, left = self.service_ns()[exits], self.each_ns, self.exit
        for exit in np.unique(exits):
            known = own[left == exit]
            if known.size:
                drawn[exits == exit] = random.choice(known, int((exits == exit).sum()))
        return drawn


def service_times(segment_ns: np.ndarray, head_ns: np.ndarray, decision_ns: np.ndarray | int = 0, request_ns: np.ndarray | int = 0) -> np.ndarray:
    """Time of a request that leaves at exit e after every head and decision on the way, int64 [E].

    decision_ns : [E], the last is not asked; request_ns : by exit [E], or one for all
    """
    segments, heads = np.asarray(segment_ns, np.int64), np.asarray(head_ns, np.int64)
    decisions = np.broadcast_to(np.asarray(decision_ns, np.int64), segments.shape).copy()
    decisions[-1] = 0
    return np.cumsum(segments + heads + decisions) + np.asarray(request_ns, np.int64)


def confidence(logits: np.ndarray) -> float:
    """Largest softmax entry of logits [K], in float64 as eesim scores them."""
    scores = logits.astype(np.float64)
    scores -= scores.max()
    return 1.0 / float(np.exp(scores).sum())


def go_through(
    network: StagedNetwork,
    sample: Sample,
    bars: Sequence[float],
    forced: int,
    stamps: np.ndarray | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> tuple[int, int]:
    """Serve one sample in stages: segment, head, decision, and on or stop; returns the exit and its answer.

    bars : float [E - 1], the smallest max-softmax that stops at each exit; forced : the exit to stop at whatever is decided, or -1
    stamps : int64 [E, 3], written with the clock after segment, head and decision of each exit that is reached
    """
    tensors, last = dict(sample), network.exits - 1
    for exit in range(last + 1):
        segment = network.segments[exit]
        if segment is not None:
            segment.run(tensors)
        if stamps is not None:
            stamps[exit, 0] = clock()
        network.heads[exit].run(tensors)
        logits = tensors[network.outputs[exit]][0]
        if stamps is not None:
            stamps[exit, 1] = clock()
        if exit == last:
            if stamps is not None:
                stamps[exit, 2] = stamps[exit, 1]
            break
        stop = confidence(logits) >= bars[exit]
        if forced >= 0:
            stop = exit == forced
        if stamps is not None:
            stamps[exit, 2] = clock()
        if stop:
            break
    return exit, int(logits.argmax())


def stage_times(
    network: StagedNetwork,
    samples: Sequence[Sample] | None = None,
    *,
    exits: np.ndarray | None = None,
    repeats: int = 300,
    warmup: int = 30,
    clock: str = "wall",
    gap_ns: int = 0,
    spin_ns: int = SPIN_NS,
) -> StageTimes:
    """Run samples one after the other in stages, and time each part; the first `warmup` are not kept.

    samples : met in order and repeated; by default one that is made up
    exits : int, one for each sample (any number without samples), where it leaves; by default none leaves before the last. Stages that are
        seldom reached are slower when they are (colder caches) and make the others faster, so a server is best predicted with its own exits.
    clock : 'wall' or 'own', see `eesim.measure.timing.CLOCKS`
    gap_ns : pause before each repeat, as a server waits for its next request: caches and clock rates are then those of a server that
        has waited, not of one that never rests; by the clock 'own' the yardstick is read after it, here and in `serve` alike
    spin_ns : as in `eesim.measure.serving.serve`

    Not pinned: see `eesim.measure.machine.pinned`.
    """
    samples = [network.example()] if samples is None else samples
    if not len(samples) or repeats < 1:
        raise BadInput("stage times need at least one sample and one repeat")
    count, ask = repeats + warmup, clock_of(clock)
    plan = [-1] if exits is None else np.asarray(exits, np.int64).tolist()
    stamps = np.zeros((count, network.exits, 3), np.int64)
    whole = np.zeros((count, 2), np.int64)
    bars = [np.inf] * network.exits
    until = time.perf_counter() + PATIENCE_S
    with undisturbed():
        for index in range(count):
            if gap_ns:
                wait_until(ask() + gap_ns, ask, spin_ns if clock == "wall" else INT64_MAX)
            once = lambda: go_through(network, samples[index % len(samples)], bars, plan[index % len(plan)], stamps[index], ask)  # noqa: B023, E731
            *whole[index], _ = undisturbedly(once, ask, until) if clock == "own" else at_once(once, ask, ask())
    return times_of(whole[:, 0], whole[:, 1], stamps)[warmup:]


T = TypeVar("T")


def at_once(once: Callable[[], T], ask: Callable[[], int], begun: int) -> tuple[int, int, T]:
    """Start, which is `begun`, finish, and what `once` returns."""
    said = once()
    return begun, ask(), said


def undisturbedly(once: Callable[[], T], ask: Callable[[], int], until: float) -> tuple[int, int, T]:
    """The same when the machine is not slow before and after; else again, until `until` (of `time.perf_counter`)."""
    stick = yardstick()
    while True:
        stick.wait(until)
        start = ask()
        said = once()
        finish = ask()
        if not stick.slow(stick.read()) or time.perf_counter() > until:
            return start, finish, said


def wait_until(due: int, ask: Callable[[], int], spin_ns: int) -> int:
    """Sleep, and spin the last `spin_ns`, until the clock `ask` shows at least `due`; returns what it then shows."""
    now = ask()
    if due - now > spin_ns:
        time.sleep((due - now - spin_ns) * 1e-9)
        now = ask()
    while now < due:
        now = ask()
    return now


def times_of(start: np.ndarray, finish: np.ndarray, stamps: np.ndarray) -> StageTimes:
    """Stage times from starts and finishes int64 [n] and stamps int64 [n, E, 3]; -1 for stages that were not reached."""
    before = np.concatenate([start[:, None], stamps[:, :-1, 2]], axis=1)
    reached = stamps[:, :, 0] > 0
    segment, head, decision = (
        np.where(reached, later - earlier, -1)
        for later, earlier in ((stamps[:, :, 0], before), (stamps[:, :, 1], stamps[:, :, 0]), (stamps[:, :, 2], stamps[:, :, 1]))
    )
    return StageTimes(segment, head, decision, finish - stamps[:, :, 2].max(axis=1))


def together(parts: Sequence[StageTimes]) -> StageTimes:
    """Several measurements of the same stages as one."""
    return StageTimes(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("segment", "head", "decision", "request")))
