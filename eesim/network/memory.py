"""How much memory a network needs: weights at rest, and the peak of live tensors while it runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

from eesim.network.layer import ITEM_BYTES
from eesim.network.network import Network


@dataclass(frozen=True)
class Footprint:
    """Bytes a network needs, and the layer at which the peak of activations is reached."""

    weights_bytes: int
    peak_activation_bytes: int
    peak_layer: str


def footprint(network: Network, data_type: str, exits: Collection[int] | None = None) -> Footprint:
    """Weights and peak activations with numbers of `data_type`, for the enabled `exits` (all by default).

    Layers run in order: segment 0, head 0, segment 1, … A tensor lives from the layer that writes it to the last layer
    that reads it, so a segment's result stays alive while its head runs. Inputs live until their last reader; answers
    (logits) until the end of their head. No memory is shared between a layer's input and output. Quantised biases are
    counted at the item size of the weights.
    """
    item = ITEM_BYTES[data_type]
    enabled = set(range(network.exits)) if exits is None else set(exits) | {network.exits - 1}
    layers = [
        layer
        for index, (segment, head) in enumerate(zip(network.segments, network.heads, strict=True))
        for layer in (*segment, *(head if index in enabled else ()))
    ]
    last_use = {source: step for step, layer in enumerate(layers) for source in layer.inputs}
    sizes = {name: prod(shape) for name, shape in network.inputs.items()} | {layer.name: layer.elements_out for layer in layers}
    alive = {name for name in network.inputs if name in last_use}
    peak, peak_layer = 0, layers[0].name
    for step, layer in enumerate(layers):
        alive.add(layer.name)
        held = sum(sizes[name] for name in alive)
        if held > peak:
            peak, peak_layer = held, layer.name
        alive = {name for name in alive if last_use.get(name, -1) > step}
    return Footprint(sum(layer.params for layer in layers) * item, peak * item, peak_layer)
