"""Times of layers from the node profile of ONNX Runtime: whose every executed node is, and what profiling itself adds.

ONNX Runtime rewrites a model before it runs it: it fuses nodes, replaces them by others, renames them, and inserts conversions
of layout. What it really executes is written out as an optimised model; its nodes are led back to imported layers by the tensor
they answer, else by their names. A layer that is executed inside another's node (an addition inside a convolution) has no time
of its own: it is 0 and the other is named. Layers with MACs share such a node in proportion to their MACs.

A profiled node is slowed down by the profile, which collects sizes and memory statistics of it. That is measured on a chain of
nodes that do almost nothing, with and without the profile, and taken off; then all layers are scaled so that with the cost
of a call they sum to the time of the whole network without a profile (`settle`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from eesim.measure.onnx_model import Prepared, session
from eesim.measure.timing import Repeats, statistics, summary, timed
from eesim.measure.yardstick import yardstick
from eesim.network.onnx_graph import Graph

EVENTS = 150_000
"""As many node events at most are recorded; the profile is text and grows by about a kilobyte an event."""
CHAIN = 100
"""Nodes of the chain on which the overhead of the profile is measured."""
LEAST = 0.02
"""A node's time without overhead is never less than this share of the profiled one."""
OVERHEAD_SIGMA, SCALE_SIGMA = 0.3, 0.1
"""How far the overhead that the chain shows, and the speed of the machine while it profiles, may be off (natural logarithm)."""
_WHOLE_US = 0.5
"""The profile cuts whole microseconds off, half a one on average."""
_LAYOUT = {
    "ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Identity", "MemcpyToHost", "MemcpyFromHost",
    "Flatten", "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip
"""What a runtime inserts between layers. An executed node of this kind is a layer's only if the layer is of this kind itself."""
_RENAMED = re.compile(r"(/+[A-Za-z]*(Fusion|fusion)/*|_nchwc|_token_\d+|_new_reshape|_transformed|_hoisted|_fused|_bias_gelu)+$")


@dataclass(frozen=True)
class Executed:
    """The executed nodes of an optimised model: name -> operator, and name -> the layer it is (None: inserted by the runtime)."""

    operators: dict[str, str]
    layers: dict[str, str | None]


def executed(optimised: onnx.GraphProto, graph: Graph) -> Executed:
    """Whose the nodes of an optimised model are, `graph` being that of the import."""
    counts: dict[str, int] = {}
    for node in optimised.node:  # what operators are taken apart to has no names
        if not node.name:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
            node.name = nameless(node.op_type, counts[node.op_type] - 1)
    producer = {output: index for index, node in enumerate(graph.nodes) for output in node.output if output}
    by_name = {node.name: index for index, node in enumerate(graph.nodes)}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in optimised.node:
        for tensor in node.input:
            consumers.setdefault(tensor, []).append(node)
    found: dict[str, str | None] = {}
    unknown = []
    for node in optimised.node:
        index = _anchor(node, producer, by_name, graph)
        layer = None if index is None else _layer_of(graph, index)
        found[node.name] = layer
        if layer is None and node.op_type not in _LAYOUT:
            unknown.append(node)
    for node in reversed(unknown):  # part of an operator that was taken apart: whatever it feeds
        waiting, seen = [node], set()
        while waiting and found[node.name] is None:
            here = waiting.pop(0)
            for reader in (reader for output in here.output for reader in consumers.get(output, [])):
                if found[reader.name] is not None and reader.op_type not in _LAYOUT:
                    found[node.name] = found[reader.name]
                elif reader.name not in seen:
                    seen.add(reader.name)
                    waiting.append(reader)
    return Executed({node.name: node.op_type for node in optimised.node}, found)


def nameless(operator: str, place: int) -> str:
    """What the node without a name is called here that is the `place`-th of its operator in order of execution."""
    return f"{operator} without a name, {place}"


def _anchor(node: onnx.NodeProto, producer: Mapping[str, int], by_name: Mapping[str, int], graph: Graph) -> int | None:
    """The original node that an executed one stands for."""

    def fits(index: int) -> bool:
        return node.op_type not in _LAYOUT or graph.nodes[index].op_type in _LAYOUT

    for output in node.output:
        if output in producer and fits(producer[output]):
            return producer[output]
    name = node.name.removeprefix("fused ")
    while True:
        for table in (by_name, producer):
            if name in table and fits(table[name]):
                return table[name]
        shorter = _RENAMED.sub("", name)
        if shorter == name:
            return None
        name = shorter


def _layer_of(graph: Graph, index: int) -> str | None:
    """The imported layer inside which an original node is counted."""
    root = graph.fused_into.get(index, index)
    return None if graph.free(root) else graph.nodes[root].name


def hosts(layers: list[Any], place: Mapping[str, int], operators: Mapping[str, str]) -> dict[str, str]:
    """For layers (of `Layer`, in order of execution) without an executed node: the layer inside whose node they run; "" for none.

    place : layers with a node, and where it stands in the order of execution; operators : what their nodes are

    An elementwise layer runs inside the last layer with weights before it, unless what follows is a node that the runtime made
    of several (its operator is not the layer's own); everything else inside what follows, else what comes before.
    """
    by_name = {layer.name: layer for layer in layers}
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for source in layer.inputs:
            readers.setdefault(source, []).append(layer.name)

    def nearest(start: str, step: Callable[[str], list[str]]) -> list[str]:
        waiting, seen, hits = list(step(start)), {start}, []
        while waiting:
            name = waiting.pop(0)
            if name in seen or name not in by_name:
                continue
            seen.add(name)
            if name in place:
                hits.append(name)
            else:
                waiting += step(name)
        return hits

    found = {}
    for layer in layers:
        if layer.name in place:
            continue
        after = nearest(layer.name, lambda name: readers.get(name, []))
        before = sorted(nearest(layer.name, lambda name: list(by_name[name].inputs)), key=place.__getitem__)
        weighted = [name for name in before if by_name[name].params and by_name[name].macs]
        made = [name for name in after if operators.get(name, by_name[name].op).removeprefix("Fused") != by_name[name].op]
        choices = made if made else weighted[::-1] if layer.kind in ("elementwise", "normalization") and weighted else after or before[::-1]
        found[layer.name] = choices[0] if choices else ""
    return found


Shared = tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, str]]


def share(durations: Mapping[str, np.ndarray], layers: list[Any], run: Executed) -> Shared:
    """Durations by executed node -> by layer, by operator of what was inserted, and where layers without a node run.

    Layers with MACs that run inside another's node take their part of its time, by MACs; other layers 0.
    """
    by_layer: dict[str, np.ndarray] = {}
    inserted: dict[str, np.ndarray] = {}
    operators: dict[str, str] = {}
    known = {layer.name: layer for layer in layers}
    for name, values in durations.items():
        layer = run.layers.get(name)
        if layer in known:
            by_layer[layer] = by_layer.get(layer, 0) + values
            operators[layer] = run.operators[name]
        else:
            operator = run.operators.get(name, name.partition(" without a name")[0])
            inserted[operator] = inserted.get(operator, 0) + values
    place = {layer: index for index, layer in enumerate(run.layers.values()) if layer in by_layer}
    inside = hosts(layers, place, operators)
    guests: dict[str, list[str]] = {}
    for name, host in inside.items():
        if host and known[name].macs:
            guests.setdefault(host, []).append(name)
    for host, names in guests.items():
        whole, macs = by_layer[host], sum(known[name].macs for name in (host, *names))
        for name in (host, *names):
            by_layer[name] = whole * (known[name].macs / macs)
    return by_layer, inserted, inside


class NodeProfile:
    """A session that profiles its nodes. `run` it, then `finish` it once; its files are in `folder`."""

    def __init__(self, prepared: Prepared, folder: Path, threads: int):
        self._folder, self._prepared, self.runs, self._first = folder, prepared, 0, 0
        optimised = folder / "optimised.onnx"
        outside = {
            "session.optimized_model_external_initializers_file_name": "optimised.weights",
            "session.optimized_model_external_initializers_min_size_in_bytes": 1024,
        }
        settings = {"enable_profiling": True, "profile_file_prefix": str(folder / "profile"), "optimized_model_filepath": str(optimised)}
        self._session = session(prepared.model, threads=threads, file=prepared.path, **settings, **outside)
        self.executed = executed(onnx.load(str(optimised), load_external_data=False).graph, prepared.graph)

    @property
    def most_runs(self) -> int:
        """How often it may be run."""
        return max(EVENTS // max(len(self.executed.layers), 1), 5)

    def run(self, inputs: Mapping[str, np.ndarray]) -> None:
        """One inference; beyond `most_runs` nothing is done."""
        if self.runs < self.most_runs:
            self._session.run(self._prepared.outputs, inputs)
            self.runs += 1

    def forget(self) -> None:
        """Leave all runs so far out: they were warm-up."""
        self._first = self.runs

    def finish(self) -> dict[str, np.ndarray]:
        """Durations float64 [runs] in ns of each executed node, as profiled."""
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        path.unlink(missing_ok=True)
        return node_durations(events, set(self.executed.layers), self._first)


def node_durations(events: list[dict[str, Any]], names: set[str], first: int = 0) -> dict[str, np.ndarray]:
    """Durations float64 [runs] in ns of executed nodes, from the events of a profile; runs before `first` are left out.

    names : of the executed nodes; the profile calls those without a name by operator and number, see `nameless`
    """
    starts = np.array(sorted(event["ts"] for event in events if event.get("name") == "model_run"))
    found: dict[str, np.ndarray] = {}
    unnamed: dict[str, dict[str, float]] = {}
    for event in events:
        name = event.get("name", "").removesuffix("_kernel_time")
        run = int(np.searchsorted(starts, event.get("ts", -1), side="right")) - 1
        if event.get("cat") != "Node" or name == event.get("name") or run < 0:
            continue
        if name not in names:
            unnamed.setdefault(event.get("args", {}).get("op_name", name), {}).setdefault(name, event["ts"])
        if name not in found:
            found[name] = np.zeros(len(starts))
        found[name][run] += (event["dur"] + _WHOLE_US) * 1e3
    renamed = {}
    for operator, begun in unnamed.items():
        for place, name in enumerate(sorted(begun, key=begun.__getitem__)):
            renamed[name] = nameless(operator, place)
    return {renamed.get(name, name): values[first:] for name, values in found.items()}


class EventOverhead:
    """By how much a node is longer in the profile than it is without, measured on a chain of nodes that do almost nothing."""

    def __init__(self, folder: Path, clock: str = "wall", until: float = 0.0):
        self._way: dict[str, Any] = {"clock": clock, "until": until}
        self._inputs = {"x": np.ones((1, 4), np.float32)}
        self._plain = [session(_chain(length)) for length in (0, CHAIN)]
        self._profiled = session(_chain(CHAIN), enable_profiling=True, profile_file_prefix=str(folder / "chain"))
        self._times: list[list[Repeats]] = [[], []]

    def round(self, repeats: int = 20) -> None:
        """Run the chain with and without the profile."""
        for each, times in zip(self._plain, self._times, strict=True):
            times.append(timed(lambda each=each: each.run(None, self._inputs), repeats, **self._way))
        if self._way["clock"] == "own":
            yardstick().wait(self._way["until"])
        for _ in range(repeats):
            self._profiled.run(None, self._inputs)

    def finish(self) -> float:
        """Overhead in ns of one node."""
        path = Path(self._profiled.end_profiling())
        events = json.loads(path.read_text(encoding="utf-8"))
        path.unlink(missing_ok=True)
        seen = [(event["dur"] + _WHOLE_US) * 1e3 for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
        empty, chain = (statistics(times).median for times in self._times)
        return max(summary(np.array(seen)).middle - max(chain - empty, 0.0) / CHAIN, 0.0)


def settle(profiled: np.ndarray, overhead: float, target: float) -> tuple[float, float]:
    """The overhead of a node in ns, and the scale behind it, with which nodes sum to `target`.

    profiled : float [nodes] in ns; overhead : as measured on the chain

    Both are uncertain: the overhead grows with a node's inputs and with what it finds in the caches, and the machine may have been slower
    while it profiled. The likeliest pair is taken, with log-normal errors of OVERHEAD_SIGMA and SCALE_SIGMA.
    """
    tried = overhead * np.geomspace(1 / 4, 4, 401) if overhead else np.zeros(1)
    sums = np.array([free(profiled, value).sum() for value in tried])
    scales = target / sums
    away = (np.log(np.maximum(tried, 1e-9) / max(overhead, 1e-9)) / OVERHEAD_SIGMA) ** 2 + (np.log(scales) / SCALE_SIGMA) ** 2
    best = int(np.argmin(away))
    return float(tried[best]), float(scales[best])


def free(profiled: np.ndarray, overhead: float) -> np.ndarray:
    """Times without the overhead of the profile."""
    return np.maximum(profiled - overhead, LEAST * profiled)


def _chain(length: int) -> onnx.ModelProto:
    """`length` nodes in a row that no optimiser removes, and one more."""
    nodes = [onnx.helper.make_node("Tanh", [f"x{place}" if place else "x"], [f"x{place + 1}"], name=f"tanh{place}") for place in range(length + 1)]
    value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4])  # noqa: E731
    graph = onnx.helper.make_graph(nodes, "chain", [value("x")], [value(f"x{length + 1}")])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def call_overhead(prepared: Prepared, threads: int, device: str = "cpu") -> Callable[[], object]:
    """A call of a session with the inputs and outputs of the network and nothing between them."""
    declare = onnx.helper.make_tensor_value_info
    inputs = list(prepared.model.graph.input)
    nodes, outputs = [], []
    for name in prepared.outputs:
        shape = prepared.graph.shapes[name]
        value = onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)
        nodes.append(onnx.helper.make_node("Constant", [], [name], value=value))
        outputs.append(declare(name, onnx.TensorProto.FLOAT, shape))
    graph = onnx.helper.make_graph(nodes, "nothing", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    made, sample = session(model, threads=threads, device=device), prepared.example()
    return lambda: made.run(prepared.outputs, sample)
