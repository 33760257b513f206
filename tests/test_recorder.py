"""Recording: what the network says is what the trace holds, interrupted or not; difficulty by hand; mistakes are one line."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import eesim
from eesim.errors import BadInput
from eesim.recorder.difficulty import components, median_slope
from eesim.recorder.projection import clip16, principal, reduced
from eesim.trace import read_features, read_trace, record

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "workloads" / "digits"


@pytest.fixture(scope="session")
def recipe():
    """The recipe of the digits workload as a module."""
    spec = importlib.util.spec_from_file_location("digits_recipe", DIGITS / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def digits(recipe):
    """Images, labels and split of the rows that are recorded."""
    pytest.importorskip("sklearn")
    images, labels = (part[recipe.TRAINING :] for part in recipe.load())
    return {"image": images, "label": labels, "split": np.where(np.arange(len(labels)) < recipe.CALIBRATION, "calibration", "test")}


def forward(model_path, images):
    """Logits [E, N, K] of the digits network from its ONNX weights, in numpy: an independent reading of the same file."""
    import onnx
    from onnx import numpy_helper

    weights = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in onnx.load(str(model_path)).graph.initializer}
    spec = importlib.util.spec_from_file_location("digits_recipe_twin", DIGITS / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return np.stack(module.forward(weights, images.astype(np.float64))[0])


# ---------------------------------------------------------------------------------------------------------------------
# The whole chain on digits, without torch


def test_train_export_record_check_and_simulate(recipe, digits, tmp_path):
    weights = recipe.train(0)
    import onnx

    onnx.save(recipe.export(weights), str(tmp_path / "network.onnx"))
    from eesim.network import write_network
    from eesim.network.onnx_import import import_onnx

    network = import_onnx(tmp_path / "network.onnx", name="digits")
    write_network(network, tmp_path / "network.yaml")
    assert network.exits == 3 and not network.warnings
    trace = recipe.run_record(0, tmp_path)
    accuracy = [(trace.logits[exit].argmax(axis=1) == trace.label)[trace.split == "test"].mean() for exit in range(3)]
    assert accuracy[0] > 0.3 and accuracy[2] >= 0.9 and accuracy[0] < accuracy[2] - 0.05
    np.testing.assert_allclose(trace.logits.astype(float), np.stack(recipe.forward(weights, digits["image"])[0]), rtol=2e-3, atol=1e-2)
    (tmp_path / "workload.yaml").write_text((DIGITS / "workload.yaml").read_text())
    result = eesim.simulate(tmp_path, "stm32l4r5-xcubeai", "max-softmax", {"threshold": 0.9}, arrivals="poisson:50/s")
    assert 0.3 < result["accuracy"] <= 1 and result["energy_mj.active"] > 0


def test_recording_the_committed_network_gives_the_committed_trace(recipe, digits, tmp_path):
    (tmp_path / "network.onnx").write_bytes((DIGITS / "network.onnx").read_bytes())
    first = recipe.run_record(0, tmp_path)
    written = (tmp_path / "trace.parquet").read_bytes(), (tmp_path / "features.parquet").read_bytes()
    recipe.run_record(0, tmp_path)
    assert written == ((tmp_path / "trace.parquet").read_bytes(), (tmp_path / "features.parquet").read_bytes())
    committed = read_trace(DIGITS / "trace.parquet")
    assert first.header.classes == committed.header.classes and first.header.tau_edge == committed.header.tau_edge
    for name in ("sample_id", "label", "split", "time_ns"):
        assert (getattr(first, name) == getattr(committed, name)).all()
    apart = np.abs(first.logits.astype(float) - committed.logits.astype(float))
    assert (apart <= np.spacing(np.abs(committed.logits)).astype(float)).all(), "other processors may round the last bit otherwise"
    for name, values in committed.difficulty.items():
        np.testing.assert_allclose(first.difficulty[name], values, atol=1e-6)
    np.testing.assert_allclose(committed.logits.astype(float), forward(DIGITS / "network.onnx", digits["image"]), rtol=2e-3, atol=1e-2)


def test_the_committed_digits_keep_their_floor(digits):
    trace = read_trace(DIGITS / "trace.parquet")
    assert trace.header.content_hash == trace.content_hash
    said = trace.logits.argmax(axis=2)[:, trace.split == "test"]
    right = (said == trace.label[trace.split == "test"]).mean(axis=1)
    assert right[-1] >= 0.9 and 0.3 < right[0] < right[-1] - 0.05


def test_features_are_what_enters_each_head(recipe, digits, tmp_path):
    trace = record(DIGITS / "network.onnx", digits, tmp_path / "t.parquet", features=True, input_range=(0, 1))
    features = read_features(tmp_path / "t.features.parquet")
    import onnx
    from onnx import numpy_helper

    weights = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in onnx.load(str(DIGITS / "network.onnx")).graph.initializer}
    _, keep = recipe.forward(weights, digits["image"].astype(np.float64))
    raw = [keep["p1"].mean(axis=(2, 3)), keep["p2"].mean(axis=(2, 3)), keep["hidden"]]
    assert [values.shape[1] for values in features.values] == [4, 16, 16]
    for exit in (0, 1):
        np.testing.assert_allclose(features.values[exit].astype(float), raw[exit], rtol=2**-8, atol=1e-4)
    note = features.header["exits"][2]
    np.testing.assert_allclose(features.values[2].astype(float), (raw[2] - note["mean"]) @ np.array(note["matrix"]), rtol=0.01, atol=0.02)
    assert features.header["trace"] == trace.content_hash
    assert [len(part) for part in features.rows(trace.sample_id[[5, 3]])] == [2, 2, 2]
    with pytest.raises(BadInput, match="sample 99999 has no features"):
        features.rows(np.array([99999]))


def test_a_workload_reads_features_when_asked(tmp_path):
    shutil.copytree(DIGITS, tmp_path / "digits", ignore=shutil.ignore_patterns("__pycache__"))
    workload = eesim.load_workload(tmp_path / "digits")
    eesim.simulate(workload, "stm32l4r5-xcubeai")
    assert "features" not in workload.memo
    test, calibration = workload.features("test"), workload.features("calibration", (0, 2))
    assert [part.shape for part in test] == [(497, 4), (497, 16), (497, 16)] and [part.shape for part in calibration] == [(300, 4), (300, 16)]
    stored = read_features(DIGITS / "features.parquet")
    assert stored.header["trace"] == workload.trace.content_hash
    assert (test[1] == stored.values[1][workload.trace.split == "test"]).all()


# ---------------------------------------------------------------------------------------------------------------------
# Interruption, iterables, torch


def test_an_interrupted_recording_goes_on_and_gives_the_same_bytes(digits, tmp_path, monkeypatch):
    from eesim.recorder import recording

    monkeypatch.setattr(recording, "CHUNK", 100)
    record(DIGITS / "network.onnx", digits, tmp_path / "whole.parquet", input_range=(0, 1))

    class Stop(Exception):
        pass

    def stop(done, total):
        assert total == 797
        if done >= 300:
            raise Stop

    target = tmp_path / "cut.parquet"
    with pytest.raises(Stop):
        record(DIGITS / "network.onnx", digits, target, input_range=(0, 1), progress=stop)
    assert not target.exists()
    (parts,) = tmp_path.glob("cut.parquet.parts-*")
    assert len(list(parts.glob("*.npz"))) == 3
    sorted(parts.glob("*.npz"))[1].write_bytes(b"cut off")
    ran = []
    run = recording.OnnxModel.run
    monkeypatch.setattr(recording.OnnxModel, "run", lambda self, *inputs: ran.append(1) or run(self, *inputs))
    record(DIGITS / "network.onnx", digits, target, input_range=(0, 1))
    assert len(ran) == 6, "eight chunks, two of them whole already"
    assert target.read_bytes() == (tmp_path / "whole.parquet").read_bytes() and not list(tmp_path.glob("*.parts-*"))


def test_an_iterable_of_batches_gives_the_same_trace(digits, tmp_path):
    whole = record(DIGITS / "network.onnx", digits, tmp_path / "a.parquet", input_range=(0, 1), tau_edge=0.5)
    pieces = [{name: values[start : start + 90] for name, values in digits.items()} for start in range(0, 797, 90)]
    parts = record(DIGITS / "network.onnx", iter(pieces), tmp_path / "b.parquet", tau_edge=0.5)
    assert (whole.logits == parts.logits).all() and (whole.split == parts.split).all()
    assert all((whole.difficulty[name] == parts.difficulty[name]).all() for name in whole.difficulty)
    pairs = [(piece["image"], piece["label"]) for piece in pieces]
    assert (record(DIGITS / "network.onnx", pairs, tmp_path / "c.parquet").split == "test").all()


def test_a_torch_module_is_recorded(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch")

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 6, 3)
            self.heads = torch.nn.ModuleList([torch.nn.Linear(4, 3), torch.nn.Linear(6, 3)])

        def forward(self, x):
            a = torch.relu(self.first(x))
            b = torch.relu(self.second(a))
            return [head(part.mean(dim=(2, 3))) for head, part in zip(self.heads, (a, b), strict=True)], [a, b]

    torch.manual_seed(0)
    model, images = Two(), np.random.default_rng(0).random((130, 1, 8, 8)).astype(np.float32)
    loader = [(torch.from_numpy(part), torch.zeros(len(part), dtype=torch.long)) for part in np.split(images, (50, 100))]
    trace = record(model, loader, tmp_path / "t.parquet", features=True)
    with torch.no_grad():
        logits, features = model.eval()(torch.from_numpy(images))
    np.testing.assert_allclose(trace.logits.astype(float), np.stack([part.numpy() for part in logits]), atol=2e-3)
    stored = read_features(tmp_path / "t.features.parquet").values
    np.testing.assert_allclose(stored[1].astype(float), features[1].mean(dim=(2, 3)).numpy(), rtol=2**-7, atol=1e-3)
    assert trace.exits == 2 and trace.header.network == "Two"


# ---------------------------------------------------------------------------------------------------------------------
# Difficulty and projection by hand


def test_difficulty_of_an_image_by_hand():
    image = np.zeros((1, 1, 4, 4))
    image[0, 0, :, 2:] = 1  # a vertical edge; zeros outside the image
    found = components(image, tau_edge=3.5)
    assert found["variance"] == pytest.approx(0.25)
    slopes, laplacian = np.zeros((4, 4)), np.zeros((4, 4))
    padded = np.pad(image[0, 0], 1)
    for row in range(4):
        for column in range(4):
            part = padded[row : row + 3, column : column + 3]
            x = (part * [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]).sum()
            y = (part * [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]).sum()
            slopes[row, column] = np.hypot(x, y)
            laplacian[row, column] = abs((part * [[0, -1, 0], [-1, 4, -1], [0, -1, 0]]).sum())
    assert found["sobel_mean"] == pytest.approx(slopes.mean()) and found["edge"] == pytest.approx((slopes > 3.5).mean())
    assert found["gradient"] == pytest.approx(min(laplacian.mean(), 1))
    assert median_slope(image) == pytest.approx(float(f"{np.median(slopes):.4g}"))


def test_colour_is_weighted_and_variance_is_per_channel():
    rng = np.random.default_rng(0)
    image = rng.random((5, 3, 6, 6)).astype(np.float32)
    grey = (0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2])[:, None]
    found, plain = components(image, 0.5), components(grey, 0.5)
    for name in ("edge", "gradient", "sobel_mean"):
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-5)
    np.testing.assert_allclose(found["variance"], image.reshape(5, 3, -1).var(axis=2).mean(axis=1), rtol=1e-5)


def test_difficulty_of_a_signal_by_hand():
    signal = np.array([[0.0, 0.0, 1.0, 1.0]])  # differences over two steps 0 1 1 0, with the ends repeated; Laplacian 0 1 1 0
    found = components(signal, tau_edge=0.5)
    assert found["edge"] == 0.5 and found["sobel_mean"] == 0.5 and found["gradient"] == 0.5 and found["variance"] == 0.25
    for shape in ((1, 1, 4), (1, 1, 1, 4)):
        other = components(signal.reshape(shape), tau_edge=0.5)
        assert all(other[name] == found[name] for name in found)
    assert components(np.full((1, 2, 9), 0.7), 0.0)["edge"] == 0, "a flat signal has no edge, not even at its ends"


def test_projection_keeps_the_leading_components():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    rows = (rng.standard_normal((400, 5)) * [9, 5, 0.1, 0.1, 0.1]) @ basis.T + 3
    mean, matrix = principal(rows, 2)
    assert np.abs(np.abs(matrix.T @ basis[:, :2]) - np.eye(2)).max() < 0.05 and (np.abs(matrix).max(axis=0) == matrix.max(axis=0)).all()
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-5)
    values, note = reduced(rows.astype(np.float32), np.ones(400, bool), 2)
    assert values.shape == (400, 2) and values.dtype == np.float16 and note["raw"] == 5
    values, note = reduced(rows[:, :2].astype(np.float32), np.ones(400, bool), 2)
    assert note["matrix"] is None and np.abs(values - rows[:, :2]).max() < 0.2
    assert clip16(np.array([1e9, -1e9, 1 + 2**-12, 0.0])).tolist() == [65024, -65024, 1.0, 0.0]


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes


def mistaken(**changes):
    data = {"image": np.random.default_rng(0).random((20, 1, 8, 8)).astype(np.float32), "label": np.zeros(20, int)}
    return {name: value for name, value in {**data, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("data", "options", "telling"),
    [
        (mistaken(image=None), {}, "image: this input of the model is missing; the dataset has label"),
        (mistaken(label=np.zeros(19, int)), {}, "label: must be 20 whole numbers, is int64 [19]"),
        (mistaken(label=np.zeros(20)), {}, "label: must be 20 whole numbers, is float64"),
        (mistaken(label=np.full(20, 10)), {}, "10 is outside -1"),
        (mistaken(image=np.full((20, 1, 8, 8), np.nan, np.float32)), {}, "row 0: holds a value that is not a finite number"),
        (mistaken(image=np.full((20, 1, 8, 8), "a")), {}, "must be numbers"),
        (mistaken(image=np.zeros((20, 1, 7, 8), np.float32)), {}, "cannot run on these inputs"),
        (mistaken(split=np.full(20, "training")), {}, "'training' is unknown; choose one of calibration, test"),
        (mistaken(time_ns=np.arange(20)[::-1]), {}, "earlier than the row before"),
        (mistaken(), {"classes": ["a", "b"]}, "2 class names where the network answers 10"),
        (mistaken(), {"classes": ["a"] * 10}, "'a' is used 10 times"),
        (mistaken(), {"input_range": (1, 0)}, "is no range"),
        (mistaken(), {"logits": "float64"}, "unknown type 'float64'; did you mean 'float16'"),
        (mistaken(), {"training_mode": "jiont"}, "did you mean 'joint'"),
        (mistaken(), {"difficulty": "imgae"}, "did you mean 'image'"),
        (mistaken(), {"outputs": ["logits_0", "logit_2"]}, "did you mean 'logits_2'"),
        (mistaken(), {"batch": 0}, "batch: '0' must be a whole number"),
        ([(np.full((4, 1, 8, 8), 7.0), np.zeros(4, int))], {}, "inputs of an iterable must lie in [0, 1] (here 7 to 7)"),
        ([(np.zeros((4, 1, 8, 8)),) * 3], {}, "a batch of 3 parts"),
        ([], {}, "holds no samples"),
        (7, {}, "a dataset is an .npz file"),
        ("nothing.npz", {}, "no such dataset file"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_trace(tmp_path, data, options, telling):
    with pytest.raises(BadInput) as caught:
        record(DIGITS / "network.onnx", data, tmp_path / "t.parquet", **options)
    assert telling in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.glob("*.parquet"))


def test_a_model_without_weights_or_that_is_none_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such model file"):
        record(tmp_path / "no.onnx", mistaken(), tmp_path / "t.parquet")
    with pytest.raises(BadInput, match="not a readable ONNX model"):
        record(DIGITS / "recipe.py", mistaken(), tmp_path / "t.parquet")
    with pytest.raises(BadInput, match="path of an ONNX model or a torch module"):
        record(7, mistaken(), tmp_path / "t.parquet")
    levit = ROOT / "workloads" / "levit-128s" / "network.onnx"
    with pytest.raises(BadInput, match="ships without weights"):
        record(levit, {"image": np.zeros((1, 3, 224, 224), np.float32)}, tmp_path / "t.parquet")


def test_the_verb(tmp_path, digits):
    from test_cli import eesim as command

    np.savez(tmp_path / "d.npz", **digits, classes=list("abcdefghij"))
    done = command("trace", "record", DIGITS / "network.onnx", "d.npz", "-o", "t.parquet", "--features", "--seed", "3", "--training-mode", "joint",
                   "--dataset-name", "digits", cwd=tmp_path, check=0)  # fmt: skip
    assert "797 samples, 3 exits, 10 classes" in done.stderr
    trace = read_trace(tmp_path / "t.parquet")
    assert trace.header.classes == list("abcdefghij") and trace.header.seed == 3 and trace.header.dataset == {"name": "digits"}
    assert (tmp_path / "t.features.parquet").is_file()
    shown = json.loads(command("trace", "show", "t.parquet", "--format", "json", cwd=tmp_path, check=0).stdout)
    exit = shown["splits"]["test"]["exits"][2]
    assert exit["accuracy"] >= 0.9 and 0 <= exit["calibration_error"] < 0.1
    for arguments, telling in (
        (("m.py:build", "d.npz"), "no such Python file"),
        ((DIGITS / "network.onnx", "d.npz", "--input-range", "1"), "must be two numbers"),
        ((DIGITS / "network.onnx", "no.npz"), "no such dataset file"),
    ):
        done = command("trace", "record", *arguments, "-o", "u.parquet", cwd=tmp_path, check=2)
        assert telling in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_features_of_another_trace_are_refused(tmp_path):
    shutil.copytree(DIGITS, tmp_path / "mixed", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "workloads" / "ecg-mitbih" / "features.parquet", tmp_path / "mixed" / "features.parquet")
    with pytest.raises(BadInput, match="features of 5 exits, the trace has 3"):
        eesim.load_workload(tmp_path / "mixed").features()
    from eesim.trace import write_features

    stored = read_features(DIGITS / "features.parquet")
    stored.header["trace"] = "0" * 64
    write_features(stored, tmp_path / "mixed" / "features.parquet")
    with pytest.raises(BadInput, match="recorded with another trace"):
        eesim.load_workload(tmp_path / "mixed").features()
    (tmp_path / "mixed" / "features.parquet").unlink()
    with pytest.raises(BadInput, match="recorded without features"):
        eesim.load_workload(tmp_path / "mixed").features()


# ---------------------------------------------------------------------------------------------------------------------
# What a network, a dataset and a target may be


def two_exits(path, *, classes=4, width=16, kind=None, order=(0, 1), softmax=False, copy=False, external=None, scale=1.0):
    """An ONNX model of two exits over `x` [N, width]: the second stands on what the first stands on, transformed once more."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    kind = kind or TensorProto.FLOAT
    weights = {"W": (width, 8), "H0": (8, classes), "V": (8, 8), "H1": (8, classes)}
    tensors = [numpy_helper.from_array((scale * rng.standard_normal(shape)).astype(np.float32), name) for name, shape in weights.items()]
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "W"], ["a"]),
        helper.make_node("Relu", ["a"], ["s"]),
    ]
    nodes += [helper.make_node("MatMul", ["s", "H0"], ["o0"])]
    if copy:
        nodes += [helper.make_node("Identity", ["o0"], ["o1"])]
    else:
        nodes += [
            helper.make_node("MatMul", ["s", "V"], ["b"]),
            helper.make_node("Relu", ["b"], ["t"]),
            helper.make_node("MatMul", ["t", "H1"], ["o1"]),
        ]
    names = ["o0", "o1"]
    if softmax:
        nodes += [helper.make_node("Softmax", [name], [f"p{name}"]) for name in names]
        names = [f"p{name}" for name in names]
    outputs = [helper.make_tensor_value_info(names[place], TensorProto.FLOAT, ["n", classes]) for place in order]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind, ["n", width])], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(path), **({"save_as_external_data": True, "location": external, "size_threshold": 0} if external else {}))
    return path


def rows(n=20, width=16, **changes):
    rng = np.random.default_rng(1)
    data = {
        "x": rng.random((n, width)).astype(np.float32),
        "label": rng.integers(0, 4, n),
        "split": np.repeat(["calibration", "test"], [n // 2, n - n // 2]),
    }
    return data | changes


@pytest.mark.parametrize(
    ("changes", "telling"),
    [
        ({"label": np.arange(20) % 4 + 2**32}, "label: row 0: 4294967296 is outside"),
        ({"stream_id": np.full(20, 2**32 + 7)}, "stream_id: row 0: 4294967303 is outside"),
        ({"time_ns": np.full(20, 2**63 + 5, np.uint64)}, "time_ns: row 0: 9223372036854775813 is outside"),
        ({"label": np.full(20, 9)}, "label: row 0: 9 is outside -1 (unknown) to 3"),
        ({"sample_id": np.zeros(20, int)}, "sample_id: row 1: id 0 is used twice"),
        ({"split": np.full(20, "calibration")}, "no row is of the test split"),
        ({"classes": list("aabc")}, "classes: the class name 'a' is used 2 times"),
        ({"inputs": np.zeros((20, 16))}, "inputs: says the same as 'x'; leave one of them out"),
        ({"labels": np.zeros(20, int)}, "labels: says the same as 'label'"),
        ({"x": np.full((20, 16), 1e300)}, "x: row 0: 1e+300 does not fit float32"),
    ],
)
def test_what_can_be_known_is_checked_before_the_model_runs(tmp_path, monkeypatch, changes, telling):
    from eesim.recorder import recording

    monkeypatch.setattr(recording.OnnxModel, "run", None)
    with pytest.raises(BadInput) as caught:
        record(two_exits(tmp_path / "n.onnx"), rows(**changes), tmp_path / "t.parquet")
    assert telling in str(caught.value) and not list(tmp_path.glob("t.parquet*"))


@pytest.mark.parametrize(
    ("kind", "values", "telling"),
    [
        ("INT64", np.full((20, 16), 0.5), "0.5 does not fit int64, which the model takes (the data are float64)"),
        ("UINT8", np.full((20, 16), 1000, np.int16), "1000 does not fit uint8"),
        ("UINT8", np.full((20, 16), -1), "-1 does not fit uint8"),
        ("BOOL", np.full((20, 16), 2), "2 does not fit bool"),
        ("UINT8", np.full((20, 16), 7.0), None),
        ("BOOL", np.ones((20, 16), int), None),
    ],
)
def test_inputs_are_never_changed_to_fit_a_model(tmp_path, kind, values, telling):
    from onnx import TensorProto

    network = two_exits(tmp_path / "n.onnx", kind=getattr(TensorProto, kind))
    if telling is None:
        assert len(record(network, rows(x=values), tmp_path / "t.parquet")) == 20
        return
    with pytest.raises(BadInput) as caught:
        record(network, rows(x=values), tmp_path / "t.parquet")
    assert telling in str(caught.value)


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ({"tau_edge": float("nan")}, "tau_edge: 'nan' must be a finite number of at least 0"),
        ({"tau_edge": -1}, "tau_edge: '-1'"),
        ({"tau_edge": "x"}, "tau_edge: 'x'"),
        ({"input_range": (0, float("inf"))}, "must be two finite numbers"),
        ({"source": {"name": np.float32(3)}}, "name: must be text"),
        ({"seed": "x"}, "seed: 'x' must be a whole number"),
        ({"outputs": "o0"}, "outputs: must be a list of names"),
        ({"classes": "abcd"}, "classes: must be a list of names"),
        ({"features": "t.parquet"}, "trace and features cannot be one file"),
    ],
)
def test_options_that_cannot_be_used(tmp_path, monkeypatch, options, telling):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as caught:
        record(two_exits(tmp_path / "n.onnx"), rows(), "t.parquet", **options)
    assert telling in str(caught.value) and not (tmp_path / "t.parquet").exists()


def test_numbers_of_numpy_are_numbers_and_a_folder_is_no_target(tmp_path):
    network = two_exits(tmp_path / "n.onnx")
    assert record(network, rows(), tmp_path / "t.parquet", seed=np.int64(3), tau_edge=np.float32(0.5)).header.seed == 3
    (tmp_path / "f.parquet").mkdir()
    with pytest.raises(BadInput, match="is a folder, not a file"):
        record(network, rows(), tmp_path / "f.parquet")
    with pytest.raises(BadInput, match=r"is a folder, not an .npz file"):
        record(network, tmp_path, tmp_path / "t.parquet")
    for dataset in (np.zeros((4, 16)), None):
        with pytest.raises(BadInput, match=r"a dataset is an .npz file"):
            record(network, dataset, tmp_path / "t.parquet")


def test_the_order_of_the_exits_is_checked(tmp_path):
    for changes, telling in (
        ({"order": (1, 0)}, "'o1' has more layers behind them than the final 'o0'"),
        ({"copy": True}, "'o1' has no layer of its own"),
    ):
        with pytest.raises(BadInput) as caught:
            record(two_exits(tmp_path / "n.onnx", **changes), rows(), tmp_path / "t.parquet")
        assert telling in str(caught.value) and "the final exit must come last" in str(caught.value)


def test_models_that_end_in_a_softmax(tmp_path):
    said = []
    trace = record(two_exits(tmp_path / "p.onnx", softmax=True), rows(), tmp_path / "p.parquet", warn=said.append)
    assert len(said) == 1 and "exits 0, 1 answered are probabilities, not logits" in said[0]
    plain = record(two_exits(tmp_path / "l.onnx"), rows(), tmp_path / "l.parquet", logits="float32", warn=said.append)
    taken = record(tmp_path / "p.onnx", rows(), tmp_path / "q.parquet", probabilities=True, logits="float32", warn=said.append)
    assert len(said) == 1 and (trace.logits >= 0).all()
    shift = plain.logits - plain.logits.max(axis=2, keepdims=True)
    np.testing.assert_allclose(taken.logits - taken.logits.max(axis=2, keepdims=True), shift, atol=1e-3)
    with pytest.raises(BadInput, match="leave --probabilities out"):
        record(tmp_path / "l.onnx", rows(), tmp_path / "r.parquet", probabilities=True)


def test_parts_hold_answers_only_so_that_columns_and_types_may_be_mended(tmp_path, monkeypatch):
    from eesim.recorder import recording

    network, target = two_exits(tmp_path / "n.onnx", scale=60.0), tmp_path / "t.parquet"
    with pytest.raises(BadInput, match=r"record with --logits float32 .*1 finished parts are kept in '.*t.parquet.parts-"):
        record(network, rows(), target)
    assert len(list(tmp_path.glob("t.parquet.parts-*"))) == 1
    monkeypatch.setattr(recording.OnnxModel, "run", None)
    assert len(record(network, rows(split=np.full(20, "test"), stream_id=np.arange(20)), target, logits="float32", difficulty=False)) == 20
    assert not list(tmp_path.glob("t.parquet.parts-*"))


def test_a_failed_first_batch_leaves_nothing_and_a_whole_trace_no_parts_of_other_settings(tmp_path):
    network = two_exits(tmp_path / "n.onnx")
    with pytest.raises(BadInput, match=r"cannot run on these inputs: .*Got: 15 Expected: 16"):
        record(network, rows(width=15), tmp_path / "t.parquet")
    assert not list(tmp_path.glob("t.parquet*"))
    (tmp_path / "t.parquet.parts-of-another-time").mkdir()
    record(network, rows(), tmp_path / "t.parquet")
    assert [path.name for path in tmp_path.glob("t.parquet*")] == ["t.parquet"]


def test_features_are_named_after_their_trace_and_workloads_take_the_right_ones(tmp_path):
    from test_cli import eesim as command

    network = two_exits(tmp_path / "n.onnx")
    for name, data in (("trace", rows()), ("a", rows(30)), ("b", rows(40))):
        record(network, data, tmp_path / f"{name}.parquet", features=name != "b")
    assert {path.name for path in tmp_path.glob("*features*")} == {"features.parquet", "a.features.parquet"}
    for name, count in (("trace", 20), ("a", 30)):
        command("workloads", "new", f"of {name}", "--onnx", "n.onnx", "--trace", f"{name}.parquet", cwd=tmp_path, check=0)
        assert len(eesim.load_workload(tmp_path / f"of {name}").features()[0]) == count - count // 2
    done = command("workloads", "new", "of b", "--onnx", "n.onnx", "--trace", "b.parquet", cwd=tmp_path, check=0)
    assert "recorded with another trace, so it is not copied" in done.stderr and not (tmp_path / "of b" / "features.parquet").exists()
    assert "--workload './of b' " in done.stderr
    done = command("workloads", "new", tmp_path / "of_c", "--onnx", "n.onnx", "--trace", "b.parquet", cwd=tmp_path, check=0)
    assert f"--workload {tmp_path}/of_c " in done.stderr


def test_weights_outside_the_model_are_part_of_it(tmp_path):
    from test_cli import eesim as command

    from eesim.recorder.models import OnnxModel

    def fingerprint():
        return OnnxModel(network, outputs=None, final_head=None, features=False, batch=4).fingerprint

    network = two_exits(tmp_path / "e.onnx", external="weights.bin")
    first = fingerprint()
    record(network, rows(), tmp_path / "t.parquet")
    command("workloads", "new", "task", "--onnx", "e.onnx", "--trace", "t.parquet", cwd=tmp_path, check=0)
    assert (record(tmp_path / "task" / "network.onnx", rows(), tmp_path / "u.parquet").logits == read_trace(tmp_path / "t.parquet").logits).all()
    weights = np.fromfile(tmp_path / "weights.bin", np.float32)
    (-weights).tofile(tmp_path / "weights.bin")
    assert fingerprint() != first
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(BadInput, match=r"its weights are in 'weights.bin', which is missing beside it"):
        record(network, rows(), tmp_path / "t.parquet")


def test_doubts_about_a_dataset_are_said(tmp_path):
    said = []
    images = np.random.default_rng(0).random((6, 8, 8, 3)).astype(np.float32)
    from eesim.recorder.dataset import Dataset
    from eesim.recorder.scaling import Difficulty

    Difficulty(Dataset({"x": images, "lable": np.zeros(6, int)}, ["x"], 4, said.append), True, None, None, said.append)
    assert said[0] == "the array 'lable' is not used; did you mean 'label'?"
    assert "'x' is of shape [N, 8, 8, 3] and looks like [N, H, W, C]" in said[1] and len(said) == 2
    Difficulty(Dataset({"x": images.transpose(0, 3, 1, 2)}, ["x"], 4, said.append), True, None, None, said.append)
    assert len(said) == 2
    record(two_exits(tmp_path / "n.onnx"), {"x": rows()["x"]}, tmp_path / "t.parquet", warn=said.append)
    assert said[2:] == ["no label is known, so accuracy cannot be told", "there is no calibration split, so no mechanism can be tuned on this trace"]


def test_a_later_batch_outside_the_range_is_refused_not_clipped(tmp_path):
    network, data = two_exits(tmp_path / "n.onnx"), rows()
    batches = [(data["x"][:10], data["label"][:10]), (data["x"][10:] * 9, data["label"][10:])]
    with pytest.raises(BadInput, match="must lie in"):
        record(network, batches, tmp_path / "t.parquet")
    assert len(record(network, batches, tmp_path / "t.parquet", input_range=(0, 1))) == 20


def test_batches_of_an_iterable_are_named(tmp_path):
    network, data = two_exits(tmp_path / "n.onnx"), rows()
    for label, telling in ((np.full(10, -3), "batch 1: row 0: -3 is outside"), (np.full(10, 7), "row 10: 7 is outside -1 (unknown) to 3")):
        with pytest.raises(BadInput) as caught:
            record(network, [(data["x"][:10], data["label"][:10]), (data["x"][10:], label)], tmp_path / "t.parquet")
        assert telling in str(caught.value)


@pytest.mark.parametrize("name", ["encrypted", "compressed", "huge", "garbage", "array"])
def test_broken_npz_files_are_one_line(tmp_path, name):
    import zipfile

    path = tmp_path / "d.npz"
    np.savez(path, **rows())
    content = bytearray(path.read_bytes())
    entry = content.find(b"PK\x01\x02")
    if name == "encrypted":
        content[entry + 8] |= 1
        content[6] |= 1
    elif name == "compressed":
        content[entry + 10] = content[8] = 99
    path.write_bytes(b"garbage" * 10 if name == "garbage" else content)
    if name == "huge":
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (900000000000000, 3), }".ljust(117) + "\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00v\x00" + header.encode())
    elif name == "array":
        with path.open("wb") as stream:
            np.save(stream, np.zeros(3))
    with pytest.raises(BadInput, match=r"not a readable \.npz file") as caught:
        record(two_exits(tmp_path / "n.onnx"), path, tmp_path / "t.parquet")
    assert "pickle" not in str(caught.value) and "protocol" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------------
# Torch modules


def answering(kind):
    """A torch module of two exits that answers in the way named."""
    torch = pytest.importorskip("torch", reason="needs torch")

    class Answering(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second, self.drop, self.seen = torch.nn.Linear(16, 4), torch.nn.Linear(16, 4), torch.nn.Dropout(0.5), []

        def forward(self, x):
            self.seen.append(len(x))
            a, b = self.first(x), self.second(self.drop(x))
            answers = {"list": lambda: [a, b], "dict": lambda: {"a": a}, "none": lambda: None, "empty": lambda: [], "one": lambda: a,
                       "numpy": lambda: [a.numpy(), b.numpy()], "stacked": lambda: torch.stack([a, b]), "one with features": lambda: (a, [x]),
                       "ragged": lambda: [a, b[:, :2]], "text": lambda: ["a", "b"]}  # fmt: skip
            return answers[kind]()

    return Answering()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("list", 2), ("numpy", 2), ("one", 1), ("one with features", 1), ("dict", "answers dict"), ("none", "answers NoneType"),
     ("empty", "answers list"), ("stacked", "exit 0 answers [2, 20, 4] to 20 samples"), ("ragged", "exit 1 answers [20, 2] to 20 samples"),
     ("text", "answers str")],
)  # fmt: skip
def test_what_a_module_answers(tmp_path, kind, expected):
    if isinstance(expected, int):
        assert record(answering(kind), rows(), tmp_path / "t.parquet").exits == expected
        return
    with pytest.raises(BadInput) as caught:
        record(answering(kind), rows(), tmp_path / "t.parquet")
    assert expected in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_module_keeps_its_mode_and_gets_batches_of_the_size_asked_for(tmp_path):
    module = answering("list").train()
    module.second.eval()
    record(module, rows(50), tmp_path / "t.parquet", batch=20)
    assert module.training and module.drop.training and not module.second.training and module.seen == [20, 20, 10]
    with pytest.raises(BadInput, match="Answering cannot run on inputs of shape"):
        record(module, rows(width=15), tmp_path / "u.parquet")
    assert module.training
    with pytest.raises(BadInput, match=r"is the class Answering; make a module of it, such as Answering\(\)"):
        record(type(module), rows(), tmp_path / "u.parquet")


def test_a_module_is_known_by_its_code_as_well_as_by_its_weights():
    import types

    from eesim.recorder.models import _fingerprint

    first, second = answering("list"), answering("list")
    assert _fingerprint(first) == _fingerprint(second)
    second.forward = types.MethodType(lambda self, x: [-self.first(x), self.second(x)], second)
    here = _fingerprint(second)
    second.forward = types.MethodType(eval("lambda self, x: [self.first(x), -self.second(x)]"), second)  # of no file
    assert len({_fingerprint(first), here, _fingerprint(second)}) == 3
    with_other_weights = answering("list")
    with_other_weights.first.weight.data += 1
    assert _fingerprint(with_other_weights) != _fingerprint(first)


def test_every_kind_of_module_and_batch_is_recorded(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch")
    data = rows()
    plain = record(answering("list"), data, tmp_path / "t.parquet").logits.astype(float)
    for module in (answering("list").bfloat16(), answering("list").double()):
        np.testing.assert_allclose(record(module, data, tmp_path / "t.parquet").logits.astype(float), plain, atol=0.03)
    inputs = torch.from_numpy(data["x"])
    for batch in (inputs.bfloat16(), inputs.clone().requires_grad_(), inputs.double()):
        trace = record(answering("list"), [(batch, data["label"])], tmp_path / "u.parquet")
        np.testing.assert_allclose(trace.logits.astype(float), plain, atol=0.03)


def test_the_total_of_a_loader_is_what_it_holds(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch")
    data = rows(50)
    whole = torch.utils.data.TensorDataset(torch.from_numpy(data["x"]), torch.from_numpy(data["label"]))
    for options, count in (({}, 50), ({"drop_last": True}, 48)):
        seen = []
        loader = torch.utils.data.DataLoader(whole, batch_size=8, **options)
        record(answering("list"), loader, tmp_path / "t.parquet", progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert seen[-1] == (count, count)


def test_modules_from_files_are_made_or_refused_in_one_line(tmp_path):
    pytest.importorskip("torch", reason="needs torch")
    from eesim.recorder.models import _fingerprint
    from eesim.recorder.torch_file import module_of

    text = "import torch\nclass M(torch.nn.Module):\n    def forward(self, x): return [x[:, :4], SIGN * x[:, 4:8]]\nSIGN = 1\n"
    path = tmp_path / "m.py"
    path.write_text(text + "def build(): return M()\ndef none(): pass\n")
    first = _fingerprint(module_of(f"{path}:build"))
    path.write_text(text.replace("SIGN = 1", "SIGN = -1") + "def build(): return M()\ndef none(): pass\n")
    assert _fingerprint(module_of(f"{path}:build")) != first, "the text of the file counts, not only that of the class"
    for place, telling in ((f"{path}", f"such as {path}:build"), (f"{path}:none", "'none' returns NoneType, not a torch module")):
        with pytest.raises(BadInput) as caught:
            module_of(place)
        assert telling in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ("trace record m d -o t.parquet", True),
        ("trace record m d -ot.parquet", True),
        ("trace record m d --out=t.parquet", True),
        ("sweep --out o", True),
        ("sweep --workloads a", False),
        ("plan --out p.json", False),
        ("trace record m d --outputs a", False),
    ],
)
def test_the_hint_after_an_interruption(arguments, kept):
    from eesim.cli.main import _continues

    assert _continues(arguments.split()) == kept
