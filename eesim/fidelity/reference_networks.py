"""The four reference networks of MLPerf Tiny as eesim networks, from the operator table of their int8 .tflite files."""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterable
from dataclasses import replace
from math import prod
from pathlib import Path

from eesim.bundled import data_folder
from eesim.network.layer import Layer, convolution_kind
from eesim.network.network import Network, read_network

NETWORKS = ("ic", "kws", "vww", "ad")
_OPERATORS = {
    "CONV_2D": "Conv",
    "DEPTHWISE_CONV_2D": "Conv",
    "FULLY_CONNECTED": "Gemm",
    "ADD": "Add",
    "AVERAGE_POOL_2D": "AveragePool",
    "RESHAPE": "Reshape",
    "SOFTMAX": "Softmax",
}
_KINDS = {"Gemm": "fully_connected", "Add": "elementwise", "AveragePool": "pooling", "Reshape": "reshape", "Softmax": "softmax"}
_CLASSES = {"ic": 10, "kws": 12, "vww": 2, "ad": None}
_RESNET_INPUTS = {3: (0, 2), 4: (3,), 5: (4,), 6: (3,), 7: (5, 6), 8: (7,), 9: (8,), 10: (7,), 11: (9, 10)}
"""The residual connections of `ic`: operator -> operators it reads. All other operators read the one before them."""


VWW_LIVE_CHANNELS = (8, 8, 16, 16, 32, 32, 32, 32, 64, 64, 60, 60, 106, 106, 57, 57, 30, 30, 19, 19, 15, 15, 25, 25, 31, 31, 22)
"""Output channels of the 27 convolutions of `vww_96_int8.tflite` that are neither constant (all weights of the filter are zero, or the
bounds of the int8 inputs keep the output at its zero point) nor unread. The rest, 50 % of the MACs, can be removed without changing any output."""


def without_dead_channels(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """The layers of `vww` as a compiler leaves them that removes dead channels."""
    kept, convolution, before = [], 0, None
    for layer in layers:
        if layer.kind in ("conv", "pointwise", "depthwise"):
            channels, convolution = VWW_LIVE_CHANNELS[convolution], convolution + 1
            read = before or layer.input_shape[1]
            weights = prod(layer.kernel) * channels * (1 if layer.kind == "depthwise" else read)
            sizes = {"macs": weights * prod(layer.output_shape[2:]), "params": weights + channels}
            before, sizes["groups"] = channels, channels if layer.kind == "depthwise" else 1
            shapes = (1, read, *layer.input_shape[2:]), (1, channels, *layer.output_shape[2:])
        else:
            reads = layer.input_shape[1] if layer.kind == "softmax" else before
            writes = before if layer.kind in ("pooling", "reshape") else layer.output_shape[1]
            shapes = (1, reads, *layer.input_shape[2:]), (1, writes, *layer.output_shape[2:])
            sizes = {"macs": reads * writes, "params": reads * writes + writes} if layer.kind == "fully_connected" else {}
        kept.append(replace(layer, input_shape=shapes[0], output_shape=shapes[1], elements_in=prod(shapes[0]), elements_out=prod(shapes[1]), **sizes))
    return tuple(kept)


def folder() -> Path:
    """Where the committed networks lie."""
    return data_folder("hwprofiles") / "networks"


def load_networks() -> dict[str, Network]:
    """The committed networks by MLPerf Tiny's short name."""
    return {name: read_network(folder() / f"mlperf-tiny-{name}.yaml") for name in NETWORKS}


def networks_from_table(path: Path) -> dict[str, Network]:
    """Networks from `layers.csv` (columns model, idx, op, in_shape, out_shape (NHWC), kernel, macs, weight_bytes; int8)."""
    rows: dict[str, list[dict]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["model"], []).append(row)
    return {name: _network(name, rows[name]) for name in NETWORKS}


def _network(name: str, rows: Iterable[dict]) -> Network:
    layers: list[Layer] = []
    for row in rows:
        index, op = int(row["idx"]), _OPERATORS[row["op"]]
        before, after = _channels_first(ast.literal_eval(row["in_shape"])), _channels_first(ast.literal_eval(row["out_shape"]))
        sources = _RESNET_INPUTS.get(index, (index - 1,)) if name == "ic" else (index - 1,)
        kernel, stride, groups = (), (), 1
        if op == "Conv":
            kernel = tuple(int(size) for size in row["kernel"].split("x"))
            stride = tuple(-(-wide // narrow) for wide, narrow in zip(before[2:], after[2:], strict=True))
            groups = before[1] if row["op"].startswith("DEPTHWISE") else 1
        elif op == "AveragePool":
            kernel = stride = before[2:]
        # .tflite files store the weights and one bias per output channel; the table counts weights only
        params = int(row["weight_bytes"]) + (after[1] if op in ("Conv", "Gemm") else 0)
        kind = convolution_kind(kernel, groups, before[1]) if op == "Conv" else _KINDS[op]
        inputs = tuple("input" if source < 0 else layers[source].name for source in sources)
        layers.append(
            Layer(
                f"{index:02d}_{op.lower()}", op, kind, before, after, int(row["macs"]), params, prod(before) * len(inputs), prod(after),
                kernel, stride, groups, inputs,
            )
        )  # fmt: skip
    head = next((i for i, layer in enumerate(layers) if layer.kind == "pooling"), len(layers) - 1)
    shape = layers[0].input_shape
    return Network(f"mlperf-tiny-{name}", {"input": shape}, (tuple(layers[:head]),), (tuple(layers[head:]),), "int8", _CLASSES[name])


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else tuple(shape)
