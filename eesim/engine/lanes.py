"""Many design points on one first-in-first-out server: mean waits of all of them in one walk over the requests.

A lane is one setting; all lanes of a device meet the same arrivals, so a request is read once and every lane takes its
step side by side: work left = max(work left - gap, 0), which is the wait; then add the service. Whole nanoseconds make
the totals equal to those of `lindley` bit for bit. Percentiles need every wait and are not to be had here.

The step is written in vectors of 16 lanes, four requests at a time, because compilers do not find that shape by
themselves; LLVM maps it to whatever the processor has.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from eesim.engine.planes import quantise

BLOCK = 1024
"""Requests per block: their exits for one tile of lanes stay in the second-level cache."""
TILE = 256
"""Lanes per tile."""
WIDTH = 16
TOGETHER = 4
_NARROW = 2**31


def waits(scores: np.ndarray, bars: np.ndarray, service_ns: np.ndarray, arrivals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Total wait and last completion in ns of P settings on H devices, int64 [H, P] each.

    scores : float64 [T, E]; request i is sample i mod T.   bars : float64 [P, E - 1].
    service_ns : int64 [H, E], time to the end of each exit.   arrivals : int64 [N], never decreasing.

    Raises OverflowError when a total could leave int64. Twin: `tests/twins.py:waits`.
    """
    settings, devices, exits = bars.shape[0], service_ns.shape[0], scores.shape[1]
    span = int(arrivals[-1]) + arrivals.size * int(service_ns.max())
    if span * arrivals.size >= 2**63:
        raise OverflowError("total waits may leave int64")
    padded = -(-settings // WIDTH) * WIDTH
    places = np.zeros((exits - 1, padded), np.uint16)
    reached = np.empty((exits - 1, scores.shape[0]), np.uint16)
    for exit in range(exits - 1):
        levels, places[exit, :settings] = np.unique(bars[:, exit], return_inverse=True)
        reached[exit] = quantise(np.ascontiguousarray(scores[:, exit]), levels)
    gaps = np.diff(arrivals, prepend=0)
    shape = ((np.int32 if service_ns.max() < _NARROW else np.int64)(0),) * exits

    def tile(begin: int) -> tuple[np.ndarray, np.ndarray]:
        lanes = min(TILE, padded - begin)
        total, left = np.zeros((devices, lanes), np.int64), np.zeros((devices, lanes), np.int64)
        _walk(gaps, reached, np.ascontiguousarray(places[:, begin : begin + lanes]), service_ns, total, left, shape)
        return total, left

    begins = range(0, padded, TILE)
    with ThreadPoolExecutor(min(len(begins), os.cpu_count() or 1)) as pool:
        parts = list(pool.map(tile, begins))
    total = np.concatenate([part for part, _ in parts], axis=1)[:, :settings]
    left = np.concatenate([part for _, part in parts], axis=1)[:, :settings]
    return total, left + int(arrivals[-1])


@njit(cache=True, nogil=True)
def _choose_exits(reached, places, sample, exits):
    """Exits of one block of requests for one tile of lanes, uint8 [requests, lanes]; the first request is `sample`."""
    bars, lanes = places.shape
    for request in range(exits.shape[0]):
        row = exits[request]
        row[:] = bars
        for bar in range(bars - 1, -1, -1):
            level, place, chosen = reached[bar, sample], places[bar], np.uint8(bar)
            for lane in range(lanes):
                row[lane] = chosen if level > place[lane] else row[lane]
        sample += 1
        if sample == reached.shape[1]:
            sample = 0


@njit(cache=True, nogil=True)
def _walk(gaps, reached, places, services, total, left, shape):
    """One tile of lanes on every device; `shape` has one entry for each exit, int32 where services fit in 31 bits."""
    lanes = places.shape[1]
    chosen = np.empty((BLOCK, lanes), np.uint8)
    for begin in range(0, gaps.size, BLOCK):
        size = min(BLOCK, gaps.size - begin)
        _choose_exits(reached, places, begin % reached.shape[1], chosen[:size])
        block = gaps[begin : begin + size]
        even = size - size % TOGETHER
        for device in range(services.shape[0]):
            waiting, work, service = total[device], left[device], services[device]
            for request in range(0, even, TOGETHER):
                for lane in range(0, lanes, WIDTH):
                    _vector_step(work, waiting, chosen, service, block, request, lane, shape, (0, 0, 0, 0))
            for request in range(even, size):
                for lane in range(0, lanes, WIDTH):
                    _vector_step(work, waiting, chosen, service, block, request, lane, shape, (0,))


@intrinsic
def _vector_step(typing_context, work, waiting, chosen, service, gaps, request, lane, shape, together):
    """As many requests as `together` has entries, from `request` on, through the WIDTH lanes that start at `lane`.

    In words, for each request r and lane l:
        wait = max(work[l] - gaps[r], 0);  waiting[l] += wait;  work[l] = wait + service[chosen[r, l]]
    """
    exits, narrow = shape.count, shape.dtype == types.int32

    def generate(context, builder, signature, arguments):
        place, bits = ir.IntType(32), ir.IntType(64)
        long, byte = ir.VectorType(bits, WIDTH), ir.VectorType(ir.IntType(8), WIDTH)
        picked = place if narrow else bits
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args[:5], arguments[:5], strict=True)]
        works, waited_so_far, rows, table_of, spacing = arrays
        first, column = arguments[5:7]

        def splat(value, element):
            vector = ir.VectorType(element, WIDTH)
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(place, 0))
            return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(place, WIDTH), [0] * WIDTH))

        def pointer(array, offset, vector):
            return builder.bitcast(builder.gep(array.data, [offset]), vector.as_pointer())

        larger = cgutils.get_or_insert_function(builder.module, ir.FunctionType(long, [long, long]), f"llvm.smax.v{WIDTH}i64")
        zero = ir.Constant(long, [0] * WIDTH)
        at_work, at_waits = pointer(works, column, long), pointer(waited_so_far, column, long)
        left, waited = builder.load(at_work, align=8), builder.load(at_waits, align=8)
        values = [builder.load(builder.gep(table_of.data, [ir.Constant(bits, exit)])) for exit in range(exits)]
        values = [builder.trunc(value, picked) if narrow else value for value in values]
        pick = _look_up if narrow and exits <= WIDTH and _has_avx512() else _select
        for index in range(together.count):
            row = builder.add(first, ir.Constant(bits, index))
            offset = builder.add(builder.mul(row, builder.extract_value(rows.shape, 1)), column)
            exit_of = builder.load(pointer(rows, offset, byte), align=1)
            gap = splat(builder.load(builder.gep(spacing.data, [row])), bits)
            ahead = builder.call(larger, [builder.sub(left, gap), zero])
            waited = builder.add(waited, ahead)
            taken = pick(builder, exit_of, values, splat)
            left = builder.add(ahead, builder.zext(taken, long) if narrow else taken)
        builder.store(left, at_work, align=8)
        builder.store(waited, at_waits, align=8)
        return context.get_dummy_value()

    return types.void(work, waiting, chosen, service, gaps, request, lane, shape, together), generate


def _select(builder, exit_of, values, splat):
    """The service of each lane's exit: a chain of comparisons and selections, on any processor."""
    taken = splat(values[0], values[0].type)
    for exit in range(1, len(values)):
        reaches = builder.icmp_unsigned(">=", exit_of, ir.Constant(exit_of.type, [exit] * WIDTH))
        taken = builder.select(reaches, splat(values[exit], values[exit].type), taken)
    return taken


def _look_up(builder, exit_of, values, splat):
    """The same as one permutation of a register that holds all services (vpermd)."""
    vector = ir.VectorType(ir.IntType(32), WIDTH)
    table = ir.Constant(vector, [0] * WIDTH)
    for exit, value in enumerate(values):
        table = builder.insert_element(table, value, ir.Constant(ir.IntType(32), exit))
    permute = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector, vector]), "llvm.x86.avx512.permvar.si.512")
    return builder.call(permute, [table, builder.zext(exit_of, vector)])


def _has_avx512() -> bool:
    return bool(get_host_cpu_features().get("avx512f"))
