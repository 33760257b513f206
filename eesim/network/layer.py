"""One layer of a network: its shapes, how much it computes and how much it moves.

Counts are for one inference (batch 1). A multiply-accumulate is one MAC; biases and activations are not counted as MACs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

KINDS = (
    "conv",
    "depthwise",
    "pointwise",
    "fully_connected",
    "pooling",
    "elementwise",
    "normalization",
    "softmax",
    "matmul",
    "recurrent",
    "reshape",
)
"""Kinds of layer that a hardware profile prices."""

ITEM_BYTES = {"int8": 1, "uint8": 1, "fp8": 1, "int16": 2, "fp16": 2, "bf16": 2, "fp32": 4, "float32": 4}
"""Bytes of one stored number of each data type."""

OPERATOR_KINDS = {
    operator: kind
    for kind, operators in {
        "pooling": (
            "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool QLinearAveragePool QLinearGlobalAveragePool NhwcMaxPool "
            "MaxRoiPool ReduceMean ReduceMax ReduceMin ReduceSum ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp "
            "QLinearReduceMean ArgMax ArgMin"
        ),
        "fully_connected": "Gemm FullyConnected FusedGemm GemmFastGelu QGemm MatMulNBits QAttention",
        "matmul": (
            "MatMul MatMulInteger QLinearMatMul MatMulIntegerToFloat DynamicQuantizeMatMul FusedMatMul FusedMatMulActivation TransposeMatMul Einsum "
            "Attention MultiHeadAttention GroupQueryAttention"
        ),
        "elementwise": (
            "Relu Clip LeakyRelu PRelu Elu Selu Celu ThresholdedRelu Shrink Sigmoid HardSigmoid HardSwish Swish Tanh Gelu Mish Softplus Softsign "
            "BiasGelu FastGelu QuickGelu QLinearSigmoid QLinearLeakyRelu QLinearAdd QLinearMul BiasAdd BiasSplitGelu RotaryEmbedding "
            "Erf Exp Log Sqrt Rsqrt Pow Neg Abs Sign Reciprocal Floor Ceil Round Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh "
            "Add Sub Mul Div Mod Max Min Sum Mean Where And Or Xor Not Equal Greater Less GreaterOrEqual LessOrEqual IsNaN IsInf "
            "BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot Cast CastLike Trilu QuantizeLinear DequantizeLinear DynamicQuantizeLinear"
        ),
        "normalization": (
            "BatchNormalization LayerNormalization InstanceNormalization GroupNormalization RMSNormalization LpNormalization LRN "
            "MeanVarianceNormalization SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization "
            "EmbedLayerNormalization GroupNorm SkipGroupNorm"
        ),
        "softmax": "Softmax LogSoftmax Hardmax QLinearSoftmax",
        "recurrent": "LSTM GRU RNN DynamicQuantizeLSTM SVDF",
        "reshape": (
            "Reshape Flatten Transpose Concat QLinearConcat Slice Split Squeeze Unsqueeze Pad Tile Expand Resize Upsample DepthToSpace SpaceToDepth "
            "Gather GatherElements GatherND ScatterElements ScatterND ReverseSequence OneHot ConstantOfShape CenterCropPad ReorderInput ReorderOutput"
        ),
    }.items()
    for operator in operators.split()
}
"""Operators (ONNX names, those of onnxruntime's own included) whose kind does not depend on their attributes. Convolutions do: see
`convolution_kind`."""

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
"""Operators that only say how the same numbers in the same place are to be read: they move nothing."""

CONVOLUTIONS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "FusedConv", "NhwcConv", "NhwcFusedConv", "DeformConv"), 1),
    "QLinearConv": 3,
}
"""Convolutions (ONNX names) and where their kernel stands among their inputs."""


def convolution_kind(kernel: tuple[int, ...], groups: int, channels: int) -> str:
    """conv, depthwise (as many groups as input channels) or pointwise (a kernel of ones)."""
    if groups > 1 and groups == channels:
        return "depthwise"
    return "pointwise" if prod(kernel) == 1 else "conv"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as hardware sees it. Shapes include the batch of 1; `inputs` names the layers or network inputs it reads."""

    name: str
    op: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int = 0
    params: int = 0
    elements_in: int = 0
    elements_out: int = 0
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    inputs: tuple[str, ...] = ()
    fused: tuple[str, ...] = field(default=())
    """Operators that every runtime executes inside this layer (a ReLU after a convolution)."""

    @property
    def elements(self) -> int:
        """Numbers read, written and stored: inputs, outputs and parameters."""
        return self.elements_in + self.elements_out + self.params

    @property
    def signature(self) -> str:
        """What decides the cost of a layer, its place and name left out, as text: layers with the same one cost the same."""
        sizes = ["x".join(map(str, part)) for part in (self.input_shape, self.output_shape, self.kernel, self.stride)]
        return " ".join([self.op, *(size or "-" for size in sizes), str(self.groups), "+".join(self.fused) or "-"])

    def bytes_moved(self, item_bytes: int) -> int:
        """Bytes read and written once each, weights included, with numbers of `item_bytes` bytes; none where only the shape changes."""
        return 0 if self.op in VIEWS else self.elements * item_bytes


def work(kind: str, elements: int, name: str, macs: int = 0, params: int = 0) -> Layer:
    """A pseudo-layer: computing that a decision mechanism does beside the network, priced like any layer of its kind."""
    return Layer(name, name, kind, (1, elements), (1, elements), macs, params, elements, elements)
