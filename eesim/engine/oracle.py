"""The oracle: the same scenario written as SimPy processes, plain and slow, to hold every compiled path against.

It shares nothing with the kernels but the compiled scenario: mechanisms are asked through their plain Python `step`,
request by request, and what they visit is priced here. Only a mechanism without a step (array code alone) is taken as decided.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import simpy

from eesim.engine.calendar import asked_timeline
from eesim.engine.order import ARRIVAL, COMPLETION
from eesim.engine.scenario import Scenario, Timeline
from eesim.mechanisms._asking import AGAIN, blamed, carried_state, observations, refuse_again, step_of
from eesim.mechanisms.base import NEXT_NS, QUEUE, SITUATION_SIZE, SLACK_NS


def oracle(scenario: Scenario) -> Timeline:
    """Run a scenario in SimPy. Time is Python's whole numbers, one unit a nanosecond."""
    model = _Model(scenario)
    model.env.process(model.clients() if scenario.process.closed else model.sensor())
    model.env.run()
    return model.timeline()


def after(env: simpy.Environment, delay: int, priority: int) -> simpy.Event:
    """An event `delay` from now; SimPy's own events of an instant (priorities 0 and 1) come before any of ours."""
    event = simpy.Event(env)
    event._ok, event._value = True, None
    env.schedule(event, priority=2 + priority, delay=delay)
    return event


class _Model:
    def __init__(self, scenario: Scenario):
        self.scenario, self.env = scenario, simpy.Environment()
        self.idle, self.waiting = scenario.servers, deque()
        self.arrival, self.start, self.response, self.finish = (np.full(scenario.requests, -1, np.int64) for _ in range(4))
        self.asked = hasattr(scenario.mechanism, "step")
        if self.asked:
            mechanism, view = scenario.mechanism, scenario.view
            self.step, self.observed = step_of(mechanism), observations(mechanism, view, scenario.values)
            self.streams, self.memory = carried_state(mechanism, view, scenario.values)
            self.parameters = mechanism.pack(scenario.values, view)
            self.visited, self.answered = np.zeros(scenario.requests, np.int64), np.zeros(scenario.requests, np.int64)
            self.exits, self.classes = np.full(scenario.requests, -1, np.int64), np.full(scenario.requests, -1, np.int64)
            self.lap = 0
        else:
            self.decided = scenario.decided
            self.plans = _plans(scenario)

    def sensor(self):
        """Open arrivals."""
        for request, time in enumerate(self.scenario.times().tolist()):
            yield after(self.env, time - self.env.now, ARRIVAL)
            self.arrive(request)

    def clients(self):
        """Closed loop: the first K requests at t = 0; each completion brings the next."""
        self.issued = min(self.scenario.servers, self.scenario.requests)
        for request in range(self.issued):
            after(self.env, 0, ARRIVAL).callbacks.append(lambda _, request=request: self.arrive(request))
        yield after(self.env, 0, ARRIVAL)

    def arrive(self, request: int) -> None:
        """Join the queue, or be dropped, or push out the oldest."""
        scenario = self.scenario
        self.arrival[request] = self.env.now
        full = self.idle == 0 and scenario.capacity >= 0 and len(self.waiting) >= scenario.capacity
        if full and not (scenario.drop_oldest and scenario.capacity > 0):
            return
        if full:
            self.waiting.popleft()
        self.waiting.append(request)
        self.serve()

    def serve(self) -> None:
        """Give waiting requests to idle servers."""
        while self.idle and self.waiting:
            self.idle -= 1
            request = self.waiting.popleft()
            self.start[request] = self.env.now
            work = self.follow_plan if not self.asked else self.ask_live if self.scenario.mechanism.live else self.ask_at_start
            self.env.process(self.service(request, work))

    def service(self, request: int, work):
        """One request on one server."""
        yield from work(request)
        self.finish[request] = self.env.now
        self.idle += 1
        if self.scenario.process.closed and self.issued < self.scenario.requests:
            following = self.issued
            self.issued += 1
            after(self.env, 0, ARRIVAL).callbacks.append(lambda _: self.arrive(following))
        self.serve()

    def follow_plan(self, request: int):
        """Stages decided beforehand."""
        stages, answer_stage = self.plans[self.decided.verdicts.path[request % len(self.decided)]]
        for stage, duration in enumerate(stages, start=1):
            yield after(self.env, duration, COMPLETION)
            if stage == answer_stage:
                self.response[request] = self.env.now

    def ask_at_start(self, request: int):
        """The whole decision is made when service starts, in the order of service starts, which is the order of state across samples."""
        scenario = self.scenario
        if request // scenario.places > self.lap:
            self.lap = request // scenario.places
            self.memory[:] = 0.0
        row = scenario.rows[request % scenario.places]
        answer, scratch = np.full(2, -1, np.int64), np.zeros(max(scenario.mechanism.scratch, 1))
        situation = np.array([0.0, np.inf, np.inf])
        visits, left, exit = [], None, -1
        while exit != scenario.view.exits - 1 or scenario.carries_state:
            following = self.following(exit, row, scratch, self.memory[self.streams[row]], situation, answer)
            if exit >= 0 and answer[1] >= 0 and left is None:
                left = len(visits)
            if following < 0 or (exit == scenario.view.exits - 1 and following >= exit):
                break
            exit = min(following, scenario.view.exits - 1)
            self.refuse_again(exit, visits)
            visits.append(exit)
        left = len(visits) if left is None else left
        self.note(request, visits, left, max(visits) if scenario.view.exits - 1 in visits else exit, answer)
        times = np.cumsum([self.duration(visits[:place], head, first=place == 0) for place, head in enumerate(visits)] or [scenario.cost.sample_ns])
        answered = int(times[max(left, 1) - 1])
        self.response[request] = self.env.now + answered
        yield after(self.env, int(times[-1]), COMPLETION)

    def ask_live(self, request: int):
        """A live rule: asked after every stage, in simulated time."""
        scenario = self.scenario
        row, last = scenario.rows[request % scenario.places], scenario.view.exits - 1
        answer, scratch = np.full(2, -1, np.int64), np.zeros(max(scenario.mechanism.scratch, 1))
        visits, left, exit = [], None, -1
        while exit != last:
            situation = np.empty(SITUATION_SIZE)
            situation[QUEUE] = len(self.waiting)
            deadline = scenario.deadline_ns
            situation[SLACK_NS] = np.inf if deadline < 0 else self.arrival[request] + deadline - self.env.now
            situation[NEXT_NS] = self.duration([exit] if exit >= 0 else [], exit + 1, first=exit < 0)
            following = self.following(exit, row, scratch, self.memory[0], situation, answer)
            if exit >= 0 and answer[1] >= 0 and left is None:
                left, self.response[request] = len(visits), self.env.now
            if following < 0:
                break
            exit = min(following, last)
            self.refuse_again(exit, visits)
            yield after(self.env, self.duration(visits, exit, first=not visits), COMPLETION)
            visits.append(exit)
        if not visits:
            yield after(self.env, scenario.cost.sample_ns, COMPLETION)
        if left is None:
            left, self.response[request] = len(visits), self.env.now
        self.note(request, visits, left, exit, answer)

    def following(self, exit: int, row: int, scratch: np.ndarray, memory: np.ndarray, situation: np.ndarray, answer: np.ndarray) -> int:
        """What the step says in plain Python."""
        with blamed(self.scenario.mechanism, "step"):
            return int(self.step(exit, self.observed[row], scratch, memory, self.parameters, situation, answer))

    def refuse_again(self, head: int, visits: list[int]) -> None:
        """A head is evaluated once."""
        refuse_again(self.scenario.mechanism, np.array([AGAIN if head in visits else 0]))

    def duration(self, visited: list[int], head: int, *, first: bool) -> int:
        """Time of the stage that ends with `head`."""
        cost = self.scenario.cost
        segments = cost.segment_ns[max(visited, default=-1) + 1 : head + 1].sum()
        return int(segments + cost.head_ns[head] + cost.decision_ns[head] + (cost.sample_ns if first else 0))

    def note(self, request: int, visits: list[int], left: int, exit: int, answer: np.ndarray) -> None:
        """Write down what a request that was asked did."""
        self.visited[request] = sum(1 << head for head in set(visits))
        self.answered[request] = sum(1 << head for head in set(visits[:left]))
        self.exits[request] = exit if answer[1] < 0 else answer[1]
        self.classes[request] = answer[0]

    def timeline(self) -> Timeline:
        """What happened."""
        written = self.arrival, self.start, self.response, self.finish
        if self.asked:
            return asked_timeline(self.scenario, written, (self.visited, self.answered, self.exits, self.classes))
        return Timeline(*written, self.decided)


def _plans(scenario: Scenario) -> list[tuple[list[int], int]]:
    costs = scenario.decided.costs
    return [(costs.stage_ns[path, : costs.stages[path]].tolist(), int(costs.answer_stage[path])) for path in range(costs.stages.size)]
