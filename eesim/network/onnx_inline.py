"""What is nested in an ONNX model, laid out flat: functions of the model's own, and the branches of `If`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import inliner


def functions_inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions written out where they are called."""
    return inliner.inline_local_functions(model) if model.functions else model


def inline_branches(model: onnx.ModelProto, values: dict[str, np.ndarray], *, guess: bool) -> list[str] | None:
    """Put a branch of each `If` in its place: the one that its condition picks, with `guess` the longer one where that is not known.

    Returns warnings about guesses; None where nothing was changed.
    """
    graph = model.graph
    warnings: list[str] = []
    left: list[onnx.NodeProto] = []
    changed = False
    for node in graph.node:
        branches = {attribute.name: attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH}
        known = node.op_type == "If" and node.input[0] in values
        if node.op_type != "If" or not (known or guess):
            left.append(node)
            continue
        if known:
            branch = branches["then_branch" if values[node.input[0]].any() else "else_branch"]
        else:
            branch = max(branches["then_branch"], branches["else_branch"], key=lambda part: len(part.node))
            warnings.append(f"which branch operator 'If' ({node.name or node.output[0]}) takes is not known; assumed: the longer one, always")
        left += _spliced(graph, node, branch)
        changed = True
    if not changed:
        return None
    del graph.node[:]
    graph.node.extend(left)
    return warnings


def _spliced(graph: onnx.GraphProto, node: onnx.NodeProto, branch: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a branch, with names of their own, that make what `node` made; its weights go to `graph`."""
    prefix = f"{node.name or node.output[0]}/"
    inner = {name for part in branch.node for name in part.output if name} | {tensor.name for tensor in branch.initializer}
    renamed = {name: prefix + name for name in inner}
    for tensor in branch.initializer:
        stored = graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = renamed[tensor.name]
    for part in branch.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(part)
        _rename(copied, renamed)
        copied.name = prefix + part.name if part.name else ""
        yield copied
    for value, outside in zip(branch.output, node.output, strict=True):
        if outside:
            yield onnx.helper.make_node("Identity", [renamed.get(value.name, value.name)], [outside])


def _rename(node: onnx.NodeProto, renamed: dict[str, str]) -> None:
    """Give the tensors of a node, and of what is nested in it, their new names."""
    node.input[:] = [renamed.get(name, name) for name in node.input]
    node.output[:] = [renamed.get(name, name) for name in node.output]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for part in attribute.g.node:
                _rename(part, renamed)
            for value in attribute.g.output:
                value.name = renamed.get(value.name, value.name)


def captured(node: onnx.NodeProto) -> list[str]:
    """Tensors from outside that the graphs nested in a node read, in order."""
    found: dict[str, None] = {}
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            body = attribute.g
            inner = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
            inner |= {name for part in body.node for name in part.output}
            read = [name for part in body.node for name in (*part.input, *captured(part))] + [value.name for value in body.output]
            found |= dict.fromkeys(name for name in read if name and name not in inner)
    return list(found)
