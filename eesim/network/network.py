"""A multi-exit network: a backbone cut into segments, with a head after each; and its YAML form."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from eesim.errors import BadInput, unknown
from eesim.files import write_text
from eesim.network.layer import CONVOLUTIONS, ITEM_BYTES, KINDS, OPERATOR_KINDS, Layer, convolution_kind
from eesim.schema import Strict, read_yaml, to_yaml, validate

SCHEMA_VERSION = 1
Groups = tuple[tuple[Layer, ...], ...]


@dataclass(frozen=True)
class Network:
    """Segments and heads in order. Exit `e` = segments 0..e run and head `e` evaluated; the last exit is the backbone's own."""

    name: str
    inputs: dict[str, tuple[int, ...]]
    segments: Groups
    heads: Groups
    data_type: str = "fp32"
    classes: int | None = None
    onnx: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def exits(self) -> int:
        """Number of exits, the final one included."""
        return len(self.heads)

    @property
    def final_head(self) -> str:
        """Name of the layer where the final head begins."""
        return self.heads[-1][0].name

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers in order of execution: segment 0, head 0, segment 1, head 1, …"""
        return tuple(layer for pair in zip(self.segments, self.heads, strict=True) for part in pair for layer in part)

    @cached_property
    def segment_macs(self) -> list[int]:
        """MACs of each segment, length `exits`."""
        return [sum(layer.macs for layer in segment) for segment in self.segments]

    @cached_property
    def head_macs(self) -> list[int]:
        """MACs of each head, length `exits`."""
        return [sum(layer.macs for layer in head) for head in self.heads]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over everything about the network but its name."""
        content = (self.inputs, self.segments, self.heads, self.data_type, self.classes)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    @property
    def params(self) -> int:
        """Stored weights and biases of the whole network, all heads included."""
        return sum(layer.params for layer in self.layers)


class _LayerSchema(Strict):
    name: str
    op: str
    kind: str | None = None
    input_shape: list[int]
    output_shape: list[int]
    kernel: list[int] = []
    stride: list[int] = []
    groups: int = 1
    macs: int
    params: int
    bytes_in: int
    bytes_out: int
    bytes_weights: int
    inputs: list[str] = []
    fused: list[str] = []


class _NetworkSchema(Strict):
    schema_version: int
    name: str
    onnx: str | None = None
    data_type: str = "fp32"
    classes: int | None = None
    warnings: list[str] = []
    inputs: dict[str, list[int]]
    final_head: str
    segments: list[list[_LayerSchema]]
    heads: list[list[_LayerSchema]]


def read_network(path: str | Path) -> Network:
    """A network from `network.yaml`. Raises BadInput naming file, field and value."""
    path = Path(path)
    data = validate(_NetworkSchema, read_yaml(path), path)
    if data.schema_version != SCHEMA_VERSION:
        raise BadInput(f"version {data.schema_version} is not known; this eesim reads version {SCHEMA_VERSION}", file=path, field="schema_version")
    if data.data_type not in ITEM_BYTES:
        raise unknown("data type", data.data_type, ITEM_BYTES, file=path, field="data_type")
    if len(data.segments) != len(data.heads) or not data.heads:
        raise BadInput(f"{len(data.segments)} segments and {len(data.heads)} heads; each segment needs one head", file=path, field="heads")
    if data.classes is not None and data.classes < 2:
        raise BadInput(f"must be at least 2, got {data.classes}", file=path, field="classes")
    for name, shape in data.inputs.items():
        _sizes(shape, path, f"inputs.{name}")
    item = ITEM_BYTES[data.data_type]
    parts = {}
    for part, groups in (("segments", data.segments), ("heads", data.heads)):
        parts[part] = tuple(
            tuple(_layer(layer, item, path, f"{part}.{index}.{position}") for position, layer in enumerate(group))
            for index, group in enumerate(groups)
        )
    for index, head in enumerate(parts["heads"]):
        if not head:
            raise BadInput("a head needs at least one layer", file=path, field=f"heads.{index}")
    if parts["heads"][-1][0].name != data.final_head:
        raise BadInput(f"'{data.final_head}' is not the first layer of the last head ('{parts['heads'][-1][0].name}')", file=path, field="final_head")
    inputs = {name: tuple(shape) for name, shape in data.inputs.items()}
    segments, heads = _connected(parts["segments"], parts["heads"], tuple(inputs), path)
    return Network(data.name, inputs, segments, heads, data.data_type, data.classes, data.onnx, tuple(data.warnings))


def _connected(segments: Groups, heads: Groups, inputs: tuple[str, ...], path: Path) -> tuple[Groups, Groups]:
    """The layers with their `inputs` checked: each names a network input, an earlier layer of a segment, or one of its own
    head. Where they are left out, a layer reads the one before it; a head and the next segment read the end of the segment."""
    used = dict.fromkeys(inputs, "inputs")

    def part(where: str, layers: tuple[Layer, ...], before: tuple[str, ...], readable: set[str]) -> Iterator[Layer]:
        for position, layer in enumerate(layers):
            field = f"{where}.{position}"
            for source in layer.inputs:
                if source not in readable:
                    raise unknown("input", source, sorted(readable), file=path, field=f"{field}.inputs")
            if layer.name in used:
                raise BadInput(f"the name '{layer.name}' is used twice, in {used[layer.name]} too", file=path, field=f"{field}.name")
            used[layer.name] = field
            readable.add(layer.name)
            yield layer if layer.inputs else replace(layer, inputs=before)
            before = (layer.name,)

    before, backbone = inputs, set(inputs)
    found: tuple[list, list] = [], []
    for index, (segment, head) in enumerate(zip(segments, heads, strict=True)):
        found[0].append(tuple(part(f"segments.{index}", segment, before, backbone)))
        before = (segment[-1].name,) if segment else before
        found[1].append(tuple(part(f"heads.{index}", head, before, set(backbone))))
    return tuple(found[0]), tuple(found[1])


def _sizes(sizes: list[int], path: Path, field: str) -> None:
    for size in sizes:
        if size < 1:
            raise BadInput(f"sizes must be at least 1, got {size}", file=path, field=field)


def _layer(data: _LayerSchema, item: int, path: Path, field: str) -> Layer:
    for name in ("groups", "macs", "params", "bytes_in", "bytes_out", "bytes_weights"):
        if getattr(data, name) < (1 if name == "groups" else 0):
            raise BadInput(f"must be at least {1 if name == 'groups' else 0}, got {getattr(data, name)}", file=path, field=f"{field}.{name}")
    for name in ("input_shape", "output_shape", "kernel", "stride"):
        _sizes(getattr(data, name), path, f"{field}.{name}")
    for name in ("bytes_in", "bytes_out"):
        if getattr(data, name) % item:
            raise BadInput(
                f"{getattr(data, name)} is no multiple of the {item} bytes of a number of the network's data type", file=path, field=f"{field}.{name}"
            )
    kind = data.kind
    if kind is None:
        channels = data.input_shape[1] if len(data.input_shape) > 1 else 1
        kind = convolution_kind(tuple(data.kernel), data.groups, channels) if data.op in CONVOLUTIONS else OPERATOR_KINDS.get(data.op)
        if kind is None:
            raise BadInput(f"the kind of operator '{data.op}' is not known; give 'kind', one of {', '.join(KINDS)}", file=path, field=f"{field}.op")
    if kind not in KINDS:
        raise unknown("layer kind", kind, KINDS, file=path, field=f"{field}.kind")
    shapes = tuple(data.input_shape), tuple(data.output_shape)
    return Layer(
        data.name, data.op, kind, *shapes, data.macs, data.params, data.bytes_in // item, data.bytes_out // item,
        tuple(data.kernel), tuple(data.stride), data.groups, tuple(data.inputs), tuple(data.fused),
    )  # fmt: skip


def write_network(network: Network, path: str | Path) -> None:
    """Write `network` as YAML, one layer a line; bytes are those of the network's own data type."""
    item = ITEM_BYTES[network.data_type]

    def line(layer: Layer) -> dict:
        row = {
            "name": layer.name,
            "op": layer.op,
            "kind": layer.kind,
            "input_shape": list(layer.input_shape),
            "output_shape": list(layer.output_shape),
            "kernel": list(layer.kernel),
            "stride": list(layer.stride),
            "groups": layer.groups,
            "macs": layer.macs,
            "params": layer.params,
            "bytes_in": layer.elements_in * item,
            "bytes_out": layer.elements_out * item,
            "bytes_weights": layer.params * item,
            "inputs": list(layer.inputs),
            "fused": list(layer.fused),
        }
        return {key: value for key, value in row.items() if value not in ([], None) and not (key == "groups" and value == 1)}

    head = {
        "schema_version": SCHEMA_VERSION,
        "name": network.name,
        "onnx": network.onnx,
        "data_type": network.data_type,
        "classes": network.classes,
        **({"warnings": list(network.warnings)} if network.warnings else {}),
        "inputs": {name: list(shape) for name, shape in network.inputs.items()},
        "final_head": network.final_head,
    }
    text = to_yaml(head, default_flow_style=None)
    for part in ("segments", "heads"):
        text += f"{part}:\n"
        for group in getattr(network, part):
            rows = [to_yaml(line(layer), default_flow_style=True).strip() for layer in group]
            text += "".join(f"{'- - ' if index == 0 else '  - '}{row}\n" for index, row in enumerate(rows)) or "- []\n"
    write_text(path, text)
