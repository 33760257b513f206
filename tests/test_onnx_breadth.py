"""ONNX import over what exporters, quantisers and onnxruntime itself write: MACs against sums by hand, kinds, data types, and no silent zeros."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_network import FLOAT, Sketch, layers, line

from eesim.network.files import load_network
from eesim.network.memory import footprint
from eesim.network.onnx_import import import_onnx

MICROSOFT = "com.microsoft"


def sketch(opset: int = 17, *domains: str) -> Sketch:
    made = Sketch()
    made.domains = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return made


def read(tmp_path, made: Sketch, last: str | None = None, **options):
    """The network of a sketch; `last` becomes its output through an identity that costs nothing, of any shape."""
    if last is not None:
        made.node("Identity", [last], "last", ["y"])
        made.outputs.append(helper.make_empty_tensor_value_info("y"))
        made.outputs[-1].type.tensor_type.elem_type = FLOAT
    return import_onnx(made.save(tmp_path / "n.onnx"), **options)


# ---------------------------------------------------------------------------------------------------------------------
# Operators of onnxruntime's own


X, W, SCALE, ZERO = ("x", [1, 8, 6, 6]), ("w", (16, 8, 3, 3)), ("s", ()), ("z", ())
OWN = {
    # operator: (inputs by rank order: a shape is data, a tuple a weight, "s" a scale, "z" a zero point), attributes, kind, macs, params, output)
    "FusedConv": ([[1, 8, 6, 6], (16, 8, 3, 3), (16,)], {"activation": "Relu"}, "conv", 16 * 16 * 72, 16 * 72 + 16, (1, 16, 4, 4)),
    "NhwcFusedConv": ([[1, 6, 6, 8], (16, 8, 3, 3)], {"activation": "Relu"}, "conv", 16 * 16 * 72, 16 * 72, (1, 16, 4, 4)),
    "NhwcMaxPool": ([[1, 6, 6, 8]], {"kernel_shape": [2, 2], "strides": [2, 2]}, "pooling", 0, 0, (1, 8, 3, 3)),
    "FusedGemm": ([[1, 12], (5, 12), (5,)], {"transB": 1, "activation": "Relu"}, "fully_connected", 60, 65, (1, 5)),
    "FusedMatMul": ([[1, 4, 7], (4, 9)], {"transA": 1, "alpha": 0.5}, "fully_connected", 7 * 9 * 4, 36, (1, 7, 9)),
    "BiasGelu": ([[1, 4, 7], (7,)], {}, "elementwise", 0, 7, (1, 4, 7)),
    "FastGelu": ([[1, 4, 7]], {}, "elementwise", 0, 0, (1, 4, 7)),
    "QuickGelu": ([[1, 4, 7]], {}, "elementwise", 0, 0, (1, 4, 7)),
    "SkipLayerNormalization": ([[1, 4, 8], [1, 4, 8], (8,), (8,)], {}, "normalization", 0, 16, (1, 4, 8)),
    "Attention": ([[1, 5, 12], (12, 36), (36,)], {"num_heads": 3}, "fully_connected", 5 * 12 * 36 + 2 * 25 * 12, 12 * 36 + 36, (1, 5, 12)),
    "MultiHeadAttention": ([[1, 5, 12], [1, 7, 12], [1, 7, 6]], {"num_heads": 3}, "matmul", 35 * (12 + 6), 0, (1, 5, 6)),
    "MatMulNBits": ([[1, 5, 32], (10, 1, 16), (10,)], {"K": 32, "N": 10, "block_size": 32}, "fully_connected", 1600, 160, (1, 5, 10)),
}  # fmt: skip


@pytest.mark.parametrize("operator", OWN)
def test_operators_of_onnxruntimes_own(tmp_path, operator):
    operands, attributes, kind, macs, params, out = OWN[operator]
    made = sketch(17, MICROSOFT)
    names = [made.input(f"x{i}", shape) if isinstance(shape, list) else made.weight(f"w{i}", *shape) for i, shape in enumerate(operands)]
    network = read(tmp_path, made, made.node(operator, names, "op", domain=MICROSOFT, **attributes))
    (layer,) = network.layers
    assert (layer.op, layer.kind, layer.macs, layer.params, layer.output_shape) == (operator, kind, macs, params, out)
    assert layer.fused == (("Relu",) if "activation" in attributes else ())
    assert network.warnings == () or operator == "MatMulNBits"


def test_attention_of_packed_and_shared_heads(tmp_path):
    """Query, key and value in one tensor; keys and values of fewer heads; keys of the past."""
    made = sketch(17, MICROSOFT)
    packed = made.node("MultiHeadAttention", [made.input("x", [1, 5, 3, 3, 4])], "packed", domain=MICROSOFT, num_heads=3)
    query, keys = made.input("q", [1, 5, 12]), [made.input(name, [1, 5, 4]) for name in "kv"]
    past = [made.input(name, [1, 1, 6, 4]) for name in ("pk", "pv")]
    shared = made.node("GroupQueryAttention", [query, *keys, *past], "shared", domain=MICROSOFT, num_heads=3, kv_num_heads=1)
    network = read(tmp_path, made, made.node("Add", [packed, shared], "add"))
    found = layers(network)
    assert found["packed"].macs == 2 * 5 * 5 * 12 and found["packed"].output_shape == (1, 5, 12)
    assert found["shared"].macs == 2 * 5 * (5 + 6) * 12 and network.warnings == ()


@pytest.mark.parametrize("heads", [(3, 3), (4, 2)])
@pytest.mark.parametrize("flat", [False, True])
def test_attention_of_onnx(tmp_path, heads, flat):
    many, few = heads
    made = sketch(23)
    shapes = [[1, 5, many * 4], [1, 7, few * 4], [1, 7, few * 6]] if flat else [[1, many, 5, 4], [1, few, 7, 4], [1, few, 7, 6]]
    names = [made.input(name, shape) for name, shape in zip("qkv", shapes, strict=True)]
    sizes = {"q_num_heads": many, "kv_num_heads": few} if flat else {}
    (layer,) = read(tmp_path, made, made.node("Attention", names, "op", **sizes)).layers
    assert layer.kind == "matmul" and layer.macs == many * 5 * 7 * (4 + 6)


def quantised(made: Sketch) -> tuple[str, str]:
    return made.constant("scale", np.float32(0.1)), made.constant("zero", np.uint8(0))


def test_a_network_of_qlinear_operators(tmp_path):
    """As onnxruntime writes it: everything between the two ends is 8 bits wide, and two branches are joined by QLinearConcat."""
    made = sketch(17, MICROSOFT)
    sz = quantised(made)
    bytes_of = {"kind": np.uint8}
    x = made.node("QuantizeLinear", [made.input("x", ["N", 3, 8, 8]), *sz], "ends")
    operands = [x, *sz, made.weight("w", 4, 3, 3, 3, **bytes_of), *sz, *sz, made.weight("b", 4, kind=np.int32)]
    a = made.node("QLinearConv", operands, "conv", pads=[1, 1, 1, 1])
    b = made.node("QLinearLeakyRelu", [a, *sz, *sz], "leaky", domain=MICROSOFT, alpha=0.1)
    c = made.node("QLinearAdd", [a, *sz, b, *sz, *sz], "add", domain=MICROSOFT)
    d = made.node("QLinearConcat", [*sz, c, *sz, a, *sz], "concat", domain=MICROSOFT, axis=1)
    d = made.node("QLinearConv", [d, *sz, made.weight("v", 8, 1, 3, 3, **bytes_of), *sz, *sz], "depthwise", group=8)
    e = made.node("QLinearAveragePool", [d, *sz, *sz], "average", domain=MICROSOFT, kernel_shape=[2, 2], strides=[2, 2])
    e = made.node("QLinearSigmoid", [e, *sz, *sz], "sigmoid", domain=MICROSOFT)
    f = made.node("Flatten", [made.node("QLinearGlobalAveragePool", [e, *sz, *sz], "pool", domain=MICROSOFT, channels_last=0)], "flat")
    g = made.node("QGemm", [f, *sz, made.weight("h", 8, 4, **bytes_of), *sz, made.weight("hb", 4, kind=np.int32), *sz], "fc", domain=MICROSOFT)
    network = read(
        tmp_path, made, made.node("DequantizeLinear", [made.node("QLinearSoftmax", [g, *sz, *sz], "soft", domain=MICROSOFT, axis=-1), *sz])
    )
    found = layers(network)
    assert network.warnings == () and network.data_type == "uint8" and network.final_head == "pool"
    assert {name: layer.macs for name, layer in found.items() if layer.macs} == {"conv": 4 * 64 * 27, "depthwise": 8 * 36 * 9, "fc": 32}
    kinds = {"add": "elementwise", "concat": "reshape", "depthwise": "depthwise", "average": "pooling", "soft": "softmax", "fc": "fully_connected"}
    assert {name: found[name].kind for name in kinds} == kinds and found["concat"].output_shape == (1, 8, 8, 8)
    assert found["average"].output_shape == (1, 8, 3, 3) and network.params == (108 + 4) + 72 + (32 + 4)
    assert footprint(network, "uint8").peak_activation_bytes == 2 * 256 + 512  # the concatenation with what it joins


def test_weights_quantised_and_activations_as_they_come(tmp_path):
    made = sketch()
    x, scale, zero = (made.node("DynamicQuantizeLinear", [made.input("x", [1, 3, 8, 8])], "scan", ["xq", "xs", "xz"]), "xs", "xz")
    y = made.node("ConvInteger", [x, made.weight("w", 4, 3, 3, 3, kind=np.uint8), zero, made.constant("wz", np.uint8(0))], "conv")
    y = made.node("Mul", [made.node("Cast", [y], "cast", to=FLOAT), scale], "scaled")
    network = read(tmp_path, made, made.node("Flatten", [y], "flat"), final_head="flat")
    found = layers(network)
    assert (found["conv"].macs, found["conv"].params, network.data_type, found["scan"].kind) == (4 * 36 * 27, 108, "uint8", "elementwise")
    assert network.warnings == ("weights are uint8 but activations are quantised as they come or not at all; all numbers are counted as uint8",)


def test_the_layout_of_onnxruntime_for_one_processor(tmp_path):
    """Channels in blocks of eight: 3 input channels stay, 12 become 16; the last operator gives 12 back."""
    made, blocks = sketch(17, "com.microsoft.nchwc"), "com.microsoft.nchwc"
    y = made.node("Conv", [made.input("x", [1, 3, 8, 8]), made.weight("w", 16, 3, 3, 3)], "conv", domain=blocks, activation="Relu", strides=[2, 2])
    y = made.node("MaxPool", [y], "pool", domain=blocks, kernel_shape=[2, 2])
    network = read(tmp_path, made, made.node("ReorderOutput", [y], "order", domain=blocks, channels=12), final_head="order")
    found = layers(network)
    assert (found["conv"].macs, found["pool"].output_shape, found["order"].output_shape) == (16 * 9 * 27, (1, 16, 2, 2), (1, 12, 2, 2))
    assert network.warnings == ("the model is laid out for one processor by onnxruntime; channels are counted as padded to its blocks",)


# ---------------------------------------------------------------------------------------------------------------------
# Exporters


@pytest.mark.parametrize("opset", [11, 13, 15, 17, 18, 19, 20, 22])
def test_a_block_of_a_mobile_network_in_every_opset(tmp_path, opset):
    """An inverted residual with squeeze and excitation: expand, depthwise, gate, project, add."""
    made = sketch(opset)
    x = made.input("x", ["N", 8, 6, 6])
    y = made.node("Conv", [x, made.weight("a", 16, 8, 1, 1), made.weight("ab", 16)], "expand")
    y = made.node("Mul", [y, made.node("HardSigmoid", [y], "gate")], "swish") if opset < 14 else made.node("HardSwish", [y], "swish")
    y = made.node("Conv", [y, made.weight("b", 16, 1, 3, 3)], "depthwise", group=16, pads=[1, 1, 1, 1])
    if opset < 18:
        s = made.node("ReduceMean", [y], "mean", axes=[2, 3], keepdims=1)
    else:
        s = made.node("ReduceMean", [y, made.constant("axes", np.array([2, 3]))], "mean", keepdims=1)
    s = made.node("Relu", [made.node("Conv", [s, made.weight("c", 4, 16, 1, 1)], "squeeze")], "relu")
    s = made.node("HardSigmoid", [made.node("Conv", [s, made.weight("d", 16, 4, 1, 1)], "excite")], "sigmoid")
    y = made.node("Conv", [made.node("Mul", [y, s], "scale"), made.weight("e", 8, 16, 1, 1)], "project")
    y = made.node("Dropout", [made.node("Flatten", [made.node("Add", [x, y], "add")], "flat")], "drop")
    made.node("Gemm", [y, made.weight("h", 4, 288)], "head", ["y"], transB=1)
    made.output("y")
    network = import_onnx(made.save(tmp_path / "n.onnx"))
    found = layers(network)
    assert network.warnings == () and sum(layer.macs for layer in network.layers) == 36 * 128 + 16 * 36 * 9 + 64 + 64 + 36 * 128 + 288 * 4
    assert [found[name].kind for name in ("expand", "depthwise", "squeeze", "scale", "add")] == [
        "pointwise", "depthwise", "pointwise", "elementwise", "elementwise"
    ]  # fmt: skip
    assert found["add"].inputs == ("x", "project") and found["excite"].fused == ("HardSigmoid",)


def test_channels_last_around_convolutions(tmp_path):
    """As tf2onnx writes a Keras model: turned before and after, the batch normalisation and the padding as nodes of their own."""
    made = sketch(15)
    y = made.node("Transpose", [made.input("x", ["unk__6", 8, 8, 3])], "in", perm=[0, 3, 1, 2])
    y = made.node("Pad", [y, made.constant("pads", np.array([0, 0, 0, 0, 0, 0, 1, 1]))], "pad")
    y = made.node("Conv", [y, made.weight("w", 4, 3, 3, 3)], "conv", strides=[2, 2])
    y = made.node("Relu", [made.node("BatchNormalization", [y, *(made.weight(f"n{i}", 4) for i in range(4))], "norm")], "relu")
    y = made.node("Transpose", [y], "out", perm=[0, 2, 3, 1])
    shape = made.node("Concat", [made.node("Slice", [made.node("Shape", [y]), *(made.constant(f"c{i}", np.array([i])) for i in (0, 1))]),
                                 made.constant("rest", np.array([-1]))], axis=0)  # fmt: skip
    y = made.node("MatMul", [made.node("Reshape", [y, shape], "flat"), made.weight("h", 64, 4)], "fc")
    made.node("Softmax", [made.node("Add", [y, made.weight("hb", 4)], "bias")], "soft", ["y"])
    made.output("y")
    found = layers(import_onnx(made.save(tmp_path / "n.onnx")))
    assert list(found) == ["in", "pad", "conv", "out", "flat", "fc", "soft"]
    assert found["conv"].macs == 4 * 16 * 27 and found["conv"].fused == ("BatchNormalization", "Relu") and found["conv"].output_shape == (1, 4, 4, 4)
    assert (found["fc"].macs, found["fc"].params, found["fc"].fused) == (256, 260, ("Add",))


def test_a_class_token_expanded_to_the_batch(tmp_path):
    """Its shape is computed through ConstantOfShape, Equal and Where: it was unknown once, although every part of it is constant."""
    made = sketch()
    x = made.input("x", ["N", 6, 8])
    batch = made.node(
        "Unsqueeze", [made.node("Gather", [made.node("Shape", [x]), made.constant("i", np.array(0))]), made.constant("o", np.array([0]))]
    )
    wanted = made.node("Concat", [batch, made.constant("rest", np.array([-1, -1]))], axis=0)
    ones = made.node("ConstantOfShape", [made.node("Shape", [wanted])], value=numpy_helper.from_array(np.array([1])))
    kept = made.node("Equal", [wanted, made.node("Mul", [ones, made.constant("minus", np.array(-1))])])
    token = made.node("Expand", [made.weight("token", 1, 1, 8), made.node("Where", [kept, ones, wanted])], "expand")
    y = made.node("MatMul", [made.node("Concat", [token, x], "concat", axis=1), made.weight("w", 8, 5)], "fc")
    found = layers(read(tmp_path, made, y))
    assert found["concat"].output_shape == (1, 7, 8) and found["fc"].macs == 7 * 8 * 5


def test_upsampling_and_transposed_convolution(tmp_path):
    made = sketch()
    x = made.node("Conv", [made.input("x", ["N", 3, 8, 8]), made.weight("w", 4, 3, 3, 3)], "conv", pads=[1, 1, 1, 1])
    down = made.node("MaxPool", [x], "down", kernel_shape=[2, 2], strides=[2, 2])
    a = made.node("Resize", [down, "", made.constant("scales", np.array([1, 1, 2, 2], np.float32))], "up", mode="linear")
    b = made.node("ConvTranspose", [down, made.weight("v", 4, 4, 2, 2)], "transposed", strides=[2, 2])
    y = made.node("Conv", [made.node("Concat", [x, a, b], "join", axis=1), made.weight("u", 2, 12, 1, 1)], "last")
    found = layers(read(tmp_path, made, y))
    assert found["up"].output_shape == found["transposed"].output_shape == (1, 4, 8, 8) and found["up"].kind == "reshape"
    assert (found["transposed"].macs, found["last"].macs) == (4 * 16 * 4 * 4, 2 * 64 * 12) and found["join"].inputs == ("conv", "up", "transposed")


def test_channel_shuffle_and_groups(tmp_path):
    made = sketch()
    y = made.node("Conv", [made.input("x", ["N", 8, 4, 4]), made.weight("w", 8, 4, 1, 1)], "grouped", group=2)
    y = made.node("Reshape", [y, made.constant("split", np.array([-1, 2, 4, 4, 4]))], "split")
    y = made.node("Reshape", [made.node("Transpose", [y], "turn", perm=[0, 2, 1, 3, 4]), made.constant("join", np.array([-1, 8, 4, 4]))], "join")
    network = read(tmp_path, made, made.node("GlobalAveragePool", [y], "pool"))
    found = layers(network)
    assert (found["grouped"].kind, found["grouped"].macs, found["grouped"].groups) == ("pointwise", 8 * 16 * 4, 2)
    assert [found[name].kind for name in ("split", "turn", "join")] == ["reshape"] * 3 and network.warnings == ()


# ---------------------------------------------------------------------------------------------------------------------
# Sizes that are not fixed


def tokens(made: Sketch, *shape):
    made.node("MatMul", [made.node("Relu", [made.input("x", shape)], "relu"), made.weight("w", 6, 4)], "fc", ["y"])
    made.outputs.append(helper.make_tensor_value_info("y", FLOAT, [*shape[:-1], 4]))
    return made


@pytest.mark.parametrize("shape", [["N", 5, 6], [None, 5, 6], [0, 5, 6], [-1, 5, 6], [5, "batch_size", 6], [5, "N", 6], ["s77", 5, 6]])
def test_an_open_batch_is_one(tmp_path, shape):
    made = tokens(sketch(), *shape)
    network = import_onnx(made.save(tmp_path / "n.onnx"))
    assert network.inputs["x"] == tuple(size if isinstance(size, int) and size > 0 else 1 for size in shape)
    assert layers(network)["fc"].macs == 5 * 6 * 4


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (["B", "N", 6], "'x' is 1xN?x6; export with fixed sizes"),
        (["batch", "sequence", 6], "'x' is 1xsequence?x6; export with fixed sizes"),
        (["seq_len", 1, 6], "'x' is seq_len?x1x6; export with fixed sizes"),
        ([1, "H", "W", 6], "'x' is 1xH?xW?x6; export with fixed sizes"),
    ],
)
def test_other_open_sizes_are_one_line_that_says_what_to_give(tmp_path, shape, said):
    message = line(import_onnx, tokens(sketch(), *shape).save(tmp_path / "n.onnx"))
    assert said in message and "python -m onnxruntime.tools.make_dynamic_shape_fixed" in message


# ---------------------------------------------------------------------------------------------------------------------
# Nested graphs, functions, where weights are stored


def branch(made: Sketch, name: str, operators: list[tuple], weight: np.ndarray):
    """A branch that reads `x` from outside and applies operators to it, the first with a weight of its own."""
    nodes, tensor = [], "x"
    for index, operator in enumerate(operators):
        result = f"{name}{index}"
        nodes.append(helper.make_node(operator, [tensor, *(["inner"] if index == 0 else [])], [result], name=operator.lower()))
        tensor = result
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(tensor, FLOAT, None)], [numpy_helper.from_array(weight, "inner")])


@pytest.mark.parametrize("condition", [True, False, None])
def test_a_branch_takes_the_place_of_its_if(tmp_path, condition):
    made = sketch()
    made.input("x", ["N", 6])
    branches = {
        "then_branch": branch(made, "then", ["MatMul", "Tanh", "Exp"], np.ones((6, 5), np.float32)),
        "else_branch": branch(made, "else", ["MatMul", "Tanh"], np.ones((6, 3), np.float32)),
    }
    place = made.input("c", [1], TensorProto.BOOL) if condition is None else made.constant("c", np.array(condition))
    y = made.node("If", [place], "choice", **branches)
    network = read(tmp_path, made, made.node("Sqrt", [y], "sqrt"))
    ops = ["MatMul", "Tanh", "Exp", "Sqrt"] if condition in (True, None) else ["MatMul", "Tanh", "Sqrt"]
    assert [layer.op for layer in network.layers] == ops and network.layers[0].macs == 6 * (3 if condition is False else 5)
    assert network.layers[0].params == network.layers[0].macs and network.layers[-1].inputs == (network.layers[-2].name,)
    guessed = "which branch operator 'If' (choice) takes is not known; assumed: the longer one, always"
    assert network.warnings == ((guessed,) if condition is None else ())


def test_a_loop_is_a_warning_and_what_it_reads_is_counted(tmp_path):
    """A convolution that only the body reads is not lost; the body's own product is not counted, and the warning says so."""
    made = sketch()
    inside = made.node("Relu", [made.input("x", [1, 6])], "before")
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["more"]), helper.make_node("MatMul", [inside, "w"], ["product"]),
         helper.make_node("Add", ["product", "state"], ["next"])],
        "body", [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                 helper.make_tensor_value_info("state", FLOAT, [1, 6])],
        [helper.make_tensor_value_info("more", TensorProto.BOOL, []), helper.make_tensor_value_info("next", FLOAT, [1, 6])],
    )  # fmt: skip
    made.weight("w", 6, 6)
    y = made.node("Loop", [made.constant("times", np.array(3)), "", made.input("h", [1, 6])], "loop", body=body)
    network = read(tmp_path, made, made.node("Tanh", [y], "tanh"))
    assert [layer.name for layer in network.layers] == ["before", "loop", "tanh"] and layers(network)["loop"].params == 36
    assert network.warnings == (
        "operator 'Loop' (loop) repeats a graph inside whose computing is not counted; assumed: one element-wise pass over its tensors",
    )


def test_functions_of_the_model_are_written_out(tmp_path):
    made = sketch(17, "own")
    y = made.node("Block", [made.input("x", ["N", 6]), made.weight("w", 6, 4)], "block", domain="own")
    made.node("Identity", [y], "", ["y"])
    made.output("y")
    model = onnx.load(made.save(tmp_path / "n.onnx"))
    inner = [helper.make_node("MatMul", ["a", "b"], ["c"], name="product"), helper.make_node("Relu", ["c"], ["d"], name="relu")]
    model.functions.append(helper.make_function("own", "Block", ["a", "b"], ["d"], inner, [helper.make_opsetid("", 17)]))
    onnx.save(model, tmp_path / "n.onnx")
    (layer,) = import_onnx(tmp_path / "n.onnx").layers
    assert (layer.op, layer.macs, layer.params, layer.fused) == ("MatMul", 24, 24, ("Relu",))


def test_shapes_that_are_stored_in_a_file_beside_are_read(tmp_path):
    made = sketch()
    y = made.node("Reshape", [made.input("x", ["N", 4, 6]), made.constant("shape", np.array([-1, 24]))], "flat")
    made.node("Gemm", [y, made.weight("w", 24, 4)], "fc", ["y"])
    made.output("y")
    path = made.save(tmp_path / "n.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="n.data", size_threshold=0)
    assert layers(import_onnx(path))["fc"].macs == 96


def test_weights_that_are_also_inputs_and_weights_that_nothing_reads(tmp_path):
    """As old exporters list them; a large one is never read."""
    made = sketch()
    x, w = made.input("x", ["N", 60]), made.weight("w", 60, 50)
    made.weight("unused", 100, 100)
    made.inputs.append(helper.make_tensor_value_info("w", FLOAT, [60, 50]))
    made.node("MatMul", [x, w], "fc", ["y"])
    made.output("y", ("N", 50))
    network = import_onnx(made.save(tmp_path / "n.onnx"))
    assert network.inputs == {"x": (1, 60)} and network.params == network.layers[0].macs == 3000


def test_weights_of_half_width(tmp_path):
    """Tokens in, products of 16 bits: the width of the network is that of its weights. Cast to 32 bits first, it is that of the products."""
    for cast, kind in ((False, "fp16"), (True, "fp32")):
        made = sketch()
        y = made.node("Gather", [made.weight("table", 50, 8, kind=np.float16), made.input("x", ["N", 5], TensorProto.INT64)], "lookup")
        w = made.weight("w", 8, 4, kind=np.float16)
        pair = [made.node("Cast", [part], to=FLOAT) for part in (y, w)] if cast else [y, w]
        assert read(tmp_path, made, made.node("MatMul", pair, "fc")).data_type == kind


def test_weights_that_several_layers_read_are_said_to_be_counted_twice(tmp_path):
    made = sketch()
    x, w = made.input("x", ["N", 8]), made.weight("w", 8, 8)
    turned = made.node("Transpose", [w], perm=[1, 0])
    network = read(tmp_path, made, made.node("MatMul", [made.node("Tanh", [made.node("MatMul", [x, w], "a")], "tanh"), turned], "b"))
    assert network.params == 128
    assert network.warnings == ("some weights are read by several layers, as 'w' by 2; they are counted in each, 64 numbers too many",)


# ---------------------------------------------------------------------------------------------------------------------
# Outputs that are no exits


def test_a_network_whose_outputs_make_no_exits_is_priced_whole(tmp_path):
    """A recurrent network that also answers its state: as a multi-exit network it is refused, to be priced it is one network."""
    made = sketch()
    operands = [made.input("x", [10, 1, 5]), made.weight("W", 1, 24, 5), made.weight("R", 1, 24, 8)]
    made.node("GRU", operands, "gru", ["all", "state"], hidden_size=8)
    made.node("MatMul", ["all", made.weight("w", 8, 4)], "fc", ["y"])
    for name in ("y", "state"):
        made.outputs.append(helper.make_tensor_value_info(name, FLOAT, None))
    path = made.save(tmp_path / "n.onnx")
    assert "'state' has no layer of its own" in line(import_onnx, path)
    network = load_network(path)
    assert [layer.name for layer in network.layers] == ["gru", "fc"] and network.exits == 1
    assert sum(layer.macs for layer in network.layers) == 10 * 24 * 13 + 10 * 8 * 4
    assert network.warnings[0].startswith("the outputs make no exits (output 'state' has no layer of its own")


def test_boxes_and_scores_of_several_sizes(tmp_path):
    made = sketch()
    x = made.node("Conv", [made.input("x", ["N", 3, 8, 8]), made.weight("w", 4, 3, 3, 3)], "conv", pads=[1, 1, 1, 1])
    y = made.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    for name, tensor in (("boxes", x), ("scores", y)):
        made.node("Conv", [tensor, made.weight(f"{name}.w", 6, 4, 1, 1)], name, [f"{name}.y"])
        made.outputs.append(helper.make_tensor_value_info(f"{name}.y", FLOAT, None))
    path = made.save(tmp_path / "n.onnx")
    assert "answers 8 classes where" in line(import_onnx, path)
    network = load_network(path)
    assert sorted(layer.name for layer in network.layers) == ["boxes", "conv", "pool", "scores"] and len(network.warnings) == 1


# ---------------------------------------------------------------------------------------------------------------------
# From PyTorch


def modules():
    from torch import nn

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(50, 16)
            layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.encoder(self.embedding(x)).mean(1))

    class Recurrent(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.inner, self.head = kind(5, 8, 2, batch_first=True, bidirectional=True), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.inner(x)[0][:, -1])

    def gates(count):
        return sum(2 * 7 * count * 8 * (size + 8) for size in (5, 16)) + 48

    separable = nn.Sequential(
        nn.Conv2d(1, 8, (10, 4), 2, (5, 1)), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Hardswish(), nn.Conv2d(8, 12, 1),
        nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(12, 3),
    )  # fmt: skip
    volume = nn.Sequential(nn.Conv3d(1, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))
    return {
        "transformer": (Tokens(), (6,), 2 * (6 * 16 * 64 + 2 * 36 * 16 + 6 * 16 * 64) + 48),
        "lstm": (Recurrent(nn.LSTM), (7, 5), gates(4)),
        "gru": (Recurrent(nn.GRU), (7, 5), gates(3)),
        "separable": (separable, (1, 49, 10), 25 * 5 * (8 * 40 + 72 + 96) + 36),
        "volume": (volume, (1, 6, 6, 6), 4 * 64 * 27 + 12),
    }


@pytest.mark.parametrize("name", ["transformer", "lstm", "gru", "separable", "volume"])
@pytest.mark.parametrize("opset", [14, 17])
def test_networks_from_pytorch(tmp_path, name, opset):
    torch = pytest.importorskip("torch", reason="exporting from PyTorch needs torch")
    module, shape, macs = modules()[name]
    x = torch.zeros(1, *shape, dtype=torch.long) if name == "transformer" else torch.zeros(1, *shape)
    path = tmp_path / "n.onnx"
    options = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "N"}, "y": {0: "N"}}}
    torch.onnx.export(module.eval(), (x,), path, dynamo=False, opset_version=opset, **options)
    network = import_onnx(path)
    assert sum(layer.macs for layer in network.layers) == macs and network.classes == 3
    assert all("several layers" in warning for warning in network.warnings)
    stored = sum(value.numel() for value in module.parameters())
    assert abs(network.params / stored - 1) < 0.1
