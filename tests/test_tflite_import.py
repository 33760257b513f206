"""TensorFlow Lite import: the MLPerf Tiny networks against their published table, files built here against sums by hand, bad files as one line."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
import tflite
from test_network import layers, line

from eesim.bundled import data_folder
from eesim.cost import price_network
from eesim.hardware.profile import load_profile
from eesim.network import read_network, write_network
from eesim.network.files import load_network
from eesim.network.memory import footprint
from eesim.network.tflite_import import import_tflite

TYPES = {np.int8: "INT8", np.uint8: "UINT8", np.float32: "FLOAT32", np.int32: "INT32", np.float16: "FLOAT16", np.int16: "INT16"}


class Flat:
    """A .tflite file in a few lines, NHWC, written with the flatbuffers builder. Tensors are named; `stored` ones hold numbers."""

    def __init__(self):
        self.tensors, self.operators, self.inputs, self.outputs, self.codes = {}, [], [], [], []

    def tensor(self, name, shape, kind=np.int8, *, stored=False, signature=None, variable=False):
        self.tensors[name] = (shape, kind, stored, signature, variable)
        return name

    def input(self, name, shape, kind=np.int8, signature=None):
        self.inputs.append(self.tensor(name, shape, kind, signature=signature))
        return name

    def weight(self, name, *shape, kind=np.int8):
        return self.tensor(name, shape, kind, stored=True)

    def op(self, builtin, inputs, shape, options=None, kind=np.int8, custom=None, **fields):
        """Add an operator; its one result is named by its place."""
        made = self.tensor(f"t{len(self.operators)}", shape, kind)
        self.operators.append((builtin, inputs, [made], options, fields))
        self.codes.append((builtin, custom))
        return made

    def save(self, path, *outputs):
        b, names = flatbuffers.Builder(1024), list(self.tensors)

        def vector(start, offsets):
            start(b, len(offsets))
            for offset in reversed(offsets):
                b.PrependUOffsetTRelative(offset)
            return b.EndVector()

        def table(kind, **fields):
            getattr(tflite, f"{kind}Start")(b)
            for name, value in fields.items():
                getattr(tflite, f"{kind}Add{name}")(b, value)
            return getattr(tflite, f"{kind}End")(b)

        def numbers(values):
            return b.CreateNumpyVector(np.asarray(values, np.int32))

        buffers, tensors = [table("Buffer")], []
        for name, (shape, kind, stored, signature, variable) in self.tensors.items():
            number = 0
            if stored:
                data = b.CreateNumpyVector(np.zeros(shape, kind).reshape(-1).view(np.uint8))
                number = len(buffers)
                buffers.append(table("Buffer", Data=data))
            fields = {"Shape": numbers(shape), "Name": b.CreateString(name), "HasRank": True, "IsVariable": variable}
            if signature:
                fields["ShapeSignature"] = numbers(signature)
            tensors.append(table("Tensor", Type=getattr(tflite.TensorType, TYPES[kind]), Buffer=number, **fields))
        codes, operators = [], []
        for index, (builtin, inputs, made, options, fields) in enumerate(self.operators):
            number, custom = getattr(tflite.BuiltinOperator, builtin), self.codes[index][1]
            named = {"CustomCode": b.CreateString(custom)} if custom else {}
            codes.append(table("OperatorCode", DeprecatedBuiltinCode=min(number, 127), BuiltinCode=number, **named))
            more = {}
            if options:
                more = {"BuiltinOptionsType": getattr(tflite.BuiltinOptions, options), "BuiltinOptions": table(options, **fields)}
            places = [numbers([names.index(name) if name else -1 for name in group]) for group in (inputs, made)]
            operators.append(table("Operator", OpcodeIndex=index, Inputs=places[0], Outputs=places[1], **more))
        ends = [numbers([names.index(name) for name in group]) for group in (self.inputs, outputs)]
        parts = vector(tflite.SubGraphStartTensorsVector, tensors), vector(tflite.SubGraphStartOperatorsVector, operators)
        graph = table("SubGraph", Tensors=parts[0], Operators=parts[1], Inputs=ends[0], Outputs=ends[1])
        lists = [
            vector(tflite.ModelStartSubgraphsVector, [graph]), vector(tflite.ModelStartBuffersVector, buffers),
            vector(tflite.ModelStartOperatorCodesVector, codes),
        ]  # fmt: skip
        b.Finish(table("Model", Version=3, Subgraphs=lists[0], Buffers=lists[1], OperatorCodes=lists[2]), b"TFL3")
        path.write_bytes(b.Output())
        return path


RELU6 = tflite.ActivationFunctionType.RELU6


def separable(*, signature=None) -> tuple[Flat, str]:
    """Convolution, depthwise, pointwise, a residual addition, global pooling, a fully connected layer and softmax, all int8."""
    made = Flat()
    x = made.input("x", (1, 8, 8, 3), signature=signature)
    operands = [x, made.weight("w", 16, 3, 3, 3), made.weight("b", 16, kind=np.int32)]
    a = made.op("CONV_2D", operands, (1, 4, 4, 16), "Conv2DOptions", StrideH=2, StrideW=2, FusedActivationFunction=RELU6)
    operands = [a, made.weight("d", 1, 3, 3, 16), made.weight("db", 16, kind=np.int32)]
    y = made.op("DEPTHWISE_CONV_2D", operands, (1, 4, 4, 16), "DepthwiseConv2DOptions", StrideH=1, StrideW=1, DepthMultiplier=1)
    y = made.op("CONV_2D", [y, made.weight("p", 16, 1, 1, 16), ""], (1, 4, 4, 16), "Conv2DOptions", StrideH=1, StrideW=1)
    y = made.op("ADD", [a, y], (1, 4, 4, 16), "AddOptions", FusedActivationFunction=tflite.ActivationFunctionType.RELU)
    y = made.op("AVERAGE_POOL_2D", [y], (1, 1, 1, 16), "Pool2DOptions", FilterHeight=4, FilterWidth=4, StrideH=4, StrideW=4)
    y = made.op("RESHAPE", [y, made.weight("shape", 2, kind=np.int32)], (1, 16), "ReshapeOptions")
    y = made.op("FULLY_CONNECTED", [y, made.weight("f", 5, 16), made.weight("fb", 5, kind=np.int32)], (1, 5), "FullyConnectedOptions")
    return made, made.op("SOFTMAX", [y], (1, 5), "SoftmaxOptions")


def test_a_separable_network_by_hand(tmp_path):
    made, last = separable()
    network = import_tflite(made.save(tmp_path / "net.tflite", last))
    assert [(layer.op, layer.kind, layer.macs, layer.params, layer.fused) for layer in network.layers] == [
        ("Conv", "conv", 16 * 16 * 27, 16 * 27 + 16, ("Clip",)), ("Conv", "depthwise", 16 * 16 * 9, 16 * 9 + 16, ()),
        ("Conv", "pointwise", 16 * 16 * 16, 256, ()), ("Add", "elementwise", 0, 0, ("Relu",)), ("GlobalAveragePool", "pooling", 0, 0, ()),
        ("Reshape", "reshape", 0, 0, ()), ("Gemm", "fully_connected", 80, 85, ()), ("Softmax", "softmax", 0, 0, ()),
    ]  # fmt: skip
    first, depthwise, _, add, pool, *_ = network.layers
    assert (first.input_shape, first.output_shape, first.kernel, first.stride) == ((1, 3, 8, 8), (1, 16, 4, 4), (3, 3), (2, 2))
    assert depthwise.groups == 16 and add.inputs == ("00_conv", "02_conv") and add.elements_in == 512 and pool.kernel == (4, 4)
    assert (network.name, network.data_type, network.classes, network.final_head) == ("net", "int8", 5, "04_averagepool")
    assert network.inputs == {"x": (1, 3, 8, 8)} and network.warnings == () and network.onnx is None
    assert footprint(network, "int8").peak_activation_bytes == 3 * 256  # the first convolution's result, until the addition
    assert footprint(network, "int8").weights_bytes == network.params == 448 + 160 + 256 + 85
    write_network(network, tmp_path / "n.yaml")
    assert read_network(tmp_path / "n.yaml") == network and load_network(tmp_path / "net.tflite") == network


def test_an_open_batch_is_one_and_other_open_sizes_are_refused(tmp_path):
    made, last = separable(signature=(-1, 8, 8, 3))
    assert import_tflite(made.save(tmp_path / "n.tflite", last)).inputs == {"x": (1, 3, 8, 8)}
    made, last = separable(signature=(-1, -1, -1, 3))
    path = made.save(tmp_path / "n.tflite", last)
    assert line(import_tflite, path) == f"{path}: the sizes of input 'x' are not fixed (?x?x?x3); convert the model again with fixed ones"


def test_sizes_that_are_computed_are_refused(tmp_path):
    made = Flat()
    y = made.op("RESHAPE", [made.input("x", (1, 4, 6)), made.weight("shape", 2, kind=np.int32)], (1, 6))
    y = made.op("FULLY_CONNECTED", [y, made.weight("f", 5, 6)], (1, 5))
    said = line(import_tflite, made.save(tmp_path / "n.tflite", y))
    assert "00_reshape: 24 numbers are reshaped to 6, as in a model whose batch is not fixed; convert it again with a batch of 1" in said


def dense(made: Flat, tensor: str, size: int) -> str:
    return made.op("FULLY_CONNECTED", [made.op("RESHAPE", [tensor], (1, size)), made.weight("last", 2, size)], (1, 2))


WORK = {
    # operator: (input shape, weights, result shape, options, fields, kind, macs, params)
    "grouped": ("CONV_2D", (1, 6, 6, 8), [(12, 3, 3, 4)], (1, 4, 4, 12), "Conv2DOptions", "conv", 12 * 16 * 36, 432),
    "one channel": ("DEPTHWISE_CONV_2D", (1, 6, 6, 1), [(1, 3, 3, 8)], (1, 4, 4, 8), "DepthwiseConv2DOptions", "conv", 8 * 16 * 9, 72),
    "volume": ("CONV_3D", (1, 4, 4, 4, 2), [(2, 2, 2, 2, 3)], (1, 3, 3, 3, 3), "Conv3DOptions", "conv", 3 * 27 * 16, 48),
    "lstm": ("UNIDIRECTIONAL_SEQUENCE_LSTM", (1, 7, 5), [*[(8, 5)] * 4, *[(8, 8)] * 4], (1, 7, 8), None, "recurrent", 7 * 4 * 8 * 13, 4 * 8 * 13),
    "svdf": ("SVDF", (1, 5), [(8, 5), (8, 3)], (1, 4), None, "recurrent", 8 * 5 + 8 * 3, 64),
    "lookup": ("EMBEDDING_LOOKUP", (4,), [(50, 6)], (4, 6), None, "reshape", 0, 300),
    "slope": ("PRELU", (1, 6, 6, 8), [(1, 1, 8)], (1, 6, 6, 8), None, "elementwise", 0, 8),
    "mean": ("MEAN", (1, 6, 6, 8), [], (1, 8), None, "pooling", 0, 0),
    "pad": ("PAD", (1, 6, 6, 8), [], (1, 7, 7, 8), None, "reshape", 0, 0),
    "swish": ("HARD_SWISH", (1, 6, 6, 8), [], (1, 6, 6, 8), None, "elementwise", 0, 0),
    "up": ("RESIZE_BILINEAR", (1, 6, 6, 8), [], (1, 12, 12, 8), None, "reshape", 0, 0),
    "log": ("LOG_SOFTMAX", (1, 8), [], (1, 8), None, "softmax", 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_what_operators_compute_and_store(tmp_path, name):
    builtin, shape, weights, result, options, kind, macs, params = WORK[name]
    made = Flat()
    x = made.input("x", shape, np.int32 if name == "lookup" else np.int8)
    stored = [made.weight(f"w{index}", *sizes) for index, sizes in enumerate(weights)]
    y = made.op(builtin, [x, *stored], result, options)
    network = import_tflite(made.save(tmp_path / "n.tflite", dense(made, y, int(np.prod(result)))))
    layer = network.layers[0]
    assert (layer.kind, layer.macs, layer.params, layer.elements_out) == (kind, macs, params, int(np.prod(result))) and network.warnings == ()
    assert network.data_type == "int8" and layer.elements_in == int(np.prod(shape))


def test_transposed_convolutions_multiply_every_input_with_the_kernel(tmp_path):
    made = Flat()
    x, size = made.input("x", (1, 5, 5, 8)), made.weight("size", 4, kind=np.int32)
    operands = [size, made.weight("w", 3, 2, 2, 8), x, made.weight("b", 3, kind=np.int32)]
    y = made.op("TRANSPOSE_CONV", operands, (1, 10, 10, 3), "TransposeConvOptions", StrideH=2, StrideW=2)
    layer = import_tflite(made.save(tmp_path / "n.tflite", dense(made, y, 300))).layers[0]
    assert (layer.kind, layer.macs, layer.params, layer.stride) == ("conv", 8 * 25 * 3 * 4, 8 * 12 + 3, (2, 2))
    assert (layer.input_shape, layer.output_shape, layer.inputs) == ((1, 8, 5, 5), (1, 3, 10, 10), ("x",))


def test_attention_keeps_its_heads_where_they_are(tmp_path):
    """Tensors of four sizes around matrix products are no images; those around convolutions are."""
    made = Flat()
    q, k = (made.input(name, (1, 6, 2, 4)) for name in "qk")
    turned = [made.op("TRANSPOSE", [x, made.weight(f"{x}.order", 4, kind=np.int32)], (1, 2, 6, 4)) for x in (q, k)]
    y = made.op("BATCH_MATMUL", turned, (1, 2, 6, 6), "BatchMatMulOptions", AdjY=True)
    y = made.op("SOFTMAX", [y], (1, 2, 6, 6))
    z = made.op("CONV_2D", [made.input("image", (1, 4, 4, 3)), made.weight("w", 72, 4, 4, 3)], (1, 1, 1, 72))
    y = made.op("ADD", [made.op("RESHAPE", [y], (1, 72)), made.op("RESHAPE", [z], (1, 72))], (1, 72))
    found = layers(import_tflite(made.save(tmp_path / "n.tflite", made.op("FULLY_CONNECTED", [y, made.weight("f", 2, 72)], (1, 2)))))
    assert (found["02_matmul"].kind, found["02_matmul"].macs, found["02_matmul"].output_shape) == ("matmul", 2 * 36 * 4, (1, 2, 6, 6))
    assert found["03_softmax"].input_shape == (1, 2, 6, 6) and found["04_conv"].input_shape == (1, 3, 4, 4)


def test_quantising_at_the_ends_is_a_layer_and_constants_cost_nothing(tmp_path):
    """Float in and out; weights stored as float16 that are widened first are computed before the first inference."""
    made = Flat()
    x = made.op("QUANTIZE", [made.input("x", (1, 16), np.float32)], (1, 16))
    y = made.op("FULLY_CONNECTED", [x, made.weight("f", 5, 16)], (1, 5))
    network = import_tflite(made.save(tmp_path / "n.tflite", made.op("DEQUANTIZE", [y], (1, 5), kind=np.float32)))
    assert [layer.op for layer in network.layers] == ["QuantizeLinear", "Gemm", "DequantizeLinear"] and network.data_type == "int8"
    made = Flat()
    w = made.op("DEQUANTIZE", [made.weight("half", 5, 16, kind=np.float16)], (5, 16), kind=np.float32)
    made.op("FULLY_CONNECTED", [made.input("x", (1, 16), np.float32), w], (1, 5), kind=np.float32)
    network = import_tflite(made.save(tmp_path / "n.tflite", "t1"))
    assert [(layer.op, layer.macs, layer.params) for layer in network.layers] == [("Gemm", 80, 80)] and network.data_type == "fp32"


@pytest.mark.parametrize("moved", [np.float32, np.int16])
def test_activations_wider_than_the_weights_are_said(tmp_path, moved):
    made = Flat()
    made.op("FULLY_CONNECTED", [made.input("x", (1, 16), moved), made.weight("f", 5, 16)], (1, 5), kind=moved)
    network = import_tflite(made.save(tmp_path / "n.tflite", "t0"))
    kind = {np.float32: "fp32", np.int16: "int16"}[moved]
    assert network.data_type == "int8" and network.warnings == (f"weights are int8 but activations {kind}; all numbers are counted as int8",)


def test_an_operator_without_a_cost_rule_is_a_warning(tmp_path):
    made = Flat()
    y = made.op("CUSTOM", [made.input("x", (1, 4, 4, 8))], (1, 4, 4, 8), custom="ethos-u")
    y = made.op("RFFT2D", [y], (1, 4, 4, 8))
    network = import_tflite(made.save(tmp_path / "n.tflite", dense(made, y, 128)))
    assert network.warnings == (
        "operator 'ethos-u' (00_ethos-u) has no cost rule; assumed: one element-wise pass over its tensors",
        "operator 'Rfft2d' (01_rfft2d) has no cost rule; assumed: one element-wise pass over its tensors",
    )
    assert [layer.kind for layer in network.layers[:2]] == ["elementwise"] * 2 and network.layers[0].elements_in == 128


def test_every_operator_of_the_package_is_read(tmp_path):
    """Built-in operators added later, and their spelling, raise nothing: each is a layer with a kind."""
    known = 0
    for builtin in (name for name in vars(tflite.BuiltinOperator) if name.isupper() and "CONV" not in name):
        if builtin in ("FULLY_CONNECTED", "SHAPE", "RANK", "PLACEHOLDER_FOR_GREATER_OP_CODES") or "POOL_2D" in builtin:
            continue
        made = Flat()
        y = made.op(builtin, [made.input("x", (1, 8)), made.input("z", (1, 8))], (1, 8))
        network = import_tflite(made.save(tmp_path / "n.tflite", made.op("FULLY_CONNECTED", [y, made.weight("f", 2, 8)], (1, 2))))
        assert network.layers[0].kind and len(network.layers) == 2, builtin
        known += not network.warnings
    assert known > 90


def test_exits_are_outputs_in_order(tmp_path):
    made = Flat()
    x = made.op("CONV_2D", [made.input("x", (1, 4, 4, 3)), made.weight("w", 8, 3, 3, 3)], (1, 2, 2, 8), "Conv2DOptions", StrideH=1, StrideW=1)
    early = made.op("FULLY_CONNECTED", [made.op("RESHAPE", [x], (1, 32)), made.weight("early", 5, 32)], (1, 5))
    y = made.op("CONV_2D", [x, made.weight("v", 8, 2, 2, 8)], (1, 1, 1, 8), "Conv2DOptions", StrideH=1, StrideW=1)
    late = made.op("FULLY_CONNECTED", [made.op("RESHAPE", [y], (1, 8)), made.weight("late", 5, 8)], (1, 5))
    network = import_tflite(made.save(tmp_path / "n.tflite", early, late))
    assert network.segment_macs == [4 * 8 * 27, 8 * 32] and network.head_macs == [160, 40] and network.final_head == "05_gemm"
    assert import_tflite(tmp_path / "n.tflite", final_head="03_conv").head_macs == [160, 40 + 256]
    assert import_tflite(made.save(tmp_path / "m.tflite", late, early), outputs=[early, late]).head_macs == [160, 40]
    assert "did you mean '05_gemm'?" in line(import_tflite, tmp_path / "n.tflite", final_head="05_gem")


def test_bad_files_are_one_line(tmp_path):
    made, last = separable()
    path = made.save(tmp_path / "n.tflite", last)
    whole = path.read_bytes()
    assert line(import_tflite, tmp_path / "none.tflite") == f"{tmp_path / 'none.tflite'}: cannot be read: No such file or directory"
    for content in (b"", b"TFL3", b"not a model at all", whole[:4] + b"ONNX" + whole[8:]):
        path.write_bytes(content)
        assert line(import_tflite, path) == f"{path}: not a TensorFlow Lite model: it does not bear the mark 'TFL3'"
    for end in range(8, len(whole) - 8, 37):
        path.write_bytes(whole[:end])
        assert line(import_tflite, path).startswith(f"{path}: ")


def test_damaged_files_are_one_line_or_a_network(tmp_path):
    made, last = separable()
    path = made.save(tmp_path / "n.tflite", last)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(8, len(whole), rng.integers(1, 12)):
            damaged[place] = rng.choice([0, 1, 128, 255])
        path.write_bytes(damaged)
        try:
            import_tflite(path)
        except Exception:
            assert line(import_tflite, path).startswith(f"{path}: ")
            refused += 1
    assert refused > 50


def test_on_the_command_line(tmp_path):
    """A .tflite is priced like an .onnx, and the package that reads it is loaded for nothing else."""
    made, last = separable()
    path = made.save(tmp_path / "n.tflite", last)
    command = [sys.executable, "-m", "eesim", "cost", str(path), "--profile", "stm32l4r5-xcubeai", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    record = json.loads(done.stdout)
    assert record["macs"] == 16 * 16 * (27 + 9 + 16) + 80 and record["data_type"] == "int8" and record["latency_ms"] > 0
    path.write_bytes(b"TFL")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "n.tflite: not a TensorFlow Lite model" in done.stderr and "Traceback" not in done.stderr
    code = "import sys, eesim.network.files, eesim.network.tflite_import; sys.exit('tflite' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------------------------------------
# The reference networks of MLPerf Tiny


FILES = {"ic": "ic_resnet8_int8", "kws": "kws_dscnn_int8", "vww": "vww_mobilenetv1_025_96_int8", "ad": "ad_autoencoder_int8"}
TOTALS = {"ic": (12_501_632, 77_360), "kws": (2_656_768, 22_016), "vww": (7_489_664, 208_112), "ad": (264_192, 264_192)}
"""MACs, and bytes of weights without biases."""


@pytest.fixture(scope="module")
def mlperf_tiny() -> Path:
    if "EESIM_RAW_DATA" not in os.environ:
        pytest.skip("EESIM_RAW_DATA is not set, so the .tflite files of MLPerf Tiny are not here")
    return Path(os.environ["EESIM_RAW_DATA"]) / "hardware" / "mlperf_tiny"


@pytest.mark.parametrize("name", FILES)
def test_the_networks_of_mlperf_tiny_are_counted_as_published(mlperf_tiny, name):
    network = import_tflite(mlperf_tiny / "models" / f"{FILES[name]}.tflite")
    with (mlperf_tiny / "layers.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == name]
    assert [layer.macs for layer in network.layers] == [int(row["macs"]) for row in rows]
    biases = [layer.output_shape[1] if layer.op in ("Conv", "Gemm") else 0 for layer in network.layers]
    assert [layer.params - bias for layer, bias in zip(network.layers, biases, strict=True)] == [int(row["weight_bytes"]) for row in rows]
    assert (sum(layer.macs for layer in network.layers), network.params - sum(biases)) == TOTALS[name]
    assert network.data_type == "int8" and network.warnings == ()


@pytest.mark.parametrize("name", FILES)
def test_they_cost_what_the_committed_tables_of_their_layers_cost(mlperf_tiny, name):
    network = import_tflite(mlperf_tiny / "models" / f"{FILES[name]}.tflite")
    committed = read_network(data_folder("hwprofiles") / "networks" / f"mlperf-tiny-{name}.yaml")
    for read, known in zip(network.layers, committed.layers, strict=True):
        assert (read.kind, read.input_shape, read.output_shape, read.kernel, read.groups, read.macs, read.params) == (
            known.kind, known.input_shape, known.output_shape, known.kernel, known.groups, known.macs, known.params
        )  # fmt: skip
    profile = load_profile("stm32l4r5-xcubeai")
    assert price_network(network, profile).segment_ns == price_network(committed, profile).segment_ns
    assert price_network(network, profile).head_ns == price_network(committed, profile).head_ns
    assert footprint(network, "int8").weights_bytes == footprint(committed, "int8").weights_bytes
    assert footprint(network, "int8").peak_activation_bytes == footprint(committed, "int8").peak_activation_bytes
