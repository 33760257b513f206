"""Shapes of all tensors of an ONNX model, also where exporters wrote the arithmetic of shapes as nodes."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

SMALL = 1000
"""Numbers a tensor may hold to be computed beforehand: shapes are small, weights are not."""


def tensors(graph: onnx.GraphProto) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Shapes (0 where a size is not known) and element types by tensor name."""
    shapes, types = {}, {}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        kind = value.type.tensor_type
        types[value.name] = kind.elem_type
        if value.type.HasField("tensor_type") and kind.HasField("shape"):
            shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return shapes, types


def known(shapes: dict[str, tuple[int, ...]], tensor: str) -> bool:
    """Whether every size of a tensor is known."""
    return tensor in shapes and all(shapes[tensor])


def infer_shapes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with shapes, and warnings about what was assumed.

    Nodes whose inputs are small constants or shapes become constants themselves, so that a shape they compute is known.
    An operator that ONNX does not know is assumed to keep the shape of its first input.
    """
    warnings: list[str] = []
    while True:
        model = shape_inference.infer_shapes(model, data_prop=True)
        shapes, types = tensors(model.graph)
        stuck = [node for node in model.graph.node if not all(known(shapes, name) for name in node.output if name)]
        if not stuck:
            return model, warnings
        folded = _fold(model, shapes)
        if folded:
            continue
        node = next(
            (node for node in stuck if not onnx.defs.has(node.op_type, node.domain) and any(known(shapes, name) for name in node.input)), None
        )
        if node is None:
            return model, warnings
        warnings.append(f"the output shape of operator '{node.op_type}' ({node.name or node.output[0]}) is not known; assumed: that of its input")
        like = next(name for name in node.input if known(shapes, name))
        _state(model.graph, [name for name in node.output if name and not known(shapes, name)], types.get(like) or 1, shapes[like])


def _state(graph: onnx.GraphProto, names: list[str], kind: int, shape: tuple[int, ...]) -> None:
    """Write down the shape of some tensors."""
    kept = [value for value in graph.value_info if value.name not in names]
    stated = {name: onnx.helper.make_tensor_value_info(name, kind, shape) for name in names}
    del graph.value_info[:]
    graph.value_info.extend([*kept, *stated.values()])
    for value in graph.output:
        if value.name in stated:
            value.CopyFrom(stated[value.name])


def _fold(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Replace nodes that compute small constants by their values; whether there were any."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    values = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if prod(tensor.dims) <= SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL
    }
    left, found = [], []
    for node in graph.node:
        results = None
        if node.op_type == "Shape" and known(shapes, node.input[0]):
            ends = {attribute.name: attribute.i for attribute in node.attribute}
            results = [np.array(shapes[node.input[0]][ends.get("start", 0) : ends.get("end")], np.int64)]
        elif not outputs & set(node.output) and all(not name or name in values for name in node.input):
            results = _evaluate(model, node, values)
        if results is None or any(result.size > SMALL for result in results) or outputs & set(node.output):
            left.append(node)
            continue
        values |= dict(zip(node.output, results, strict=True))
        found += [numpy_helper.from_array(result, name) for name, result in zip(node.output, results, strict=True) if name]
    del graph.node[:]
    graph.node.extend(left)
    graph.initializer.extend(found)
    return bool(found)


def _evaluate(model: onnx.ModelProto, node: onnx.NodeProto, values: dict[str, np.ndarray]) -> list[np.ndarray] | None:
    """What a node gives for constant inputs; None where that cannot be said."""
    from onnx.reference import ReferenceEvaluator  # slow to load, and few models need it

    names = [name for name in dict.fromkeys(node.input) if name]
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype), None) for name in names]
    results = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    alone = onnx.helper.make_model(onnx.helper.make_graph([node], "alone", inputs, results), opset_imports=model.opset_import)
    try:
        found = ReferenceEvaluator(alone).run(None, {name: values[name] for name in names})
    except Exception:  # an operator that the evaluator lacks, or cannot apply to these values
        return None
    return [np.asarray(result) for result in found]
