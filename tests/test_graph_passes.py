"""What runtimes do to a graph before they run it: equal nodes once, zeros folded."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_cli import eesim as command

from eesim.network.onnx_import import import_onnx
from eesim.network.onnx_passes import apply


def model(*nodes, weights=(), outputs=("y",)):
    value = lambda name, shape=(1, 4, 8, 8): helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    constants = [numpy_helper.from_array(np.float32(0.0), "zero"), numpy_helper.from_array(np.float32(2.0), "two")]
    constants += [numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), name) for name in weights]
    graph = helper.make_graph(list(nodes), "g", [value("x")], [value(name) for name in outputs], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def pool(source, target, size=3):
    return helper.make_node("AveragePool", [source], [target], name=target, kernel_shape=[size, size], pads=[size // 2] * 4)


def node(operator, sources, target):
    return helper.make_node(operator, sources, [target], name=target)


def names(made, *passes):
    return [each.name for each in apply(made, passes).graph.node]


def test_equal_nodes_run_once_and_what_differs_does_not_merge():
    made = model(pool("x", "a"), pool("x", "b"), pool("x", "c", 5), node("Add", ["a", "b"], "d"), node("Add", ["d", "c"], "y"))
    assert names(made, "common-subexpressions") == ["a", "c", "d", "y"]
    merged = apply(made, ["common-subexpressions"])
    assert list(merged.graph.node[2].input) == ["a", "a"]
    assert [each.name for each in made.graph.node] == ["a", "b", "c", "d", "y"], "the given model stays as it is"
    onnx.checker.check_model(merged)


def test_merging_goes_on_behind_what_was_merged():
    made = model(pool("x", "a"), pool("x", "b"), node("Relu", ["a"], "c"), node("Relu", ["b"], "d"), node("Add", ["c", "d"], "y"))
    assert names(made, "common-subexpressions") == ["a", "c", "y"]


def test_convolutions_merge_only_where_they_share_their_weights():
    three = [node("Conv", ["x", weights], target) for weights, target in (("w", "a"), ("v", "b"), ("w", "c"))]
    made = model(*three, node("Sum", ["a", "b", "c"], "y"), weights=("w", "v"))
    assert names(made, "common-subexpressions") == ["a", "b", "y"]


def test_answers_are_never_merged():
    made = model(pool("x", "y"), pool("x", "z"), outputs=("y", "z"))
    assert names(made, "common-subexpressions") == ["y", "z"]


def test_zeros_are_folded_convolutions_of_zeros_run():
    made = model(
        node("Mul", ["x", "zero"], "a"), node("Relu", ["a"], "b"), pool("b", "c"), node("Conv", ["c", "w"], "d"), node("Mul", ["x", "two"], "e"),
        node("Add", ["c", "e"], "f"), node("Add", ["d", "f"], "y"), weights=("w",),
    )  # fmt: skip
    folded = apply(made, ["zero-folding"])
    assert [each.name for each in folded.graph.node] == ["d", "e", "y"] and list(folded.graph.node[2].input) == ["d", "e"]
    onnx.checker.check_model(folded)


def test_dead_branches_go_with_the_zeros():
    dead = node("Conv", ["x", "w"], "a"), node("Mul", ["a", "zero"], "b")
    made = model(*dead, node("Relu", ["x"], "c"), node("Add", ["b", "c"], "d"), node("Relu", ["d"], "y"), weights=("w",))
    folded = apply(made, ["zero-folding"])
    assert [each.name for each in folded.graph.node] == ["c", "y"] and list(folded.graph.node[1].input) == ["c"]


@pytest.mark.parametrize("seed", range(8))
def test_a_merged_graph_computes_the_same(seed, tmp_path):
    """Random graphs of pools, sums, products and activations, run before and after."""
    runtime = pytest.importorskip("onnxruntime", reason="running a graph needs onnxruntime")
    rng = np.random.default_rng(seed)
    made, known = [], ["x"]
    for index in range(12):
        source, other = (known[rng.integers(len(known))] for _ in range(2))
        target = "y" if index == 11 else f"t{index}"
        sources = {"Relu": [source], "Add": [source, other], "Mul": [source, "zero" if rng.integers(2) else "two"]}
        operator = ["AveragePool", *sources][rng.integers(4)]
        made.append(pool(source, target) if operator == "AveragePool" else node(operator, sources[operator], target))
        known.append(target)
    whole = model(*made)
    x = rng.standard_normal((1, 4, 8, 8)).astype(np.float32)
    expected = runtime.InferenceSession(whole.SerializeToString()).run(None, {"x": x})[0]
    changed = apply(whole, ["common-subexpressions"])
    assert len(changed.graph.node) <= len(whole.graph.node)
    np.testing.assert_array_equal(runtime.InferenceSession(changed.SerializeToString()).run(None, {"x": x})[0], expected)
    folded = apply(whole, ["zero-folding", "common-subexpressions"])
    extra = {each.name: np.zeros((1, 4, 8, 8), np.float32) for each in folded.graph.input if each.name != "x"}
    if "y" in {name for each in folded.graph.node for name in each.output}:
        np.testing.assert_allclose(runtime.InferenceSession(folded.SerializeToString()).run(None, {"x": x, **extra})[0], expected, atol=1e-6)


def test_a_profile_prices_what_its_runtime_runs(tmp_path):
    made = model(pool("x", "a"), pool("x", "b"), node("Add", ["a", "b"], "c"), node("Conv", ["c", "w"], "y"), weights=("w",))
    onnx.save(made, str(tmp_path / "m.onnx"))
    count = {}
    for profile in ("raspberry-pi-5-torchmobile", "raspberry-pi-4-tflite-fp32"):
        record = json.loads(command("cost", "m.onnx", "--profile", profile, "--format", "json", cwd=tmp_path, check=0).stdout)
        count[profile] = [layer["kind"] for layer in record["layers"]].count("pooling")
    assert count == {"raspberry-pi-5-torchmobile": 1, "raspberry-pi-4-tflite-fp32": 2}
    assert len(import_onnx(tmp_path / "m.onnx").layers) == 4
