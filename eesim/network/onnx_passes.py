"""What a runtime does to an ONNX graph before it runs it, as far as that changes which layers there are to price.

A profile names the passes of its runtime (`graph_passes`); they are applied in that order when a model is read for it:

    zero-folding           a product with the scalar 0 is zero; activation, pooling and sums of zeros are zero; adding zero is nothing;
                           then what no output needs is dropped. A convolution of zeros is still run.
    common-subexpressions  a node with the same operator, attributes and inputs as an earlier one is that node

Found on NAS-Bench-201 exports on a Raspberry Pi 5: without the second, every network that holds two equal poolings is priced 17
to 70 % too dear under PyTorch Mobile and no other is, see `hwprofiles/FIDELITY.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout")
KEEPS_ZERO = ("Relu", "LeakyRelu", "PRelu", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "Identity")


def apply(model: onnx.ModelProto, passes: Sequence[str]) -> onnx.ModelProto:
    """The model after the named passes (`PASSES`); the given one is left as it is."""
    if not passes:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for name in passes:
        PASSES[name](changed)
    return changed


def merge_common(model: onnx.ModelProto) -> None:
    """Drop nodes that compute what an earlier one has computed. Weights are compared by name; the order of inputs counts."""
    renamed: dict[str, str] = {}
    seen: dict[tuple, onnx.NodeProto] = {}
    kept = []
    outputs = {output.name for output in model.graph.output}
    for node in model.graph.node:
        _rename(node, renamed)
        attributes = tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute))
        key = (node.domain, node.op_type, tuple(node.input), attributes, len(node.output))
        first = seen.get(key)
        if first is not None and node.op_type not in RANDOM and not outputs & set(node.output):
            renamed.update(zip(node.output, first.output, strict=True))
            continue
        seen.setdefault(key, node)
        kept.append(node)
    _replace(model, kept)


def fold_zeros(model: onnx.ModelProto) -> None:
    """Drop what is known to be zero, and what then is needed by nothing. Zeros that are still read become inputs of the graph."""
    nothing = {name for name, value in _scalars(model).items() if value == 0}
    shapes = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    outputs = {output.name for output in model.graph.output}
    zero: set[str] = set()
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        _rename(node, renamed)
        if not outputs & set(node.output):
            live = [name for name in node.input if name not in zero]
            if (node.op_type == "Mul" and nothing & set(node.input)) or (node.op_type in KEEPS_ZERO and not live):
                zero.update(node.output)
                continue
            if node.op_type in ("Add", "Sum") and len(live) < len(node.input):
                if not live:
                    zero.update(node.output)
                    continue
                if len(live) == 1:
                    renamed[node.output[0]] = live[0]
                    continue
        kept.append(node)
    needed, final = set(outputs), []
    for node in reversed(kept):
        if needed & set(node.output):
            final.append(node)
            needed.update(node.input)
    model.graph.input.extend(shapes[name] for name in sorted(zero & needed) if name in shapes)
    _replace(model, final[::-1])


PASSES: dict[str, Callable[[onnx.ModelProto], None]] = {"zero-folding": fold_zeros, "common-subexpressions": merge_common}


def _rename(node: onnx.NodeProto, renamed: dict[str, str]) -> None:
    if renamed.keys() & set(node.input):
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _replace(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _scalars(model: onnx.ModelProto) -> dict[str, float]:
    """Values of constants and initializers that hold one number."""
    found = {}
    tensors = [(tensor.name, tensor) for tensor in model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors.append((node.output[0], attribute.t))
                elif attribute.name == "value_float":
                    found[node.output[0]] = attribute.f
    for name, tensor in tensors:
        if sum(tensor.dims) <= len(tensor.dims) and not onnx.external_data_helper.uses_external_data(tensor):
            value = onnx.numpy_helper.to_array(tensor)
            if value.size == 1:
                found[name] = float(value.reshape(-1)[0])
    return found
