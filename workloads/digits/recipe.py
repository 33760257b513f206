"""Recipe of the workload digits: scikit-learn's bundled digits -> network.onnx -> trace.parquet -> tables of the card.

    python recipe.py train  [--seed 0]      # numpy alone, half a minute; writes network.onnx and network.yaml
    python recipe.py record [--seed 0]      # needs onnxruntime; writes trace.parquet and features.parquet
    python recipe.py card

Nothing else is needed: the 1,797 images come with scikit-learn. The tests of eesim run the whole chain.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

CLASSES = tuple("0123456789")
TRAINING, CALIBRATION = 1000, 300  # rows; the other 497 are the test split
SPLIT_RULE = (
    "rows in the order of the file, in which one writer follows another: the first 1000 train, the next 300 are calibration, "
    "the last 497 test; writers are not named, so one may stand on both sides of a border"
)
EPOCHS, BATCH, RATE, EXIT_WEIGHTS = 80, 50, 6e-3, (1.0, 1.0, 1.0)
CHANNELS = (4, 16)
HIDDEN = 64


def load():
    """Images float32 [1797, 1, 8, 8] in [0, 1] and labels int64 [1797]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images[:, None] / 16).astype(np.float32), digits.target.astype(np.int64)


# ---------------------------------------------------------------------------------------------------------------------
# The network in numpy. conv1 - pool | conv2 - pool | dense, with a head after each; head 0 sees 2 x 2 means
# of its channels, head 1 their means.


def initial(rng):
    """He-initialised parameters by name."""
    first, second = CHANNELS
    shapes = {
        "conv1": (first, 1, 3, 3), "conv2": (second, first, 3, 3), "dense": (HIDDEN, second * 4),
        "head0": (10, first * 4), "head1": (10, second), "head2": (10, HIDDEN),
    }  # fmt: skip
    weights = {name: rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])) for name, shape in shapes.items()}
    return weights | {f"{name}.bias": np.zeros(shape[0]) for name, shape in shapes.items()}


def patches(x):
    """[n, C, H, W] -> [n, H, W, C * 9]: the 3 x 3 neighbourhood of every pixel, zeros outside."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(*x.shape[:1], *x.shape[2:], -1)


def scatter(gradient, shape):
    """The transpose of `patches`: gradients of patches summed into an image of this shape."""
    n, channels, height, width = shape
    padded = np.zeros((n, channels, height + 2, width + 2))
    parts = gradient.reshape(n, height, width, channels, 3, 3)
    for row in range(3):
        for column in range(3):
            padded[:, :, row : row + height, column : column + width] += parts[..., row, column].transpose(0, 3, 1, 2)
    return padded[:, :, 1:-1, 1:-1]


def convolve(x, weight, bias):
    """Convolution and ReLU; returns the result [n, O, H, W] and what the gradient needs."""
    seen = patches(x)
    made = np.maximum(seen @ weight.reshape(len(weight), -1).T + bias, 0).transpose(0, 3, 1, 2)
    return made, seen


def pool(x):
    """2 x 2 maximum; returns the result and where it came from."""
    n, channels, height, width = x.shape
    blocks = x.reshape(n, channels, height // 2, 2, width // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, channels, height // 2, width // 2, 4)
    return blocks.max(axis=-1), blocks.argmax(axis=-1)


def unpool(gradient, chosen):
    """Gradient of `pool`."""
    n, channels, height, width = gradient.shape
    blocks = np.zeros((*gradient.shape, 4))
    np.put_along_axis(blocks, chosen[..., None], gradient[..., None], axis=-1)
    return blocks.reshape(n, channels, height, width, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, channels, 2 * height, 2 * width)


def forward(p, x):
    """Logits of the three exits and every intermediate result by name."""
    keep = {"x": x}
    keep["a1"], keep["seen1"] = convolve(x, p["conv1"], p["conv1.bias"])
    keep["p1"], keep["from1"] = pool(keep["a1"])
    keep["a2"], keep["seen2"] = convolve(keep["p1"], p["conv2"], p["conv2.bias"])
    keep["p2"], keep["from2"] = pool(keep["a2"])
    keep["flat"] = keep["p2"].reshape(len(x), -1)
    keep["hidden"] = np.maximum(keep["flat"] @ p["dense"].T + p["dense.bias"], 0)
    quarters = keep["p1"].reshape(*keep["p1"].shape[:2], 2, 2, 2, 2).mean(axis=(3, 5)).reshape(len(x), -1)
    keep["means"] = (quarters, keep["p2"].mean(axis=(2, 3)), keep["hidden"])
    return [keep["means"][exit] @ p[f"head{exit}"].T + p[f"head{exit}.bias"] for exit in range(3)], keep


def gradients(p, x, labels):
    """Gradient of the weighted sum of cross-entropies, by name."""
    logits, keep = forward(p, x)
    g, into = {}, []
    for exit, (said, share) in enumerate(zip(logits, EXIT_WEIGHTS)):
        chance = np.exp(said - said.max(axis=1, keepdims=True))
        chance /= chance.sum(axis=1, keepdims=True)
        chance[np.arange(len(x)), labels] -= 1
        chance *= share / len(x)
        g[f"head{exit}"], g[f"head{exit}.bias"] = chance.T @ keep["means"][exit], chance.sum(axis=0)
        into.append(chance @ p[f"head{exit}"])
    back = into[2] * (keep["hidden"] > 0)
    g["dense"], g["dense.bias"] = back.T @ keep["flat"], back.sum(axis=0)
    back = (back @ p["dense"]).reshape(keep["p2"].shape) + into[1][:, :, None, None] / np.prod(keep["p2"].shape[2:])
    for layer, made, inputs in (("2", "a2", "p1"), ("1", "a1", "x")):
        back = unpool(back, keep[f"from{layer}"]) * (keep[made] > 0)
        rows = back.transpose(0, 2, 3, 1).reshape(-1, back.shape[1])
        g[f"conv{layer}"] = (rows.T @ keep[f"seen{layer}"].reshape(len(rows), -1)).reshape(p[f"conv{layer}"].shape)
        g[f"conv{layer}.bias"] = rows.sum(axis=0)
        if layer == "2":
            back = scatter((rows @ p["conv2"].reshape(len(p["conv2"]), -1)).reshape(keep["seen2"].shape), keep[inputs].shape)
            back += np.repeat(np.repeat(into[0].reshape(len(x), -1, 2, 2), 2, axis=2), 2, axis=3) / 4
    return g


def shifted(images, rng):
    """Images moved by up to one pixel each way."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows = rng.integers(0, 3, (len(images), 1)) + np.arange(8)
    columns = rng.integers(0, 3, (len(images), 1)) + np.arange(8)
    return padded[np.arange(len(images))[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(seed, epochs=EPOCHS):
    """Adam with a falling rate. Returns parameters by name."""
    images, labels = (part[:TRAINING] for part in load())
    rng = np.random.default_rng(seed)
    p = initial(rng)
    mean, square = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
    steps, step = epochs * (TRAINING // BATCH), 0
    for _ in range(epochs):
        order = rng.permutation(TRAINING)
        for start in range(0, TRAINING, BATCH):
            rows = order[start : start + BATCH]
            step += 1
            rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            for name, slope in gradients(p, shifted(images[rows], rng).astype(np.float64), labels[rows]).items():
                mean[name] = 0.9 * mean[name] + 0.1 * slope
                square[name] = 0.999 * square[name] + 0.001 * slope**2
                p[name] -= rate * (mean[name] / (1 - 0.9**step)) / (np.sqrt(square[name] / (1 - 0.999**step)) + 1e-8)
    return p


# ---------------------------------------------------------------------------------------------------------------------
# Export and recording


def export(p):
    """The network as ONNX, one output per exit."""
    from onnx import TensorProto, checker, helper, numpy_helper

    values = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in p.items()]

    def node(operator, name, inputs, output, **attributes):
        return helper.make_node(operator, inputs, [output], name=name, **attributes)

    nodes = []
    for layer, inputs in (("1", "image"), ("2", "pool1")):
        weights = [f"conv{layer}", f"conv{layer}.bias"]
        nodes.append(node("Conv", f"conv{layer}/conv", [inputs, *weights], f"sum{layer}", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        nodes.append(node("Relu", f"conv{layer}/relu", [f"sum{layer}"], f"act{layer}"))
        nodes.append(node("MaxPool", f"pool{layer}", [f"act{layer}"], f"pool{layer}", kernel_shape=[2, 2], strides=[2, 2]))
        exit = int(layer) - 1
        if exit == 0:
            nodes.append(node("AveragePool", "head0/mean", ["pool1"], "mean0", kernel_shape=[2, 2], strides=[2, 2]))
        else:
            nodes.append(node("GlobalAveragePool", "head1/mean", ["pool2"], "mean1"))
        nodes.append(node("Flatten", f"head{exit}/flatten", [f"mean{exit}"], f"flat{exit}"))
        nodes.append(node("Gemm", f"head{exit}/dense", [f"flat{exit}", f"head{exit}", f"head{exit}.bias"], f"logits_{exit}", transB=1))
    nodes.append(node("Flatten", "dense/flatten", ["pool2"], "flat"))
    nodes.append(node("Gemm", "dense/dense", ["flat", "dense", "dense.bias"], "dense_sum", transB=1))
    nodes.append(node("Relu", "dense/relu", ["dense_sum"], "hidden"))
    nodes.append(node("Gemm", "head2/dense", ["hidden", "head2", "head2.bias"], "logits_2", transB=1))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])
    outputs = [helper.make_tensor_value_info(f"logits_{exit}", TensorProto.FLOAT, ["n", 10]) for exit in range(3)]
    graph = helper.make_graph(nodes, "digits", [image], outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="eesim recipe")
    checker.check_model(model, full_check=True)
    return model


def run_train(seed, folder):
    """Train and write network.onnx and network.yaml."""
    import onnx

    from eesim.network import write_network
    from eesim.network.onnx_import import import_onnx

    onnx.save(export(train(seed)), str(folder / "network.onnx"))
    write_network(import_onnx(folder / "network.onnx", name="digits"), folder / "network.yaml")


def run_record(seed, folder):
    """Run network.onnx over the calibration and test rows and write trace.parquet and features.parquet."""
    from eesim.trace import record

    images, labels = (part[TRAINING:] for part in load())
    split = np.where(np.arange(len(labels)) < CALIBRATION, "calibration", "test")
    return record(
        folder / "network.onnx",
        {"image": images, "label": labels, "split": split},
        folder / "trace.parquet",
        network="digits",
        classes=CLASSES,
        features=True,
        input_range=(0.0, 1.0),
        source={
            "name": "Optical Recognition of Handwritten Digits (test set, as bundled with scikit-learn)",
            "licence": "CC BY 4.0 (UCI Machine Learning Repository); scikit-learn's copy BSD-3-Clause",
            "origin": "https://archive.ics.uci.edu/dataset/80",
        },
        split_rule=SPLIT_RULE,
        training_mode="joint",
        recipe="recipe.py",
        seed=seed,
    )


def main():
    import argparse

    parser = argparse.ArgumentParser(description="Recipe of the workload digits.")
    parser.add_argument("verb", choices=("train", "record", "card"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=HERE, help="where the files are written")
    options = parser.parse_args()
    if options.verb == "train":
        run_train(options.seed, options.folder)
    elif options.verb == "record":
        run_record(options.seed, options.folder)
    else:
        from recipes.card import print_card

        print_card(options.folder)


if __name__ == "__main__":
    main()
