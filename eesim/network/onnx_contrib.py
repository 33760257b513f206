"""Operators of onnxruntime's own (`com.microsoft`), which models it optimised or quantised hold: the shapes of their results.

Most are an operator of ONNX with more inside; the shape is then that of the plain operator. In its blocked layout (`com.microsoft.nchwc`)
channels are padded to whole blocks, as it computes them. Attention is counted here too.
"""

from __future__ import annotations

from math import prod
from typing import Any

import onnx
from onnx import shape_inference

PLAIN = {
    **dict.fromkeys(("FusedConv", "NhwcConv", "NhwcFusedConv"), ("Conv", (0, 1))),
    "QLinearConv": ("Conv", (0, 3)),
    **dict.fromkeys(("FusedGemm", "GemmFastGelu"), ("Gemm", (0, 1))),
    "QGemm": ("Gemm", (0, 3)),
    **dict.fromkeys(("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), ("MatMul", (0, 1))),
    **dict.fromkeys(("BiasGelu", "BiasAdd"), ("Add", (0, 1))),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearWhere": ("Where", (0, 1, 4)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "NhwcMaxPool": ("MaxPool", (0,)),
}
"""Operator -> the operator of ONNX that it is but for activations, scales and layout, and where the operands of that stand."""

_LIKE_FIRST = {
    *("FastGelu", "QuickGelu", "Gelu", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization", "GroupNorm"),
    *("SkipGroupNorm", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "RotaryEmbedding", "MultiHeadAttention", "GroupQueryAttention"),
    *("QuantizeLinear", "DequantizeLinear", "BiasDropout", "BitmaskDropout", "BiasSoftmax"),
}
"""Operators whose result is as large as their first operand."""
Shape = tuple[int, ...]


OWN = ("com.microsoft", "com.microsoft.nchwc")
"""Domains of onnxruntime's own operators."""


def channels_last(node: onnx.NodeProto) -> bool:
    """Whether the images of a node have their channels last."""
    return node.op_type.startswith("Nhwc") or attributes(node).get("channels_last") == 1


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes by name."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def channels_first(shape: Shape) -> Shape:
    """The shape of an image that has its channels last, with the channels behind the batch."""
    return (shape[0], shape[-1], *shape[1:-1]) if len(shape) > 2 else shape


def _back(shape: Shape) -> Shape:
    return (shape[0], *shape[2:], shape[1]) if len(shape) > 2 else shape


def first_result(node: onnx.NodeProto, shapes: dict[str, Shape]) -> Shape | None:
    """The shape of the first result of an operator of onnxruntime's own; None where there is no rule or its operands do not fit."""
    given = attributes(node)
    operands = [shapes.get(name) for name in node.input]
    try:
        if node.domain == "com.microsoft.nchwc":
            return _blocked(node, operands, given)
        if node.op_type in PLAIN:
            operator, places = PLAIN[node.op_type]
            return _plain(node, operator, [operands[place] for place in places], given)
        if node.op_type == "QLinearConcat":
            return _infer("Concat", operands[2::3], {"axis": given["axis"]})
        if node.op_type == "QLinearReduceMean":
            return _infer("ReduceMean", operands[:1], {key: given[key] for key in ("axes", "keepdims") if key in given}, opset=13)
        if node.op_type == "MatMulNBits":
            return (*operands[0][:-1], given["N"])
        if node.op_type in ("Attention", "QAttention"):
            sizes = given.get("qkv_hidden_sizes") or [operands[1][1] // 3] * 3
            return (*operands[0][:2], sizes[2])
        if node.op_type == "MultiHeadAttention" and len(operands) > 2 and operands[2] and len(operands[2]) == 3:
            return (*operands[0][:2], operands[2][2])
        if node.op_type == "MultiHeadAttention" and len(operands[0]) == 5:  # heads, query, key and value in one
            return (*operands[0][:2], operands[0][2] * operands[0][4])
        if node.op_type == "GroupQueryAttention" and len(operands) > 1 and not operands[1]:  # query, key and value in one
            every = given["num_heads"] + 2 * given["kv_num_heads"]
            return (*operands[0][:2], operands[0][2] // every * given["num_heads"])
        if node.op_type == "EmbedLayerNormalization":
            return (*operands[0], operands[2][1])
        if node.op_type == "DynamicQuantizeLSTM":
            return (operands[0][0], operands[2][0], operands[0][1], operands[2][1])
    except (TypeError, IndexError, KeyError):  # operands that are missing, or whose shape is not known
        return None
    return operands[0] if node.op_type in _LIKE_FIRST else None


def first_type(node: onnx.NodeProto, types: dict[str, int]) -> int:
    """The element type of the first result of an operator that ONNX does not know: an integer one where it quantises, else that of its input."""
    found = [types.get(name, 0) for name in node.input]
    whole = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
    if node.op_type.startswith("QLinear") or (node.op_type == "QGemm" and len(found) > 8) or node.op_type == "QuantizeLinear":
        return next((kind for kind in reversed(found) if kind in whole), onnx.TensorProto.UINT8)
    if node.op_type in ("QGemm", "QAttention", "MatMulIntegerToFloat", "DequantizeLinear"):
        return next((kind for kind in found if kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)), onnx.TensorProto.FLOAT)
    if node.op_type == "EmbedLayerNormalization":
        return found[2]
    return next((kind for kind in found if kind), onnx.TensorProto.FLOAT)


def _blocked(node: onnx.NodeProto, operands: list[Shape], given: dict[str, Any]) -> Shape | None:
    if node.op_type == "ReorderInput":
        return channels_first(operands[0]) if channels_last(node) else operands[0]
    if node.op_type == "ReorderOutput":
        shape = (operands[0][0], given["channels"], *operands[0][2:])
        return _back(shape) if channels_last(node) else shape
    if node.op_type == "Upsample":
        return tuple(size * scale for size, scale in zip(operands[0], given["scales"], strict=True))
    return _plain(node, node.op_type, operands[: 2 if node.op_type == "Conv" else 1], given)


def _plain(node: onnx.NodeProto, operator: str, operands: list[Shape], given: dict[str, Any]) -> Shape | None:
    if channels_last(node):
        operands = [channels_first(operands[0]), *operands[1:]]
    if operator == "MatMul":
        operands = [_turned(shape) if given.get(side) else shape for shape, side in zip(operands, ("transA", "transB"))]
    known = onnx.defs.get_schema(operator).attributes
    found = _infer(operator, operands, {name: value for name, value in given.items() if name in known})
    return _back(found) if found and channels_last(node) else found


def _turned(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2])


def _infer(operator: str, operands: list[Shape], given: dict[str, Any], opset: int = 17) -> Shape | None:
    """The shape that ONNX infers for one operator over numbers of these shapes."""
    inputs = [onnx.helper.make_tensor_value_info(f"x{index}", onnx.TensorProto.FLOAT, shape) for index, shape in enumerate(operands)]
    node = onnx.helper.make_node(operator, [value.name for value in inputs], ["y"], **given)
    graph = onnx.helper.make_graph([node], "alone", inputs, [onnx.helper.make_empty_tensor_value_info("y")])
    inferred = shape_inference.infer_shapes(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)]))
    kind = inferred.graph.output[0].type.tensor_type
    return tuple(dim.dim_value for dim in kind.shape.dim) if kind.HasField("shape") else None


def attention_macs(node: onnx.NodeProto, shapes: list[Shape]) -> int:
    """Products of queries with keys and of weights with values, and of the input with its weights where they are inside.

    shapes : of all operands of the node in their places, () where one is left out. Keys of the past are counted where they are given.
    """
    given = attributes(node)
    query, key, value = [*shapes[:3], (), ()][:3]
    if node.domain == "com.microsoft" and node.op_type in ("Attention", "QAttention"):
        batch, steps, _ = query
        sizes = given.get("qkv_hidden_sizes") or [key[1] // 3] * 3
        return prod(query) * key[1] + batch * steps * steps * (sizes[0] + sizes[2])
    past = next((shape[2] for place in _PAST.get((node.domain, node.op_type), ()) if place < len(shapes) and len(shape := shapes[place]) == 4), 0)
    if len(query) == 5:  # [batch, steps, heads, 3, size]
        batch, steps, heads, _, size = query
        return batch * steps * steps * heads * size * 2
    if len(query) == 4:  # [batch, heads, steps, size]
        batch, heads, steps, size = query
        return batch * heads * steps * (key[2] + past) * (size + value[3])
    batch, steps, width = query
    if node.op_type == "GroupQueryAttention" and not key:
        width = width // (given["num_heads"] + 2 * given["kv_num_heads"]) * given["num_heads"]
        return batch * steps * (steps + past) * width * 2
    if len(key) == 4:  # [batch, heads, steps, size], of another sequence
        return batch * steps * key[2] * (width + key[1] * value[3])
    if len(key) == 5:  # [batch, steps, heads, 2, size]
        return batch * steps * key[1] * width * 2
    heads, groups = given.get("q_num_heads", given.get("num_heads", 1)), given.get("kv_num_heads", given.get("num_heads", 1))
    return batch * steps * (key[1] + past) * (width + value[2] // groups * heads)


_PAST = {("", "Attention"): (4,), ("com.microsoft", "MultiHeadAttention"): (6,), ("com.microsoft", "GroupQueryAttention"): (3,)}
"""Where the keys of the past stand, [batch, heads, steps, size]."""
