"""A multi-exit network: a backbone cut into segments, with a head after each; and its YAML form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from eesim.errors import BadInput, unknown
from eesim.network.layer import ITEM_BYTES, KINDS, OPERATOR_KINDS, Layer, convolution_kind
from eesim.schema import Strict, read_yaml, validate

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Network:
    """Segments and heads in order. Exit `e` = segments 0..e run and head `e` evaluated; the last exit is the backbone's own."""

    name: str
    inputs: dict[str, tuple[int, ...]]
    segments: tuple[tuple[Layer, ...], ...]
    heads: tuple[tuple[Layer, ...], ...]
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
    return Network(data.name, inputs, parts["segments"], parts["heads"], data.data_type, data.classes, data.onnx)


def _layer(data: _LayerSchema, item: int, path: Path, field: str) -> Layer:
    for name in ("groups", "macs", "params", "bytes_in", "bytes_out", "bytes_weights"):
        if getattr(data, name) < (1 if name == "groups" else 0):
            raise BadInput(f"must be at least {1 if name == 'groups' else 0}, got {getattr(data, name)}", file=path, field=f"{field}.{name}")
    kind = data.kind
    if kind is None:
        channels = data.input_shape[1] if len(data.input_shape) > 1 else 1
        kind = convolution_kind(tuple(data.kernel), data.groups, channels) if data.op == "Conv" else OPERATOR_KINDS.get(data.op)
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
        "inputs": {name: list(shape) for name, shape in network.inputs.items()},
        "final_head": network.final_head,
    }
    text = yaml.safe_dump(head, sort_keys=False, default_flow_style=None, width=10_000)
    for part in ("segments", "heads"):
        text += f"{part}:\n"
        for group in getattr(network, part):
            rows = [yaml.safe_dump(line(layer), sort_keys=False, default_flow_style=True, width=10_000).strip() for layer in group]
            text += "".join(f"{'- - ' if index == 0 else '  - '}{row}\n" for index, row in enumerate(rows)) or "- []\n"
    Path(path).write_text(text, encoding="utf-8")
