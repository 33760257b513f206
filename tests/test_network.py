"""Networks: what ONNX import counts, layer by layer against sums by hand; YAML there and back; every bad file one line; memory by hand."""

from __future__ import annotations

from dataclasses import replace

import builders
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from eesim.errors import BadInput
from eesim.network import Layer, Network, read_network, write_network
from eesim.network.layer import ITEM_BYTES, KINDS, OPERATOR_KINDS, convolution_kind, work
from eesim.network.memory import footprint
from eesim.network.onnx_import import import_onnx

FLOAT = TensorProto.FLOAT


def line(call, *arguments, **options) -> str:
    """The one line of the BadInput that the call must raise."""
    with pytest.raises(BadInput) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1 and caught.value.exit_status == 2
    return str(caught.value)


class Sketch:
    """An ONNX graph in a few lines: `weights` are initializers, or graph inputs without values where `weightless`."""

    def __init__(self, *, weightless: bool = False):
        self.nodes, self.inputs, self.outputs, self.stored, self.known = [], [], [], [], []
        self.weightless, self.domains = weightless, [helper.make_opsetid("", 17)]

    def input(self, name, shape, kind=FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def weight(self, name, *shape, kind=np.float32):
        if self.weightless:
            return self.input(name, shape)
        return self.constant(name, np.ones(shape, kind))

    def constant(self, name, values):
        self.stored.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, operator, inputs, name="", outputs=None, **attributes):
        made = helper.make_node(operator, inputs, outputs or [f"t{len(self.nodes)}"], name=name, **attributes)
        self.nodes.append(made)
        return made.output[0]

    def output(self, name, shape=("N", 4)):
        self.outputs.append(helper.make_tensor_value_info(name, FLOAT, shape))

    def save(self, path):
        graph = helper.make_graph(self.nodes, "sketch", self.inputs, self.outputs, self.stored, value_info=self.known)
        onnx.save(helper.make_model(graph, opset_imports=self.domains, ir_version=8), path)
        return path


def layers(network: Network) -> dict[str, Layer]:
    return {layer.name: layer for layer in network.layers}


def only(tmp_path, sketch, **options) -> Layer:
    """The first layer of a network that ends in a fully connected head."""
    network = import_onnx(sketch.save(tmp_path / "one.onnx"), **options)
    return network.layers[0]


def single(operator, input_shape, weights=(), *, flat, weightless=False, **attributes) -> Sketch:
    """`operator` over one input, flattened to `flat` numbers for a head of 4 classes."""
    sketch = Sketch(weightless=weightless)
    x = sketch.input("x", input_shape)
    operands = [x, *(sketch.weight(f"w{index}", *shape) for index, shape in enumerate(weights))]
    y = sketch.node(operator, operands, "op", **attributes)
    sketch.node("Gemm", [sketch.node("Flatten", [y], "flat"), sketch.weight("head.w", flat, 4)], "head", ["y"])
    sketch.output("y")
    return sketch


# ---------------------------------------------------------------------------------------------------------------------
# Layers by hand


CONVOLUTIONS = {
    # name: (input, weights, attributes, numbers out, kind, macs, params)
    "plain": ([1, 3, 8, 8], [(16, 3, 3, 3), (16,)], {"pads": [1, 1, 1, 1]}, 16 * 64, "conv", 16 * 64 * 27, 16 * 27 + 16),
    "no padding": ([1, 3, 8, 8], [(16, 3, 3, 3)], {}, 16 * 36, "conv", 16 * 36 * 27, 16 * 27),
    "stride": ([1, 3, 8, 8], [(16, 3, 3, 3)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}, 16 * 16, "conv", 16 * 16 * 27, 16 * 27),
    "dilation": ([1, 3, 9, 9], [(2, 3, 3, 3)], {"dilations": [2, 2]}, 2 * 25, "conv", 2 * 25 * 27, 2 * 27),
    "pointwise": ([1, 8, 4, 4], [(32, 8, 1, 1)], {}, 32 * 16, "pointwise", 32 * 16 * 8, 256),
    "depthwise": ([1, 8, 6, 6], [(8, 1, 3, 3), (8,)], {"group": 8, "pads": [1, 1, 1, 1]}, 8 * 36, "depthwise", 8 * 36 * 9, 80),
    "depthwise, multiplied": ([1, 8, 6, 6], [(16, 1, 3, 3)], {"group": 8, "pads": [1, 1, 1, 1]}, 16 * 36, "depthwise", 16 * 36 * 9, 144),
    "grouped": ([1, 8, 6, 6], [(12, 4, 3, 3)], {"group": 2, "pads": [1, 1, 1, 1]}, 12 * 36, "conv", 12 * 36 * 36, 12 * 36),
    "one dimension": ([1, 2, 100], [(16, 2, 7)], {"strides": [2], "pads": [3, 3]}, 16 * 50, "conv", 16 * 50 * 14, 16 * 14),
    "three dimensions": ([1, 2, 4, 4, 4], [(3, 2, 2, 2, 2)], {}, 3 * 27, "conv", 3 * 27 * 16, 48),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("weightless", [False, True])
def test_convolutions(tmp_path, name, weightless):
    shape, weights, attributes, out, kind, macs, params = CONVOLUTIONS[name]
    layer = only(tmp_path, single("Conv", shape, weights, flat=out, weightless=weightless, **attributes))
    assert (layer.op, layer.kind, layer.macs, layer.params) == ("Conv", kind, macs, params)
    assert (layer.elements_in, layer.elements_out) == (int(np.prod(shape)), out) and layer.input_shape == tuple(shape)
    assert layer.kernel == weights[0][2:] and layer.groups == attributes.get("group", 1) and layer.inputs == ("x",)
    assert layer.stride == tuple(attributes.get("strides", [1] * (len(shape) - 2)))
    assert layer.bytes_moved(2) == 2 * (int(np.prod(shape)) + out + params)


def test_transposed_convolution_multiplies_every_input_with_the_kernel(tmp_path):
    layer = only(tmp_path, single("ConvTranspose", [1, 8, 5, 5], [(8, 3, 2, 2), (3,)], flat=300, strides=[2, 2]))
    assert (layer.kind, layer.macs, layer.params, layer.output_shape) == ("conv", 8 * 25 * 3 * 4, 8 * 12 + 3, (1, 3, 10, 10))


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm(tmp_path, turned):
    weight = (10, 32) if turned else (32, 10)
    layer = only(tmp_path, single("Gemm", [1, 32], [weight, (10,)], flat=10, transB=turned))
    assert (layer.kind, layer.macs, layer.params, layer.elements_in, layer.elements_out) == ("fully_connected", 320, 330, 32, 10)


def product(weightless=False, *, first=False, shape=(1, 5, 32), weight=(32, 10)):
    """x @ W, or W @ x with `first`."""
    sketch = Sketch(weightless=weightless)
    x, w = sketch.input("x", shape), sketch.weight("w", *weight)
    y = sketch.node("MatMul", [w, x] if first else [x, w], "op")
    flat = int(np.prod(np.matmul(np.zeros(weight), np.zeros(shape)).shape if first else np.matmul(np.zeros(shape), np.zeros(weight)).shape))
    sketch.node("Gemm", [sketch.node("Flatten", [y]), sketch.weight("head.w", flat, 4)], "head", ["y"])
    sketch.output("y")
    return sketch


@pytest.mark.parametrize("weightless", [False, True])
def test_matmul_with_a_constant_is_fully_connected(tmp_path, weightless):
    layer = only(tmp_path, product(weightless))
    assert (layer.kind, layer.macs, layer.params, layer.inputs) == ("fully_connected", 5 * 10 * 32, 320, ("x",))
    assert (layer.elements_in, layer.elements_out) == (160, 50)


def test_matmul_with_the_constant_first(tmp_path):
    layer = only(tmp_path, product(first=True, shape=(1, 5, 32), weight=(7, 5)))
    assert (layer.kind, layer.macs, layer.params, layer.output_shape) == ("fully_connected", 7 * 32 * 5, 35, (1, 7, 32))


def test_matmul_of_two_results_is_no_layer_with_weights(tmp_path):
    sketch = Sketch()
    a, b = sketch.input("a", [1, 6, 8]), sketch.input("b", [1, 8, 6])
    y = sketch.node("MatMul", [a, b], "op")
    sketch.node("Gemm", [sketch.node("Flatten", [y]), sketch.weight("w", 36, 4)], "head", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    layer = network.layers[0]
    assert (layer.kind, layer.macs, layer.params, layer.inputs, layer.elements_in) == ("matmul", 36 * 8, 0, ("a", "b"), 96)
    assert network.inputs == {"a": (1, 6, 8), "b": (1, 8, 6)}


@pytest.mark.parametrize(
    ("equation", "weight", "macs"), [("bik,kj->bij", (8, 3), 6 * 3 * 8), ("...k,kj->...j", (8, 3), 6 * 3 * 8), ("bik,bjk->bij", None, 6 * 6 * 8)]
)
def test_einsum_has_macs(tmp_path, equation, weight, macs):
    """It was a silent zero once."""
    sketch = Sketch()
    x = sketch.input("x", [1, 6, 8])
    y = sketch.node("Einsum", [x, sketch.weight("w", *weight) if weight else sketch.input("z", [1, 6, 8])], "op", equation=equation)
    sketch.node("Gemm", [sketch.node("Flatten", [y]), sketch.weight("h", 18 if weight else 36, 4)], "head", ["y"])
    sketch.output("y")
    layer = only(tmp_path, sketch)
    assert (layer.macs, layer.kind, layer.params) == (macs, "fully_connected" if weight else "matmul", 24 if weight else 0)


def test_einsum_of_one_operand_moves_numbers_only(tmp_path):
    layer = only(tmp_path, single("Einsum", [1, 6, 8], flat=48, equation="bij->bji"))
    assert (layer.macs, layer.elements_in, layer.elements_out, layer.params) == (0, 48, 48, 0)


RECURRENT = {
    # name: (gates, input [steps, batch, size], directions, attributes)
    "LSTM": (4, [10, 1, 16], 1, {}),
    "LSTM, both ways": (4, [10, 1, 16], 2, {"direction": "bidirectional"}),
    "LSTM, batch of 3": (4, [10, 3, 16], 1, {}),
    "GRU": (3, [7, 1, 5], 1, {"linear_before_reset": 1}),
    "GRU, both ways": (3, [7, 1, 5], 2, {"direction": "bidirectional"}),
    "RNN": (1, [7, 1, 5], 1, {}),
}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("weightless", [False, True])
@pytest.mark.parametrize("last_only", [False, True])
def test_recurrent_layers(tmp_path, name, weightless, last_only):
    """Each step and direction multiplies the input and the state with their matrices of all gates."""
    gates, (steps, batch, size), ways, attributes = RECURRENT[name]
    hidden = 8
    sketch = Sketch(weightless=weightless)
    operands = [
        sketch.input("x", [steps, batch, size]), sketch.weight("W", ways, gates * hidden, size), sketch.weight("R", ways, gates * hidden, hidden),
        sketch.weight("B", ways, 2 * gates * hidden), "", sketch.constant("h0", np.zeros((ways, batch, hidden), np.float32)),
    ]  # fmt: skip
    outputs = ["", "state"] if last_only else ["all"]
    y = sketch.node(name.split(",")[0], operands, "op", outputs, hidden_size=hidden, **attributes) or "state"
    flat = ways * batch * hidden * (1 if last_only else steps)
    shaped = sketch.node("Reshape", [y, sketch.constant("shape", np.array([1, flat]))])
    sketch.node("Gemm", [shaped, sketch.weight("w", flat, 4)], "head", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    layer = network.layers[0]
    assert layer.kind == "recurrent" and layer.macs == ways * batch * steps * gates * hidden * (size + hidden)
    assert layer.params == ways * gates * hidden * (size + hidden + 2)  # the zero initial state is no weight
    assert (layer.elements_in, layer.elements_out) == (steps * batch * size, flat)
    assert list(network.inputs) == ["x"]


def test_a_recurrent_state_that_is_fed_in_is_an_input(tmp_path):
    sketch = Sketch(weightless=True)
    operands = [sketch.input("x", [5, 1, 4]), sketch.weight("W", 1, 24, 4), sketch.weight("R", 1, 24, 8), "", "", sketch.input("h", [1, 1, 8])]
    sketch.node("GRU", operands, "op", ["", "state"], hidden_size=8)
    sketch.node("Gemm", [sketch.node("Squeeze", ["state", sketch.constant("axes", np.array([0]))]), sketch.weight("w", 8, 4)], "head", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    assert list(network.inputs) == ["x", "h"] and network.layers[0].inputs == ("x", "h") and network.layers[0].elements_in == 28


def test_lookups_store_their_table(tmp_path):
    sketch = Sketch()
    y = sketch.node("Gather", [sketch.weight("table", 1000, 16), sketch.input("tokens", [1, 12], TensorProto.INT64)], "op")
    sketch.node("Gemm", [sketch.node("Flatten", [y]), sketch.weight("w", 192, 4)], "head", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    assert (network.layers[0].kind, network.layers[0].params, network.layers[0].elements_out) == ("reshape", 16_000, 192)
    assert network.inputs == {"tokens": (1, 12)} and network.params == 16_000 + 768


def test_pooling_and_the_rest_have_no_macs(tmp_path):
    sketch = Sketch()
    y = sketch.node("AveragePool", [sketch.input("x", [1, 4, 9, 9])], "average", kernel_shape=[2, 2])
    y = sketch.node("MaxPool", [y], "pool", kernel_shape=[2, 2], strides=[2, 2])
    y = sketch.node("Softmax", [sketch.node("Tanh", [sketch.node("GlobalAveragePool", [y], "mean")], "tanh")], "soft", axis=1)
    sketch.node("Gemm", [sketch.node("Flatten", [y], "flat"), sketch.weight("w", 4, 4)], "head", ["y"])
    sketch.output("y")
    found = layers(import_onnx(sketch.save(tmp_path / "n.onnx")))
    assert [(name, found[name].kind) for name in found] == [
        ("average", "pooling"), ("pool", "pooling"), ("mean", "pooling"), ("tanh", "elementwise"), ("soft", "softmax"),
        ("flat", "reshape"), ("head", "fully_connected"),
    ]  # fmt: skip
    assert found["pool"].kernel == (2, 2) and found["pool"].stride == (2, 2) and found["mean"].kernel == (4, 4)
    assert found["average"].stride == (1, 1) and {layer.groups for layer in found.values()} == {1}
    assert [layer.macs for layer in found.values()] == [0, 0, 0, 0, 0, 0, 16]


# ---------------------------------------------------------------------------------------------------------------------
# Fusing


def chain(*operators, bias=True, weightless=False, add=None) -> Sketch:
    """A convolution of 3 to 8 channels, then `operators`, then a head."""
    sketch = Sketch(weightless=weightless)
    y = sketch.node("Conv", [sketch.input("x", [1, 3, 4, 4]), sketch.weight("w", 8, 3, 1, 1), *([sketch.weight("b", 8)] if bias else [])], "conv")
    for index, operator in enumerate(operators):
        more = {
            "BatchNormalization": [sketch.weight(f"{index}.{part}", 8) for part in ("scale", "shift", "mean", "variance")],
            "PRelu": [sketch.weight(f"{index}.slope", 8, 1, 1)],
            "Add": [sketch.constant(f"{index}.bias", np.ones(add or (1, 8, 1, 1), np.float32))],
            "Clip": [sketch.constant(f"{index}.low", np.float32(0)), sketch.constant(f"{index}.high", np.float32(6))],
        }.get(operator, []) if operator in ("BatchNormalization", "PRelu", "Add", "Clip") else []  # fmt: skip
        y = sketch.node(operator, [y, *more], f"{operator}{index}")
    sketch.node("Gemm", [sketch.node("Flatten", [y], "flat"), sketch.weight("h", 128, 4)], "head", ["y"])
    sketch.output("y")
    return sketch


FUSIONS = {
    # operators behind the convolution: (what is left, fused, params of the convolution), with bias
    ("Relu",): ([], ("Relu",), 32),
    ("Clip",): ([], ("Clip",), 32),
    ("BatchNormalization",): ([], ("BatchNormalization",), 32),
    ("BatchNormalization", "Relu"): ([], ("BatchNormalization", "Relu"), 32),
    ("BatchNormalization", "PRelu"): ([], ("BatchNormalization", "PRelu"), 40),
    ("PRelu",): ([], ("PRelu",), 40),
    ("Tanh",): (["Tanh0"], (), 32),
    ("Relu", "BatchNormalization"): (["BatchNormalization1"], ("Relu",), 32),  # cannot be folded through the activation
    ("Tanh", "Relu"): (["Tanh0", "Relu1"], (), 32),
    ("Add",): (["Add0"], (), 32),
}


@pytest.mark.parametrize("operators", FUSIONS)
def test_what_every_runtime_executes_inside_a_convolution_is_no_layer(tmp_path, operators):
    left, fused, params = FUSIONS[operators]
    network = import_onnx(chain(*operators).save(tmp_path / "n.onnx"), final_head="flat")
    found = layers(network)
    assert list(found) == ["conv", *left, "flat", "head"]
    assert (found["conv"].fused, found["conv"].params, found["conv"].macs) == (fused, params, 8 * 16 * 3)
    assert found["flat"].inputs == (left[-1] if left else "conv",)
    assert network.params == params + 512 + sum({"BatchNormalization1": 32, "Add0": 8}.get(name, 0) for name in left)


@pytest.mark.parametrize("weightless", [False, True])
@pytest.mark.parametrize("operators", [("BatchNormalization",), ("BatchNormalization", "Relu"), ("Add",), ("Add", "BatchNormalization", "Relu")])
def test_folding_leaves_one_bias_a_channel(tmp_path, operators, weightless):
    layer = only(tmp_path, chain(*operators, bias=False, weightless=weightless))
    assert layer.fused == operators and layer.params == 24 + 8


def test_an_addition_of_a_whole_tensor_is_no_bias(tmp_path):
    found = layers(import_onnx(chain("Add", bias=False, add=(1, 8, 4, 4)).save(tmp_path / "n.onnx")))
    assert found["conv"].fused == () and found["conv"].params == 24 and found["Add0"].params == 128


@pytest.mark.parametrize("weightless", [False, True])
def test_matmul_with_its_bias_and_activation_is_one_layer(tmp_path, weightless):
    sketch = Sketch(weightless=weightless)
    y = sketch.node("MatMul", [sketch.input("x", [1, 32]), sketch.weight("w", 32, 10)], "fc")
    y = sketch.node("Relu", [sketch.node("Add", [sketch.weight("b", 10), y], "bias")], "relu")
    sketch.node("Gemm", [y, sketch.weight("h", 10, 4)], "head", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    found = layers(network)
    assert list(found) == ["fc", "head"] and found["fc"].fused == ("Add", "Relu") and found["fc"].params == 330 and list(network.inputs) == ["x"]


def test_residual_additions_are_layers_with_two_inputs(tmp_path):
    """Batch normalisation behind an addition cannot be folded; the activation behind it can."""
    sketch = Sketch()
    x = sketch.input("x", [1, 8, 4, 4])
    a = sketch.node("Relu", [sketch.node("Conv", [x, sketch.weight("w", 8, 8, 1, 1)], "conv")], "relu")
    b = sketch.node("Relu", [sketch.node("Add", [a, x], "add")], "after")
    norm = [sketch.weight(name, 8) for name in ("s", "m", "v", "q")]
    c = sketch.node("BatchNormalization", [sketch.node("Add", [b, a], "again"), *norm], "norm")
    sketch.node("Gemm", [sketch.node("Flatten", [c], "flat"), sketch.weight("h", 128, 4)], "head", ["y"])
    sketch.output("y")
    found = layers(import_onnx(sketch.save(tmp_path / "n.onnx"), final_head="flat"))
    assert list(found) == ["conv", "add", "again", "norm", "flat", "head"]
    assert found["conv"].fused == ("Relu",) and found["add"].fused == ("Relu",) and found["again"].fused == ()
    assert found["add"].inputs == ("conv", "x") and found["add"].elements_in == 256 and found["again"].inputs == ("add", "conv")
    assert (found["norm"].kind, found["norm"].params) == ("normalization", 32)


def test_a_result_that_others_need_before_its_activation_is_not_fused(tmp_path):
    sketch = Sketch()
    a = sketch.node("Conv", [sketch.input("x", [1, 8, 4, 4]), sketch.weight("w", 8, 8, 1, 1)], "conv")
    y = sketch.node("Mul", [a, sketch.node("Sigmoid", [a], "gate")], "swish")
    sketch.node("Gemm", [sketch.node("Flatten", [y], "flat"), sketch.weight("h", 128, 4)], "head", ["y"])
    sketch.output("y")
    found = layers(import_onnx(sketch.save(tmp_path / "n.onnx")))
    assert list(found) == ["conv", "gate", "swish", "flat", "head"] and found["swish"].inputs == ("conv", "gate")


@pytest.mark.parametrize("weightless", [False, True])
def test_what_depends_only_on_weights_and_shapes_costs_nothing(tmp_path, weightless):
    """Transposed weights, and the shape arithmetic that exporters write for a dynamic batch."""
    sketch = Sketch(weightless=weightless)
    x = sketch.input("x", ["N", 8, 4, 4])
    size = sketch.node("Gather", [sketch.node("Shape", [x]), sketch.constant("first", np.array(0))], axis=0)
    size = sketch.node(
        "Concat", [sketch.node("Unsqueeze", [size, sketch.constant("axes", np.array([0]))]), sketch.constant("rest", np.array([-1]))], axis=0
    )
    flat = sketch.node("Reshape", [x, size], "flat")
    w = sketch.node("Transpose", [sketch.weight("w", 10, 128)], perm=[1, 0])
    sketch.node("MatMul", [sketch.node("Relu", [sketch.node("Identity", [flat])], "relu"), w], "head", ["y"])
    sketch.output("y", ["N", 10])
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    found = layers(network)
    assert list(found) == ["flat", "relu", "head"] and network.warnings == () and network.classes == 10 and list(network.inputs) == ["x"]
    assert found["relu"].inputs == ("flat",) and (found["head"].kind, found["head"].params, found["head"].macs) == ("fully_connected", 1280, 1280)


def test_shapes_that_the_model_itself_computes_are_known(tmp_path):
    """As PyTorch traces attention: half the width, through a cast to float and back, decides a reshape."""
    sketch = Sketch()
    x = sketch.input("x", ["N", 6, 8])
    width = sketch.node("Gather", [sketch.node("Shape", [x]), sketch.constant("two", np.array(2))])
    half = sketch.node(
        "Cast", [sketch.node("Div", [sketch.node("Cast", [width], to=FLOAT), sketch.constant("by", np.float32(2))])], to=TensorProto.INT64
    )
    half = sketch.node("Unsqueeze", [half, sketch.constant("axes", np.array([0]))])
    heads = sketch.node("Reshape", [x, sketch.node("Concat", [sketch.constant("lead", np.array([1, 12])), half], axis=0)], "heads")
    sketch.node("Gemm", [sketch.node("Flatten", [sketch.node("Tanh", [heads], "tanh")], "flat"), sketch.weight("w", 48, 4)], "head", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    assert [layer.name for layer in network.layers] == ["heads", "tanh", "flat", "head"] and network.warnings == ()
    assert network.layers[0].output_shape == (1, 12, 4) and network.inputs == {"x": (1, 6, 8)}


# ---------------------------------------------------------------------------------------------------------------------
# Exits


def multi_exit(*, weightless=False, batch="N", order=(0, 1, 2)) -> Sketch:
    """Three exits over two inputs; head 0 also reads the second input, exit 1 has two layers, the last ends in a pooled head."""
    sketch = Sketch(weightless=weightless)
    x, side = sketch.input("x", [batch, 3, 8, 8]), sketch.input("side", [batch, 6])
    t = sketch.node(
        "Relu", [sketch.node("Conv", [x, sketch.weight("w0", 4, 3, 3, 3), sketch.weight("b0", 4)], "s0/conv", pads=[1, 1, 1, 1])], "s0/relu"
    )
    pooled = sketch.node("Flatten", [sketch.node("GlobalAveragePool", [t], "h0/pool")], "h0/flat")
    sketch.node(
        "Gemm", [sketch.node("Concat", [pooled, side], "h0/concat", axis=1), sketch.weight("w1", 10, 5), sketch.weight("b1", 5)], "h0/fc", ["y0"]
    )
    t = sketch.node("MaxPool", [t], "s1/pool", kernel_shape=[2, 2], strides=[2, 2])
    t = sketch.node("Conv", [t, sketch.weight("w2", 4, 1, 3, 3)], "s1/depthwise", group=4, pads=[1, 1, 1, 1])
    hidden = sketch.node("Relu", [sketch.node("Gemm", [sketch.node("Flatten", [t], "h1/flat"), sketch.weight("w3", 64, 7)], "h1/hidden")], "h1/relu")
    sketch.node("Gemm", [hidden, sketch.weight("w4", 7, 5)], "h1/fc", ["y1"])
    t = sketch.node("Conv", [t, sketch.weight("w5", 8, 4, 1, 1), sketch.weight("b5", 8)], "s2/pointwise")
    pooled = sketch.node("Flatten", [sketch.node("GlobalAveragePool", [t], "h2/pool")], "h2/flat")
    sketch.node("Gemm", [pooled, sketch.weight("w6", 8, 5)], "h2/fc", ["y2"])
    for index in order:
        sketch.output(f"y{index}", [batch, 5])
    return sketch


@pytest.mark.parametrize("weightless", [False, True])
@pytest.mark.parametrize("batch", ["N", 1])
def test_heads_are_what_only_their_output_uses(tmp_path, weightless, batch):
    network = import_onnx(multi_exit(weightless=weightless, batch=batch).save(tmp_path / "net.onnx"))
    assert [[layer.name for layer in segment] for segment in network.segments] == [["s0/conv"], ["s1/pool", "s1/depthwise"], ["s2/pointwise"]]
    assert [[layer.name for layer in head] for head in network.heads] == [
        ["h0/pool", "h0/flat", "h0/concat", "h0/fc"], ["h1/flat", "h1/hidden", "h1/fc"], ["h2/pool", "h2/flat", "h2/fc"]
    ]  # fmt: skip
    assert network.segment_macs == [4 * 64 * 27, 4 * 16 * 9, 8 * 16 * 4] and network.head_macs == [50, 64 * 7 + 35, 40]
    assert network.params == (108 + 4) + (50 + 5) + 36 + 448 + 35 + (32 + 8) + 40
    assert network.inputs == {"x": (1, 3, 8, 8), "side": (1, 6)} and (network.exits, network.classes, network.data_type) == (3, 5, "fp32")
    assert (network.name, network.onnx, network.final_head, network.warnings) == ("net", "net.onnx", "h2/pool", ())
    found = layers(network)
    assert found["h0/concat"].inputs == ("h0/flat", "side") and found["h1/fc"].inputs == ("h1/hidden",) and found["h1/hidden"].fused == ("Relu",)
    assert [layer.name for layer in network.layers][:6] == ["s0/conv", "h0/pool", "h0/flat", "h0/concat", "h0/fc", "s1/pool"]
    assert import_onnx(tmp_path / "net.onnx", name="other").name == "other"


def test_the_order_of_exits_may_be_given(tmp_path):
    straight = import_onnx(multi_exit().save(tmp_path / "a.onnx"), name="n")
    mixed = multi_exit(order=(2, 0, 1)).save(tmp_path / "b.onnx")
    assert replace(import_onnx(mixed, name="n", outputs=["y0", "y1", "y2"]), onnx="a.onnx") == straight
    assert import_onnx(mixed, outputs=["y1", "y2"]).exits == 2
    assert any("outputs must be in the order of the exits" in warning for warning in import_onnx(mixed).warnings)


def test_a_subset_of_the_outputs_moves_nothing_that_is_still_used(tmp_path):
    network = import_onnx(multi_exit().save(tmp_path / "n.onnx"), outputs=["y0", "y2"])
    assert [[layer.name for layer in segment] for segment in network.segments] == [["s0/conv"], ["s1/pool", "s1/depthwise", "s2/pointwise"]]
    assert list(network.inputs) == ["x", "side"]


def test_two_classes_and_convolutional_heads_are_counted(tmp_path):
    sketch = Sketch()
    y = sketch.node("GlobalAveragePool", [sketch.input("x", [1, 6, 4, 4])], "pool")
    sketch.node("Conv", [y, sketch.weight("w", 2, 6, 1, 1)], "head", ["y"])
    sketch.output("y", [1, 2, 1, 1])
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    assert network.classes == 2 and network.final_head == "pool" and network.head_macs == [12]


@pytest.mark.parametrize("inline", [False, True])
def test_a_data_input_that_is_only_added_or_picked_from_stays_an_input(tmp_path, inline):
    """Both look like weights without values, but nothing else is computed before them, or the places picked are constant."""
    sketch = Sketch()
    x, z = sketch.input("x", [1, 6]), sketch.input("z", [1, 3, 6])
    place = sketch.node("Constant", [], value=numpy_helper.from_array(np.array(1))) if inline else sketch.constant("second", np.array(1))
    picked = sketch.node("Gather", [z, place], "pick", axis=1)
    y = sketch.node("Add", [sketch.node("Add", [x, picked], "add"), sketch.input("s", [1, 6])], "more")
    sketch.node("Gemm", [y, sketch.weight("w", 6, 4)], "head", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    assert list(network.inputs) == ["x", "z", "s"] and [layer.name for layer in network.layers] == ["pick", "add", "more", "head"]


def test_where_the_final_head_begins_can_be_said(tmp_path):
    path = multi_exit().save(tmp_path / "n.onnx")
    network = import_onnx(path, final_head="s2/pointwise")
    assert network.final_head == "s2/pointwise" and network.segments[2] == () and network.head_macs[2] == 512 + 40
    assert [layer.name for layer in import_onnx(path, final_head="h2/fc").heads[2]] == ["h2/fc"]
    said = line(import_onnx, path, final_head="h2/pol")
    assert said == f"{path}: final_head: unknown node of the final head 'h2/pol'; did you mean 'h2/pool'?"
    assert "unknown node of the final head 's0/conv'" in line(import_onnx, path, final_head="s0/conv")


def test_the_final_head_without_pooling_begins_at_the_last_fully_connected_layer(tmp_path):
    sketch = Sketch()
    y = sketch.node("Gemm", [sketch.input("x", [1, 16]), sketch.weight("a", 16, 16)], "first")
    sketch.node("MatMul", [sketch.node("Relu", [y], "relu"), sketch.weight("b", 16, 4)], "second", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    assert network.final_head == "second" and [layer.name for layer in network.segments[0]] == ["first"]


def test_outputs_that_make_no_exit(tmp_path):
    path = multi_exit().save(tmp_path / "n.onnx")
    assert line(import_onnx, path, outputs=["y0", "y7"]).startswith(f"{path}: unknown output 'y7'; did you mean 'y")
    assert "'y0' has no layer of its own" in line(import_onnx, path, outputs=["y0", "y0"])
    sketch = multi_exit()
    sketch.node("Relu", ["y1"], "more", ["y3"])
    sketch.output("y3", ["N", 5])
    assert "'y1' has no layer of its own" in line(import_onnx, sketch.save(path), outputs=["y0", "y1", "y3"])
    assert "'y1' has no layer of its own, so it has no head; the final exit must come last" in line(import_onnx, path, outputs=["y3", "y1"])
    sketch = multi_exit()
    sketch.output("x", ["N", 3, 8, 8])
    assert "unknown output 'x'; choose one of y0, y1, y2" in line(import_onnx, sketch.save(path))


def test_an_output_that_also_feeds_the_next_layer_keeps_its_own_activation(tmp_path):
    """The logits leave before the activation, so the activation is no part of the layer that makes them."""
    sketch = Sketch()
    y = sketch.node("Gemm", [sketch.input("x", [1, 6]), sketch.weight("a", 6, 4)], "fc", ["y0"])
    sketch.node("Gemm", [sketch.node("Relu", [y], "relu"), sketch.weight("b", 4, 4)], "last", ["y1"])
    sketch.output("y0")
    sketch.output("y1")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"), outputs=["y1"])
    assert [layer.name for layer in network.layers] == ["fc", "relu", "last"] and network.layers[0].fused == ()


def test_nodes_without_names_or_with_the_same_get_names_of_their_own(tmp_path):
    sketch = Sketch()
    y = sketch.input("tanh", [1, 6])
    for name in ("same", "same", "", "", "tanh"):
        y = sketch.node("Tanh", [y], name)
    sketch.node("Gemm", [y, sketch.weight("w", 6, 4)], "same", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    names = [layer.name for layer in network.layers]
    assert len(set(names) | {"tanh"}) == 7 and names[0] == "same"
    assert [layer.inputs for layer in network.layers] == [("tanh",), *((name,) for name in names[:-1])]
    write_network(network, tmp_path / "n.yaml")
    assert read_network(tmp_path / "n.yaml") == network


# ---------------------------------------------------------------------------------------------------------------------
# What import does not know


def test_an_operator_without_a_cost_rule_is_a_warning_that_says_what_was_assumed(tmp_path):
    sketch = single("CumSum", [1, 40], flat=40)
    sketch.nodes[0].input.append(sketch.constant("axis", np.array(1)))
    network = import_onnx(sketch.save(tmp_path / "n.onnx"), final_head="head")
    layer = network.layers[0]
    assert network.warnings == ("operator 'CumSum' (op) has no cost rule; assumed: one element-wise pass over its tensors",)
    assert (layer.kind, layer.elements_in, layer.elements_out) == ("elementwise", 40, 40)
    write_network(network, tmp_path / "n.yaml")
    assert read_network(tmp_path / "n.yaml") == network  # the warning is kept


@pytest.mark.parametrize("domain", ["", "com.example"])
@pytest.mark.parametrize("stated", [False, True])
def test_an_operator_that_onnx_does_not_know_is_a_warning_too(tmp_path, domain, stated):
    """Its weights are counted; where its output shape is not stated, that of its input is assumed, and said."""
    sketch = single("Frobnicate", ["N", 6, 5], [(7, 7)], flat=30, domain=domain)
    sketch.domains.append(helper.make_opsetid("com.example", 1))
    if stated:
        sketch.known.append(helper.make_tensor_value_info("t0", FLOAT, [1, 6, 5]))
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    layer = network.layers[0]
    assert (layer.kind, layer.elements_in, layer.elements_out, layer.params) == ("elementwise", 30, 30, 49)
    assert network.warnings[-1] == "operator 'Frobnicate' (op) has no cost rule; assumed: one element-wise pass over its tensors"
    assert any("output shape of operator 'Frobnicate' (op) is not known; assumed: that of its input" in said for said in network.warnings) != stated


def test_every_operator_with_a_rule_has_a_kind_that_profiles_price():
    assert set(OPERATOR_KINDS.values()) <= set(KINDS)
    widths = {"float32": "float32", "fp32": "float32", "fp16": "float16", "int16": "int16", "int8": "int8", "uint8": "uint8"}
    assert {name: ITEM_BYTES[name] for name in widths} == {name: np.dtype(kind).itemsize for name, kind in widths.items()}
    assert ITEM_BYTES["bf16"] == 2 and ITEM_BYTES["fp8"] == 1
    assert convolution_kind((3, 3), 1, 1) == "conv" and convolution_kind((1, 1), 8, 8) == "depthwise" and convolution_kind((1,), 2, 8) == "pointwise"
    assert work("softmax", 10, "entropy", 5) == Layer("entropy", "entropy", "softmax", (1, 10), (1, 10), 5, 0, 10, 10)


def test_a_shape_that_cannot_be_inferred_is_refused(tmp_path):
    sketch = Sketch()
    x, shape = sketch.input("x", [1, 12]), sketch.input("shape", [2], TensorProto.INT64)
    y = sketch.node("Relu", [sketch.node("Reshape", [x, shape], "unknown")], "relu")
    sketch.node("Gemm", [y, sketch.weight("w", 12, 4)], "head", ["y"])
    sketch.output("y")
    path = sketch.save(tmp_path / "n.onnx")
    assert line(import_onnx, path) == f"{path}: unknown: the shape of tensor 't0' cannot be inferred; fix the model's input sizes"
    path = single("Tanh", ["N", 3, "H", "W"], flat=300).save(path)
    assert "the shape of tensor 'x' cannot be inferred; fix the model's input sizes" in line(import_onnx, path)


def test_a_fixed_batch_above_one_is_said(tmp_path):
    network = import_onnx(multi_exit(batch=8).save(tmp_path / "n.onnx"))
    assert network.segment_macs[0] == 8 * 4 * 64 * 27
    assert network.warnings == ("every input and output of 'n.onnx' begins with 8; counts are for the whole batch of 8",)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" * 100, b"schema_version: 1\n"])
def test_files_that_are_not_onnx(tmp_path, content):
    path = tmp_path / "n.onnx"
    path.write_bytes(content)
    assert line(import_onnx, path).startswith(f"{path}: not a readable ONNX model: ")
    assert line(import_onnx, tmp_path / "none.onnx").startswith(f"{tmp_path / 'none.onnx'}: not a readable ONNX model: ")


def test_weights_in_a_file_beside_are_not_needed(tmp_path):
    whole = import_onnx(multi_exit().save(tmp_path / "n.onnx"))
    model = onnx.load(tmp_path / "n.onnx")
    onnx.save(model, tmp_path / "n.onnx", save_as_external_data=True, location="n.data", size_threshold=0)
    assert (tmp_path / "n.data").stat().st_size > 0
    assert import_onnx(tmp_path / "n.onnx") == whole
    (tmp_path / "n.data").unlink()
    assert import_onnx(tmp_path / "n.onnx") == whole


@pytest.mark.parametrize(
    ("kind", "data_type"), [(FLOAT, "fp32"), (TensorProto.FLOAT16, "fp16"), (TensorProto.BFLOAT16, "bf16"), (TensorProto.DOUBLE, "fp32")]
)
def test_the_data_type_is_that_of_the_input(tmp_path, kind, data_type):
    sketch = Sketch()
    sketch.node("Cast", [sketch.node("Flatten", [sketch.input("x", [1, 2, 2], kind)], "flat")], "cast", ["t"], to=FLOAT)
    sketch.node("Gemm", ["t", sketch.weight("w", 4, 4)], "head", ["y"])
    sketch.output("y")
    assert import_onnx(sketch.save(tmp_path / "n.onnx")).data_type == data_type


@pytest.mark.parametrize(("kind", "data_type"), [(np.int8, "int8"), (np.uint8, "uint8")])
def test_a_quantised_network_has_the_data_type_and_layers_of_its_weights(tmp_path, kind, data_type):
    """Quantise and dequantise pairs around layers, as exporters write them: their work is inside the layers between."""
    sketch = Sketch()
    scale, zero = sketch.constant("scale", np.float32(0.1)), sketch.constant("zero", kind(0))

    def quantised(tensor):
        return sketch.node("DequantizeLinear", [sketch.node("QuantizeLinear", [tensor, scale, zero]), scale, zero])

    w = sketch.node("DequantizeLinear", [sketch.weight("w", 4, 3, 3, 3, kind=kind), scale, zero])
    y = sketch.node("Relu", [sketch.node("Conv", [quantised(sketch.input("x", [1, 3, 8, 8])), w, sketch.weight("b", 4)], "conv")], "relu")
    h = sketch.node("DequantizeLinear", [sketch.weight("h", 144, 4, kind=kind), scale, zero])
    sketch.node("Gemm", [sketch.node("Flatten", [quantised(y)], "flat"), h], "head", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"), final_head="flat")
    found = layers(network)
    assert network.data_type == data_type and network.warnings == ()
    assert [layer.op for layer in network.layers] == ["QuantizeLinear", "Conv", "Flatten", "Gemm"]  # the first makes numbers of the input
    assert (found["conv"].macs, found["conv"].params, found["conv"].fused) == (4 * 36 * 27, 108 + 4, ("Relu",)) and found["flat"].inputs == ("conv",)
    assert network.params == 112 + 576


def test_integer_convolutions_have_macs(tmp_path):
    sketch = Sketch()
    scale, zero = sketch.constant("scale", np.float32(0.1)), sketch.constant("zero", np.uint8(0))
    x = sketch.input("x", [1, 3, 8, 8], TensorProto.UINT8)
    operands = [x, scale, zero, sketch.weight("w", 4, 3, 3, 3, kind=np.uint8), scale, zero, scale, zero, sketch.weight("b", 4, kind=np.int32)]
    y = sketch.node("QLinearConv", operands, "conv")
    y = sketch.node(
        "QLinearMatMul", [sketch.node("Flatten", [y]), scale, zero, sketch.weight("m", 144, 4, kind=np.uint8), scale, zero, scale, zero], "fc"
    )
    sketch.node("DequantizeLinear", [y, scale, zero], "floats", ["y"])
    sketch.output("y")
    network = import_onnx(sketch.save(tmp_path / "n.onnx"))
    found = layers(network)
    assert (found["conv"].kind, found["conv"].macs, found["conv"].params) == ("conv", 4 * 36 * 27, 112)
    assert (found["fc"].kind, found["fc"].macs, found["fc"].params) == ("fully_connected", 576, 576)
    assert network.data_type == "uint8" and network.warnings == () and "floats" in found


def test_import_agrees_with_what_onnxruntime_computes(tmp_path):
    """Output shapes of the imported layers are those of the tensors that really come out."""
    runtime = pytest.importorskip("onnxruntime")
    path = multi_exit().save(tmp_path / "n.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": np.zeros((1, 3, 8, 8), np.float32), "side": np.zeros((1, 6), np.float32)})
    assert [head[-1].output_shape for head in import_onnx(path).heads] == [output.shape for output in outputs]


# ---------------------------------------------------------------------------------------------------------------------
# YAML


@pytest.mark.parametrize("data_type", sorted(ITEM_BYTES))
def test_yaml_there_and_back(tmp_path, data_type):
    made = replace(import_onnx(multi_exit().save(tmp_path / "n.onnx")), data_type=data_type, warnings=("one: two", "three"))
    write_network(made, tmp_path / "n.yaml")
    assert read_network(tmp_path / "n.yaml") == made
    data = yaml.safe_load((tmp_path / "n.yaml").read_text())
    assert data["final_head"] == "h2/pool" and data["segments"][0][0]["bytes_in"] == 192 * ITEM_BYTES[data_type]
    write_network(read_network(tmp_path / "n.yaml"), tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == (tmp_path / "n.yaml").read_bytes()


def test_yaml_there_and_back_of_names_that_need_care(tmp_path):
    names = ["yes", "1e3", "1e3f", "a: b", "- x", "ü/µ", "{}", "#", "x" * 500, "null", " lead", "'quoted' \"twice\""]
    chain = [replace(builders.layer(name), inputs=(["in: put", *names][index],)) for index, name in enumerate(names)]
    wide = replace(builders.layer("wide"), inputs=(*names, "in: put"), fused=tuple(f"Relu{index}" for index in range(3000)))
    made = Network("n: 1", {"in: put": (1, 100)}, (tuple(chain[:6]), ()), ((wide,), tuple(chain[6:])), classes=None)
    chain[6:] = [replace(chain[6], inputs=(names[5],)), *chain[7:]]
    made = replace(made, heads=((replace(wide, inputs=(*names[:6], "in: put")),), tuple(chain[6:])))
    write_network(made, tmp_path / "n.yaml")
    assert read_network(tmp_path / "n.yaml") == made


def plain(**changes) -> dict:
    """A network as the contract lists it, without `kind` and `inputs`: conv -> head 0, depthwise -> head 1."""

    def row(name, op, shape, out, **more):
        sizes = {"bytes_in": 4 * int(np.prod(shape)), "bytes_out": 4 * int(np.prod(out)), "bytes_weights": 4 * more["params"]}
        return {"name": name, "op": op, "input_shape": shape, "output_shape": out, **sizes, **more}

    return {
        "schema_version": 1, "name": "plain", "classes": 5, "inputs": {"x": [1, 3, 8, 8]}, "final_head": "pool1",
        "segments": [
            [row("conv", "Conv", [1, 3, 8, 8], [1, 4, 8, 8], kernel=[3, 3], stride=[1, 1], groups=1, macs=6912, params=112)],
            [row("depthwise", "Conv", [1, 4, 8, 8], [1, 4, 8, 8], kernel=[3, 3], stride=[1, 1], groups=4, macs=2304, params=36)],
        ],
        "heads": [
            [row("fc0", "Gemm", [1, 256], [1, 5], macs=1280, params=1285)],
            [row("pool1", "GlobalAveragePool", [1, 4, 8, 8], [1, 4, 1, 1], macs=0, params=0), row("fc1", "Gemm", [1, 4], [1, 5], macs=20, params=25)],
        ],
        **changes,
    }  # fmt: skip


def read(folder, data):
    path = folder / "network.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return read_network(path)


def test_yaml_as_the_contract_lists_it(tmp_path):
    """Kinds follow from the operator; where `inputs` are left out, a layer reads the one before it, a head the end of its segment."""
    network = read(tmp_path, plain())
    found = layers(network)
    assert {name: layer.kind for name, layer in found.items()} == {
        "conv": "conv", "fc0": "fully_connected", "depthwise": "depthwise", "pool1": "pooling", "fc1": "fully_connected"
    }  # fmt: skip
    assert {name: layer.inputs for name, layer in found.items()} == {
        "conv": ("x",), "fc0": ("conv",), "depthwise": ("conv",), "pool1": ("depthwise",), "fc1": ("pool1",)
    }  # fmt: skip
    assert (found["conv"].elements_in, found["conv"].elements_out, network.params, network.exits) == (192, 256, 1458, 2)
    assert network.segment_macs == [6912, 2304] and network.head_macs == [1280, 20] and network.data_type == "fp32"
    assert footprint(network, "fp32").peak_activation_bytes == 4 * 512  # conv and depthwise


def edited(*path, value=None, drop=False):
    data = plain()
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return data


BAD = [
    (edited("segmnts", value=[]), "segmnts: unknown key 'segmnts'; did you mean 'segments'?"),
    (edited("segments", 0, 0, "mac", value=1), "segments.0.0.mac: unknown key 'mac'; did you mean 'macs'?"),
    (edited("segments", 0, 0, "bytes", value=1), "segments.0.0.bytes: the key 'bytes' lacks its unit; write 'bytes_in'"),
    (edited("heads", 1, 0, "macs", drop=True), "heads.1.0.macs: this key is missing"),
    (edited("final_head", drop=True), "final_head: this key is missing"),
    (edited("segments", 0, 0, "macs", value="many"), "segments.0.0.macs: should be a valid integer, got 'many'"),
    (edited("segments", 0, 0, "macs", value=1.5), "segments.0.0.macs: should be a valid integer, got 1.5"),
    (edited("segments", 0, 0, "macs", value=-1), "segments.0.0.macs: must be at least 0, got -1"),
    (edited("segments", 1, 0, "params", value=-3), "segments.1.0.params: must be at least 0, got -3"),
    (edited("heads", 1, 1, "bytes_out", value=-4), "heads.1.1.bytes_out: must be at least 0, got -4"),
    (edited("heads", 1, 1, "bytes_out", value=7), "heads.1.1.bytes_out: 7 is no multiple of the 4 bytes of a number of the network's data type"),
    (edited("segments", 1, 0, "groups", value=0), "segments.1.0.groups: must be at least 1, got 0"),
    (edited("segments", 1, 0, "input_shape", value=[1, -1]), "segments.1.0.input_shape: sizes must be at least 1, got -1"),
    (edited("segments", 1, 0, "kernel", value=[0, 3]), "segments.1.0.kernel: sizes must be at least 1, got 0"),
    (edited("segments", 1, 0, "input_shape", value=8), "segments.1.0.input_shape: should be a valid list, got 8"),
    (edited("inputs", value={"x": [0]}), "inputs.x: sizes must be at least 1, got 0"),
    (edited("inputs", value=[1, 2]), "inputs: should be a valid dictionary, got a list"),
    (edited("segments", 0, 0, "kind", value="depthwse"), "segments.0.0.kind: unknown layer kind 'depthwse'; did you mean 'depthwise'?"),
    (
        edited("segments", 0, 0, "op", value="Frobnicate"),
        "segments.0.0.op: the kind of operator 'Frobnicate' is not known; give 'kind', one of conv,",
    ),
    (edited("segments", 1, 0, "inputs", value=["convv"]), "segments.1.0.inputs: unknown input 'convv'; did you mean 'conv'?"),
    (edited("segments", 1, 0, "inputs", value=["fc0"]), "segments.1.0.inputs: unknown input 'fc0'; choose one of conv, x"),
    (edited("segments", 0, 0, "inputs", value=["depthwise"]), "segments.0.0.inputs: unknown input 'depthwise'; choose one of x"),
    (edited("heads", 1, 0, "name", value="conv"), "final_head: 'pool1' is not the first layer of the last head ('conv')"),
    (edited("heads", 1, 1, "name", value="conv"), "heads.1.1.name: the name 'conv' is used twice, in segments.0.0 too"),
    (edited("segments", 0, 0, "name", value="x"), "segments.0.0.name: the name 'x' is used twice, in inputs too"),
    (edited("final_head", value="fc1"), "final_head: 'fc1' is not the first layer of the last head ('pool1')"),
    (edited("heads", 1, drop=True), "heads: 2 segments and 1 heads; each segment needs one head"),
    (edited("heads", 0, value=[]), "heads.0: a head needs at least one layer"),
    (plain(segments=[], heads=[]), "heads: 0 segments and 0 heads; each segment needs one head"),
    (edited("schema_version", value=2), "schema_version: version 2 is not known; this eesim reads version 1"),
    (edited("data_type", value="int9"), "data_type: unknown data type 'int9'; did you mean 'int8'?"),
    (edited("classes", value=1), "classes: must be at least 2, got 1"),
]


@pytest.mark.parametrize(("data", "expected"), BAD, ids=[expected.split(":")[0] for _, expected in BAD])
def test_every_bad_network_is_one_line_with_its_place(tmp_path, data, expected):
    said = line(read, tmp_path, data)
    assert said.startswith(f"{tmp_path / 'network.yaml'}: {expected}"), said


def test_a_network_file_that_is_not_there(tmp_path):
    assert line(read_network, tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory"


# ---------------------------------------------------------------------------------------------------------------------
# Memory


def residual() -> Network:
    """a -> b -> c = a + b, head 0 reads c; d reads c, e = d + x, head 1 of two layers. Sizes of results in numbers:

    x 100, a 80, b 60, c 50, h0 4, d 30, e 20, p 10, h1 4.
    """

    def layer(name, size, *inputs, params=10):
        return Layer(name, "Add", "elementwise", (1, 1), (1, size), 0, params, 1, size, inputs=inputs)

    return Network(
        "residual", {"x": (1, 10, 10)},
        ((layer("a", 80, "x"), layer("b", 60, "a"), layer("c", 50, "a", "b")), (layer("d", 30, "c"), layer("e", 20, "d", "x"))),
        ((layer("h0", 400, "c"),), (layer("p", 10, "e"), layer("h1", 4, "p"))),
    )  # fmt: skip


def test_the_peak_of_live_tensors_by_hand():
    """x lives until e. Held at each layer: a: x+a = 180; b: x+a+b = 240; c: x+a+b+c = 290; h0: x+c+h0 = 550; d: x+c+d = 180; …"""
    assert footprint(residual(), "int8").peak_activation_bytes == 550 and footprint(residual(), "int8").peak_layer == "h0"
    assert footprint(residual(), "fp32").peak_activation_bytes == 2200 and footprint(residual(), "fp32").weights_bytes == 4 * 80
    assert footprint(residual(), "fp16").weights_bytes == 160


def test_disabled_exits_take_no_memory():
    """Without head 0 its layer is neither stored nor run, and the peak moves to c."""
    need = footprint(residual(), "int8", (1,))
    assert (need.weights_bytes, need.peak_activation_bytes, need.peak_layer) == (70, 290, "c")
    assert footprint(residual(), "int8", ()) == need  # the final exit is always enabled
    assert footprint(residual(), "int8", (0, 1)) == footprint(residual(), "int8")


def test_what_the_segment_made_stays_alive_while_its_head_runs():
    """c is read by d after head 0; were it freed too early, the head's peak would lack its 50."""
    network = residual()
    alone = replace(network, segments=(network.segments[0], (replace(network.segments[1][0], inputs=("x",)), network.segments[1][1])))
    two = (replace(network.heads[0][0], elements_out=10), Layer("h00", "Add", "elementwise", (1, 1), (1, 300), 0, 0, 1, 300, inputs=("h0",)))
    assert footprint(replace(network, heads=(two, network.heads[1])), "int8").peak_activation_bytes == 100 + 50 + 10 + 300
    assert footprint(replace(alone, heads=(two, network.heads[1])), "int8").peak_activation_bytes == 100 + 10 + 300  # here nobody reads c again


def test_an_input_that_nobody_reads_takes_no_memory_and_one_read_late_does():
    network = residual()
    assert footprint(replace(network, inputs={"x": (1, 10, 10), "unused": (1, 10**6)}), "int8") == footprint(network, "int8")
    segments = (network.segments[0], (network.segments[1][0], replace(network.segments[1][1], inputs=("d",))))
    assert footprint(replace(network, segments=segments), "int8", (1,)).peak_activation_bytes == 80 + 60 + 50  # x is gone after a
