"""TensorFlow Lite to Network: layers by operator, segments and heads by which outputs use them, as for ONNX.

Operators bear the names ONNX has for them, shapes are channels first (N, C, H, W); data types are those of the stored
weights. What a .tflite file lists is executed as listed: quantising between two layers is a layer. A batch that is not
fixed is 1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from eesim.errors import BadInput
from eesim.network.exits import build
from eesim.network.layer import OPERATOR_KINDS, Layer, convolution_kind
from eesim.network.network import Network

if TYPE_CHECKING:
    from eesim.network.tflite_graph import Operator, TfliteGraph

_DAMAGED = (struct.error, IndexError, ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError)
"""What reading a damaged file raises, where its offsets and counts lead nowhere."""
_NOT_WEIGHTS = ("INT32", "INT64", "UINT32", "UINT64", "BOOL", "STRING", "RESOURCE", "VARIANT")
_HIDDEN = {"IF": "holds branches", "WHILE": "repeats a subgraph", "CALL": "calls a subgraph", "CALL_ONCE": "calls a subgraph"}
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_RECURRENT = ("LSTM", "RNN", "SVDF")


def import_tflite(
    path: str | Path, *, name: str | None = None, outputs: Sequence[str] | None = None, final_head: str | None = None, whole: bool = False
) -> Network:
    """Read a multi-exit .tflite model (one output per exit, in the order of the graph or of `outputs`); as `import_onnx`.

    Raises BadInput when the file is not TensorFlow Lite or damaged, a size is not fixed, or an output or node is unknown.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror or error}", file=path) from None
    if content[4:8] != b"TFL3":
        raise BadInput("not a TensorFlow Lite model: it does not bear the mark 'TFL3'", file=path)
    try:
        import tflite

        from eesim.network.tflite_graph import TfliteGraph
    except ImportError:
        raise BadInput("reading .tflite needs the package tflite; install it with pip install tflite", file=path) from None
    try:
        graph = TfliteGraph(tflite.Model.GetRootAs(content), path)
        return build(graph, lambda index: _layer(graph, index), name=name, outputs=outputs, final_head=final_head, whole=whole)
    except _DAMAGED as error:
        raise BadInput(f"not a readable TensorFlow Lite model: it is damaged or cut short ({error or type(error).__name__})", file=path) from None


def _layer(graph: TfliteGraph, index: int) -> Layer:
    """The layer of one operator, with what is fused into it."""
    node = graph.nodes[index]
    data = graph.data(node)
    in_shapes = [graph.shape(tensor, node) for tensor in data]
    made = graph.results(index)
    kind = OPERATOR_KINDS.get(node.op_type)
    unknown = {tensor for tensor in made if kind is None and tensor in graph.unranked}
    out_shapes = [in_shapes[0] if tensor in unknown else graph.shape(tensor, node) for tensor in made]
    kernel, stride, groups, macs = _work(graph, node, in_shapes, out_shapes)
    if node.op_type == "Conv":
        kind = convolution_kind(kernel, groups, in_shapes[0][1])
    elif node.op_type == "ConvTranspose":
        kind = "conv"
    elif node.op_type in ("Gemm", "MatMul"):
        kind = "fully_connected" if any(tensor in graph.constants for tensor in node.input[:2]) else "matmul"
    elif node.builtin in _HIDDEN:
        kind = "elementwise"
        graph.warnings.append(
            f"operator '{node.op_type}' ({node.name}) {_HIDDEN[node.builtin]} whose computing is not counted; "
            "assumed: one element-wise pass over its tensors"
        )
    elif kind is None:
        kind = "elementwise"
        graph.warnings.append(f"operator '{node.op_type}' ({node.name}) has no cost rule; assumed: one element-wise pass over its tensors")
        if unknown:
            graph.warnings.append(f"the output shape of operator '{node.op_type}' ({node.name}) is not known; assumed: that of its input")
    inside = [graph.nodes[other] for other in graph.inside(index)]
    fused = [name for name in (node.activation, *(name for other in inside for name in (other.op_type, other.activation))) if name]
    return Layer(
        node.name, node.op_type, kind, in_shapes[0], out_shapes[0], macs, sum(_params(graph, part) for part in (node, *inside)),
        sum(map(prod, in_shapes)), sum(map(prod, out_shapes)), kernel, stride, groups,
        tuple(dict.fromkeys(graph.source(tensor) for tensor in data)), tuple(fused),
    )  # fmt: skip


def _work(graph: TfliteGraph, node: Operator, in_shapes: list, out_shapes: list) -> tuple[tuple[int, ...], tuple[int, ...], int, int]:
    """Kernel, stride, groups and MACs of an operator."""
    kernel, stride, groups, macs = (), (), 1, 0
    if node.op_type in _CONVOLUTIONS:
        weight = _sizes(graph, node, 1, rank=5 if "3D" in node.builtin else 4)
        if node.builtin == "CONV_2D":  # (out, h, w, in of one group)
            kernel, groups, each = weight[1:3], in_shapes[0][1] // weight[3], prod(weight[1:])
        elif node.builtin == "DEPTHWISE_CONV_2D":  # (1, h, w, out)
            kernel, groups, each = weight[1:3], in_shapes[0][1], prod(weight[1:3])
        elif node.builtin == "TRANSPOSE_CONV":  # (out, h, w, in)
            kernel, each = weight[1:3], prod(weight[:3])
        elif node.builtin == "CONV_3D":  # (d, h, w, in of one group, out)
            kernel, groups, each = weight[:3], in_shapes[0][1] // weight[3], prod(weight[:4])
        else:  # (d, h, w, out, in)
            kernel, each = weight[:3], prod(weight[:4])
        stride = _stride(node, len(kernel))
        macs = prod(graph.shape(node.input[2], node) if node.op_type == "ConvTranspose" else out_shapes[0]) * each
        _warn_of_sparse(graph, node)
    elif node.op_type == "Gemm":
        macs = prod(out_shapes[0]) * _sizes(graph, node, 1, rank=2)[1]
        _warn_of_sparse(graph, node)
    elif node.op_type == "MatMul":
        first = graph.shape(node.input[0], node)
        macs = prod(out_shapes[0]) * first[-2 if node.options and node.options.AdjX() else -1]
    elif node.op_type.startswith("Global"):
        kernel, stride = in_shapes[0][2:], (1,) * len(in_shapes[0][2:])
    elif node.builtin.endswith("POOL_2D"):
        kernel, stride = (node.options.FilterHeight(), node.options.FilterWidth()), _stride(node, 2)
    elif node.op_type == "ReduceMean":
        kernel, stride = in_shapes[0][2:], (1,) * len(in_shapes[0][2:])
    elif node.op_type in _RECURRENT:  # every step and sample passes through every matrix
        macs = prod(in_shapes[0][:-1]) * sum(prod(shape) for shape in map(graph.stored_shapes.get, _stored(graph, node)) if len(shape) == 2)
    return tuple(kernel), stride, groups, macs


def _sizes(graph: TfliteGraph, node: Operator, place: int, *, rank: int) -> tuple[int, ...]:
    """The stored shape of weights, also where they are computed."""
    shape = graph.stored_shapes[node.input[place]]
    if len(shape) != rank or any(size <= 0 for size in shape):
        raise BadInput(f"weights of {len(shape)} sizes where {rank} are needed", file=graph.path, field=node.name)
    return shape


def _stride(node: Operator, rank: int) -> tuple[int, ...]:
    if node.options is None:
        return (1,) * rank
    sizes = node.options.StrideH(), node.options.StrideW()
    return (node.options.StrideD(), *sizes) if rank == 3 else sizes


def _stored(graph: TfliteGraph, node: Operator) -> list[str]:
    """The constant operands of an operator, state left out."""
    return [tensor for tensor in dict.fromkeys(node.input) if tensor in graph.constants - graph.states]


def _warn_of_sparse(graph: TfliteGraph, node: Operator) -> None:
    if any(tensor in graph.sparse for tensor in node.input):
        graph.warnings.append(f"weights of operator '{node.op_type}' ({node.name}) are stored sparsely; counted: all of them")


def _params(graph: TfliteGraph, node: Operator) -> int:
    """Stored numbers of an operator."""
    stored = _stored(graph, node)
    if node.op_type in (*_CONVOLUTIONS, "Gemm", *_RECURRENT):
        stored = [tensor for tensor in stored if tensor != node.input[0]]  # of a transposed convolution: the shape of its result
    elif node.op_type in ("Pad", "Resize", "Expand"):
        stored = []
    else:
        stored = [tensor for tensor in stored if graph.types[tensor] not in _NOT_WEIGHTS and prod(graph.stored_shapes[tensor]) > 1]
    return sum(prod(graph.stored_shapes[tensor]) for tensor in stored)
