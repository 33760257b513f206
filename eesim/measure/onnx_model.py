"""ONNX models made ready to run here: batch 1, every node named, random weights where the model ships without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from eesim.errors import BadInput
from eesim.network.onnx_graph import WEIGHT_OPERANDS, Graph
from eesim.network.onnx_import import read_exits
from eesim.network.onnx_shapes import infer_shapes, tensors

DEVICES = ("cpu", "cuda")
_NORMALISATIONS = ("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model that can run. `graph` and `parts` are those of the import: whose each of its nodes is, (exit, whether of the head).

    model: shapes inferred, batch 1, nodes named as the imported layers are; outputs: the exits in order; random: how many weights
    were drawn because the file has none.
    """

    path: Path
    model: onnx.ModelProto
    graph: Graph
    outputs: list[str]
    parts: dict[int, tuple[int, bool]]
    random: int

    @property
    def exits(self) -> int:
        """Number of exits."""
        return len(self.outputs)

    @property
    def inputs(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape, with the batch of 1, and type of each input."""
        kinds = {value.name: value.type.tensor_type.elem_type for value in self.model.graph.input}
        return {name: (shape, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kinds[name]))) for name, shape in self.graph.data_inputs.items()}

    def example(self, seed: int = 0) -> dict[str, np.ndarray]:
        """One made-up sample: normal numbers, or zeros and ones where the model wants whole ones."""
        rng = np.random.default_rng(seed)
        return {
            name: (rng.standard_normal(shape) if kind.kind == "f" else rng.integers(0, 2, shape)).astype(kind)
            for name, (shape, kind) in self.inputs.items()
        }


def prepare(path: str | Path, *, outputs: Sequence[str] | None = None, final_head: str | None = None, seed: int = 0) -> Prepared:
    """Read an ONNX model for running. outputs, final_head: as `eesim.network.onnx_import.import_onnx` takes them.

    Weights that are graph inputs without values are drawn from `seed`. Raises BadInput where the import would, where weights stored
    beside the model are missing, and where an input's size is not fixed.
    """
    path = Path(path)
    graph, names, parts = read_exits(path, outputs, final_head)
    for name, shape in graph.data_inputs.items():
        if not shape or not all(shape):
            raise BadInput(f"the size of this input is not fixed ({list(shape)}); only the batch may be open", file=path, field=name)
    try:
        model = onnx.load(str(path))
    except Exception as error:  # onnx raises OS, protobuf and checker errors without a common base
        raise BadInput(f"its weights cannot be read: {(str(error).splitlines() or [''])[0]}", file=path) from None
    drawn = _draw_weights(model, graph, np.random.default_rng(seed))
    kept = [value for value in model.graph.input if value.name in graph.data_inputs]
    for value in kept:
        for dim, size in zip(value.type.tensor_type.shape.dim, graph.data_inputs[value.name], strict=True):
            dim.dim_value = size
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for value in model.graph.output:  # an open batch there would contradict the fixed one
        shape = graph.shapes.get(value.name, ())
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=False):
            if size > 0:
                dim.dim_value = size
    del model.graph.value_info[:]
    model, _ = infer_shapes(model)
    named = {output: node.name for node in graph.nodes for output in node.output if output}
    for index, node in enumerate(model.graph.node):
        node.name = next((named[output] for output in node.output if output in named), node.name or f"{node.op_type.lower()}_constant_{index}")
    return Prepared(path, model, graph, names, parts, drawn)


def _draw_weights(model: onnx.ModelProto, graph: Graph, rng: np.random.Generator) -> int:
    """Give values to weights that have none, such that activations neither vanish nor explode: slow denormal numbers would be
    measured. Returns how many numbers were drawn."""
    stored, total = {tensor.name for tensor in model.graph.initializer}, 0
    readers = {name: (node, place) for node in reversed(model.graph.node) for place, name in enumerate(node.input)}
    for value in model.graph.input:
        if value.name in stored or value.name in graph.data_inputs or value.name not in readers:
            continue
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        node, place = readers[value.name]
        if kind.kind != "f":
            values = rng.integers(-1, 2, shape)
        elif node.op_type in _NORMALISATIONS and place in (WEIGHT_OPERANDS[node.op_type][0], 4):  # scale, variance
            values = np.ones(shape)
        elif len(shape) > 1:
            values = rng.standard_normal(shape) * np.sqrt(2 / (prod(shape[1:]) if len(shape) > 2 else max(shape)))
        else:
            values = 0.01 * rng.standard_normal(shape)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values).astype(kind), value.name))
        total += prod(shape)
    return total


def runtime() -> Any:
    """The module onnxruntime. Raises BadInput where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise BadInput("measuring ONNX models needs onnxruntime; install it with pip install 'eesim[record]'") from None
    return onnxruntime


def session(model: onnx.ModelProto | Path, *, threads: int = 1, device: str = "cpu", file: object = None, **settings: Any) -> Any:
    """An onnxruntime session. settings: attributes of its SessionOptions; names with a dot in them are config entries.

    Raises BadInput where onnxruntime or the device is not to be had, or the model cannot be run.
    """
    ort = runtime()
    providers = ["CPUExecutionProvider"]
    if device == "cuda":
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise BadInput("this onnxruntime has no CUDA; install onnxruntime-gpu, or measure with --device cpu", field="device")
        providers.insert(0, "CUDAExecutionProvider")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    for name, value in settings.items():
        if "." in name:
            options.add_session_config_entry(name, str(value))
        else:
            setattr(options, name, value)
    try:
        made = ort.InferenceSession(str(model) if isinstance(model, Path) else model.SerializeToString(), options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common base
        raise BadInput(f"onnxruntime cannot run this model: {' '.join(str(error).split())[:300]}", file=file) from None
    if device == "cuda" and "CUDAExecutionProvider" not in made.get_providers():
        raise BadInput("onnxruntime could not use CUDA on this machine; measure with --device cpu", field="device")
    return made


def part_of(prepared: Prepared, wanted: tuple[int, bool], made: dict[str, tuple[int, bool]], name: str) -> onnx.ModelProto | None:
    """One segment or head as a model of its own; None where it has no node.

    wanted: (exit, whether the head); made: whose each tensor is (of `tensor_owners`). Its inputs are what it reads of other parts and
    of the network's inputs; its outputs what others read of it, and its exit.
    """
    graph = prepared.model.graph
    producer = {output: node for node in graph.node for output in node.output if output}
    chosen = {output for output, place in made.items() if place == wanted and output in producer}
    if not chosen:
        return None
    waiting, inner, reads = [producer[output] for output in chosen], {}, {}
    while waiting:
        node = waiting.pop()
        if id(node) in inner:
            continue
        inner[id(node)] = node
        for tensor in filter(None, node.input):
            if tensor in chosen:
                continue
            if tensor in prepared.graph.data_inputs or tensor in made:
                reads[tensor] = None
            elif tensor in producer:  # depends on weights alone: every part that needs it computes it
                waiting.append(producer[tensor])
    nodes = [node for node in graph.node if id(node) in inner]
    others = {tensor for node in graph.node if id(node) not in inner for tensor in node.input}
    writes = [output for node in nodes for output in node.output if output in chosen and (output in others or output in prepared.outputs)]
    shapes, types = tensors(graph)
    used = {tensor for node in nodes for tensor in node.input}
    declare = lambda names: [onnx.helper.make_tensor_value_info(tensor, types[tensor], shapes[tensor]) for tensor in names]  # noqa: E731
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    order = sorted(reads, key=lambda tensor: (tensor not in prepared.graph.data_inputs, tensor))
    body = onnx.helper.make_graph(nodes, name, declare(order), declare(writes), weights)
    return onnx.helper.make_model(
        body, opset_imports=prepared.model.opset_import, ir_version=prepared.model.ir_version, functions=prepared.model.functions
    )


def tensor_owners(prepared: Prepared) -> dict[str, tuple[int, bool]]:
    """Whose each computed tensor is: (exit, whether of the head). Those that depend on nothing but weights are nobody's."""
    graph = prepared.graph
    owners = {}
    for index, place in prepared.parts.items():
        for output in graph.nodes[index].output:
            if output and output not in graph.constants:
                owners[output] = place
    return owners
