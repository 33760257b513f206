"""A graph of nodes and tensors as pricing needs it, whatever file it was read from: who makes what, what is constant, what is fused into what.

Operators bear ONNX names, shapes are channels first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Protocol

from eesim.errors import BadInput
from eesim.network.layer import CONVOLUTIONS

GEMMS = {"Gemm": 1, "FusedGemm": 1, "GemmFastGelu": 1, "QGemm": 3}
"""Fully connected layers (ONNX names) and where their weights stand among their inputs."""
MATRIX_OPERANDS = {
    **dict.fromkeys(("MatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "FusedMatMul", "TransposeMatMul"), (0, 1)),
    **dict.fromkeys(("FusedMatMulActivation", "MatMulNBits"), (0, 1)),
    "QLinearMatMul": (0, 3),
}
"""Where the two factors of a matrix product stand among its inputs; either may be a weight."""

WEIGHTED = {*CONVOLUTIONS, *MATRIX_OPERANDS, *GEMMS}
ACTIVATIONS = {"Relu", "Clip", "HardSwish", "HardSigmoid", "LeakyRelu", "PRelu", "Sigmoid"}


class Node(Protocol):
    """What is read of a node: an `onnx.NodeProto` has it too. A tensor that is left out is an empty name."""

    op_type: str
    name: str
    input: Sequence[str]
    output: Sequence[str]


class Topology:
    """Nodes in order of execution, tensors by name. Readers fill in the tables, `link` the nodes, and add what is special to their kind of file."""

    path: Path
    nodes: list[Node]
    order: list[int]
    shapes: dict[str, tuple[int, ...]]
    outputs_in_order: list[str]
    outputs: set[str]
    constants: set[str]
    data_inputs: dict[str, tuple[int, ...]]
    data_type: str
    warnings: list[str]
    fused_into: dict[int, int]

    def link(self, nodes: Iterable[Node], outputs: Sequence[str]) -> None:
        """Take over the nodes and the names of the outputs, and note who makes and who reads each tensor."""
        self.nodes = list(nodes)
        self.order = list(range(len(self.nodes)))
        self.outputs_in_order, self.outputs = list(outputs), set(outputs)
        self.producer = {output: index for index, node in enumerate(self.nodes) for output in node.output if output}
        self.consumers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for tensor in node.input:
                self.consumers.setdefault(tensor, []).append(index)

    def name_nodes(self) -> None:
        """Give every node a name of its own that is no input's either."""
        used = set(self.data_inputs)
        for index, node in enumerate(self.nodes):
            name = node.name or f"{node.op_type.lower()}_{index}"
            while name in used:
                name = f"{name}_{index}"
            node.name = name
            used.add(name)

    def warn_of_batch(self) -> None:
        """Say so where everything is counted for more than one sample."""
        names = (*self.data_inputs, *self.outputs)
        batches = {self.shapes[name][0] for name in names if len(self.shapes.get(name, ())) > 1}
        if len(batches) == 1 and (batch := batches.pop()) > 1:
            self.warnings.append(f"every input and output of '{self.path.name}' begins with {batch}; counts are for the whole batch of {batch}")

    def fusions(self) -> dict[int, int]:
        """Node -> the node inside which every runtime executes it: activations, folded batch normalisation, biases."""
        fused: dict[int, int] = {}
        for index, node in enumerate(self.nodes):
            data = self.data(node)
            if len(data) != 1 or data[0] not in self.producer or data[0] in self.outputs or len(self.consumers[data[0]]) > 1:
                continue
            source = self.producer[data[0]]
            root = fused.get(source, source)
            first = self.nodes[root]
            weighted = first.op_type in WEIGHTED and any(tensor in self.constants for tensor in first.input)
            if node.op_type in ACTIVATIONS:
                fits = first.op_type in WEIGHTED or first.op_type == "Add"
            elif node.op_type == "BatchNormalization":
                fits = weighted and (source == root or self.nodes[source].op_type == "Add")
            elif node.op_type == "Add":
                shape = self.shapes.get(data[0], ())
                channels = shape[1:2] if first.op_type in CONVOLUTIONS else shape[-1:]
                bias = next((tensor for tensor in node.input if tensor != data[0]), "")
                fits = weighted and source == root and not self.biased(root) and (prod(self.shapes.get(bias, ())),) == channels
            else:
                fits = False
            if fits:
                fused[index] = root
        return fused

    def biased(self, index: int) -> bool:
        """Whether a convolution or matrix product has a bias operand of its own."""
        raise NotImplementedError

    def inside(self, index: int) -> list[int]:
        """The nodes that are executed inside one, in order."""
        return sorted(other for other, root in self.fused_into.items() if root == index)

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

    def data(self, node: Node) -> list[str]:
        """Inputs of a node that are not constant."""
        return [tensor for tensor in node.input if tensor and tensor not in self.constants]

    def free(self, index: int) -> bool:
        """Whether a node costs nothing of its own: constant, or executed inside another."""
        node = self.nodes[index]
        return index in self.fused_into or not self.data(node) or all(name in self.constants for name in node.output)

    def source(self, tensor: str) -> str:
        """Name of the layer or network input whose result `tensor` is, looking through fused and free nodes."""
        while (node := self.producer.get(tensor)) is not None:
            data = self.data(self.nodes[node])
            if not data or not self.free(node):
                return self.nodes[node].name
            tensor = data[0]
        return tensor

    def shape(self, tensor: str, node: Node) -> tuple[int, ...]:
        """The shape of a tensor. Raises BadInput where it or one of its sizes is not known."""
        shape = self.shapes.get(tensor)
        if shape is None or any(size <= 0 for size in shape):
            raise BadInput(
                f"the shape of tensor '{tensor}' cannot be inferred; fix the model's input sizes{self.advice()}", file=self.path, field=node.name
            )
        return shape

    def advice(self) -> str:
        """What to do about sizes that are not known, appended to the error that says so."""
        return ""

    def results(self, index: int) -> list[str]:
        """Outputs of a node, or of the last one fused into it, that anything uses; at least one."""
        node = self.nodes[max(self.inside(index), default=index)]
        named = [tensor for tensor in node.output if tensor]
        return [tensor for tensor in named if tensor in self.consumers or tensor in self.outputs] or named[:1]
