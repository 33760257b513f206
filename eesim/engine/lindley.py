"""One first-in-first-out server without limit on its queue: start = max(arrival, free), free = start + service (Lindley 1952)."""

from __future__ import annotations

from numba import njit


@njit(cache=True)
def lindley(arrivals, service, first, free, start, finish):
    """Requests `first`, `first` + 1, … of a run, arriving at `arrivals` int64 [n]; writes `start` and `finish` int64 [n].

    Request i is served for service[i mod T]. `free` is when the server becomes free; returned for the next call.
    Twin: `tests/twins.py:lindley`.
    """
    places = service.size
    place = first % places
    done = 0
    while done < arrivals.size:  # one lap at a time keeps the division out of the loop
        take = min(arrivals.size - done, places - place)
        for index in range(take):
            arrived = arrivals[done + index]
            started = arrived if arrived > free else free
            free = started + service[place + index]
            start[done + index] = started
            finish[done + index] = free
        done += take
        place = 0
    return free


@njit(cache=True)
def closed_loop(service, first, free, start, finish):
    """Requests `first`, … of a closed loop: the next is issued when one completes, on K servers free at `free` int64 [K].

    `free` must be a heap (any sorted array is one) and is updated. Writes `start` and `finish` int64 [n].
    """
    places = service.size
    place = first % places
    for index in range(start.size):
        start[index] = free[0]
        finish[index] = free[0] + service[place]
        replace_top(free, finish[index])
        place += 1
        if place == places:
            place = 0


@njit(cache=True)
def servers(arrivals, service, first, free, recent, accepted, start, finish):
    """K first-in-first-out servers, requests `first`, … arriving at `arrivals` int64 [n]; -1 in `start` and `finish` where dropped.

    free      int64 [K]: heap of the times at which servers become free; updated
    recent    int64 [capacity]: start times of the last accepted requests, a ring; size 0 with `accepted` < 0 means an
              unlimited queue, size 0 otherwise a queue without places
    accepted  how many requests were accepted before; -1 for an unlimited queue. Returned for the next call.

    With FIFO a request's start is known on arrival: the earliest time a server is free. Start times never decrease, so
    the queue is full exactly when the request accepted `capacity` places before this one has not started yet.
    Twin: `tests/twins.py:servers`.
    """
    places = service.size
    place = first % places
    capacity = recent.size
    for index in range(arrivals.size):
        arrived = arrivals[index]
        started = free[0]
        if started <= arrived:
            started = arrived
        elif accepted >= 0 and (capacity == 0 or (accepted >= capacity and recent[accepted % capacity] > arrived)):
            started = -1
        if started < 0:
            start[index] = -1
            finish[index] = -1
        else:
            start[index] = started
            finish[index] = started + service[place]
            replace_top(free, finish[index])
            if accepted >= 0:
                if capacity > 0:
                    recent[accepted % capacity] = started
                accepted += 1
        place += 1
        if place == places:
            place = 0
    return accepted


@njit(cache=True)
def replace_top(heap, value):
    """Replace the smallest entry of a binary heap by `value` and restore the heap."""
    size = heap.size
    hole = 0
    child = 1
    while child < size:
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[hole] = heap[child]
        hole = child
        child = 2 * hole + 1
    heap[hole] = value
