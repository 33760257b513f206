"""LeViT and T2T-ViT as workloads that ship without a trace: published sizes, files, what the verbs say, and recipes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import builders
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from eesim.bundled import data_folder
from eesim.cli.main import main
from eesim.errors import BadInput
from eesim.network import read_network
from eesim.network.onnx_import import import_onnx
from eesim.simulation import simulate
from eesim.tuning import tune
from eesim.workload import bundled_workloads, load_workload

EXITS = {"levit-128s": 4, "t2t-vit-7": 7, "t2t-vit-14": 14}
FOLDER = data_folder("workloads")


def backbone(name) -> list:
    """Layers of the network without its early exits: all segments and the last head."""
    network = read_network(FOLDER / name / "network.yaml")
    return [layer for part in (*network.segments, network.heads[-1]) for layer in part]


def macs(layers) -> int:
    return sum(layer.macs for layer in layers)


def products(layers) -> list:
    """Products of two results, neither of which is a weight: those of attention."""
    return [layer for layer in layers if layer.kind == "matmul"]


# --- Sizes -----------------------------------------------------------------------------------------------------------------


def test_levit_128s_has_the_published_macs():
    """DART's 282.1 M leave out the products of attention and count two per output of a batch norm; LeViT's 305 M count all products,
    a MAC per input of a softmax, and two heads of 1,000 classes."""
    layers = backbone("levit-128s")
    weighted = [layer for layer in layers if layer.macs and layer not in products(layers)]
    assert macs(weighted) == pytest.approx(282.1e6, rel=0.02)
    normed = sum(layer.elements_out for layer in weighted[:-1]) + weighted[-1].elements_in
    assert macs(weighted) + 2 * normed == pytest.approx(282.1e6, abs=0.05e6)
    softmax = sum(layer.elements_out for layer in layers if layer.kind == "softmax")
    assert macs(layers) - 3_840 + 2 * 384 * 1000 + softmax == pytest.approx(305e6, abs=0.5e6)
    assert macs(layers) == 303_896_672


def test_t2t_vit_7_has_the_published_macs():
    """Published: 1.1 G, with one decimal. All products make 1.147 G; without those of the performers' kernels it is within 2 % of 1.1."""
    layers = backbone("t2t-vit-7")
    kernels = [layer for layer in layers if re.search(r"performers\.\d/MatMul", layer.name)]
    assert len(kernels) == 10
    assert macs(layers) - macs(kernels) == pytest.approx(1.1e9, rel=0.02)
    assert round(macs(layers) / 1e9, 1) == 1.1 and macs(layers) == 1_146_610_176


@pytest.mark.parametrize(("depth", "published"), [(10, 1.5), (12, 1.8)])
def test_deeper_networks_of_the_same_width_have_the_published_macs_too(depth, published):
    """T2T-ViT-10 and -12 are T2T-ViT-7 with more blocks: this fixes what the published figures count."""
    network = read_network(FOLDER / "t2t-vit-7" / "network.yaml")
    assert len(set(network.segment_macs[1:])) == 1
    assert round((macs(backbone("t2t-vit-7")) + (depth - 7) * network.segment_macs[1]) / 1e9, 1) == published


def test_t2t_vit_14_has_the_published_macs():
    assert macs(backbone("t2t-vit-14")) == pytest.approx(4.8e9, rel=0.02)


def test_networks_have_the_published_parameters():
    """LeViT-128S 7.8 M, T2T-ViT-7 4.3 M, T2T-ViT-14 21.5 M, all with 1,000 classes; LeViT with a second head."""
    transformers, torch = recipes(), pytest.importorskip("torch")
    for build, published, heads in ((transformers.levit_128s, 7.8, 2), (transformers.t2t_vit_7, 4.3, 1), (transformers.t2t_vit_14, 21.5, 1)):
        with torch.device("meta"):  # shapes without numbers
            network = build(classes=1000)
        head = sum(values.numel() for values in network.heads[-1].parameters())
        learned = sum(values.numel() for values in network.segments.parameters())
        fixed = sum(values.numel() for name, values in network.named_buffers() if name.endswith(("positions", "directions")))
        assert (learned + fixed + heads * head) / 1e6 == pytest.approx(published, abs=0.051)


# --- Files -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXITS)
def test_the_network_is_that_of_its_weightless_onnx(name):
    workload = load_workload(name)
    path = workload.folder / workload.network.onnx
    assert path.stat().st_size < 1e6
    model = onnx.load(str(path))
    assert not [tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > 1]
    assert import_onnx(path, name=name, final_head=workload.network.final_head) == workload.network
    assert not workload.network.warnings and list(workload.network.inputs) == ["image"]
    assert workload.network.exits == EXITS[name] and workload.network.classes == 10
    deep = [sum(layer.macs for layer in segment) for segment in workload.network.segments]
    assert all(deep) and all(0 < head < 100_000 for head in workload.network.head_macs)


@pytest.mark.parametrize("name", EXITS)
def test_every_weight_is_counted(name):
    """All graph inputs but the image are weights of some layer; those that two layers read count in both."""
    network = read_network(FOLDER / name / "network.yaml")
    model = onnx.load(str(FOLDER / name / "network.onnx"))
    stored = {value.name: int(np.prod([dim.dim_value for dim in value.type.tensor_type.shape.dim])) for value in model.graph.input}
    stored.pop("image")
    readers = [tensor for node in model.graph.node for tensor in set(node.input) if tensor in stored]
    assert set(readers) == set(stored)
    assert network.params == sum(stored[tensor] for tensor in readers)
    twice = [tensor for tensor in stored if readers.count(tensor) > 1]
    assert sum(stored[tensor] for tensor in twice) < 0.002 * network.params


@pytest.mark.parametrize("name", EXITS)
def test_the_card_says_what_the_network_costs(name):
    workload = load_workload(name)
    card = (workload.folder / workload.card).read_text()
    total, params = 0, 0
    for exit in range(workload.network.exits):
        total += workload.network.segment_macs[exit]
        params += sum(layer.params for layer in workload.network.segments[exit])
        head = workload.network.head_macs[exit]
        own = sum(layer.params for layer in workload.network.heads[exit])
        assert re.search(rf"^\| {exit} \|.* {total + head:,} \| {head:,} \| {params + own:,} \|$", card, re.MULTILINE)
    for source in ("arXiv", "Licence", "recipe.py train", "no exit trace"):
        assert source in card


# --- Workloads without a trace ---------------------------------------------------------------------------------------------


def eesim(*arguments):
    """A command in this process: exit status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["eesim", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
            main()
    finally:
        sys.argv = before
    return stop.value.code or 0, out.getvalue(), err.getvalue()


@pytest.fixture
def traceless(tmp_path) -> Path:
    """A small workload that ships without a trace."""
    folder = builders.write_workload(tmp_path / "small", builders.trace(samples=60, calibration=20))
    path = folder / "workload.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "without_trace": "nobody recorded one"}))
    (folder / "trace.parquet").rename(folder / "kept.parquet")
    return folder


def test_a_workload_may_ship_without_a_trace_and_get_one_later(traceless):
    workload = load_workload(traceless)
    assert workload.recorded is None and workload.network.exits == 4 and workload.enabled() == (0, 1, 2, 3)
    for ask in (lambda: workload.trace, workload.view, workload.features, workload.recording):
        with pytest.raises(BadInput, match=r"the workload 'small' ships without a trace: nobody recorded one$"):
            ask()
    (traceless / "kept.parquet").rename(traceless / "trace.parquet")
    assert len(load_workload(traceless).view()) == 40


def test_without_a_reason_a_missing_trace_is_an_error(traceless):
    path = traceless / "workload.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "without_trace"}))
    with pytest.raises(BadInput, match=r"trace\.parquet: no such trace file"):
        load_workload(traceless)


def test_default_arrivals_are_checked_without_a_trace_too(traceless):
    path = traceless / "workload.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "arrivals": "poison:5/s"}))
    with pytest.raises(BadInput, match="unknown arrival process 'poison'"):
        load_workload(traceless)


def test_bundled_workloads_with_and_without_a_trace_are_told_apart():
    recorded, without = bundled_workloads()
    assert "ecg-mitbih" in recorded and set(EXITS) <= set(without) and not set(recorded) & set(without)


def test_list_and_show_know_them():
    code, out, _ = eesim("workloads", "list")
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert code == 0 and all("no trace" in lines[name] for name in EXITS) and "no trace" not in lines["ecg-mitbih"]
    rows = {row["name"]: row for row in json.loads(eesim("workloads", "list", "--format", "json")[1])}
    assert rows["levit-128s"]["trace"] is False and rows["levit-128s"]["accuracy"] is None and rows["levit-128s"]["macs"] == 303_896_672
    assert rows["ecg-mitbih"]["trace"] is True and rows["ecg-mitbih"]["accuracy"] > 0.9
    code, out, _ = eesim("workloads", "show", "levit-128s")
    assert code == 0 and "README.md" in out and "recipe.py train" in out and "303,896,672" in out
    for form in ("json", "csv"):
        code, out, _ = eesim("workloads", "show", "t2t-vit-7", "--format", form)
        assert code == 0 and "recipe.py train" in out


@pytest.mark.parametrize("name", EXITS)
def test_cost_prices_them_by_name(name):
    code, out, err = eesim("cost", name, "--profile", "h200", "--format", "json")
    assert code == 0 and json.loads(out)["macs"] == sum(layer.macs for layer in read_network(FOLDER / name / "network.yaml").layers)
    assert "no cost rule" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "-w", "levit-128s", "-p", "h200", "-m", "static"),
        ("run", "-w", "t2t-vit-7", "-p", "h200", "-m", "max-softmax", "--accuracy-drop", "1%"),
        ("compare", "-w", "t2t-vit-14", "-p", "h200"),
        ("sweep", "-w", "levit-128s", "-p", "h200", "-m", "max-softmax"),
        ("plan", "-w", "levit-128s", "-p", "h200", "--rate", "1/s"),
    ],
)
def test_verbs_that_need_a_trace_say_what_makes_one(arguments):
    code, out, err = eesim(*arguments)
    assert (code, out) == (2, "") and len(err.strip().splitlines()) == 1
    assert "ships without a trace: its training needs a GPU" in err and "recipe.py record" in err


@pytest.mark.parametrize("file", ["levit-128s", FOLDER / "levit-128s" / "trace.parquet"])
def test_showing_their_trace_says_what_makes_one(file):
    code, out, err = eesim("trace", "show", file)
    assert (code, out) == (2, "") and "recipe.py record" in err


@pytest.fixture
def two_bundled(tmp_path, traceless, monkeypatch):
    """As if the bundled workloads were two: `made`, and `small` without a trace."""
    builders.write_workload(tmp_path / "made", builders.trace(samples=300, calibration=100))
    monkeypatch.setattr("eesim.bundled.data_folder", lambda kind: tmp_path)
    builders.write_profile(tmp_path)
    return tmp_path / "made-up-device.yaml"


def test_sweep_and_plan_over_all_workloads_leave_them_out_and_say_so(two_bundled):
    code, out, err = eesim("sweep", "-p", two_bundled, "-m", "max-softmax", "--thresholds", "0.5,0.9", "--format", "json")
    assert code == 0 and {row["workload"] for row in json.loads(out)} == {"made"}
    assert "'small' is left out: it ships without a trace" in err
    code, out, err = eesim("plan", "-p", two_bundled, "-m", "max-softmax", "--rate", "1/s", "--exits", "0,1,2", "--format", "json")
    assert code == 0 and {row["workload"] for row in json.loads(out)["deployments"]} == {"made"}
    assert "'small' is left out: it ships without a trace" in err


def test_in_python_too():
    for call in (lambda: simulate("levit-128s", "h200", "static"), lambda: tune("levit-128s", "h200", "max-softmax", accuracy_drop="1%")):
        with pytest.raises(BadInput, match="ships without a trace"):
            call()


# --- Reading models of this kind -------------------------------------------------------------------------------------------


def scores(tmp_path, *shape) -> onnx.ModelProto:
    """Four heads' scores of 6 tokens, plus an input `bias` of this shape, summed over the last axis, and a classifier."""
    inputs = {"x": [1, 6, 8], "bias": list(shape), "w": [24, 3]}
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["heads"]),
        helper.make_node("Transpose", ["heads"], ["query"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["heads"], ["key"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["query", "key"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["biased"], name="added"),
        helper.make_node("ReduceSum", ["biased", "axis"], ["summed"], name="sum", keepdims=0),
        helper.make_node("Flatten", ["summed"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"]),
    ]
    fixed = [helper.make_tensor("split", TensorProto.INT64, [4], [1, 6, 4, 2]), helper.make_tensor("axis", TensorProto.INT64, [1], [-1])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in inputs.items()]
    graph = helper.make_graph(nodes, "scores", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])], fixed)
    path = tmp_path / "scores.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


def test_a_bias_without_a_batch_axis_is_a_weight(tmp_path):
    network = import_onnx(scores(tmp_path, 4, 6, 6))
    added = next(layer for layer in network.layers if layer.name == "added")
    assert list(network.inputs) == ["x"] and added.params == 4 * 6 * 6 and added.elements_in == 4 * 6 * 6


def test_one_with_a_batch_axis_is_data(tmp_path):
    network = import_onnx(scores(tmp_path, 1, 4, 6, 6))
    added = next(layer for layer in network.layers if layer.name == "added")
    assert list(network.inputs) == ["x", "bias"] and added.params == 0 and added.elements_in == 2 * 4 * 6 * 6


def test_sums_are_priced_as_pooling(tmp_path):
    network = import_onnx(scores(tmp_path, 4, 6, 6))
    assert next(layer for layer in network.layers if layer.name == "sum").kind == "pooling" and not network.warnings


# --- Recipes ---------------------------------------------------------------------------------------------------------------


def recipes():
    """recipes.transformers, where torch is installed."""
    pytest.importorskip("torch", reason="torch is not installed, so no recipe can build its network")
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    from recipes import transformers

    return transformers


def test_soft_splits_are_unfolds():
    transformers, torch = recipes(), pytest.importorskip("torch")
    image = torch.rand(2, 3, 28, 28)
    expected = torch.nn.functional.unfold(image, 7, stride=4, padding=2).transpose(1, 2)
    assert torch.equal(transformers.SoftSplit(28, 7, 4, 2)(image), expected)


@pytest.mark.parametrize("build", ["levit_128s", "t2t_vit_7"])
def test_folding_changes_no_answer(build):
    transformers, torch = recipes(), pytest.importorskip("torch")
    torch.manual_seed(0)
    network = transformers.drawn(getattr(transformers, build)()).eval()
    with torch.no_grad():
        image = torch.rand(1, 3, 224, 224)
        assert all(logits.isfinite().all() for logits in network(image))
        for one, other in zip(network(image), transformers.folded(network)(image), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_network_verb_gives_the_shipped_network(tmp_path):
    """The same bytes where torch is of the version that wrote the file, the same layers in any case."""
    transformers, torch = recipes(), pytest.importorskip("torch")
    recipe = transformers.Recipe(FOLDER / "levit-128s", transformers.levit_128s, "/heads.3/heads.3.0/ReduceMean", None)
    transformers.write(recipe, tmp_path)
    shipped, made = (read_network(folder / "network.yaml") for folder in (FOLDER / "levit-128s", tmp_path))
    assert [(layer.op, layer.macs, layer.params) for layer in made.layers] == [(layer.op, layer.macs, layer.params) for layer in shipped.layers]
    if onnx.load(str(FOLDER / "levit-128s" / "network.onnx")).producer_version == torch.__version__.split("+")[0]:
        for name in ("network.onnx", "network.yaml"):
            assert (tmp_path / name).read_bytes() == (FOLDER / "levit-128s" / name).read_bytes()


@pytest.mark.parametrize(("verb", "missing"), [("train", "needs a GPU with CUDA"), ("record", "trained.onnx is missing")])
def test_without_a_gpu_a_recipe_says_so_in_one_sentence(verb, missing, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed, and the recipe says that instead")
    if verb == "train" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    if verb == "record" and (FOLDER / "levit-128s" / "trained.onnx").is_file():
        pytest.skip("trained.onnx is there")
    done = subprocess.run([sys.executable, str(FOLDER / "levit-128s" / "recipe.py"), verb], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and missing in done.stderr
