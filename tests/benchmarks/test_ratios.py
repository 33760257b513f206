"""Speed as ratios against plain implementations, in one run: `python -m pytest tests/benchmarks --benchmark-only -s`.

Each case checks that results are equal; the ratio and the floor it is held against stand in the benchmark's extra info and
are printed. The same cases are behind `eesim bench`. Nothing here fails because a machine is slow.
"""

from __future__ import annotations

import pytest

from eesim.bench.cases import Bench, memory_of_long_run


@pytest.fixture(scope="module")
def bench():
    return Bench()


CASES = {
    "one server against a process per request": lambda bench: next(bench.one_server()),
    "one server against the leanest loop": lambda bench: list(bench.one_server())[1],
    "one server through simulate": Bench.public_call,
    "four servers": Bench.several_servers,
    "every stage an event": Bench.every_stage,
    "sweep without queue": Bench.sweep_without_queue,
    "sweep with queue": Bench.sweep_with_queue,
}


@pytest.mark.parametrize("name", CASES)
def test_ratio(benchmark, bench, name):
    row = benchmark.pedantic(CASES[name], args=(bench,), rounds=1, iterations=1)
    benchmark.extra_info.update(row.record())
    print(f"\n{row.name} against {row.baseline}: {row.ratio:,.0f}x ({row.at_least:,.0f}x wanted)")
    assert row.equal


def test_memory_of_a_long_run(benchmark):
    found = benchmark.pedantic(memory_of_long_run, args=("ecg-mitbih", "stm32l4r5-xcubeai", 20_000_000), rounds=1, iterations=1)
    benchmark.extra_info.update(found)
    print(f"\n{found['requests']:,} requests, summary only: {found['peak_mb']:.0f} MB")
    assert found["peak_mb"] < 1000, "memory, unlike time, does not depend on the machine"
