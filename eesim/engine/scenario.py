"""A scenario compiled to arrays: who arrives when, what each sample costs, and the rules of the queue.

A *pass* is the sequence of trace rows that requests walk through, T places long; request i meets place i mod T. Where
decisions depend on nothing but the pass, they are made once per place, whatever the number of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from eesim.arrivals import Process
from eesim.cost import MechanismCost, PathCosts
from eesim.mechanisms._deciding import decide
from eesim.mechanisms.base import Decisions, Mechanism, Path, Values
from eesim.seeds import Seeds
from eesim.trace.view import TraceView, score_answers

UNLIMITED = -1
NO_DEADLINE = -1


@dataclass(frozen=True)
class Verdicts:
    """What was decided at T places and whether it is right; the same on every device.

    path [T] into `paths`; exit int16, counted as recorded, -1 none; prediction int32; correct int8 (1, 0, -1); label int32;
    agrees bool: same answer as the full network; sample_id int64; exits and classes: how many were recorded.
    """

    paths: tuple[Path, ...]
    path: np.ndarray
    exit: np.ndarray
    prediction: np.ndarray
    correct: np.ndarray
    label: np.ndarray
    agrees: np.ndarray
    sample_id: np.ndarray
    exits: int
    classes: int
    say: Callable[[], np.ndarray] | None = field(default=None, repr=False)

    @cached_property
    def confidence(self) -> np.ndarray:
        """How probable each answer was held to be, float64 [T]; NaN where no head was evaluated."""
        return np.full(len(self), np.nan) if self.say is None else self.say()

    def __len__(self) -> int:
        return self.path.size

    @cached_property
    def _kind(self) -> np.ndarray:
        """Exit, label, right and agreeing of each place in one number."""
        kind = (self.exit.astype(np.int64) + 1) * (self.classes + 1) + (self.label + 1)
        return kind * 4 + (self.correct == 1) * 2 + self.agrees

    @cached_property
    def _once(self) -> tuple[np.ndarray, np.ndarray]:
        return self._count(None)

    def _count(self, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        shape = (self.exits + 1, self.classes + 1, 2, 2)
        kinds = np.bincount(self._kind, weights, int(np.prod(shape))).reshape(shape)
        paths = np.bincount(self.path, weights, len(self.paths))
        return np.rint(kinds).astype(np.int64), np.rint(paths).astype(np.int64)

    def tally(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """With places counted `weights` times each: int64 [exit + 1, label + 1, right, agrees], and how often each path was taken.

        Exact below 2^53. Equal weights are counted once and remembered.
        """
        least = int(weights.min())
        if least == int(weights.max()):
            kinds, paths = self._once
            return kinds * least, paths * least
        return self._count(weights)


@dataclass(frozen=True)
class Decided:
    """Verdicts with what their paths cost on one device. service_ns, response_ns int64 [T]; energy_nj int64 [T] or None."""

    verdicts: Verdicts
    costs: PathCosts

    @cached_property
    def service_ns(self) -> np.ndarray:
        """Time from service start to the end of computing."""
        return self.costs.service_ns[self.verdicts.path]

    @cached_property
    def response_ns(self) -> np.ndarray:
        """Time from service start to the answer."""
        return self.service_ns if self.costs.response_ns is self.costs.service_ns else self.costs.response_ns[self.verdicts.path]

    @cached_property
    def energy_nj(self) -> np.ndarray | None:
        """Active energy."""
        return None if self.costs.energy_nj is None else self.costs.energy_nj[self.verdicts.path]

    def __len__(self) -> int:
        return len(self.verdicts)


@dataclass(frozen=True)
class Scenario:
    """Everything the engine needs. `rows` [T] are the rows of `view` in the order of the pass."""

    view: TraceView
    rows: np.ndarray
    in_order: bool
    """True: `rows` is 0, 1, 2, …, the whole view as recorded."""
    mechanism: Mechanism
    values: Values
    cost: MechanismCost
    process: Process
    seeds: Seeds
    requests: int
    servers: int = 1
    capacity: int = UNLIMITED
    drop_oldest: bool = False
    deadline_ns: int = NO_DEADLINE
    warmup: int = 0
    given_times: np.ndarray | None = None
    """Arrival times where they were drawn already (sweeps share them)."""
    given_verdicts: Verdicts | None = None
    """The pass where it was decided already for another device."""

    def times(self) -> np.ndarray:
        """Arrival times of all requests, int64 [N]."""
        return self.process.times(self.seeds, self.requests) if self.given_times is None else self.given_times

    @property
    def places(self) -> int:
        """Length of the pass, T."""
        return self.rows.size

    @property
    def carries_state(self) -> bool:
        """Whether decisions depend on the samples processed before."""
        return self.mechanism.state in ("stream", "global")

    @property
    def asks_in_time(self) -> bool:
        """Whether decisions depend on what happens in the queue: live rules, and carried state where requests may be dropped."""
        return self.mechanism.live or (self.carries_state and self.capacity != UNLIMITED)

    @cached_property
    def decisions(self) -> Decisions:
        """Decisions at each place of the pass, made once. Only where nothing in the queue matters to them."""
        if self.in_order:
            return decide(self.mechanism, self.view, self.values)
        if self.carries_state:
            return decide(self.mechanism, self.view.taken(self.rows), self.values)
        whole = decide(self.mechanism, self.view, self.values)
        sure = None if whole.confidence is None else whole.confidence[self.rows]
        return replace(whole, path=whole.path[self.rows], exit=whole.exit[self.rows], prediction=whole.prediction[self.rows], confidence=sure)

    @cached_property
    def decided(self) -> Decided:
        """The pass decided and priced."""
        return self.price(self.given_verdicts or self.judge(self.decisions, None if self.in_order else self.rows))

    def judge(self, decisions: Decisions, rows: np.ndarray | None) -> Verdicts:
        """Whether decisions about the given rows of the view (all in order: None) are right."""
        view = self.view
        take = (lambda array: array) if rows is None else (lambda array: array[rows])
        label = take(view.label)
        recorded = np.array([*view.recorded_exits, -1], np.int16)  # the last place serves exit -1

        def say() -> np.ndarray:
            place = np.arange(decisions.exit.size) if rows is None else rows
            own = view.probabilities[place, np.maximum(decisions.exit, 0), np.maximum(decisions.prediction, 0)]
            own = own if decisions.confidence is None else decisions.confidence
            return np.where(decisions.exit >= 0, own, np.nan)

        return Verdicts(
            decisions.paths, decisions.path, recorded[decisions.exit], decisions.prediction, score_answers(decisions.prediction, label), label,
            decisions.prediction == take(view.answers[:, -1]), take(view.sample_id), view.trace.exits, view.classes, say,
        )  # fmt: skip

    def price(self, verdicts: Verdicts) -> Decided:
        """Verdicts with what they cost on this scenario's device."""
        costs = self.cost.paths(verdicts.paths)
        same = np.array_equal(costs.response_ns, costs.service_ns)
        return Decided(verdicts, replace(costs, response_ns=costs.service_ns) if same else costs)


@dataclass(frozen=True)
class Timeline:
    """When each request arrived, started, was answered and finished: int64 [N] in ns, -1 after `arrival` where it was dropped.

    `decided` holds what was decided; request i is its place i mod len(decided).
    """

    arrival: np.ndarray
    start: np.ndarray
    response: np.ndarray
    finish: np.ndarray
    decided: Decided
