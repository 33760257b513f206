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
def _walk(gaps, reached, places, services, total, left, shape):
    """One tile of lanes on every device; `shape` has one entry for each exit, int32 where services fit in 31 bits."""
    lanes = places.shape[1]
    chosen = np.empty((BLOCK, lanes), np.uint8)
    for begin in range(0, gaps.size, BLOCK):
        size = min(BLOCK, gaps.size - begin)
        sample = begin % reached.shape[1]
        for request in range(size):
            _vector_exits(chosen, places, reached, request, sample, shape)
            sample = sample + 1 if sample + 1 < reached.shape[1] else 0
        block = gaps[begin : begin + size]
        even = size - size % TOGETHER
        for device in range(services.shape[0]):
            waiting, work, service = total[device], left[device], services[device]
            for request in range(0, even, TOGETHER):
                _vector_step(work, waiting, chosen, service, block, request, shape, (0, 0, 0, 0))
            for request in range(even, size):
                _vector_step(work, waiting, chosen, service, block, request, shape, (0,))


@intrinsic
def _vector_exits(typing_context, chosen, places, reached, request, sample, shape):
    """Exits of one request in all lanes, WIDTH at a time: the first bar whose level the sample's score exceeds, else the last exit.

    In words, for each lane l:  chosen[request, l] = first e with reached[e, sample] > places[e, l]
    """
    bars = shape.count - 1

    def generate(context, builder, signature, arguments):
        bits = ir.IntType(64)
        byte, level = ir.VectorType(ir.IntType(8), WIDTH), ir.VectorType(ir.IntType(16), WIDTH)
        exits, bar_places, samples = (
            context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args, arguments[:3], strict=False)
        )
        row, column = arguments[3:5]
        lanes, width = builder.extract_value(exits.shape, 1), builder.extract_value(samples.shape, 1)
        levels = []
        for bar in range(bars):
            offset = builder.add(builder.mul(ir.Constant(bits, bar), width), column)
            levels.append(_splat(builder, builder.load(builder.gep(samples.data, [offset]))))
        with cgutils.for_range(builder, builder.udiv(lanes, ir.Constant(bits, WIDTH)), intp=bits) as loop:
            lane = builder.mul(loop.index, ir.Constant(bits, WIDTH))
            exit = ir.Constant(byte, [bars] * WIDTH)
            for bar in reversed(range(bars)):
                offset = builder.add(builder.mul(ir.Constant(bits, bar), lanes), lane)
                there = builder.load(_pointer(builder, bar_places, offset, level), align=2)
                exit = builder.select(builder.icmp_unsigned(">", levels[bar], there), ir.Constant(byte, [bar] * WIDTH), exit)
            builder.store(exit, _pointer(builder, exits, builder.add(builder.mul(row, lanes), lane), byte), align=1)
        return context.get_dummy_value()

    return types.void(chosen, places, reached, request, sample, shape), generate


@intrinsic
def _vector_step(typing_context, work, waiting, chosen, service, gaps, request, shape, together):
    """As many requests as `together` has entries, from `request` on, through all lanes, WIDTH at a time.

    In words, for each lane l and request r:
        wait = max(work[l] - gaps[r], 0);  waiting[l] += wait;  work[l] = wait + service[chosen[r, l]]
    """
    exits, narrow = shape.count, shape.dtype == types.int32

    def generate(context, builder, signature, arguments):
        bits = ir.IntType(64)
        long, byte = ir.VectorType(bits, WIDTH), ir.VectorType(ir.IntType(8), WIDTH)
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args[:5], arguments[:5], strict=True)]
        works, waited_so_far, rows, table_of, spacing = arrays
        first, lanes = arguments[5], builder.extract_value(rows.shape, 1)

        larger = cgutils.get_or_insert_function(builder.module, ir.FunctionType(long, [long, long]), f"llvm.smax.v{WIDTH}i64")
        zero = ir.Constant(long, [0] * WIDTH)
        values = [builder.load(builder.gep(table_of.data, [ir.Constant(bits, exit)])) for exit in range(exits)]
        values = [builder.trunc(value, ir.IntType(32)) for value in values] if narrow else values
        pick = (_look_up if narrow and exits <= WIDTH and _has_avx512() else _select)(builder, values)
        ahead_of = []
        for index in range(together.count):
            row = builder.add(first, ir.Constant(bits, index))
            ahead_of.append((builder.mul(row, lanes), _splat(builder, builder.load(builder.gep(spacing.data, [row])))))
        with cgutils.for_range(builder, builder.udiv(lanes, ir.Constant(bits, WIDTH)), intp=bits) as loop:
            column = builder.mul(loop.index, ir.Constant(bits, WIDTH))
            at_work, at_waits = _pointer(builder, works, column, long), _pointer(builder, waited_so_far, column, long)
            left, waited = builder.load(at_work, align=8), builder.load(at_waits, align=8)
            for begin, gap in ahead_of:
                exit_of = builder.load(_pointer(builder, rows, builder.add(begin, column), byte), align=1)
                ahead = builder.call(larger, [builder.sub(left, gap), zero])
                waited = builder.add(waited, ahead)
                taken = pick(exit_of)
                left = builder.add(ahead, builder.zext(taken, long) if narrow else taken)
            builder.store(left, at_work, align=8)
            builder.store(waited, at_waits, align=8)
        return context.get_dummy_value()

    return types.void(work, waiting, chosen, service, gaps, request, shape, together), generate


def _splat(builder, value):
    """A vector of WIDTH times the same value."""
    vector, place = ir.VectorType(value.type, WIDTH), ir.IntType(32)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(place, 0))
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(place, WIDTH), [0] * WIDTH))


def _pointer(builder, array, offset, vector):
    """Where a vector lies in a contiguous array, `offset` elements from its start."""
    return builder.bitcast(builder.gep(array.data, [offset]), vector.as_pointer())


def _select(builder, values):
    """How to pick the service of each lane's exit: a chain of comparisons and selections, on any processor."""
    table = [_splat(builder, value) for value in values]

    def pick(exit_of):
        taken = table[0]
        for exit in range(1, len(table)):
            reaches = builder.icmp_unsigned(">=", exit_of, ir.Constant(exit_of.type, [exit] * WIDTH))
            taken = builder.select(reaches, table[exit], taken)
        return taken

    return pick


def _look_up(builder, values):
    """The same as one permutation of a register that holds all services (vpermd of AVX-512)."""
    vector = ir.VectorType(ir.IntType(32), WIDTH)
    table = ir.Constant(vector, [0] * WIDTH)
    for exit, value in enumerate(values):
        table = builder.insert_element(table, value, ir.Constant(ir.IntType(32), exit))
    permute = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector, vector]), "llvm.x86.avx512.permvar.si.512")
    return lambda exit_of: builder.call(permute, [table, builder.zext(exit_of, vector)])


def _has_avx512() -> bool:
    return bool(get_host_cpu_features().get("avx512f"))
