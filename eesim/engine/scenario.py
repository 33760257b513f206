"""A scenario compiled to arrays: who arrives when, what each sample costs, and the rules of the queue.

A *pass* is the sequence of trace rows that requests walk through, T places long; request i meets place i mod T. Where
decisions depend on nothing but the pass, they are made once per place, whatever the number of requests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from eesim.arrivals import Process
from eesim.cost import MechanismCost, PathCosts
from eesim.mechanisms.base import Decisions, Mechanism, Values
from eesim.seeds import Seeds
from eesim.trace.view import TraceView, score_answers

UNLIMITED = -1
NO_DEADLINE = -1


@dataclass(frozen=True)
class Decided:
    """Decisions with their costs, one place each; T places.

    path [T] into costs; exit int16, counted as recorded, -1 none; prediction int32; correct int8 (1, 0, -1); label int32;
    agrees bool: same answer as the full network; sample_id int64; service_ns, response_ns int64; energy_nj int64 or None.
    """

    costs: PathCosts
    path: np.ndarray
    exit: np.ndarray
    prediction: np.ndarray
    correct: np.ndarray
    label: np.ndarray
    agrees: np.ndarray
    sample_id: np.ndarray

    @cached_property
    def service_ns(self) -> np.ndarray:
        """Time from service start to the end of computing."""
        return self.costs.service_ns[self.path]

    @cached_property
    def response_ns(self) -> np.ndarray:
        """Time from service start to the answer."""
        return self.service_ns if self.costs.response_ns is self.costs.service_ns else self.costs.response_ns[self.path]

    @cached_property
    def energy_nj(self) -> np.ndarray | None:
        """Active energy."""
        return None if self.costs.energy_nj is None else self.costs.energy_nj[self.path]

    def __len__(self) -> int:
        return self.path.size


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
            return self.mechanism.decide(self.view, self.values)
        if self.carries_state:
            return self.mechanism.decide(self.view.taken(self.rows), self.values)
        whole = self.mechanism.decide(self.view, self.values)
        return replace(whole, path=whole.path[self.rows], exit=whole.exit[self.rows], prediction=whole.prediction[self.rows])

    @cached_property
    def decided(self) -> Decided:
        """The pass decided and priced."""
        return self.price(self.decisions, None if self.in_order else self.rows)

    def price(self, decisions: Decisions, rows: np.ndarray | None) -> Decided:
        """Decisions about the given rows of the view (all in order: None), with what they cost and whether they are right."""
        view = self.view
        take = (lambda array: array) if rows is None else (lambda array: array[rows])
        costs = self.cost.paths(decisions.paths)
        if np.array_equal(costs.response_ns, costs.service_ns):
            costs = replace(costs, response_ns=costs.service_ns)
        label = take(view.label)
        recorded = np.array([*view.recorded_exits, -1], np.int16)  # the last place serves exit -1
        return Decided(
            costs, decisions.path, recorded[decisions.exit], decisions.prediction, score_answers(decisions.prediction, label), label,
            decisions.prediction == take(view.answers[:, -1]), take(view.sample_id),
        )  # fmt: skip


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
