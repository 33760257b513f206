"""A TensorFlow Lite model as a topology: operators under their ONNX names, shapes channels first, weights known as constants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import tflite

from eesim.errors import BadInput
from eesim.network.topology import Topology


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


_BUILTINS, _TYPES, _OPTIONS = _names(tflite.BuiltinOperator), _names(tflite.TensorType), _names(tflite.BuiltinOptions)

_SPELLED = {
    "CONV_2D": "Conv", "DEPTHWISE_CONV_2D": "Conv", "CONV_3D": "Conv", "TRANSPOSE_CONV": "ConvTranspose", "CONV_3D_TRANSPOSE": "ConvTranspose",
    "FULLY_CONNECTED": "Gemm", "BATCH_MATMUL": "MatMul",
    "AVERAGE_POOL_2D": "AveragePool", "MAX_POOL_2D": "MaxPool", "L2_POOL_2D": "LpPool",
    "MEAN": "ReduceMean", "SUM": "ReduceSum", "REDUCE_PROD": "ReduceProd", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin",
    "REDUCE_ANY": "ReduceMax", "REDUCE_ALL": "ReduceMin",
    "ADD_N": "Sum", "MAXIMUM": "Max", "MINIMUM": "Min", "LOGISTIC": "Sigmoid", "RELU6": "Clip", "RELU_N1_TO_1": "Clip", "RELU_0_TO_1": "Clip",
    "SELECT": "Where", "SELECT_V2": "Where", "NOT_EQUAL": "Equal", "LOGICAL_AND": "And", "LOGICAL_OR": "Or", "LOGICAL_NOT": "Not",
    "GREATER_EQUAL": "GreaterOrEqual", "LESS_EQUAL": "LessOrEqual", "FLOOR_MOD": "Mod", "FLOOR_DIV": "Div", "SQUARE": "Mul", "RSQRT": "Sqrt",
    "SQUARED_DIFFERENCE": "Sub", "QUANTIZE": "QuantizeLinear", "DEQUANTIZE": "DequantizeLinear", "FAKE_QUANT": "QuantizeLinear",
    "L2_NORMALIZATION": "LpNormalization", "LOCAL_RESPONSE_NORMALIZATION": "LRN",
    "CONCATENATION": "Concat", "PACK": "Concat", "UNPACK": "Split", "SPLIT_V": "Split", "STRIDED_SLICE": "Slice", "EXPAND_DIMS": "Unsqueeze",
    "PADV2": "Pad", "MIRROR_PAD": "Pad", "BROADCAST_TO": "Expand", "FILL": "Expand", "RESIZE_BILINEAR": "Resize",
    "RESIZE_NEAREST_NEIGHBOR": "Resize", "SPACE_TO_BATCH_ND": "SpaceToDepth", "BATCH_TO_SPACE_ND": "DepthToSpace", "EMBEDDING_LOOKUP": "Gather",
    "GATHER_ND": "GatherND", "REVERSE_V2": "Slice", "DYNAMIC_UPDATE_SLICE": "Concat", "ONE_HOT": "OneHot", "CUMSUM": "CumSum", "TOPK_V2": "TopK",
    "PRELU": "PRelu", "LSTM": "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM": "LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM": "LSTM", "RNN": "RNN",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "RNN", "BIDIRECTIONAL_SEQUENCE_RNN": "RNN", "SVDF": "SVDF",
}  # fmt: skip
"""ONNX names of operators that ONNX spells otherwise; the rest become CamelCase."""

ACTIVATIONS = {"RELU": "Relu", "RELU6": "Clip", "RELU_N1_TO_1": "Clip", "TANH": "Tanh", "SIGN_BIT": "Sign"}
"""Activations that an operator has inside, under the ONNX name of a layer of their own."""
_FUSED = _names(tflite.ActivationFunctionType)

_CHANNELS_FIRST = {4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}
_NO_IMAGE = {"BATCH_MATMUL", "TRANSPOSE"}
"""Operators around which tensors of four sizes are no images (attention of several heads)."""
_LAYOUT_ENDS = {*_NO_IMAGE, "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "PACK", "UNPACK", "GATHER", "FULLY_CONNECTED", "SHAPE"}


@dataclass
class Operator:
    """An operator; `options` are its attributes as the `tflite` package reads them, or None."""

    op_type: str
    builtin: str
    name: str
    input: list[str]
    output: list[str]
    options: Any

    @property
    def activation(self) -> str | None:
        """ONNX name of the activation inside, if there is one."""
        read = getattr(self.options, "FusedActivationFunction", None)
        return ACTIVATIONS.get(_FUSED.get(read(), "")) if read else None


class TfliteGraph(Topology):
    """The main subgraph of a TensorFlow Lite model. `stored_shapes` are those of the file, channels last."""

    nodes: list[Operator]

    def __init__(self, model: tflite.Model, path: Path):
        self.path, self.warnings = path, []
        size = len(model._tab.Bytes)  # no list can be longer than its file; a damaged one may say so
        if not _counted(model.SubgraphsLength(), size):
            raise ValueError("it holds no graph")
        graph = model.Subgraphs(0)
        tensors = [graph.Tensors(index) for index in range(_counted(graph.TensorsLength(), size))]
        names = _unique([(tensor.Name() or b"").decode(errors="replace") for tensor in tensors])
        self.stored_shapes = {name: _shape(tensor) for name, tensor in zip(names, tensors, strict=True)}
        self.types = {name: _TYPES.get(tensor.Type(), "") for name, tensor in zip(names, tensors, strict=True)}
        self._signatures = {name: _signature(tensor) for name, tensor in zip(names, tensors, strict=True)}
        self.unranked = {
            name for name, tensor in zip(names, tensors, strict=True) if not self.stored_shapes[name] and not tensor.HasRank()
        }  # in old files also scalars
        self.states = {name for name, tensor in zip(names, tensors, strict=True) if tensor.IsVariable()}
        buffers = [_filled(model.Buffers(index)) for index in range(_counted(model.BuffersLength(), size))]
        self.constants = {name for name, tensor in zip(names, tensors, strict=True) if buffers[tensor.Buffer()]} | self.states
        self.sparse = {name for name, tensor in zip(names, tensors, strict=True) if tensor.Sparsity() is not None}

        def picked(indices: Iterator[int]) -> list[str]:
            return ["" if index < 0 else names[index] for index in indices]

        inputs = picked(graph.Inputs(index) for index in range(_counted(graph.InputsLength(), size)))
        operators = (graph.Operators(index) for index in range(_counted(graph.OperatorsLength(), size)))
        nodes = []
        for index, operator in enumerate(operators):
            builtin, custom = _code(model, operator.OpcodeIndex())
            op_type = custom or _SPELLED.get(builtin) or "".join(part.capitalize() for part in builtin.split("_"))
            read = picked(operator.Inputs(place) for place in range(_counted(operator.InputsLength(), size)))
            made = picked(operator.Outputs(place) for place in range(_counted(operator.OutputsLength(), size)))
            nodes.append(Operator(op_type, builtin, f"{index:02d}_{op_type.lower()}", read, made, _options(operator)))
        self.link(nodes, picked(graph.Outputs(index) for index in range(_counted(graph.OutputsLength(), size))))
        for node in self.nodes:
            if node.builtin in ("SHAPE", "RANK") or (node.input and all(not name or name in self.constants for name in node.input)):
                self.constants |= set(node.output)
        self._spell_global_pools()
        self.shapes = self._channels_first()
        self.data_inputs = {name: self.shapes[name] for name in inputs if name not in self.constants}
        self.name_nodes()
        self._check_sizes()
        self.data_type = self._data_type()
        self.fused_into = self.fusions()
        self.warn_of_batch()

    def biased(self, index: int) -> bool:
        """Whether a convolution or fully connected layer has a bias operand of its own."""
        node = self.nodes[index]
        place = 3 if node.op_type == "ConvTranspose" else 2
        return node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > place and bool(node.input[place])

    def _spell_global_pools(self) -> None:
        for node in self.nodes:
            if node.op_type in ("AveragePool", "MaxPool") and node.options and self.stored_shapes[node.output[0]][1:3] == (1, 1):
                kernel = node.options.FilterHeight(), node.options.FilterWidth()
                if kernel == self.stored_shapes[node.input[0]][1:3]:
                    node.op_type = f"Global{node.op_type}"

    def _channels_first(self) -> dict[str, tuple[int, ...]]:
        """Shapes with the channels behind the batch: of what has four or five sizes, but for weights and what matrix products read or make."""
        fixed, waiting = set(), [tensor for node in self.nodes if node.builtin in _NO_IMAGE for tensor in (*node.input, *node.output)]
        while waiting:
            tensor = waiting.pop()
            if tensor in fixed or tensor in self.constants:
                continue
            fixed.add(tensor)
            around = [*self.consumers.get(tensor, []), *([self.producer[tensor]] if tensor in self.producer else [])]
            for node in around:
                if self.nodes[node].builtin not in _LAYOUT_ENDS and not self.nodes[node].op_type.startswith(("Conv", "Global", "MaxPool", "Av")):
                    waiting += [*self.nodes[node].input, *self.nodes[node].output]
        kept = fixed | self.constants
        return {
            name: tuple(shape[place] for place in _CHANNELS_FIRST[len(shape)]) if len(shape) in _CHANNELS_FIRST and name not in kept else shape
            for name, shape in self.stored_shapes.items()
        }

    def _check_sizes(self) -> None:
        """Raise BadInput where a size other than the batch is not fixed, or depends on a batch that the file does not fix."""
        for name in self.data_inputs:
            if any(size < 0 for size in self._signatures[name][1:]):
                sizes = "x".join("?" if size < 0 else str(size) for size in self._signatures[name])
                raise BadInput(f"the sizes of input '{name}' are not fixed ({sizes}); convert the model again with fixed ones", file=self.path)
        for node in self.nodes:
            data = self.data(node)
            for name in (*data, *(node.output if data else ())):
                if name and any(size < 0 for size in self._signatures[name][1:]):
                    raise BadInput(
                        f"the shape of tensor '{name}' depends on what is computed; convert the model again with a fixed batch and fixed input sizes",
                        file=self.path, field=node.name,
                    )  # fmt: skip
            if node.builtin == "RESHAPE" and data and node.output[0] not in self.unranked:
                before, after = (prod(self.stored_shapes[name]) for name in (data[0], node.output[0]))
                if before != after:
                    raise BadInput(
                        f"{before} numbers are reshaped to {after}, as in a model whose batch is not fixed; convert it again with a batch of 1",
                        file=self.path, field=node.name,
                    )  # fmt: skip

    def _data_type(self) -> str:
        """That of the stored weights where they are quantised, else that of the first input; a warning where the two do not fit together."""
        kinds = {"FLOAT32": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "INT8": "int8", "UINT8": "uint8", "INT16": "int16", "INT4": "int8"}
        for node in self.nodes:
            data = self.data(node)
            weights = [name for name in node.input if name in self.constants and len(self.stored_shapes.get(name, ())) > 1]
            weights = [name for name in weights if self.types[name] in ("INT8", "UINT8", "INT4")]
            if not data or not weights or node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "RNN", "SVDF", "Gather"):
                continue
            found, moved = self.types[weights[0]], self.types[data[0]]
            if found == "INT4":
                self.warnings.append("the weights are stored as int4; counted as int8")
            if moved in ("FLOAT32", "INT16") and node.op_type != "Gather":
                self.warnings.append(f"weights are {kinds[found]} but activations {kinds[moved]}; all numbers are counted as {kinds[found]}")
            return kinds[found]
        return next((kinds.get(self.types[name], "fp32") for name in self.data_inputs), "fp32")


def _counted(length: int, limit: int) -> int:
    if not 0 <= length <= limit:
        raise ValueError("a list is longer than the file")
    return length


def _unique(names: list[str]) -> list[str]:
    """The names, with a number where one is empty or was seen before."""
    used: set[str] = set()
    found = []
    for index, name in enumerate(names):
        found.append(name if name and name not in used else f"{name or 'tensor'}#{index}")
        used.add(found[-1])
    return found


def _shape(tensor: tflite.Tensor) -> tuple[int, ...]:
    return () if tensor.ShapeIsNone() else tuple(int(size) for size in tensor.ShapeAsNumpy())


def _signature(tensor: tflite.Tensor) -> tuple[int, ...]:
    """Sizes with -1 where they are not fixed, as far as the file says so."""
    return () if tensor.ShapeSignatureIsNone() else tuple(int(size) for size in tensor.ShapeSignatureAsNumpy())


def _filled(buffer: tflite.Buffer) -> bool:
    """Whether a buffer holds values, in the file or behind it (above 2 GB). Raises ValueError where the file ends within them."""
    return (not buffer.DataIsNone() and len(buffer.DataAsNumpy()) > 0) or buffer.Offset() > 1


def _code(model: tflite.Model, index: int) -> tuple[str, str]:
    """Name of a built-in operator, and that of a custom one."""
    code = model.OperatorCodes(index)
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the old field ends at 127
    builtin = _BUILTINS.get(number, f"BUILTIN_{number}")
    return builtin, (code.CustomCode() or b"custom").decode(errors="replace") if builtin == "CUSTOM" else ""


def _options(operator: tflite.Operator) -> Any:
    table, kind = operator.BuiltinOptions(), _OPTIONS.get(operator.BuiltinOptionsType(), "NONE")
    if table is None or kind == "NONE":
        return None
    options = getattr(tflite, kind)()
    options.Init(table.Bytes, table.Pos)
    return options
