"""What somebody would write without eesim: SimPy models and numpy loops of the same scenarios. Times are whole nanoseconds."""

from __future__ import annotations

from collections import deque

import numpy as np
import simpy


def simpy_processes(arrivals: np.ndarray, service: np.ndarray, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The textbook model: a process per request that asks a Resource of `count` servers. Returns start, finish."""
    env = simpy.Environment()
    resource = simpy.Resource(env, count)
    start, finish = [0] * arrivals.size, [0] * arrivals.size
    times = service.tolist()
    places = len(times)

    def request(index):
        with resource.request() as place:
            yield place
            start[index] = env.now
            yield env.timeout(times[index % places])
            finish[index] = env.now

    def source():
        for index, time in enumerate(arrivals.tolist()):
            yield env.timeout(time - env.now)
            env.process(request(index))

    env.process(source())
    env.run()
    return np.array(start), np.array(finish)


def simpy_lean(arrivals: np.ndarray, service: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The leanest SimPy model of one server: a server process, a deque and a wake-up event."""
    env = simpy.Environment()
    start, finish = [0] * arrivals.size, [0] * arrivals.size
    times = service.tolist()
    places = len(times)
    queue: deque[int] = deque()
    state = {"wake": env.event()}

    def server():
        while True:
            if not queue:
                yield state["wake"]
            index = queue.popleft()
            start[index] = env.now
            yield env.timeout(times[index % places])
            finish[index] = env.now

    def source():
        for index, time in enumerate(arrivals.tolist()):
            yield env.timeout(time - env.now)
            queue.append(index)
            if len(queue) == 1 and not state["wake"].triggered:
                state["wake"].succeed()
                state["wake"] = env.event()

    env.process(server())
    env.process(source())
    env.run()
    return np.array(start), np.array(finish)


def simpy_stages(arrivals: np.ndarray, stages: list[list[int]], paths: np.ndarray, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A process per request, every stage (segments, head and decision up to an exit) an event of its own."""
    env = simpy.Environment()
    resource = simpy.Resource(env, count)
    start, finish = [0] * arrivals.size, [0] * arrivals.size
    chosen = paths.tolist()
    places = len(chosen)

    def request(index):
        with resource.request() as place:
            yield place
            start[index] = env.now
            for duration in stages[chosen[index % places]]:
                yield env.timeout(duration)
            finish[index] = env.now

    def source():
        for index, time in enumerate(arrivals.tolist()):
            yield env.timeout(time - env.now)
            env.process(request(index))

    env.process(source())
    env.run()
    return np.array(start), np.array(finish)


def numpy_exits(scores: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """Exit of each sample under one setting, from the last exit down: one comparison and one selection an exit."""
    exits = np.full(scores.shape[0], scores.shape[1] - 1, np.int64)
    for exit in range(scores.shape[1] - 2, -1, -1):
        exits[scores[:, exit] >= bars[exit]] = exit
    return exits


def numpy_sweep(scores: np.ndarray, correct: np.ndarray, bars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exit counts and hits of each setting, one vectorised pass over the samples a setting; devices are factored out."""
    counts, hits = np.empty((len(bars), scores.shape[1]), np.int64), np.empty(len(bars), np.int64)
    rows = np.arange(scores.shape[0])
    for index, setting in enumerate(bars):
        exits = numpy_exits(scores, setting)
        counts[index] = np.bincount(exits, minlength=scores.shape[1])
        hits[index] = correct[rows, exits].sum()
    return counts, hits


def numpy_queue_sweep(scores: np.ndarray, bars: np.ndarray, service: np.ndarray, arrivals: np.ndarray) -> np.ndarray:
    """Total wait of each device and setting: Lindley's recursion as running sums and maxima, one pass a design point."""
    total = np.empty((len(service), len(bars)), np.int64)
    for index, setting in enumerate(bars):
        exits = numpy_exits(scores, setting)
        for device, times in enumerate(service):
            served = times[exits]
            before = np.cumsum(served) - served
            start = before + np.maximum.accumulate(arrivals - before)
            total[device, index] = (start - arrivals).sum()
    return total
