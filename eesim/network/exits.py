"""Which nodes of a graph make up which segment and which head, by which outputs use them.

Head `e` = the nodes that only output `e` uses. A node that several outputs use belongs to the segment of the first of
them. What only the last output uses is its segment up to `final_head`, the node where the final head begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eesim.errors import BadInput, unknown
from eesim.network.layer import CONVOLUTIONS, Layer
from eesim.network.network import Network
from eesim.network.topology import GEMMS, MATRIX_OPERANDS, WEIGHTED, Topology

Parts = dict[int, tuple[int, bool]]
"""Node -> the exit it belongs to, and whether to its head."""


class NoExits(BadInput):
    """A model whose outputs make no exits, or not in this order; as one network without exits it can still be priced."""


def build(
    graph: Topology, layer: Callable[[int], Layer], *, name: str | None, outputs: Sequence[str] | None, final_head: str | None, whole: bool
) -> Network:
    """The network of a graph, `layer` making the layer of a node. With `whole`, outputs that make no exits become one exit, and a warning."""
    try:
        network = _network(graph, layer, name, *split(graph, outputs, final_head))
    except NoExits as error:
        if not whole or outputs:
            raise
        graph.warnings.append(f"the outputs make no exits ({error.problem}); counted: everything, as one network with one exit")
        network = _network(graph, layer, name, *_undivided(graph))
    return network


def split(graph: Topology, outputs: Sequence[str] | None = None, final_head: str | None = None) -> tuple[list[str], Parts]:
    """The exit outputs in order, and for every node they need: whose it is, and whether head or segment.

    Raises BadInput when an output or node is unknown, NoExits when the outputs make no exits.
    """
    path = graph.path
    names = list(outputs) if outputs else graph.outputs_in_order
    if not names:
        raise BadInput("the model has no outputs, so it has no exits", file=path)
    for output in names:
        if output not in graph.producer:
            raise unknown("output", output, [value for value in graph.outputs_in_order if value in graph.producer], file=path)
    uses = [graph.ancestors(output) for output in names]
    last = len(names) - 1
    only_last = [node for node in graph.order if node in uses[last] and not any(node in use for use in uses[:last])]
    if all(graph.free(node) for node in only_last):
        raise NoExits(f"output '{names[last]}' has no layer of its own, so it has no head; the final exit must come last", file=path)
    final = graph.descendants(_final_head(graph, only_last, final_head)) & set(only_last)
    widths = {name: graph.shapes[name][-1] for name in names if len(graph.shapes.get(name, ())) > 1}
    for name, width in widths.items():
        if width != widths.get(names[-1], width):
            raise NoExits(f"output '{name}' answers {width} classes where '{names[-1]}' answers {widths[names[-1]]}", file=path)
    parts = {}
    for node in graph.order:
        users = [exit for exit, use in enumerate(uses) if node in use]
        if users:
            parts[node] = users[0], len(users) == 1 and (node in final or users[0] != last)
    _check_order(graph, names, parts)
    return names, parts


def _undivided(graph: Topology) -> tuple[list[str], Parts]:
    """Everything that any output needs as one segment and one head."""
    names = [name for name in graph.outputs_in_order if name in graph.producer]
    needed = set().union(*(graph.ancestors(name) for name in names))
    used = [node for node in graph.order if node in needed]
    if all(graph.free(node) for node in used):
        raise BadInput("no output depends on an input, so there is nothing to count", file=graph.path)
    head = graph.descendants(_final_head(graph, used, None))
    return names[-1:], {node: (0, node in head) for node in used}


def _network(graph: Topology, layer: Callable[[int], Layer], name: str | None, names: list[str], parts: Parts) -> Network:
    segments: list[list[Layer]] = [[] for _ in names]
    heads: list[list[Layer]] = [[] for _ in names]
    for node, (exit, is_head) in parts.items():
        if not graph.free(node):
            (heads if is_head else segments)[exit].append(layer(node))
    for index, head in enumerate(heads):
        if not head:
            raise NoExits(f"output '{names[index]}' has no layer of its own, so it has no head", file=graph.path)
        if 0 < index < len(names) - 1 and not segments[index]:  # the last exit may stand on the same features as the one before
            graph.warnings.append(
                f"output '{names[index]}' adds no layer to the backbone after '{names[index - 1]}'; outputs must be in the order of the exits"
            )
    shape = graph.shapes.get(names[-1], ())
    return Network(
        name or graph.path.stem, graph.data_inputs, tuple(map(tuple, segments)), tuple(map(tuple, heads)), graph.data_type,
        next((size for size in shape[:0:-1] if size > 1), None), warnings=tuple(dict.fromkeys(graph.warnings)),
    )  # fmt: skip


def _check_order(graph: Topology, names: list[str], parts: Parts) -> None:
    """Raise NoExits where no later output adds to the backbone although an earlier one goes deeper than the final: the order is another."""
    last = len(names) - 1
    if any(exit > 0 and not is_head and not graph.free(node) for node, (exit, is_head) in parts.items()):
        return
    depth = [sum(place == (exit, True) and graph.nodes[node].op_type in WEIGHTED for node, place in parts.items()) for exit in range(last + 1)]
    deepest = max(range(last + 1), key=depth.__getitem__)
    if depth[deepest] > depth[last]:
        raise NoExits(
            f"all outputs stand on the same features, and '{names[deepest]}' has more layers behind them than the final '{names[last]}'; "
            "outputs must be in the order of the exits, and the final exit must come last",
            file=graph.path,
        )


def _final_head(graph: Topology, only_last: list[int], wanted: str | None) -> int:
    names = {graph.nodes[node].name: node for node in only_last}
    if wanted is not None:
        if wanted not in names:
            raise unknown("node of the final head", wanted, names, file=graph.path, field="final_head")
        return names[wanted]
    pools = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "QLinearGlobalAveragePool")
    for operators in (pools, (*GEMMS, *MATRIX_OPERANDS), tuple(CONVOLUTIONS)):
        found = [node for node in only_last if graph.nodes[node].op_type in operators and not graph.free(node)]
        if found:
            return found[-1]
    return next(node for node in reversed(only_last) if not graph.free(node))
