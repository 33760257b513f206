"""ONNX to Network: shapes by inference, layers by operator, segments and heads by which outputs use them (see `exits`).

Weights may be graph inputs without values. Activations, biases and batch normalisation directly behind a convolution or
a fully connected layer are counted inside it, as every runtime executes them; so is an activation behind an addition.
What depends on nothing but weights and shapes is computed before the first inference and costs nothing. A batch that is
not fixed is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path

import onnx

from eesim.errors import BadInput
from eesim.network.exits import Parts, build, split
from eesim.network.layer import CONVOLUTIONS, OPERATOR_KINDS, Layer, convolution_kind
from eesim.network.network import Network
from eesim.network.onnx_contrib import attention_macs, attributes, channels_first, channels_last
from eesim.network.onnx_graph import Graph
from eesim.network.onnx_passes import apply
from eesim.network.onnx_shapes import lighten
from eesim.network.topology import GEMMS, MATRIX_OPERANDS


def import_onnx(
    path: str | Path, *, name: str | None = None, outputs: Sequence[str] | None = None, final_head: str | None = None,
    passes: Sequence[str] = (), whole: bool = False,
) -> Network:  # fmt: skip
    """Read a multi-exit ONNX model (one output per exit, in the order of the graph or of `outputs`).

    final_head : name of the node where the final head begins; by default the last global pooling, else the last
        fully connected layer, of what only the final output uses.
    passes : what the runtime does to the graph first (`onnx_passes`).
    whole : outputs that make no exits (boxes and scores, a state) become one network with one exit, and a warning.

    Raises BadInput when the file is not ONNX, a shape cannot be inferred, or an output or node is unknown.
    """
    path = Path(path)
    with _sound(path):
        graph = _graph(path, passes)
        network = build(graph, lambda index: _layer(graph, index), name=name, outputs=outputs, final_head=final_head, whole=whole)
    return replace(network, onnx=path.name)


def read_exits(path: Path, outputs: Sequence[str] | None = None, final_head: str | None = None) -> tuple[Graph, list[str], Parts]:
    """The graph of a model, its exit outputs in order, and for every node they need: whose it is, and whether head or segment.

    Raises BadInput as `import_onnx` does.
    """
    with _sound(path):
        graph = _graph(path)
        return graph, *split(graph, outputs, final_head)


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Raise BadInput where sizes contradict each other, operands or attributes are missing, or names are no text."""
    try:
        yield
    except (onnx.shape_inference.InferenceError, ValueError, TypeError, KeyError, IndexError) as error:
        raise BadInput(f"not a readable ONNX model: {(str(error).splitlines() or [type(error).__name__])[0]}", file=path) from None


def _graph(path: Path, passes: Sequence[str] = ()) -> Graph:
    model, weights = _load(path)
    return Graph(apply(model, passes), path, weights)


def _load(path: Path) -> tuple[onnx.ModelProto, set[str]]:
    """The model without its large weights, and the names of all weights."""
    try:
        model = onnx.load(str(path), load_external_data=False)
        weights = lighten(model, path.parent)
        onnx.checker.check_model(model)
    except Exception as error:  # onnx raises protobuf, checker and OS errors without a common base
        # operators ONNX does not know get a warning; values are not needed; shapes of results are inferred
        tolerated = ("No Op registered", "should be stored in", "Field 'shape' of 'type' is required")
        if isinstance(error, onnx.checker.ValidationError) and any(part in str(error) for part in tolerated):
            return model, weights
        raise BadInput(f"not a readable ONNX model: {(str(error).splitlines() or [type(error).__name__])[0]}", file=path) from None
    return model, weights


def _layer(graph: Graph, index: int) -> Layer:
    """The layer of one node, with what is fused into it."""
    node = graph.nodes[index]
    given = attributes(node)
    data = graph.data(node)
    in_shapes = [graph.shape(tensor, node) for tensor in data]
    out_shapes = [graph.shape(tensor, node) for tensor in graph.results(index)]
    if channels_last(node):
        in_shapes, out_shapes = [channels_first(shape) for shape in in_shapes], [channels_first(shape) for shape in out_shapes]
    kernel, stride, groups, macs = (), (), 1, 0
    kind = OPERATOR_KINDS.get(node.op_type)
    if node.op_type in CONVOLUTIONS:
        weight = graph.shape(node.input[CONVOLUTIONS[node.op_type]], node)
        kernel, groups = tuple(weight[2:]), int(given.get("group", 1))
        stride = tuple(given.get("strides", [1] * len(kernel)))
        kind = convolution_kind(kernel, groups, in_shapes[0][1])
        macs = prod(in_shapes[0] if node.op_type == "ConvTranspose" else out_shapes[0]) * prod(weight[1:])
    elif node.op_type in GEMMS:
        weight = graph.shape(node.input[GEMMS[node.op_type]], node)
        macs = prod(out_shapes[0]) * (weight[1] if given.get("transB") else weight[0])
    elif node.op_type in MATRIX_OPERANDS:
        factors = [node.input[place] for place in MATRIX_OPERANDS[node.op_type]]
        macs = prod(out_shapes[0]) * graph.shape(factors[0], node)[-2 if given.get("transA") else -1]
        kind = "fully_connected" if any(tensor in graph.constants for tensor in factors) else "matmul"
    elif node.op_type == "Einsum":
        macs = _einsum_macs(given["equation"].decode(), [graph.shape(tensor, node) for tensor in node.input])
        kind = "fully_connected" if len(data) < len(node.input) else "matmul"
    elif kind in ("matmul", "fully_connected"):  # attention
        macs = attention_macs(node, [graph.shape(tensor, node) if tensor else () for tensor in node.input])
        kind = "fully_connected" if len(node.input) > 1 and node.input[1] in graph.constants else "matmul"
    elif kind == "pooling":
        kernel = tuple(given.get("kernel_shape", in_shapes[0][2:]))
        stride = tuple(given.get("strides", [1] * len(kernel)))
    elif kind == "recurrent":
        macs = prod(in_shapes[0][:2]) * sum(prod(graph.shape(tensor, node)) for tensor in node.input[1:3])  # steps, batch; directions, gates
    elif any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
        kind = "elementwise"
        graph.warnings.append(
            f"operator '{node.op_type}' ({node.name}) repeats a graph inside whose computing is not counted; "
            "assumed: one element-wise pass over its tensors"
        )
    elif kind is None:
        kind = "elementwise"
        graph.warnings.append(f"operator '{node.op_type}' ({node.name}) has no cost rule; assumed: one element-wise pass over its tensors")
    fused = [*_inside(node, given), *(graph.nodes[other].op_type for other in graph.inside(index))]
    return Layer(
        node.name, node.op_type, kind, in_shapes[0], out_shapes[0], macs, graph.params(index), sum(map(prod, in_shapes)), sum(map(prod, out_shapes)),
        kernel, stride, groups, tuple(dict.fromkeys(graph.source(tensor) for tensor in data)), tuple(fused),
    )  # fmt: skip


def _inside(node: onnx.NodeProto, given: dict) -> list[str]:
    """Activations that an operator of onnxruntime's own has inside."""
    named = given.get("activation") if node.domain == "com.microsoft" else None
    return [named.decode()] if isinstance(named, bytes) and named else []


def _einsum_macs(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """One multiplication for every combination of indices; none where there is only one operand."""
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.replace(" ", "").split("->")[0].split(","), shapes, strict=True):
        before, dots, after = term.partition("...")
        rest = [f"dot{place}" for place in range(len(shape) - len(before) - len(after), 0, -1)] if dots else []
        for label, size in zip([*before, *rest, *after], shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    return prod(sizes.values()) if len(shapes) > 1 else 0
