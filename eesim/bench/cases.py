"""The cases of `eesim bench`: each runs eesim and a baseline on the same inputs, checks that results are equal, and times both.

Times are the best of several runs; ratios come from one process, so a slow or busy machine slows both sides.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from eesim.bench import baselines
from eesim.engine.calendar import calendar
from eesim.engine.lanes import waits
from eesim.engine.lindley import lindley, servers
from eesim.engine.planes import tally
from eesim.engine.scenario import Scenario
from eesim.hardware import load_profile
from eesim.simulation import Load, cached_price, compile_scenario, settle, simulate
from eesim.workload import load_workload

THRESHOLD = {"threshold": 0.8}
UTILISATION = 0.8


@dataclass(frozen=True)
class Row:
    """One line of the benchmark: seconds of both sides, how many times faster, what is wanted at least, and whether results were equal."""

    name: str
    baseline: str
    size: str
    seconds: float
    baseline_seconds: float
    at_least: float | None
    equal: bool | None

    @property
    def ratio(self) -> float:
        """Baseline time over eesim's time."""
        return self.baseline_seconds / self.seconds

    def record(self) -> dict[str, Any]:
        """For tables and JSON."""
        return {
            "case": self.name, "against": self.baseline, "size": self.size, "eesim_s": self.seconds, "baseline_s": self.baseline_seconds,
            "ratio": self.ratio, "at_least": self.at_least, "equal": self.equal,
        }  # fmt: skip


def best_of(function: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Shortest time of several runs, and the last result."""
    shortest, result = float("inf"), None
    for _ in range(runs):
        begin = time.perf_counter()
        result = function()
        shortest = min(shortest, time.perf_counter() - begin)
    return shortest, result


class Bench:
    """The bundled ECG workload on a microcontroller at 80 % load, or a workload and profile of your own."""

    def __init__(self, workload: str = "ecg-mitbih", profile: str = "stm32l4r5-xcubeai", requests: int = 1_000_000):
        self.workload, self.profile, self.requests = load_workload(workload), load_profile(profile), requests

    @cached_property
    def scenario(self) -> Scenario:
        """One server at 80 % load, max-softmax at 0.8."""
        return self._scenario(1)

    def _scenario(self, count: int) -> Scenario:
        from eesim.mechanisms import load_mechanism

        rule, view = load_mechanism("max-softmax"), self.workload.view("test")
        price = cached_price(self.workload, self.profile, None, None)
        values = settle(rule, THRESHOLD, self.workload, view)
        closed = compile_scenario(self.workload, view, price, rule, values, Load("closed"))
        self.rate = UTILISATION * count / closed.decided.service_ns.mean() * 1e9
        load = Load(f"poisson:{float(self.rate)!r}/s", self.requests, servers=count)
        return compile_scenario(self.workload, view, price, rule, values, load)

    def cases(self) -> Iterator[Row]:
        """All cases, one after the other."""
        yield from self.one_server()
        yield self.public_call()
        yield self.several_servers()
        yield self.every_stage()
        yield self.sweep_without_queue()
        yield self.sweep_with_queue()

    def one_server(self) -> Iterator[Row]:
        """The Lindley kernel on given arrivals, start and finish of every request, against two SimPy models."""
        arrivals, service = self.scenario.times(), self.scenario.decided.service_ns
        start, finish = np.empty_like(arrivals), np.empty_like(arrivals)
        run = lambda: lindley(arrivals, service, 0, 0, start, finish)  # noqa: E731
        run()
        seconds, _ = best_of(run, 5)
        for name, model, floor in (
            ("SimPy, a process per request", baselines.simpy_processes, 1000),
            ("SimPy, leanest loop", baselines.simpy_lean, 300),
        ):
            slow, expected = best_of(lambda model=model: model(arrivals, service), 1)
            equal = np.array_equal(start, expected[0]) and np.array_equal(finish, expected[1])
            yield Row("one server, kernel", name, self._size(), seconds, slow, floor, equal)

    def public_call(self) -> Row:
        """`simulate(…).requests`, arrivals drawn."""
        arrivals = f"poisson:{float(self._rate_of(1))!r}/s"
        call = lambda: simulate(self.workload, self.profile, "max-softmax", THRESHOLD, arrivals=arrivals, requests=self.requests).requests  # noqa: E731
        call()
        seconds, table = best_of(call, 5)
        slow, expected = best_of(lambda: baselines.simpy_processes(self.scenario.times(), self.scenario.decided.service_ns), 1)
        equal = np.array_equal(table.start_ns, expected[0]) and np.array_equal(table.finish_ns, expected[1])
        return Row("one server, simulate(…).requests", "SimPy, a process per request", self._size(), seconds, slow, 350, equal)

    def _rate_of(self, count: int) -> float:
        self._scenario(count)
        return self.rate

    def several_servers(self) -> Row:
        """The k-server kernel, four servers."""
        scenario = self._scenario(4)
        arrivals, service = scenario.times(), scenario.decided.service_ns
        start, finish = np.empty_like(arrivals), np.empty_like(arrivals)
        run = lambda: servers(arrivals, service, 0, np.zeros(4, np.int64), np.zeros(0, np.int64), -1, start, finish)  # noqa: E731
        run()
        seconds, _ = best_of(run, 5)
        slow, expected = best_of(lambda: baselines.simpy_processes(arrivals, service, 4), 1)
        return Row("four servers, kernel", "SimPy, a process per request", self._size(), seconds, slow, 200, np.array_equal(start, expected[0]))

    def every_stage(self) -> Row:
        """The calendar, every stage an event, everything included but the drawing of arrivals."""
        from dataclasses import replace

        scenario = self.scenario
        scenario = replace(scenario, requests=max(self.requests // 4, 1000))
        scenario = replace(scenario, given_times=scenario.times(), given_verdicts=scenario.decided.verdicts)
        costs = scenario.decided.costs
        calendar(scenario)
        seconds, timeline = best_of(lambda: calendar(scenario), 3)
        stages = [costs.stage_ns[path, : costs.stages[path]].tolist() for path in range(costs.stages.size)]
        slow, expected = best_of(lambda: baselines.simpy_stages(scenario.given_times, stages, scenario.decided.verdicts.path), 1)
        equal = np.array_equal(timeline.start, expected[0]) and np.array_equal(timeline.finish, expected[1])
        return Row("calendar, every stage an event", "SimPy, every stage an event", f"{scenario.requests:,} requests", seconds, slow, 80, equal)

    def _design(self, settings: int, devices: int = 10, samples: int = 50_000):
        """Scores of the workload (repeated to `samples`), random threshold vectors from a grid of 32, and made-up devices."""
        view = self.workload.view("test")
        rows = np.arange(samples) % len(view)
        rng = np.random.default_rng(0)
        scores = np.ascontiguousarray(view.confidence[rows])
        bars = rng.choice(np.linspace(0.5, 0.99, 32), (settings, view.exits - 1))
        service = self.scenario.decided.costs.service_ns
        scale = np.linspace(0.5, 1.1, devices)
        return scores, view.correct[rows] == 1, bars, np.rint(scale[:, None] * service[None, :]).astype(np.int64)

    def sweep_without_queue(self) -> Row:
        """1,000 threshold vectors x 10 devices x 50,000 samples: accuracy and mean latency of each, set-up included."""
        settings = 1000
        scores, correct, bars, service = self._design(settings)
        none = (np.zeros(len(scores), np.int64), 0)

        def fast():
            counted = tally(scores, bars, correct, correct, none)
            return counted.exits, counted.correct, counted.exits @ service.T

        fast()
        seconds, (counts, hits, _) = best_of(fast, 5)
        tried = settings // 10
        slow, expected = best_of(lambda: (*baselines.numpy_sweep(scores, correct, bars[:tried]), bars[:tried]), 1)
        begin = time.perf_counter()
        equal = np.array_equal(counts[:tried], expected[0]) and np.array_equal(hits[:tried], expected[1])
        del begin
        return Row(
            "sweep without queue",
            "numpy per setting, devices factored",
            f"{settings:,} x 10 x {len(scores):,}",
            seconds,
            slow * settings / tried,
            100,
            equal,
        )

    def sweep_with_queue(self) -> Row:
        """The same with one queue a design point: mean wait, mean latency and accuracy."""
        settings = 1000
        scores, correct, bars, service = self._design(settings)
        rng = np.random.default_rng(1)
        arrivals = np.cumsum(np.rint(rng.exponential(service.mean() / UTILISATION, len(scores)))).astype(np.int64)
        none = (np.zeros(len(scores), np.int64), 0)

        def fast():
            counted = tally(scores, bars, correct, correct, none)
            waited, _ = waits(scores, bars, service, arrivals)
            return waited, counted.exits @ service.T, counted.correct

        fast()
        seconds, (waited, _, _) = best_of(fast, 5)
        tried = settings // 20
        slow, expected = best_of(lambda: baselines.numpy_queue_sweep(scores, bars[:tried], service, arrivals), 1)
        equal = np.array_equal(waited[:, :tried], expected)
        return Row(
            "sweep with queue", "numpy Lindley per design point", f"{settings:,} x 10 x {len(scores):,}", seconds, slow * settings / tried, 50, equal
        )

    def _size(self) -> str:
        return f"{self.requests:,} requests"


def memory_of_long_run(workload: str, profile: str, requests: int = 100_000_000) -> dict[str, float]:
    """Seconds and peak memory in MB of a run that keeps only its summary, in a process of its own."""
    code = (
        "import json, resource, sys, time, eesim\n"
        "begin = time.perf_counter()\n"
        "result = eesim.simulate(sys.argv[1], sys.argv[2], 'max-softmax', {'threshold': 0.8}, arrivals='poisson:5/s', requests=int(sys.argv[3]))\n"
        "served = result['requests']\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(json.dumps({'seconds': time.perf_counter() - begin, 'peak_mb': peak, 'requests': served}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, workload, profile, str(requests)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def seconds_of_command(*arguments: str, runs: int = 3) -> float:
    """Shortest wall time of an eesim command in a process of its own."""
    command = [sys.executable, "-m", "eesim", *arguments]
    return best_of(lambda: subprocess.run(command, capture_output=True, check=True), runs)[0]
