"""Plain twins of the compiled kernels: obviously right, hopelessly slow, same arguments and results."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms.base import STOP


def decide(step, observed, streams, memory, scratch_size, parameters, remembers=False):
    """Twin of `mechanisms._asking.decider`: ask one sample after the other. Returns visited, answered, exit, class."""
    rows = []
    last = observed.shape[1] - 1
    for sample in range(observed.shape[0]):
        scratch, answer = np.zeros(scratch_size), np.full(2, -1, np.int64)
        situation = np.array([0.0, np.inf, np.inf])
        visits, answered, exit = [], None, -1
        while exit != last or remembers:
            following = step(exit, observed[sample], scratch, memory[streams[sample]], parameters, situation, answer)
            if exit >= 0 and answer[1] >= 0 and answered is None:
                answered = set(visits)
            if following == STOP or following < 0 or (exit == last and following >= last):
                break
            exit = min(int(following), last)
            visits.append(exit)
        bits = sum(1 << head for head in set(visits))
        exit = last if last in visits else exit
        rows.append((bits, bits if answered is None else sum(1 << head for head in answered), exit if answer[1] < 0 else answer[1], answer[0]))
    return [np.array(column, np.int64) for column in zip(*rows, strict=True)]


def lindley(arrivals, service):
    """Start and finish of each request on one FIFO server."""
    free, start, finish = 0, [], []
    for index, arrived in enumerate(arrivals):
        start.append(max(arrived, free))
        free = start[-1] + service[index % len(service)]
        finish.append(free)
    return start, finish


def servers(arrivals, service, count, capacity=None):
    """K FIFO servers with `capacity` waiting places (None: unlimited): start and finish, -1 where rejected."""
    free, waiting_until, start, finish = [0] * count, [], [], []
    for index, arrived in enumerate(arrivals):
        earliest = min(free)
        begun = max(arrived, earliest)
        waiting = sum(time > arrived for time in waiting_until)
        if begun > arrived and capacity is not None and waiting >= capacity:
            start.append(-1)
            finish.append(-1)
            continue
        waiting_until.append(begun)
        free[free.index(earliest)] = begun + service[index % len(service)]
        start.append(begun)
        finish.append(begun + service[index % len(service)])
    return start, finish


def tally(scores, bars, correct, agrees, labels, classes):
    """Twin of `engine.planes.tally`: exits, correct, agreeing and correct per class of every setting."""
    exits, right, same, by_class = [], [], [], []
    for setting in bars:
        counts, hits, full, groups = [0] * scores.shape[1], 0, 0, [0] * classes
        for sample, row in enumerate(scores):
            exit = next((e for e in range(len(setting)) if row[e] >= setting[e]), len(row) - 1)
            counts[exit] += 1
            hits += bool(correct[sample, exit])
            full += bool(agrees[sample, exit])
            if correct[sample, exit] and labels[sample] >= 0:
                groups[labels[sample]] += 1
        exits.append(counts)
        right.append(hits)
        same.append(full)
        by_class.append(groups)
    return np.array(exits), np.array(right), np.array(same), np.array(by_class)


def waits(scores, bars, service, arrivals):
    """Twin of `engine.lanes.waits`: total wait and last completion of every device and setting."""
    total = np.zeros((len(service), len(bars)), object)
    end = np.zeros((len(service), len(bars)), object)
    for device, times in enumerate(service):
        for place, setting in enumerate(bars):
            free = wait = 0
            for request, arrived in enumerate(arrivals):
                row = scores[request % len(scores)]
                exit = next((e for e in range(len(setting)) if row[e] >= setting[e]), len(row) - 1)
                begun = max(int(arrived), free)
                wait += begun - int(arrived)
                free = begun + int(times[exit])
            total[device, place], end[device, place] = wait, free
    return total.astype(np.int64), end.astype(np.int64)


def nearest_rank(values, q):
    """The smallest value that at least q percent of the values do not exceed."""
    ordered = sorted(values)
    return next(value for place, value in enumerate(ordered, start=1) if 100 * place >= q * len(ordered))
