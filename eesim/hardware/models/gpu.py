"""Tiles, waves and split-K: graphics processors, whose layers are matrix products C[m, n] = A[m, k] W[n, k]^T or move data.

A product is cut into tiles of ``tm x tn`` outputs, each one block of threads, and k may be split into `s` parts whose sums are added
afterwards. Of the kernels a library has, the fastest is taken to run. For each tile and split, in ns (GB/s are bytes per ns, `gops` are
10^9 operations/s, two per MAC; sizes `a`, `w`, `o` in bytes of an input, a weight and an output):

    x       = groups ceil(m / tm) ceil(n / tn) s / multiprocessors
    c       = max(1, x + quantisation (ceil(x) - x))        blocks of the busiest multiprocessor: 1 only whole waves, 0 none
    rounds  = ceil(c / occupancy),  occupancy = 32768 // (tm tn) within 1..8
    kk      = 32 ceil(k / 32 s)
    compute = kk max(rounds k_ns, c 2 tm tn multiprocessors / gops, c (a tm + w tn) / sm_gbps) + rounds block_ns
    memory  = bytes (miss / dram_gbps + (1 - miss) / l2_gbps) + [s > 1] 4 groups m n (s + 1) / l2_gbps
              miss = 1 / (1 + (l2_bytes / bytes)^6)
    time    = launch_ns + (compute^4 + memory^4)^(1/4) + [s > 1] split_ns

The form and its constants were set before any error was seen; the ten numbers are fitted for each device and data type
(`eesim.fidelity.gpu`). They are effective values, not facts about the hardware.

Fully connected layers and products of activations are such products as they stand (`m`: batch and positions; several heads:
`groups`). Convolutions are implicit ones: ``m = batch x positions, n = filters, k = taps x channels``, the channels of every tap filled
up to whole steps of `channel_step`. Recurrent layers are one product a step. All other layers run on the ordinary units:
``launch_ns + block_ns + max(2 MACs / gops, memory)``. Views (a reshape) are free.

A batch multiplies rows and activations; weights are read once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import ceil, prod
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from eesim.hardware.models import LayerCost
from eesim.network.layer import ITEM_BYTES, VIEWS, Layer
from eesim.schema import Strict

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
TILES = ((16, 32), (16, 64), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256))
"""Outputs of one block of threads; each also lying on its side."""
SPLITS = (1, 2, 4, 8, 16, 32)
K_STEP = 32
"""Elements of k that a block works through at once."""
ACCUMULATORS = 32768
"""Outputs that blocks sharing a multiprocessor may hold together: half of its 64 k registers."""
SUM_BYTES = 4
"""Bytes of a partial sum of split-K."""
BUSY_AFTER_NS = 5000
"""The clock's power (`Energy.busy_mw`) flows in kernels longer than this; shorter ones leave the card at its static power."""
GATES = {"LSTM": 4, "GRU": 3, "DynamicQuantizeLSTM": 4}
"""Rows of a recurrent layer's product for each number of its state; 1 for other operators."""


class Host(Strict):
    """Least time of a product in ns where the program that issues kernels is slower than the device, by rows m of the product."""

    few_rows_ns: NonNegative
    """Below 32 rows."""
    aligned_ns: NonNegative
    """A multiple of four rows."""
    other_ns: NonNegative


class FewRows(Strict):
    """A kernel of its own for up to `rows` rows: ``launch_ns + (memory^4 + (k_ns k + output_ns m n)^4)^(1/4)``, at its own `l2_gbps`."""

    rows: Annotated[int, Field(ge=1)]
    launch_ns: NonNegative
    k_ns: NonNegative
    output_ns: NonNegative
    l2_gbps: Positive


class Kernels(Strict):
    """Numbers of one family of kernels (see the top of the file), for one data type."""

    launch_ns: NonNegative
    gops: Positive
    dram_gbps: Positive
    l2_bytes: Positive
    l2_gbps: Positive
    k_ns: NonNegative
    sm_gbps: Positive
    block_ns: NonNegative
    split_ns: NonNegative | None = None
    """None: the family never splits k."""
    quantisation: Annotated[float, Field(ge=0, le=1)]
    output_bytes: Annotated[int, Field(ge=1)] | None = None
    """Bytes of an output as it was measured (int8 products that write int32: 4); None: as the data type."""
    channel_step: Annotated[int, Field(ge=1)] = K_STEP
    winograd: Positive = 1.0
    """By how much the k of 3x3 convolutions of stride 1 with more than three channels is divided."""
    tiles: list[Annotated[list[int], Field(min_length=2, max_length=2)]] | None = None
    """Other tiles than `TILES`."""
    host: Host | None = None
    few_rows: FewRows | None = None


class Rates(Strict):
    """How one kind of layer runs: in so many launches as a matrix product, or with `gops` (10^9 operations/s) on the ordinary units."""

    launches: Positive = 1.0
    gops: Positive | None = None


class Energy(Strict):
    """Power in mW and energies in pJ of one data type:
    ``min(cap, static + busy (time - 5 us) / time + (pj_per_mac MACs + pj_per_byte bytes) / time)``, smoothed (`_limited`)."""

    static_mw: NonNegative
    busy_mw: NonNegative
    pj_per_mac: NonNegative
    pj_per_byte: NonNegative
    cap_mw: Positive


class Parameters(Strict):
    """The `cost_model` section of a profile with `model: gpu`."""

    model: Literal["gpu"]
    multiprocessors: Annotated[int, Field(ge=1)]
    kernels: dict[str, dict[str, Kernels]]
    """Data type -> family -> its numbers. Family `conv`, where there is one, runs convolutions; `gemm` everything else."""
    data_types: dict[str, dict[str, Rates | None]]
    energy: dict[str, Energy] | None = None
    """None: time multiplied by the operating point's active power, where that is known."""

    @model_validator(mode="after")
    def _kernels_for_all(self) -> Parameters:
        for data_type in self.data_types:
            if "gemm" not in self.kernels.get(data_type, {}):
                raise ValueError(f"kernels.{data_type}.gemm is missing; every data type needs the family 'gemm'")
        return self


class Times(NamedTuple):
    """Parts of the time of some products in ns, arrays of one shape; `total` is not their sum."""

    total: np.ndarray
    overhead: np.ndarray
    compute: np.ndarray
    memory: np.ndarray


class Product(NamedTuple):
    """A layer as a matrix product that is repeated `calls` times; `far` bytes are read and written by each."""

    m: float
    n: float
    k: float
    groups: float
    calls: float
    far: float


def price(layer: Layer, data_type: str, parameters: Parameters, point) -> LayerCost:
    """Cost of `layer` for one sample; the kind must have rates. The operating point only gives the power."""
    return price_batch(layer, data_type, parameters, point, 1)


def price_batch(layer: Layer, data_type: str, parameters: Parameters, point, batch: int) -> LayerCost:
    """Cost of `layer` for `batch` samples at once, all of them together."""
    energy = None if parameters.energy is None else parameters.energy.get(data_type)
    power = point.active_power_mw(layer.kind) if parameters.energy is None and point is not None else None
    if layer.op in VIEWS:
        return LayerCost(0.0, None if energy is None and power is None else 0.0, "overhead")
    rates = parameters.data_types[data_type][layer.kind]
    kernels, item = family(parameters.kernels[data_type], layer.kind), ITEM_BYTES[data_type]
    moved = _bytes(layer, item, kernels.output_bytes if rates.gops is None else None, batch)
    if rates.gops is None and layer.macs:
        shape = product(layer, batch, kernels, item, moved)
        found = product_times(shape.m, shape.n, shape.k, shape.far, kernels, parameters.multiprocessors, (item, item), shape.groups)
        total, overhead, compute, memory = (float(part) * shape.calls for part in found)
        moved = shape.far * shape.calls
    else:
        overhead = kernels.launch_ns + kernels.block_ns
        compute = 0.0 if rates.gops is None else 2 * batch * layer.macs / rates.gops
        memory = float(memory_ns(moved, kernels))
        total = overhead + max(compute, memory)
    further = (rates.launches - 1) * kernels.launch_ns
    total, overhead = total + further, overhead + further
    nj = None if power is None else total * power * 1e-3
    if energy is not None:
        nj = float(power_mw(energy, total, batch * layer.macs, moved)) * total * 1e-3 * point.energy_scale
    terms = {"compute": compute, "memory": memory, "overhead": overhead}
    return LayerCost(total, nj, max(terms, key=terms.__getitem__))


def family(families: Mapping[str, Kernels], kind: str) -> Kernels:
    """The kernels that run a kind of layer."""
    return families["conv"] if kind in ("conv", "pointwise") and "conv" in families else families["gemm"]


def product(layer: Layer, batch: int, kernels: Kernels, item: int, moved: float) -> Product:
    """The matrix product that a layer with MACs becomes; `moved`: its bytes for the whole batch."""
    out = layer.output_shape
    if layer.kind in ("conv", "pointwise", "depthwise"):
        return _convolution(layer, batch, kernels, moved)
    if layer.kind == "recurrent":
        steps = max(prod(layer.input_shape[:-1]), 1)
        n = GATES.get(layer.op, 1) * out[-1] * (out[1] if len(out) == 4 else 1)
        weights = layer.macs / steps
        return Product(batch, n, max(weights / n, 1.0), 1, steps, item * (weights + batch * (n + weights / n)))
    n = out[-1]
    if layer.kind == "matmul":  # each head and each sample has a product of its own
        m, groups = out[-2] if len(out) > 1 else 1, batch * prod(out[:-2])
        return Product(m, n, max(batch * layer.macs / (groups * m * n), 1.0), groups, 1, moved)
    m = batch * prod(out[:-1])
    return Product(m, n, max(batch * layer.macs / (m * n), 1.0), 1, 1, moved)


def product_times(m, n, k, moved, kernels: Kernels, multiprocessors: int, items: tuple[float, float], groups=1) -> Times:
    """Times of products with sizes m, n, k (arrays broadcast) that move `moved` bytes; `items`: bytes of an input and of a weight."""
    m, n, k, moved, groups = (np.asarray(value, float)[..., None] for value in (m, n, k, moved, groups))
    tm, tn, split, occupancy = _candidates(None if kernels.tiles is None else tuple(map(tuple, kernels.tiles)), kernels.split_ns is not None)
    parts = split > 1
    x = groups * np.ceil(m / tm) * np.ceil(n / tn) * split / multiprocessors
    blocks = np.maximum(1.0, x + kernels.quantisation * (np.ceil(x) - x))
    rounds = np.ceil(blocks / occupancy)
    busy = np.maximum(2 * tm * tn * multiprocessors / kernels.gops, (tm * items[0] + tn * items[1]) / kernels.sm_gbps)
    compute = K_STEP * np.ceil(k / (split * K_STEP)) * np.maximum(rounds * kernels.k_ns, blocks * busy) + rounds * kernels.block_ns
    memory = memory_ns(moved, kernels) + parts * SUM_BYTES * groups * m * n * (split + 1) / kernels.l2_gbps
    total = kernels.launch_ns + _together(compute, memory) + parts * (kernels.split_ns or 0.0)
    total = np.where(parts & (k < 2 * K_STEP * split), np.inf, total)
    best = np.argmin(total, axis=-1)[..., None]
    total, compute, memory, rounds, split = (
        np.take_along_axis(np.broadcast_to(part, total.shape), best, -1)[..., 0] for part in (total, compute, memory, rounds, split)
    )
    overhead = kernels.launch_ns + kernels.block_ns + (split > 1) * (kernels.split_ns or 0.0)
    found = Times(total, overhead, np.maximum(compute - kernels.block_ns, 0.0), memory)
    m, n, k, moved = (value[..., 0] for value in (m, n, k, moved))
    if kernels.few_rows is not None:
        found = _few_rows(found, m, n, k, moved, kernels, kernels.few_rows)
    if kernels.host is not None:
        host = np.where(m < 32, kernels.host.few_rows_ns, np.where(m % 4 == 0, kernels.host.aligned_ns, kernels.host.other_ns))
        found = found._replace(total=np.maximum(found.total, host), overhead=np.where(host > found.total, host, found.overhead))
    return found


def memory_ns(moved, kernels: Kernels, l2_gbps: float | None = None):
    """Time to move so many bytes: at the cache's rate where they fit, at the memory's where they do not."""
    hit = 1 / (1 + (moved / kernels.l2_bytes) ** 6)
    return moved * ((1 - hit) / kernels.dram_gbps + hit / (l2_gbps or kernels.l2_gbps))


def power_mw(energy: Energy, ns, macs, moved):
    """Mean power while a layer runs."""
    busy = energy.busy_mw * np.maximum(ns - BUSY_AFTER_NS, 0.0) / ns
    return _limited(energy.static_mw + busy + (energy.pj_per_mac * macs + energy.pj_per_byte * moved) / ns, energy.cap_mw)


def _limited(power, cap):
    """The smaller of both, rounded off near the cap."""
    return cap / (1 + (cap / power) ** 8) ** (1 / 8)


def _convolution(layer: Layer, batch: int, kernels: Kernels, moved: float) -> Product:
    """Implicit product of a convolution; a transposed one computes every tap of every input position."""
    out, taps = layer.output_shape, prod(layer.kernel)
    groups = max(layer.groups, 1)
    filters = (out[1] if len(out) > 1 else out[0]) / groups
    if layer.op == "ConvTranspose":
        m = prod(layer.input_shape[2:])
        n = filters * taps
        return Product(batch * m, n, max(layer.macs / (m * n * groups), 1.0), groups, 1, moved)
    m = prod(out[2:])
    channels = max(layer.macs / (m * filters * groups * taps), 1.0)
    k = taps * kernels.channel_step * ceil(round(channels / kernels.channel_step, 9))
    if layer.kernel == (3, 3) and set(layer.stride) <= {1} and channels > 3:
        k /= kernels.winograd
    return Product(batch * m, filters, k, groups, 1, moved)


def _bytes(layer: Layer, item: int, output_bytes: float | None, batch: int) -> float:
    """Bytes read and written once each: activations of every sample, weights once."""
    return batch * (layer.elements_in * item + layer.elements_out * (output_bytes or item)) + layer.params * item


def _few_rows(found: Times, m, n, k, moved, kernels: Kernels, few: FewRows) -> Times:
    """The times with the kernel for few rows in the place of tiles, where there are few."""
    compute, memory = few.k_ns * k + few.output_ns * m * n, memory_ns(moved, kernels, few.l2_gbps)
    own = Times(few.launch_ns + _together(compute, memory), np.full_like(compute, few.launch_ns), compute, memory)
    return Times(*(np.where(m <= few.rows, mine, other) for mine, other in zip(own, found, strict=True)))


def _together(compute, memory):
    """Close to the larger of both, a little more where they are alike: (compute^4 + memory^4)^(1/4)."""
    high = np.maximum(compute, memory)
    ratio = np.minimum(compute, memory) / high
    return high * np.sqrt(np.sqrt(1 + (ratio * ratio) ** 2))


@lru_cache(maxsize=64)
def _candidates(tiles: tuple[tuple[int, int], ...] | None, splits: bool) -> tuple[np.ndarray, ...]:
    """Rows and columns of tiles, splits of k, and blocks that share a multiprocessor, for every kernel there is."""
    both = sorted({tuple(tile) for tile in tiles or TILES} | {(wide, high) for high, wide in tiles or TILES})
    all_ = [(high, wide, split) for high, wide in both for split in (SPLITS if splits else (1,))]
    tm, tn, split = np.array(all_, float).T
    return tm, tn, split, np.clip(ACCUMULATORS // (tm * tn), 1, 8)
