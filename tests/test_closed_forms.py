"""Queueing theory: every formula inside the simulation's 99.9 % interval, which must be narrower than 2 % either side."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import stdtrit

import eesim
from eesim.engine.lindley import lindley, servers

SERVICE = 1e6
"""Mean service time in ns: long enough that whole nanoseconds do not matter."""


def interval(values):
    """Mean and half-width of the 99.9 % interval over independent runs."""
    values = np.asarray(values)
    half = stdtrit(values.size - 1, 0.9995) * values.std(ddof=1) / math.sqrt(values.size)
    return values.mean(), half


def holds(values, theory):
    mean, half = interval(values)
    assert half <= 0.02 * theory, f"interval of {half / theory:.1%} either side says too little"
    assert abs(mean - theory) <= half, f"{mean} against {theory} ± {half}"


def gaps(rng, mean, count):
    return np.rint(rng.exponential(mean, count)).astype(np.int64)


def mean_wait(arrivals, service, skip=10_000):
    start, finish = np.empty_like(arrivals), np.empty_like(arrivals)
    lindley(arrivals, service, 0, 0, start, finish)
    return float((start - arrivals)[skip:].mean())


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mm1(load):
    """Mean wait rho / (1 - rho) service times; also the share that does not wait at all, 1 - rho."""
    rng = np.random.default_rng(1)
    runs = [(np.cumsum(gaps(rng, SERVICE / load, 800_000)), gaps(rng, SERVICE, 800_000)) for _ in range(30)]
    holds([mean_wait(arrivals, service) for arrivals, service in runs], SERVICE * load / (1 - load))
    shares = []
    for arrivals, service in runs:
        start, finish = np.empty_like(arrivals), np.empty_like(arrivals)
        lindley(arrivals, service, 0, 0, start, finish)
        shares.append(float((start == arrivals)[10_000:].mean()))
    holds(shares, 1 - load)


def test_md1():
    """Constant service: half the wait of M/M/1."""
    rng, load = np.random.default_rng(2), 0.8
    service = np.array([int(SERVICE)])
    holds([mean_wait(np.cumsum(gaps(rng, SERVICE / load, 600_000)), service) for _ in range(30)], SERVICE * load / (1 - load) / 2)


@pytest.mark.parametrize("load", [0.6, 0.85])
def test_mg1_with_the_services_of_a_trace(made_workload, made_profile, load):
    """Pollaczek-Khinchine: rate * E[S^2] / (2 (1 - rho)), with the trace's own service times drawn independently."""
    closed = eesim.simulate(made_workload, made_profile, "max-softmax", {"threshold": 0.7}, arrivals="closed")
    service = (closed.requests.finish_ns - closed.requests.start_ns).to_numpy(float)
    rate = load / service.mean()
    theory = rate * (service**2).mean() / (2 * (1 - load))
    text = f"poisson:{float(rate) * 1e9!r}/s"
    options = {"arrivals": text, "order": "resampled", "requests": 500_000, "warmup": 10_000}
    values = [
        eesim.simulate(made_workload, made_profile, "max-softmax", {"threshold": 0.7}, seed=seed, **options)["wait_ms.mean"] for seed in range(24)
    ]
    holds([value * 1e6 for value in values], theory)


def erlang_b(count, offered):
    blocked = 1.0
    for server in range(1, count + 1):
        blocked = offered * blocked / (server + offered * blocked)
    return blocked


@pytest.mark.parametrize(("count", "load"), [(2, 0.7), (4, 0.8), (16, 0.8)])
def test_mmk_erlang_c(count, load):
    """Mean wait C(k, a) / (k / s - rate), with the probability of waiting C by Erlang's second formula."""
    rng, offered = np.random.default_rng(count), count * load
    blocked = erlang_b(count, offered)
    waiting = blocked / (1 - load * (1 - blocked))
    values = []
    for _ in range(40):
        arrivals, service = np.cumsum(gaps(rng, SERVICE / offered, 700_000)), gaps(rng, SERVICE, 700_000)
        start, finish = np.empty_like(arrivals), np.empty_like(arrivals)
        servers(arrivals, service, 0, np.zeros(count, np.int64), np.zeros(0, np.int64), -1, start, finish)
        values.append(float((start - arrivals)[10_000:].mean()))
    holds(values, waiting * SERVICE / (count - offered))


@pytest.mark.parametrize(("count", "offered"), [(1, 0.7), (4, 3.0), (10, 9.0)])
def test_mmkk_erlang_b(count, offered):
    """Share of requests lost when nothing may wait, by Erlang's first formula."""
    rng = np.random.default_rng(count)
    values = []
    for _ in range(20):
        arrivals, service = np.cumsum(gaps(rng, SERVICE / offered, 300_000)), gaps(rng, SERVICE, 300_000)
        start, finish = np.empty_like(arrivals), np.empty_like(arrivals)
        servers(arrivals, service, 0, np.zeros(count, np.int64), np.zeros(0, np.int64), 0, start, finish)
        values.append(float((start < 0)[10_000:].mean()))
    holds(values, erlang_b(count, offered))


def test_littles_law_holds_exactly(made_workload, made_profile):
    """Mean number in system = throughput * mean latency, an identity over a run that starts and ends empty."""
    result = eesim.simulate(made_workload, made_profile, "entropy", {"threshold": 0.5}, arrivals="poisson:1000/s", requests=20_000)
    table = result.requests
    events = np.concatenate([np.stack([table.arrival_ns, np.ones(len(table))]), np.stack([table.finish_ns, -np.ones(len(table))])], axis=1)
    order = events[0].argsort(kind="stable")
    times, jumps = events[0][order], events[1][order]
    area = float((np.cumsum(jumps)[:-1] * np.diff(times)).sum())
    horizon = float(times[-1])
    assert area / horizon == pytest.approx(result["throughput_hz"] / 1e3 * result["latency_ms.mean"], rel=1e-12)


def test_replications_give_intervals_that_cover_the_truth(made_workload, made_profile):
    """The 95 % interval of mean latency over 20 replications covers a long run's mean."""
    options = {"arrivals": "poisson:1200/s", "order": "resampled", "warmup": 2_000}
    parameters = {"threshold": 0.7}
    truth = eesim.simulate(made_workload, made_profile, "max-softmax", parameters, requests=3_000_000, seed=99, **options)["latency_ms.mean"]
    result = eesim.simulate(made_workload, made_profile, "max-softmax", parameters, requests=40_000, replications=20, **options)
    low, high = result["confidence.latency_ms"]["mean"]
    assert low < truth < high
    assert low < result["latency_ms.mean"] < high
    assert {"p50", "p95", "p99"} <= set(result["confidence.latency_ms"])
