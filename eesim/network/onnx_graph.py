"""An ONNX graph as pricing needs it: what is constant, what passes numbers through, what is stored as weights."""

from __future__ import annotations

from math import prod
from pathlib import Path

import onnx

from eesim.network.layer import CONVOLUTIONS
from eesim.network.onnx_inline import captured
from eesim.network.onnx_shapes import infer_shapes, tensors
from eesim.network.topology import MATRIX_OPERANDS, WEIGHTED, Topology

WEIGHT_OPERANDS = {
    **{operator: (position, position + 1) for operator, position in CONVOLUTIONS.items()},
    "QLinearConv": (3, 8),
    "ConvInteger": (1,),
    "DeformConv": (1, 3),
    **dict.fromkeys(("Gemm", "FusedGemm", "GemmFastGelu"), (1, 2)),
    "QGemm": (3, 6),
    "DynamicQuantizeMatMul": (1, 4),
    "MatMulIntegerToFloat": (1, 6),
    "BatchNormalization": (1, 2, 3, 4),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), (1, 2)),
    "PRelu": (1,),
    "LSTM": (1, 2, 3, 7),
    **dict.fromkeys(("GRU", "RNN"), (1, 2, 3)),
    "DynamicQuantizeLSTM": (1, 2, 3, 7),
    "QAttention": (1, 2),
    "Gather": (0,),
}
"""Where the weights of an operator stand among its inputs."""

_FREE = {"Identity", "Dropout"}
_SIZES = {"Constant", "Shape", "Size"}
_QUANTISERS = {"QuantizeLinear", "DequantizeLinear"}
_CARRIERS = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Identity", "DequantizeLinear"}
"""Operators that hand a weight on in another form."""
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div"}
_NOT_WEIGHTS = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.STRING}
_ELEMENT_TYPES = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT4: "int8",
    onnx.TensorProto.UINT4: "uint8",
}
_INTEGER = {
    *("DequantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
    *("QAttention", "DynamicQuantizeLSTM", "MatMulNBits"),
}
"""Operators that read weights stored as integers."""
_DYNAMIC = ("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits")
_NO_BATCH = ("seq", "time", "step", "length", "frame", "token", "height", "width")
"""What a first size that is not fixed is called where it is no batch."""


class Graph(Topology):
    """Nodes in order, tensors by name. Graph inputs without values that are only read as weights count as constants."""

    nodes: list[onnx.NodeProto]

    def __init__(self, model: onnx.ModelProto, path: Path, weights: set[str]):
        """weights : names of all stored tensors, also of those that `lighten` has made inputs without values."""
        self.path = path
        inputs = [value for value in model.graph.input if value.type.HasField("tensor_type")]
        fixed = {value.name for value in inputs if all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)} - weights
        _one_sample(inputs, [*model.graph.output, *model.graph.value_info])
        self._open = {value.name: _spelled(value) for value in inputs if value.name not in fixed | weights and "?" in _spelled(value)}
        model, self.warnings = infer_shapes(model)
        graph = model.graph
        for node in graph.node:
            node.input.extend(name for name in captured(node) if name not in node.input)  # what a loop reads from outside it depends on
        self.shapes, self.types = tensors(graph)
        self.link(graph.node, [value.name for value in graph.output])
        self.initializers = weights | {tensor.name for tensor in graph.initializer}
        self.constant_nodes = {output for node in self.nodes if node.op_type == "Constant" for output in node.output}
        self.constants = self.initializers | {name for name in fixed if self._is_weight(name)}
        for node in self.nodes:
            if node.op_type in _SIZES or all(not tensor or tensor in self.constants for tensor in node.input):
                self.constants |= set(node.output)
        data = [value.name for value in graph.input if value.name not in self.constants]
        self.data_inputs = {name: self.shapes.get(name, ()) for name in data}
        self.name_nodes()
        self.data_type = self._data_type(data)
        self.fused_into = self.fusions()
        self.warn_of_batch()
        self._warn_of_shared()
        if any(node.domain == "com.microsoft.nchwc" for node in self.nodes):
            self.warnings.append("the model is laid out for one processor by onnxruntime; channels are counted as padded to its blocks")

    def _is_weight(self, tensor: str) -> bool:
        """A graph input that is only ever read as a weight (models that ship without values)."""
        readers = self.consumers.get(tensor, [])
        return bool(readers) and all(self._reads_weight(self.nodes[reader], tensor) for reader in readers)

    def _reads_weight(self, node: onnx.NodeProto, tensor: str) -> bool:
        if node.op_type in WEIGHT_OPERANDS:
            looked_up = node.op_type == "Gather" and node.input[1] in self.initializers | self.constant_nodes  # so it is data that is picked from
            return list(node.input).index(tensor) in WEIGHT_OPERANDS[node.op_type] and not looked_up
        if node.op_type in _CARRIERS and node.input[0] == tensor:
            return self._is_weight(node.output[0])
        computed = [other for other in node.input if other != tensor and other in self.producer]
        rank = len(self.shapes.get(tensor, ()))
        if node.op_type == "MatMul":
            return node.input[1] == tensor and rank == 2 and bool(computed or self.shapes[tensor][0] > 1) and node.input[0] not in self.initializers
        beside = max((len(self.shapes.get(other, ())) for other in computed), default=0)
        return node.op_type in _ELEMENTWISE and bool(computed) and (rank <= 1 or rank < beside)  # without a batch axis: alike for all samples

    def _data_type(self, data: list[str]) -> str:
        """That of the stored weights where they are quantised or half as wide, else that of the first input."""
        stored: dict[str, int] = {}
        for node in self.nodes:
            for tensor in node.input if node.op_type in _INTEGER else ():
                kind, size = _ELEMENT_TYPES.get(self.types.get(tensor, 0)), prod(self.shapes.get(tensor, ()))
                if tensor in self.constants and size > 1 and kind in ("int8", "uint8"):
                    stored[kind] = stored.get(kind, 0) + size
                    if self.types[tensor] in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
                        self.warnings.append(f"weights are stored in 4 bits; counted as {kind}")
        if stored:
            kind = max(stored, key=stored.__getitem__)
            if any(node.op_type in _DYNAMIC for node in self.nodes):
                self.warnings.append(
                    f"weights are {kind} but activations are quantised as they come or not at all; all numbers are counted as {kind}"
                )
            return kind
        for node in self.nodes:
            if node.op_type in WEIGHTED and self.data(node):
                kinds = {_ELEMENT_TYPES.get(self.types.get(tensor, 0)) for tensor in node.input if tensor in self.constants}
                if halves := kinds & {"fp16", "bf16"}:
                    return halves.pop()
        return _ELEMENT_TYPES.get(self.types.get(data[0], 0), "fp32") if data else "fp32"

    def _warn_of_shared(self) -> None:
        """Say so where weights that several layers read, and that are counted in each, are more than a hundredth of all."""
        readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for tensor in dict.fromkeys(node.input) if self.data(node) else ():
                while tensor in self.producer and tensor in self.constants and self.nodes[self.producer[tensor]].op_type in _CARRIERS:
                    tensor = self.nodes[self.producer[tensor]].input[0]
                if tensor in self.initializers and self.types.get(tensor) not in _NOT_WEIGHTS:
                    readers.setdefault(tensor, []).append(index)
        sizes = {tensor: prod(self.shapes.get(tensor, ())) for tensor in readers}
        again = sum((len(found) - 1) * sizes[tensor] for tensor, found in readers.items() if sizes[tensor] > 1)
        if again > 0.01 * sum(sizes.values()):
            most = max(readers, key=lambda tensor: (len(readers[tensor]) - 1) * sizes[tensor])
            self.warnings.append(
                f"some weights are read by several layers, as '{most}' by {len(readers[most])}; they are counted in each, {again} numbers too many"
            )

    def advice(self) -> str:
        """What to do about a size that is not fixed, for the end of a message; empty where all are."""
        if not self._open:
            return ""
        name, sizes = next(iter(self._open.items()))
        return f": '{name}' is {sizes}; export with fixed sizes, or fix them with python -m onnxruntime.tools.make_dynamic_shape_fixed"

    def biased(self, index: int) -> bool:
        """Whether a convolution or matrix product has a bias operand of its own."""
        node = self.nodes[index]
        places = WEIGHT_OPERANDS.get(node.op_type, ())[1:]
        return any(place < len(node.input) and node.input[place] for place in places)

    def free(self, index: int) -> bool:
        """Whether a node costs nothing of its own: constant, passed through, or executed inside another."""
        node = self.nodes[index]
        if index in self.fused_into or node.op_type in _FREE or not self.data(node) or all(name in self.constants for name in node.output):
            return True
        return node.op_type in _QUANTISERS and node.input[0] in self.producer and node.output[0] not in self.outputs

    def params(self, index: int) -> int:
        """Stored numbers of a node and of what is fused into it. Folded batch normalisation leaves one bias a channel."""
        node = self.nodes[index]
        total = self._own_params(node)
        biased = self.biased(index)
        for other in self.inside(index):
            inner = self.nodes[other]
            if inner.op_type == "BatchNormalization":
                total += 0 if biased else prod(self.shape(inner.input[1], inner))
            else:
                total += self._own_params(inner)
            biased |= inner.op_type in ("BatchNormalization", "Add")
        return total

    def _own_params(self, node: onnx.NodeProto) -> int:
        places = WEIGHT_OPERANDS.get(node.op_type) or MATRIX_OPERANDS.get(node.op_type)
        if places:
            found = [node.input[place] for place in places if place < len(node.input) and node.input[place] in self.constants]
        elif node.op_type in _FREE | _QUANTISERS | _CARRIERS | {"Resize", "Upsample", "Pad", "Expand", "Clip"}:
            found = []
        else:
            found = [name for name in node.input if name in self.constants and self.types.get(name) not in _NOT_WEIGHTS]
            found = [name for name in found if prod(self.shapes.get(name, ())) > 1]
        return sum(prod(self.shape(name, node)) for name in dict.fromkeys(found))


def _one_sample(inputs: list[onnx.ValueInfoProto], others: list[onnx.ValueInfoProto]) -> None:
    """Set the batch of all inputs to 1 where it is not fixed: the first size, unless it is named as something else, and what is named as a batch."""
    for value in (*inputs, *others):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:  # as some exporters say that it is not fixed
                dim.ClearField("dim_value")
    for value in inputs:
        lead, *rest = value.type.tensor_type.shape.dim or [None]
        left = [dim for dim in rest if not dim.HasField("dim_value")]
        if lead and lead.HasField("dim_value") and len(left) == 1 and left[0].dim_param.lower() in ("n", "b", "bs"):
            left[0].dim_value = 1  # steps come first here
    sizes = [(place, dim) for value in inputs for place, dim in enumerate(value.type.tensor_type.shape.dim) if not dim.HasField("dim_value")]
    first = {dim.dim_param for place, dim in sizes if place == 0 and not any(part in dim.dim_param.lower() for part in _NO_BATCH)}
    for place, dim in sizes:
        if (dim.dim_param in first and (dim.dim_param or place == 0)) or "batch" in dim.dim_param.lower():
            dim.dim_value = 1


def _spelled(value: onnx.ValueInfoProto) -> str:
    """The sizes of an input, those that are not fixed by their name and a question mark."""
    sizes = value.type.tensor_type.shape.dim
    return "x".join(str(dim.dim_value) if dim.HasField("dim_value") else f"{dim.dim_param}?" for dim in sizes)
