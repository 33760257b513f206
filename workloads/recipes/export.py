"""From torch to ONNX: one output per exit, weights in half precision or, for large networks, left out."""

import sys
import warnings

import numpy as np


def export(network, path, inputs, seed=0, tolerance=2e-2):
    """Write `network.onnx` with outputs logits_0, logits_1, … and check it against torch; returns the largest difference.

    inputs: name -> shape of one sample. Weights are stored as float16 (computed with as float32), so the file is half the size.
    """
    import onnx
    import torch

    network.eval()
    model = half(to_onnx(network, inputs))
    onnx.save(model, str(path))
    example = tuple(torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed)) for shape in inputs.values())
    with torch.no_grad():
        expected = [out.numpy() for out in network(*example)]
    difference = float(np.abs(np.stack(expected) - np.stack(run(path, dict(zip(inputs, (part.numpy() for part in example)))))).max())
    if difference > tolerance * max(1.0, float(np.abs(np.stack(expected)).max())):
        raise SystemExit(f"recipe.py: {path.name} and torch differ by {difference:.1e}")
    print(f"wrote {path.name}: {path.stat().st_size / 1e6:.2f} MB, largest difference from torch {difference:.1e}", file=sys.stderr)
    return difference


def to_onnx(network, inputs):
    """The network as an ONNX model with outputs logits_0, logits_1, …, the first dimension free, batch normalisation folded."""
    import io

    import onnx
    import torch

    example = tuple(torch.zeros(1, *shape) for shape in inputs.values())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        outputs = [f"logits_{exit}" for exit in range(len(network(*example)))]
        file = io.BytesIO()
        torch.onnx.export(
            network,
            example,
            file,
            dynamo=False,
            opset_version=17,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes={name: {0: "n"} for name in [*inputs, *outputs]},
        )
    model = onnx.load_from_string(file.getvalue())
    onnx.checker.check_model(model, full_check=True)
    return model


def half(model):
    """Float weights stored as float16 and cast to float32 where they are used; runtimes fold the casts when they load."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    casts, kept = [], []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 64:
            kept.append(tensor)
            continue
        small = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}.half")
        kept.append(small)
        casts.append(helper.make_node("Cast", [small.name], [tensor.name], name=f"{tensor.name}/cast", to=TensorProto.FLOAT))
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend([*casts, *model.graph.node])
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.CopyFrom(graph)
    return result


def weightless(model):
    """The same graph with its weights as inputs without values: topology and shapes alone."""
    import onnx
    from onnx import helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    weights = [tensor for tensor in result.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 1]
    others = [tensor for tensor in result.graph.initializer if tensor not in weights]
    result.graph.input.extend(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in weights)
    del result.graph.initializer[:]
    result.graph.initializer.extend(others)
    return result


def run(path, inputs):
    """Logits of every exit from onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)
