"""An ONNX graph as pricing needs it: order, shapes, who makes what, what is constant, what is fused into what."""

from __future__ import annotations

from math import prod
from pathlib import Path

import onnx

from eesim.errors import BadInput
from eesim.network.layer import CONVOLUTIONS
from eesim.network.onnx_shapes import infer_shapes, tensors

WEIGHT_OPERANDS = {
    **{operator: (position, position + 1) for operator, position in CONVOLUTIONS.items()},
    "QLinearConv": (3, 8),
    "ConvInteger": (1,),
    "Gemm": (1, 2),
    "BatchNormalization": (1, 2, 3, 4),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), (1, 2)),
    "PRelu": (1,),
    "LSTM": (1, 2, 3, 7),
    **dict.fromkeys(("GRU", "RNN"), (1, 2, 3)),
    "Gather": (0,),
}
"""Where the weights of an operator stand among its inputs."""
MATRIX_OPERANDS = {"MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3)}
"""Where the two factors of a matrix product stand among its inputs; either may be a weight."""

_FREE = {"Identity", "Dropout"}
_SIZES = {"Constant", "Shape", "Size"}
_QUANTISERS = {"QuantizeLinear", "DequantizeLinear"}
_ACTIVATIONS = {"Relu", "Clip", "HardSwish", "HardSigmoid", "LeakyRelu", "PRelu", "Sigmoid"}
_WEIGHTED = {*CONVOLUTIONS, *MATRIX_OPERANDS, "Gemm"}
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
}


class Graph:
    """Nodes in order, tensors by name. Graph inputs without values that are only read as weights count as constants."""

    def __init__(self, model: onnx.ModelProto, path: Path):
        self.path = path
        inputs = [value for value in model.graph.input if value.type.HasField("tensor_type")]
        fixed = {value.name for value in inputs if all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)}
        for value in inputs:
            for dim in value.type.tensor_type.shape.dim[:1]:
                if not dim.HasField("dim_value"):
                    dim.dim_value = 1
        model, self.warnings = infer_shapes(model)
        graph = model.graph
        self.nodes = list(graph.node)
        self.order = list(range(len(self.nodes)))
        self.shapes, self.types = tensors(graph)
        self.outputs_in_order = [value.name for value in graph.output]
        self.outputs = set(self.outputs_in_order)
        self.producer = {output: index for index, node in enumerate(self.nodes) for output in node.output if output}
        self.consumers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for tensor in node.input:
                self.consumers.setdefault(tensor, []).append(index)
        self.initializers = {tensor.name for tensor in graph.initializer}
        self.constant_nodes = {output for node in self.nodes if node.op_type == "Constant" for output in node.output}
        self.constants = self.initializers | {name for name in fixed if self._is_weight(name)}
        for node in self.nodes:
            inner = any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute)
            if node.op_type in _SIZES or (not inner and all(not tensor or tensor in self.constants for tensor in node.input)):
                self.constants |= set(node.output)
        data = [value.name for value in graph.input if value.name not in self.constants]
        self.data_inputs = {name: self.shapes.get(name, ()) for name in data}
        self._name_nodes()
        self.data_type = self._data_type(data)
        self.fused_into = self._fusions()
        batches = {shape[0] for name, shape in self.shapes.items() if name in (*data, *self.outputs) and len(shape) > 1}
        if len(batches) == 1 and (batch := batches.pop()) > 1:
            self.warnings.append(f"every input and output of '{path.name}' begins with {batch}; counts are for the whole batch of {batch}")

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

    def _name_nodes(self) -> None:
        """Give every node a name of its own that is no input's either."""
        used = set(self.data_inputs)
        for index, node in enumerate(self.nodes):
            name = node.name or f"{node.op_type.lower()}_{index}"
            while name in used:
                name = f"{name}_{index}"
            node.name = name
            used.add(name)

    def _data_type(self, data: list[str]) -> str:
        """That of the stored weights where the model is quantised, else that of its first input."""
        for node in self.nodes:
            if node.op_type in ("DequantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"):
                for tensor in node.input:
                    kind = _ELEMENT_TYPES.get(self.types.get(tensor, 0))
                    if tensor in self.constants and prod(self.shapes.get(tensor, ())) > 1 and kind in ("int8", "uint8"):
                        return kind
        return _ELEMENT_TYPES.get(self.types.get(data[0], 0), "fp32") if data else "fp32"

    def _fusions(self) -> dict[int, int]:
        """Node -> the node inside which every runtime executes it: activations, folded batch normalisation, biases."""
        fused: dict[int, int] = {}
        for index, node in enumerate(self.nodes):
            data = self.data(node)
            if len(data) != 1 or data[0] not in self.producer or data[0] in self.outputs or len(self.consumers[data[0]]) > 1:
                continue
            source = self.producer[data[0]]
            root = fused.get(source, source)
            first = self.nodes[root]
            weighted = first.op_type in _WEIGHTED and any(tensor in self.constants for tensor in first.input)
            if node.op_type in _ACTIVATIONS:
                fits = first.op_type in _WEIGHTED or first.op_type == "Add"
            elif node.op_type == "BatchNormalization":
                fits = weighted and (source == root or self.nodes[source].op_type == "Add")
            elif node.op_type == "Add":
                shape = self.shapes.get(data[0], ())
                channels = shape[1:2] if first.op_type in CONVOLUTIONS else shape[-1:]
                bias = next(tensor for tensor in node.input if tensor != data[0])
                fits = weighted and source == root and not self.biased(root) and (prod(self.shapes.get(bias, ())),) == channels
            else:
                fits = False
            if fits:
                fused[index] = root
        return fused

    def biased(self, index: int) -> bool:
        """Whether a convolution or matrix product has a bias operand of its own."""
        node = self.nodes[index]
        places = WEIGHT_OPERANDS.get(node.op_type, ())[1:]
        return any(place < len(node.input) and node.input[place] for place in places)

    def ancestors(self, tensor: str) -> set[int]:
        """Nodes that must run before `tensor` exists."""
        found: set[int] = set()
        waiting = [tensor]
        while waiting:
            node = self.producer.get(waiting.pop())
            if node is not None and node not in found:
                found.add(node)
                waiting += self.nodes[node].input
        return found

    def descendants(self, node: int) -> set[int]:
        """`node` and everything that depends on it."""
        found, waiting = {node}, [node]
        while waiting:
            for output in self.nodes[waiting.pop()].output:
                for consumer in self.consumers.get(output, []):
                    if consumer not in found:
                        found.add(consumer)
                        waiting.append(consumer)
        return found

    def data(self, node: onnx.NodeProto) -> list[str]:
        """Inputs of a node that are not constant."""
        return [tensor for tensor in node.input if tensor and tensor not in self.constants]

    def free(self, index: int) -> bool:
        """Whether a node costs nothing of its own: constant, passed through, or executed inside another."""
        node = self.nodes[index]
        if index in self.fused_into or node.op_type in _FREE or not self.data(node) or all(name in self.constants for name in node.output):
            return True
        return node.op_type in _QUANTISERS and node.input[0] in self.producer and node.output[0] not in self.outputs

    def source(self, tensor: str) -> str:
        """Name of the layer or network input whose result `tensor` is, looking through fused and free nodes."""
        node = self.producer.get(tensor)
        if node is None:
            return tensor
        data = self.data(self.nodes[node])
        return self.source(data[0]) if data and self.free(node) else self.nodes[node].name

    def shape(self, tensor: str, node: onnx.NodeProto) -> tuple[int, ...]:
        """Inferred shape. Raises BadInput where inference stopped or a dimension stays unknown."""
        shape = self.shapes.get(tensor)
        if shape is None or any(size <= 0 for size in shape):
            raise BadInput(f"the shape of tensor '{tensor}' cannot be inferred; fix the model's input sizes", file=self.path, field=node.name)
        return shape

    def results(self, index: int) -> list[str]:
        """Outputs of a node, or of the last one fused into it, that anything uses; at least one."""
        node = self.nodes[max((other for other, root in self.fused_into.items() if root == index), default=index)]
        named = [tensor for tensor in node.output if tensor]
        return [tensor for tensor in named if tensor in self.consumers or tensor in self.outputs] or named[:1]

    def params(self, index: int) -> int:
        """Stored numbers of a node and of what is fused into it. Folded batch normalisation leaves one bias a channel."""
        node = self.nodes[index]
        total = self._own_params(node)
        biased = self.biased(index)
        for other in sorted(other for other, root in self.fused_into.items() if root == index):
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
