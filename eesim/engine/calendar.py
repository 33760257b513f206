"""The calendar: every stage an event, in the total order of `eesim.engine.order`. Handles whatever a scenario may hold.

A stage is what runs between two decisions: the segments up to the next head, the head, and the decision there. The
kernel is specialised on how the next stage is found: from a plan made beforehand, from a mechanism asked once at service
start (state across samples while requests may be dropped), or from a live mechanism asked after every stage.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit
from numba.core.errors import NumbaError

from eesim.engine.order import ARRIVAL, COMPLETION, PRIORITY_SHIFT
from eesim.engine.scenario import Scenario, Timeline
from eesim.jit import fingerprint, jittable
from eesim.mechanisms._asking import AGAIN, assemble, cannot_compile, carried_state, observations, refuse_again, rehearse, step_of
from eesim.mechanisms.base import NEXT_NS, QUEUE, SITUATION_SIZE, SLACK_NS, STOP

_ARRIVAL_BITS = ARRIVAL << PRIORITY_SHIFT
_COMPLETION_BITS = COMPLETION << PRIORITY_SHIFT
PLANNED, AT_START, LIVE = 0, 1, 2


@njit(cache=True)
def _push(times, orders, data, size, time, order, datum):
    """Add an event to the heap; returns the new size."""
    hole = size
    while hole > 0:
        parent = (hole - 1) >> 1
        if times[parent] < time or (times[parent] == time and orders[parent] < order):
            break
        times[hole], orders[hole], data[hole] = times[parent], orders[parent], data[parent]
        hole = parent
    times[hole], orders[hole], data[hole] = time, order, datum
    return size + 1


@njit(cache=True)
def _pop(times, orders, data, size):
    """Remove the first event (its fields are read from place 0 before); returns the new size."""
    size -= 1
    time, order, datum = times[size], orders[size], data[size]
    hole, child = 0, 1
    while child < size:
        right = child + 1
        if right < size and (times[right] < times[child] or (times[right] == times[child] and orders[right] < orders[child])):
            child = right
        if time < times[child] or (time == times[child] and order < orders[child]):
            break
        times[hole], orders[hole], data[hole] = times[child], orders[child], data[child]
        hole = child
        child = 2 * hole + 1
    times[hole], orders[hole], data[hole] = time, order, datum
    return size


def _no_step(exit, observed, scratch, memory, parameters, situation, answer):
    return STOP


@cache
def calendar_kernel(step, mode):
    """The compiled event loop for one `step` and one of the modes PLANNED, AT_START and LIVE. Twin: the SimPy oracle."""
    function, mark = jittable(step), fingerprint(step)

    @njit(cache=True)
    def run(setup, arrivals, plan, asked, written, chosen):
        """setup: requests, servers, capacity, drop_oldest, deadline, closed, sample_ns; see `calendar` for the tuples."""
        requests, servers, capacity, drop_oldest, deadline, closed, sample_ns = setup
        path_of, stage_ns, stages, answer_stage = plan
        observed, rows, streams, memory, scratches, parameters, segment_ns, head_ns, decision_ns = asked
        arrival, start, response, finish = written
        visited, answered, exits, classes = chosen
        places = rows.size
        last = segment_ns.size - 1

        times = np.empty(servers + 2 + (servers if closed else 0), np.int64)
        orders, data = np.empty_like(times), np.empty_like(times)
        size, sequence = 0, mark * 0
        queue = np.empty(requests, np.int64)
        head, tail = 0, 0
        idle = np.arange(servers)[::-1].copy()
        idling = servers
        running, stage = np.full(servers, -1), np.zeros(servers, np.int64)
        situation = np.full(SITUATION_SIZE, np.inf)
        situation[QUEUE] = 0.0
        answers = np.full((servers, 2), -1)
        lap = 0

        issued = min(servers, requests) if closed else 1
        for request in range(issued):
            size = _push(times, orders, data, size, 0 if closed else arrivals[0], _ARRIVAL_BITS | sequence, request)
            sequence += 1
        while size > 0:
            now, order, datum = times[0], orders[0], data[0]
            size = _pop(times, orders, data, size)
            if order < _ARRIVAL_BITS:  # a stage has ended on server `datum`
                server, request = datum, running[datum]
                duration = -1
                if mode == PLANNED:
                    path = path_of[request % places]
                    stage[server] += 1
                    if stage[server] == answer_stage[path]:
                        response[request] = now
                    if stage[server] < stages[path]:
                        duration = stage_ns[path, stage[server]]
                elif mode == LIVE:
                    exit = stage[server]
                    if exit != last and exit >= 0:
                        situation[QUEUE] = tail - head
                        situation[SLACK_NS] = np.inf if deadline < 0 else arrival[request] + deadline - now
                        situation[NEXT_NS] = segment_ns[exit + 1] + head_ns[exit + 1] + decision_ns[exit + 1]
                        place = rows[request % places]
                        following = function(exit, observed[place], scratches[server], memory[0], parameters, situation, answers[server])
                        if answers[server, 1] >= 0 and answered[request] < 0:
                            answered[request], response[request] = visited[request], now
                        if following >= 0:
                            following = min(following, last)
                            if visited[request] >> following & 1:
                                visited[request] = AGAIN
                                return
                            duration = head_ns[following] + decision_ns[following]
                            deepest = exit
                            while visited[request] >> (deepest + 1) > 0:
                                deepest += 1
                            for segment in range(deepest + 1, following + 1):
                                duration += segment_ns[segment]
                            visited[request] |= 1 << following
                            stage[server] = following
                    if duration < 0:
                        exits[request] = stage[server] if answers[server, 1] < 0 else answers[server, 1]
                        classes[request] = answers[server, 0]
                        if answered[request] < 0:
                            answered[request], response[request] = visited[request], now
                if duration >= 0:
                    size = _push(times, orders, data, size, now + duration, _COMPLETION_BITS | sequence, server)
                    sequence += 1
                else:
                    finish[request] = now
                    idle[idling] = server
                    idling += 1
                    if closed and issued < requests:
                        size = _push(times, orders, data, size, now, _ARRIVAL_BITS | sequence, issued)
                        sequence += 1
                        issued += 1
            else:
                request = datum
                arrival[request] = now
                if not closed and request + 1 < requests:
                    size = _push(times, orders, data, size, arrivals[request + 1], _ARRIVAL_BITS | sequence, request + 1)
                    sequence += 1
                if idling == 0 and capacity >= 0 and tail - head >= capacity:
                    lost = request
                    if drop_oldest and capacity > 0:
                        lost = queue[head]
                        head += 1
                        queue[tail] = request
                        tail += 1
                    start[lost], response[lost], finish[lost] = -1, -1, -1
                else:
                    queue[tail] = request
                    tail += 1
            while idling > 0 and head < tail:
                request = queue[head]
                head += 1
                idling -= 1
                server = idle[idling]
                running[server], start[request] = request, now
                if mode == PLANNED:
                    stage[server] = 0
                    duration = stage_ns[path_of[request % places], 0]
                else:
                    place = rows[request % places]
                    scratch, answer = scratches[server], answers[server]
                    scratch[:] = 0.0
                    answer[:] = -1
                    exit, mask, left, reached, duration = -1, 0, -1, -1, sample_ns
                    if mode == AT_START:
                        if request // places > lap:
                            lap = request // places
                            memory[:] = 0.0
                        responded = np.int64(-1)
                        while True:
                            following = function(exit, observed[place], scratch, memory[streams[place]], parameters, situation, answer)
                            if exit >= 0 and answer[1] >= 0 and left < 0:
                                left, responded = mask, duration
                            if following < 0 or (exit == last and following >= last):
                                break
                            exit = min(following, last)
                            if mask >> exit & 1:
                                visited[request] = AGAIN
                                return
                            mask |= 1 << exit
                            for segment in range(reached + 1, exit + 1):
                                duration += segment_ns[segment]
                            reached = max(reached, exit)
                            duration += head_ns[exit] + decision_ns[exit]
                        exits[request] = answer[1] if answer[1] >= 0 else last if mask >> last & 1 else exit
                        classes[request] = answer[0]
                        visited[request] = mask
                        answered[request] = mask if left < 0 else left
                        response[request] = now + (duration if left < 0 else responded)
                    else:
                        situation[QUEUE] = tail - head
                        situation[SLACK_NS] = np.inf if deadline < 0 else arrival[request] + deadline - now
                        situation[NEXT_NS] = sample_ns + segment_ns[0] + head_ns[0] + decision_ns[0]
                        following = function(-1, observed[place], scratch, memory[0], parameters, situation, answer)
                        answered[request] = -1
                        visited[request] = 0
                        stage[server] = -1
                        if following >= 0:
                            following = min(following, last)
                            for segment in range(following + 1):
                                duration += segment_ns[segment]
                            duration += head_ns[following] + decision_ns[following]
                            visited[request] = 1 << following
                            stage[server] = following
                size = _push(times, orders, data, size, now + duration, _COMPLETION_BITS | sequence, server)
                sequence += 1

    return run


def calendar(scenario: Scenario) -> Timeline:
    """Run a scenario event by event. Raises BadInput when a mechanism's step cannot be compiled."""
    requests, closed = scenario.requests, scenario.process.closed
    mode = PLANNED if not scenario.asks_in_time else LIVE if scenario.mechanism.live else AT_START
    cost = scenario.cost
    setup = (
        requests, scenario.servers, scenario.capacity, int(scenario.drop_oldest), scenario.deadline_ns, int(closed), cost.sample_ns
    )  # fmt: skip
    arrivals = np.zeros(1, np.int64) if closed else scenario.times()
    nothing, nowhere = np.zeros(1, np.int64), np.zeros((1, 1))
    written = tuple(np.empty(requests, np.int64) for _ in range(4))
    if mode == PLANNED:
        costs = scenario.decided.costs
        plan = (scenario.decided.verdicts.path.astype(np.int64), costs.stage_ns, costs.stages, costs.answer_stage)
        asked = (
            nowhere[None], np.zeros(scenario.places, np.int64), nothing.astype(np.int32), nowhere, nowhere, nowhere[0],
            nothing, nothing, nothing,
        )  # fmt: skip
        calendar_kernel(_no_step, mode)(setup, arrivals, plan, asked, written, (nothing,) * 4)
        return Timeline(*written, scenario.decided)
    mechanism, view = scenario.mechanism, scenario.view
    streams, memory = carried_state(mechanism, view, scenario.values)
    scratches = np.zeros((scenario.servers, max(mechanism.scratch, 1)))
    observed, parameters = observations(mechanism, view, scenario.values), mechanism.pack(scenario.values, view)
    rehearse(mechanism, observed, streams, memory, parameters)
    asked = (
        observed, scenario.rows.astype(np.int64), streams, memory, scratches, parameters, cost.segment_ns, cost.head_ns, cost.decision_ns,
    )  # fmt: skip
    chosen = tuple(np.zeros(requests, np.int64) for _ in range(4))
    try:
        calendar_kernel(step_of(mechanism), mode)(setup, arrivals, (nothing, nothing[None], nothing, nothing), asked, written, chosen)
    except NumbaError as error:
        raise cannot_compile(mechanism, error) from None
    refuse_again(mechanism, chosen[0])
    return asked_timeline(scenario, written, chosen)


def asked_timeline(scenario: Scenario, written: tuple, chosen: tuple) -> Timeline:
    """The timeline of a run in which the mechanism was asked request by request."""
    visited, answered, exits, classes = chosen
    served = written[1] >= 0
    for array, nothing in ((visited, 0), (answered, 0), (exits, -1), (classes, -1)):
        array[~served] = nothing
    rows = np.resize(scenario.rows, scenario.requests)
    decisions = assemble(scenario.view, visited, answered, exits, classes, rows)
    return Timeline(*written, scenario.price(scenario.judge(decisions, rows)))
