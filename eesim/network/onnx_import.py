"""ONNX to Network: shapes by inference, layers by operator, segments and heads by which outputs use them.

Head `e` = the nodes that only output `e` uses. A node that several outputs use belongs to the segment of the first of
them. What only the last output uses is its segment up to `final_head`, the node where the final head begins.
Weights may be graph inputs without values. Activations and batch normalisation directly behind a convolution, a fully
connected layer or an addition are counted inside it, as every runtime executes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import onnx
from onnx import shape_inference

from eesim.errors import BadInput, unknown
from eesim.network.layer import OPERATOR_KINDS, Layer, convolution_kind
from eesim.network.network import Network

_NO_WORK = {"Constant", "Identity", "Dropout", "Shape", "ConstantOfShape"}
_FUSED = {"Relu", "Clip", "BatchNormalization", "HardSwish", "HardSigmoid", "LeakyRelu", "PRelu", "Sigmoid"}
_FUSES_INTO = {"Conv", "Gemm", "MatMul", "Add"}
_ELEMENT_TYPES = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "uint8"}
_WEIGHT_OPERANDS = {"Conv": 1, "Gemm": 1, "BatchNormalization": 1, "PRelu": 1, "LayerNormalization": 1, "LSTM": 1, "GRU": 1, "RNN": 1}


def import_onnx(path: str | Path, *, name: str | None = None, outputs: Sequence[str] | None = None, final_head: str | None = None) -> Network:
    """Read a multi-exit ONNX model (one output per exit, in the order of the graph or of `outputs`).

    final_head : name of the node where the final head begins; by default the last global pooling, else the last
        fully connected layer, of what only the final output uses.

    Raises BadInput when the file is not ONNX, a shape cannot be inferred, or an output or node is unknown.
    """
    path = Path(path)
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # onnx raises protobuf, checker and OS errors without a common base
        raise BadInput(f"not a readable ONNX model: {str(error).splitlines()[0]}", file=path) from None
    graph = _Graph(model, path)
    names = list(outputs) if outputs else [output.name for output in model.graph.output]
    for output in names:
        if output not in graph.producer:
            raise unknown("output", output, [value.name for value in model.graph.output], file=path)
    uses = [graph.ancestors(output) for output in names]
    last = len(names) - 1
    only_last = [node for node in graph.order if node in uses[last] and not any(node in use for use in uses[:last])]
    final = graph.descendants(_final_head(graph, only_last, final_head, path)) & set(only_last)

    segments: list[list[Layer]] = [[] for _ in names]
    heads: list[list[Layer]] = [[] for _ in names]
    for node in graph.order:
        users = [index for index, use in enumerate(uses) if node in use]
        layer = graph.layer(node) if users else None
        if layer is None:
            continue
        alone = len(users) == 1
        is_head = alone and (node in final if users[0] == last else True)
        (heads if is_head else segments)[users[0]].append(layer)
    for index, head in enumerate(heads):
        if not head:
            raise BadInput(f"output '{names[index]}' has no layer of its own, so it has no head", file=path)
    shape = graph.shapes.get(names[last], ())
    return Network(
        name or path.stem, graph.data_inputs, tuple(map(tuple, segments)), tuple(map(tuple, heads)), graph.data_type,
        shape[-1] if shape else None, path.name, tuple(graph.warnings),
    )  # fmt: skip


def _final_head(graph: _Graph, only_last: list[int], wanted: str | None, path: Path) -> int:
    names = {graph.nodes[node].name: node for node in only_last}
    if wanted is not None:
        if wanted not in names:
            raise unknown("node of the final head", wanted, names, file=path)
        return names[wanted]
    for operators in (("GlobalAveragePool", "GlobalMaxPool", "ReduceMean"), ("Gemm", "MatMul"), ("Conv",)):
        found = [node for node in only_last if graph.nodes[node].op_type in operators]
        if found:
            return found[-1]
    return only_last[-1]


class _Graph:
    """The parts of an ONNX graph that pricing needs: order, shapes, who makes what, what is fused into what."""

    def __init__(self, model: onnx.ModelProto, path: Path):
        self.path, self.warnings = path, []
        for value in model.graph.input:
            for index, dim in enumerate(value.type.tensor_type.shape.dim):
                if index == 0 and not dim.HasField("dim_value"):
                    dim.dim_value = 1
        model = shape_inference.infer_shapes(model, data_prop=True)
        graph = model.graph
        self.nodes = [node for node in graph.node]
        for index, node in enumerate(self.nodes):
            node.name = node.name or f"{node.op_type.lower()}_{index}"
        self.order = list(range(len(self.nodes)))
        self.shapes = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in [*graph.input, *graph.value_info, *graph.output]
            if value.type.HasField("tensor_type")
        }
        initial = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self.shapes |= initial
        self.producer = {output: index for index, node in enumerate(self.nodes) for output in node.output}
        self.consumers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for tensor in node.input:
                self.consumers.setdefault(tensor, []).append(index)
        constants = {output for node in self.nodes if node.op_type == "Constant" for output in node.output}
        self.weights = set(initial) | constants | {value.name for value in graph.input if self._is_weight(value.name)}
        data = [value for value in graph.input if value.name not in self.weights]
        self.data_inputs = {value.name: self.shapes[value.name] for value in data}
        self.data_type = _ELEMENT_TYPES.get(data[0].type.tensor_type.elem_type, "fp32") if data else "fp32"
        self.fused_into = self._fusions()

    def _is_weight(self, tensor: str) -> bool:
        """A graph input that is only ever read as a parameter operand (weightless models)."""
        positions = [
            list(self.nodes[node].input).index(tensor) >= _WEIGHT_OPERANDS.get(self.nodes[node].op_type, 99) for node in self.consumers.get(tensor, [])
        ]
        return bool(positions) and all(positions)

    def _fusions(self) -> dict[int, int]:
        fused: dict[int, int] = {}
        for index, node in enumerate(self.nodes):
            source = self.producer.get(node.input[0]) if node.input else None
            if node.op_type in _FUSED and source is not None and len(self.consumers[node.input[0]]) == 1:
                root = fused.get(source, source)
                if self.nodes[root].op_type in _FUSES_INTO:
                    fused[index] = root
        return fused

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

    def _source(self, tensor: str) -> str:
        """Name of the layer or network input whose result `tensor` is, looking through fused and free nodes."""
        node = self.producer.get(tensor)
        if node is None:
            return tensor
        if node in self.fused_into:
            return self.nodes[self.fused_into[node]].name
        if self.nodes[node].op_type in _NO_WORK and self.nodes[node].input:
            return self._source(self.nodes[node].input[0])
        return self.nodes[node].name

    def shape(self, tensor: str, node: onnx.NodeProto) -> tuple[int, ...]:
        """Inferred shape. Raises BadInput where inference stopped or a dimension stays unknown."""
        shape = self.shapes.get(tensor)
        if shape is None or any(size <= 0 for size in shape):
            raise BadInput(f"the shape of tensor '{tensor}' cannot be inferred; fix the model's input sizes", file=self.path, field=node.name)
        return shape

    def layer(self, index: int) -> Layer | None:
        """The layer of one node, or None for nodes that cost nothing of their own."""
        node = self.nodes[index]
        if node.op_type in _NO_WORK or index in self.fused_into:
            return None
        data = [tensor for tensor in node.input if tensor and tensor not in self.weights]
        weights = [tensor for tensor in node.input if tensor and tensor in self.weights]
        if not data:
            return None
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        in_shapes = [self.shape(tensor, node) for tensor in data]
        out_shape = self.shape(node.output[0], node)
        fused = [other for other, root in self.fused_into.items() if root == index]
        last = max(fused, default=index)
        out_shape = self.shape(self.nodes[last].output[0], node) if fused else out_shape
        kernel, stride, groups, macs, params = (), (), 1, 0, 0
        kind = OPERATOR_KINDS.get(node.op_type)
        if node.op_type in ("Conv", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization", "PRelu", "LSTM", "GRU", "RNN"):
            params = sum(prod(self.shape(tensor, node)) for tensor in weights)
        if node.op_type == "Conv":
            weight = self.shape(node.input[1], node)
            kernel, groups = tuple(weight[2:]), int(attributes.get("group", 1))
            stride = tuple(attributes.get("strides", [1] * len(kernel)))
            kind = convolution_kind(kernel, groups, in_shapes[0][1])
            macs = prod(out_shape) * prod(weight[1:])
        elif node.op_type == "Gemm":
            weight = self.shape(node.input[1], node)
            macs = prod(out_shape) * (weight[1] if attributes.get("transB") else weight[0])
        elif node.op_type == "MatMul":
            macs = prod(out_shape) * in_shapes[0][-1]
            kind = "fully_connected" if node.input[1] in self.weights else "matmul"
        elif kind == "pooling":
            kernel = tuple(attributes.get("kernel_shape", in_shapes[0][2:]))
            stride = tuple(attributes.get("strides", [1] * len(kernel)))
        elif kind == "recurrent":
            steps = in_shapes[0][0]
            macs = steps * sum(prod(self.shape(tensor, node)) for tensor in node.input[1:3])
        elif kind is None:
            kind = "elementwise"
            self.warnings.append(f"operator '{node.op_type}' ({node.name}) has no cost rule; assumed: one element-wise pass over its tensors")
        return Layer(
            node.name, node.op_type, kind, in_shapes[0], out_shape, macs, params, sum(map(prod, in_shapes)), prod(out_shape), kernel, stride, groups,
            tuple(dict.fromkeys(self._source(tensor) for tensor in data)), tuple(self.nodes[other].op_type for other in sorted(fused)),
        )  # fmt: skip
