"""ONNX to Network: shapes by inference, layers by operator, segments and heads by which outputs use them.

Head `e` = the nodes that only output `e` uses. A node that several outputs use belongs to the segment of the first of
them. What only the last output uses is its segment up to `final_head`, the node where the final head begins.
Weights may be graph inputs without values. Activations, biases and batch normalisation directly behind a convolution or
a fully connected layer are counted inside it, as every runtime executes them; so is an activation behind an addition.
What depends on nothing but weights and shapes is computed before the first inference and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import onnx

from eesim.errors import BadInput, unknown
from eesim.network.layer import CONVOLUTIONS, OPERATOR_KINDS, Layer, convolution_kind
from eesim.network.network import Network
from eesim.network.onnx_graph import MATRIX_OPERANDS, Graph


def import_onnx(path: str | Path, *, name: str | None = None, outputs: Sequence[str] | None = None, final_head: str | None = None) -> Network:
    """Read a multi-exit ONNX model (one output per exit, in the order of the graph or of `outputs`).

    final_head : name of the node where the final head begins; by default the last global pooling, else the last
        fully connected layer, of what only the final output uses.

    Raises BadInput when the file is not ONNX, a shape cannot be inferred, or an output or node is unknown.
    """
    path = Path(path)
    graph, names, parts = read_exits(path, outputs, final_head)
    segments: list[list[Layer]] = [[] for _ in names]
    heads: list[list[Layer]] = [[] for _ in names]
    for node, (exit, is_head) in parts.items():
        if not graph.free(node):
            (heads if is_head else segments)[exit].append(_layer(graph, node))
    for index, head in enumerate(heads):
        if not head:
            raise BadInput(f"output '{names[index]}' has no layer of its own, so it has no head", file=path)
        if 0 < index < len(names) - 1 and not segments[index]:  # the last exit may stand on the same features as the one before
            graph.warnings.append(
                f"output '{names[index]}' adds no layer to the backbone after '{names[index - 1]}'; outputs must be in the order of the exits"
            )
    shape = graph.shapes.get(names[-1], ())
    return Network(
        name or path.stem, graph.data_inputs, tuple(map(tuple, segments)), tuple(map(tuple, heads)), graph.data_type,
        next((size for size in shape[:0:-1] if size > 1), None), path.name, tuple(dict.fromkeys(graph.warnings)),
    )  # fmt: skip


def read_exits(
    path: Path, outputs: Sequence[str] | None = None, final_head: str | None = None
) -> tuple[Graph, list[str], dict[int, tuple[int, bool]]]:
    """The graph of a model, its exit outputs in order, and for every node they need: whose it is, and whether head or segment.

    Raises BadInput as `import_onnx` does.
    """
    try:
        graph = Graph(_load(path), path)
    except (onnx.shape_inference.InferenceError, ValueError, TypeError) as error:  # sizes that contradict each other; names that are no text
        raise BadInput(f"not a readable ONNX model: {(str(error).splitlines() or [''])[0]}", file=path) from None
    names = list(outputs) if outputs else graph.outputs_in_order
    if not names:
        raise BadInput("the model has no outputs, so it has no exits", file=path)
    for output in names:
        if output not in graph.producer:
            raise unknown("output", output, [value for value in graph.outputs_in_order if value in graph.producer], file=path)
    uses = [graph.ancestors(output) for output in names]
    last = len(names) - 1
    only_last = [node for node in graph.order if node in uses[last] and not any(node in use for use in uses[:last])]
    if all(graph.free(node) for node in only_last):
        raise BadInput(f"output '{names[last]}' has no layer of its own, so it has no head; the final exit must come last", file=path)
    final = graph.descendants(_final_head(graph, only_last, final_head, path)) & set(only_last)
    widths = {name: graph.shapes[name][-1] for name in names if len(graph.shapes.get(name, ())) > 1}
    for name, width in widths.items():
        if width != widths.get(names[-1], width):
            raise BadInput(f"output '{name}' answers {width} classes where '{names[-1]}' answers {widths[names[-1]]}", file=path)
    parts = {}
    for node in graph.order:
        users = [exit for exit, use in enumerate(uses) if node in use]
        if users:
            parts[node] = users[0], len(users) == 1 and (node in final or users[0] != last)
    _check_order(graph, names, parts)
    return graph, names, parts


def _check_order(graph: Graph, names: list[str], parts: dict[int, tuple[int, bool]]) -> None:
    """Raise BadInput where no later output adds to the backbone although an earlier one goes deeper than the final: the order is another."""
    last = len(names) - 1
    if any(exit > 0 and not is_head and not graph.free(node) for node, (exit, is_head) in parts.items()):
        return
    weighted = (*CONVOLUTIONS, *MATRIX_OPERANDS, "Gemm")
    depth = [sum(place == (exit, True) and graph.nodes[node].op_type in weighted for node, place in parts.items()) for exit in range(last + 1)]
    deepest = max(range(last + 1), key=depth.__getitem__)
    if depth[deepest] > depth[last]:
        raise BadInput(
            f"all outputs stand on the same features, and '{names[deepest]}' has more layers behind them than the final '{names[last]}'; "
            "outputs must be in the order of the exits, and the final exit must come last",
            file=graph.path,
        )


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:  # onnx raises protobuf, checker and OS errors without a common base
        tolerated = ("No Op registered", "should be stored in")  # operators ONNX does not know get a warning; values are not needed
        if isinstance(error, onnx.checker.ValidationError) and any(part in str(error) for part in tolerated):
            return model
        raise BadInput(f"not a readable ONNX model: {(str(error).splitlines() or [type(error).__name__])[0]}", file=path) from None
    return model


def _final_head(graph: Graph, only_last: list[int], wanted: str | None, path: Path) -> int:
    names = {graph.nodes[node].name: node for node in only_last}
    if wanted is not None:
        if wanted not in names:
            raise unknown("node of the final head", wanted, names, file=path, field="final_head")
        return names[wanted]
    for operators in (("GlobalAveragePool", "GlobalMaxPool", "ReduceMean"), ("Gemm", *MATRIX_OPERANDS), tuple(CONVOLUTIONS)):
        found = [node for node in only_last if graph.nodes[node].op_type in operators and not graph.free(node)]
        if found:
            return found[-1]
    return only_last[-1]


def _layer(graph: Graph, index: int) -> Layer:
    """The layer of one node, with what is fused into it."""
    node = graph.nodes[index]
    attributes: dict[str, Any] = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    data = graph.data(node)
    in_shapes = [graph.shape(tensor, node) for tensor in data]
    out_shapes = [graph.shape(tensor, node) for tensor in graph.results(index)]
    kernel, stride, groups, macs = (), (), 1, 0
    kind = OPERATOR_KINDS.get(node.op_type)
    if node.op_type in CONVOLUTIONS:
        weight = graph.shape(node.input[CONVOLUTIONS[node.op_type]], node)
        kernel, groups = tuple(weight[2:]), int(attributes.get("group", 1))
        stride = tuple(attributes.get("strides", [1] * len(kernel)))
        kind = convolution_kind(kernel, groups, in_shapes[0][1])
        macs = prod(in_shapes[0] if node.op_type == "ConvTranspose" else out_shapes[0]) * prod(weight[1:])
    elif node.op_type == "Gemm":
        weight = graph.shape(node.input[1], node)
        macs = prod(out_shapes[0]) * (weight[1] if attributes.get("transB") else weight[0])
    elif node.op_type in MATRIX_OPERANDS:
        factors = [node.input[place] for place in MATRIX_OPERANDS[node.op_type]]
        macs = prod(out_shapes[0]) * graph.shape(factors[0], node)[-1]
        kind = "fully_connected" if any(tensor in graph.constants for tensor in factors) else "matmul"
    elif node.op_type == "Einsum":
        macs = _einsum_macs(attributes["equation"].decode(), [graph.shape(tensor, node) for tensor in node.input])
        kind = "fully_connected" if len(data) < len(node.input) else "matmul"
    elif kind == "pooling":
        kernel = tuple(attributes.get("kernel_shape", in_shapes[0][2:]))
        stride = tuple(attributes.get("strides", [1] * len(kernel)))
    elif kind == "recurrent":
        macs = prod(in_shapes[0][:2]) * sum(prod(graph.shape(tensor, node)) for tensor in node.input[1:3])  # steps, batch; directions, gates
    elif kind is None:
        kind = "elementwise"
        graph.warnings.append(f"operator '{node.op_type}' ({node.name}) has no cost rule; assumed: one element-wise pass over its tensors")
    fused = sorted(other for other, root in graph.fused_into.items() if root == index)
    return Layer(
        node.name, node.op_type, kind, in_shapes[0], out_shapes[0], macs, graph.params(index), sum(map(prod, in_shapes)), sum(map(prod, out_shapes)),
        kernel, stride, groups, tuple(dict.fromkeys(graph.source(tensor) for tensor in data)), tuple(graph.nodes[other].op_type for other in fused),
    )  # fmt: skip


def _einsum_macs(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """One multiplication for every combination of indices; none where there is only one operand."""
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.replace(" ", "").split("->")[0].split(","), shapes, strict=True):
        before, dots, after = term.partition("...")
        rest = [f"dot{place}" for place in range(len(shape) - len(before) - len(after), 0, -1)] if dots else []
        for label, size in zip([*before, *rest, *after], shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    return prod(sizes.values()) if len(shapes) > 1 else 0
