"""Shapes of all tensors of an ONNX model, also where exporters wrote the arithmetic of shapes as nodes."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper, numpy_helper, shape_inference

from eesim.network.onnx_contrib import OWN, first_result, first_type
from eesim.network.onnx_inline import functions_inlined, inline_branches

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


def lighten(model: onnx.ModelProto, folder: Path) -> set[str]:
    """Put inputs without values in the place of large weights, whose values no shape needs; returns the names of all weights.

    Small ones that are stored in a file of `folder` are read, where it is there.
    """
    graph = model.graph
    names = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    sizes = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in graph.initializer if prod(tensor.dims) > SMALL}
    sizes |= {tensor.values.name: (tensor.values.data_type, list(tensor.dims)) for tensor in graph.sparse_initializer}
    kept = [tensor for tensor in graph.initializer if tensor.name not in sizes]
    for tensor in kept:
        if external_data_helper.uses_external_data(tensor):
            try:
                external_data_helper.load_external_data_for_tensor(tensor, str(folder))
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
            except Exception:  # the file may be missing, cut short or outside the folder: then the value stays unknown
                continue
    stated = [value for value in graph.input if value.name not in sizes]
    stated += [onnx.helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in sizes.items()]
    for field, values in ((graph.initializer, kept), (graph.sparse_initializer, []), (graph.input, stated)):
        copied = [_copy(value) for value in values]  # what is deleted below must outlive the list it is in
        del field[:]
        field.extend(copied)
    return names


def _copy(message):
    made = type(message)()
    made.CopyFrom(message)
    return made


def infer_shapes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with shapes, and warnings about what was assumed.

    Nodes whose inputs are small constants or shapes become constants themselves, so that a shape they compute is known;
    branches whose condition is known take the place of their `If`. An operator that ONNX does not know is assumed to keep the
    shape of its first input, if it is none of onnxruntime's own.
    """
    warnings: list[str] = []
    model = functions_inlined(model)
    while True:
        model = shape_inference.infer_shapes(model, data_prop=True)
        shapes, types = tensors(model.graph)
        branching = any(node.op_type == "If" for node in model.graph.node)
        stuck = [node for node in model.graph.node if not all(known(shapes, name) for name in node.output if name)]
        if not stuck and not branching:
            return model, warnings
        folded, values = _fold(model, shapes)
        inlined = inline_branches(model, values, guess=not folded) if branching else None
        warnings += inlined or []
        if folded or inlined is not None:
            _forget(model.graph)
            continue
        if _state_loops(model.graph, stuck, shapes, types, values):
            continue
        foreign = [node for node in stuck if not onnx.defs.has(node.op_type, node.domain) or node.domain in OWN]
        foreign = [node for node in foreign if any(known(shapes, name) for name in node.input)]
        if not foreign:
            return model, warnings
        first = [(node, _ruled(node, shapes)) for node in foreign]
        node, shape = next((pair for pair in first if pair[1]), first[0])
        like = next(name for name in node.input if known(shapes, name))
        names = [name for name in node.output if name and not known(shapes, name)]
        if shape is None:
            warnings.append(f"the output shape of operator '{node.op_type}' ({node.name or node.output[0]}) is not known; assumed: that of its input")
        _state(model.graph, names, first_type(node, types), shape or shapes[like])


def _state_loops(graph: onnx.GraphProto, stuck: list[onnx.NodeProto], shapes: dict, types: dict[str, int], values: dict[str, np.ndarray]) -> bool:
    """Write down what loops answer, which ONNX does not infer: each state as large as it began, then what every round adds; whether there was any."""
    stated = False
    for node in stuck:
        if node.op_type != "Loop":
            continue
        body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
        states = node.input[2:]
        for place, name in enumerate(node.output):
            if not name or known(shapes, name):
                continue
            shape = None
            if place < len(states):
                shape, kind = shapes.get(states[place]), types.get(states[place], 0)
            elif node.input[0] in values:
                each = body.output[1 + place].type.tensor_type
                sizes = tuple(dim.dim_value for dim in each.shape.dim)
                shape, kind = ((int(values[node.input[0]].reshape(-1)[0]), *sizes) if each.HasField("shape") else None), each.elem_type
            if shape is not None and all(shape):
                _state(graph, [name], kind, shape)
                stated = True
    return stated


def _ruled(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape of the first result of an operator of onnxruntime's own, where there is a rule and it is whole."""
    shape = first_result(node, {name: shape for name, shape in shapes.items() if all(shape)})
    return shape if shape and all(size > 0 for size in shape) else None


def _forget(graph: onnx.GraphProto) -> None:
    """Drop inferred shapes that are not whole, so that they are inferred anew from what is now known."""
    whole = []
    for value in graph.value_info:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or (kind.HasField("shape") and all(dim.dim_value > 0 for dim in kind.shape.dim)):
            whole.append(_copy(value))
    del graph.value_info[:]
    graph.value_info.extend(whole)


def _state(graph: onnx.GraphProto, names: list[str], kind: int, shape: tuple[int, ...]) -> None:
    """Write down the shape of some tensors."""
    kept = [value for value in graph.value_info if value.name not in names]
    stated = {name: onnx.helper.make_tensor_value_info(name, kind, shape) for name in names}
    del graph.value_info[:]
    graph.value_info.extend([*kept, *stated.values()])
    for value in graph.output:
        if value.name in stated:
            value.CopyFrom(stated[value.name])


def _fold(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> tuple[bool, dict[str, np.ndarray]]:
    """Replace nodes that compute small constants by their values; whether there were any, and all small values."""
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
    return bool(found), values


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
