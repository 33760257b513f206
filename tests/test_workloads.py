"""The bundled workloads are what their cards say: splits apart, figures, sizes, and networks that match their ONNX."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eesim.bundled import workload_names
from eesim.network.layer import ITEM_BYTES
from eesim.network.onnx_import import import_onnx
from eesim.trace import read_trace as load_trace
from eesim.trace.describe import describe
from eesim.workload import load_workload

ROOT = Path(__file__).parents[1] / "workloads"
DS2 = {100, 103, 105, 111, 113, 117, 121, 123, 200, 202, 210, 212, 213, 214, 219, 221, 222, 228, 231, 232, 233, 234}
PACED = {102, 104, 107, 217}


@pytest.mark.parametrize("name", workload_names())
def test_every_workload_is_whole_and_consistent(name):
    workload = load_workload(name)
    assert workload.name == name
    assert (workload.folder / workload.card).is_file() and (workload.folder / workload.recipe).is_file()
    imported = import_onnx(workload.folder / workload.network.onnx, name=name, final_head=workload.network.final_head)
    assert imported.layers == workload.network.layers and not imported.warnings
    if workload.recorded is None:
        assert workload.without_trace
        return
    header = workload.trace.header
    assert workload.network.name == header.network
    assert header.content_hash == workload.trace.content_hash, "the trace was changed after recording"
    assert header.dataset["licence"] and header.dataset["origin"] and header.split_rule and header.training_mode and header.seed is not None


@pytest.mark.parametrize("name", [name for name in workload_names() if load_workload(name).recorded is not None])
def test_every_trace_has_features_difficulty_and_something_to_trade(name):
    workload = load_workload(name)
    features = workload.features("test")
    assert len(features) == workload.trace.exits and all(len(part) == len(workload.view("test")) for part in features)
    assert all(part.shape[1] <= 16 and part.dtype == np.float16 for part in features)
    difficulty = workload.trace.difficulty
    assert set(difficulty) == {"edge", "variance", "gradient", "sobel_mean"} and workload.trace.header.tau_edge is not None
    assert all((difficulty[part] >= 0).all() and (difficulty[part] <= 1).all() for part in ("edge", "variance", "gradient"))
    exits = describe(workload.trace)["splits"]["test"]["exits"]
    chance = 1 / workload.trace.classes
    assert exits[0]["balanced_accuracy"] > 1.5 * chance and exits[0]["accuracy"] < exits[-1]["accuracy"]
    if name != "ecg-rhythm":  # its card says why its exits do not rise there
        assert exits[0]["balanced_accuracy"] < exits[-1]["balanced_accuracy"] - 0.05
    assert (workload.folder / "trace.parquet").stat().st_size < 8e6


FLOORS = {"alexnet": 0.76, "cifar10-resnet8": 0.82, "har-wisdm": 0.68, "kws-speech-commands": 0.80, "digits": 0.90, "vgg16": 0.86, "resnet18": 0.86}


@pytest.mark.parametrize("name", FLOORS)
def test_the_last_exit_keeps_its_floor(name):
    assert describe(load_workload(name).trace)["splits"]["test"]["exits"][-1]["accuracy"] >= FLOORS[name]


def test_all_workloads_together_stay_small():
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts) < 66e6


@pytest.mark.parametrize(
    "name", ["alexnet", "cifar10-resnet8", "cifar10-stream", "digits", "har-wisdm", "kws-speech-commands", "kws-wakeword-stream"]
)
def test_every_line_that_the_recipe_prints_is_in_the_card(name, capsys):
    card = (ROOT / name / "README.md").read_text().splitlines()
    _recipe(name)  # makes `recipes` importable
    from recipes.card import print_card

    print_card(ROOT / name)
    tables = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith("Network")]
    assert len(tables) > 15 and [line for line in tables if line not in card] == []


@pytest.mark.parametrize("name", ["kws-speech-commands", "kws-wakeword-stream"])
def test_no_recording_of_sound_is_there_twice(name):
    trace = load_workload(name).trace
    for split in ("calibration", "test"):
        rows = trace.logits[:, trace.split == split].transpose(1, 0, 2)
        assert len(np.unique(rows.reshape(len(rows), -1), axis=0)) > 0.999 * len(rows), "copies of a clip or of a stretch of noise answer alike"


@pytest.mark.parametrize(("name", "streams"), [("kws-speech-commands", None), ("kws-wakeword-stream", {"calibration": 1, "test": 1})])
def test_recording_the_keywords_again_gives_the_same_answers(name, streams, tmp_path):
    """The clips byte for byte; of the streams the first of the calibration split, which is long enough."""
    if not (Path(os.environ.get("EESIM_RAW_DATA") or "none") / "datasets" / "speech_commands").is_dir():
        pytest.skip("EESIM_RAW_DATA names no folder with the raw clips of Speech Commands, so nothing can be recorded again")
    for module in ("soundfile", "onnxruntime"):
        pytest.importorskip(module, reason=f"needs {module}")
    recipe, committed = _recipe(name), load_workload(name).trace
    recipe.STREAMS = streams
    from recipes.recipe import record

    (tmp_path / "network.onnx").write_bytes((ROOT / name / "network.onnx").read_bytes())
    record(replace(recipe.RECIPE, folder=tmp_path), committed.header.seed)
    again = load_trace(tmp_path / "trace.parquet")
    if streams is None:
        assert again.content_hash == committed.content_hash
        assert (tmp_path / "trace.parquet").read_bytes() == (ROOT / name / "trace.parquet").read_bytes()
        return
    first = committed.stream_id == 0
    assert (again.logits[:, again.stream_id == 0] == committed.logits[:, first]).all() and first.sum() == 1996
    assert (again.label[again.stream_id == 0] == committed.label[first]).all()


@pytest.fixture(scope="module")
def ecg():
    return load_workload("ecg-mitbih")


def test_no_patient_is_in_two_splits_nor_trained_on(ecg):
    trace = ecg.trace
    patients = {split: set(trace.stream_id[trace.split == split].tolist()) for split in ("calibration", "test")}
    assert patients["test"] == DS2
    assert not patients["calibration"] & patients["test"] and 201 not in patients["calibration"], "201 and 202 are one person"
    assert not (patients["calibration"] | patients["test"]) & PACED
    recipe = _recipe("ecg-mitbih")
    assert not set(recipe.TRAINING) & (patients["calibration"] | patients["test"] | {201} | PACED)
    for patient in patients["calibration"] | patients["test"]:
        assert len(set(trace.split[trace.stream_id == patient])) == 1


def test_beats_come_in_recorded_order_at_the_pace_of_hearts(ecg):
    trace = ecg.trace
    for patient in np.unique(trace.stream_id):
        gaps = np.diff(trace.time_ns[trace.stream_id == patient]) / 1e9
        assert (gaps > 0).all() and 0.4 < np.median(gaps) < 1.4, patient
    assert set(np.unique(trace.label)) == {0, 1, 2, 3} and trace.header.classes == ["N", "S", "V", "F"]


def test_the_ecg_network_is_made_for_a_microcontroller_and_reaches_its_aims(ecg):
    network = ecg.network
    assert network.exits >= 4 and network.params * ITEM_BYTES["int8"] < 400_000
    assert sum(network.segment_macs) + network.head_macs[-1] < 3_000_000
    assert (ROOT / "ecg-mitbih" / "trace.parquet").stat().st_size < 8e6
    test = describe(ecg.trace)["splits"]["test"]
    first, last = test["exits"][0], test["exits"][-1]
    assert last["accuracy"] >= 0.92 and 0.25 + 0.2 < first["balanced_accuracy"] < last["balanced_accuracy"] - 0.05
    view = ecg.view("test")
    answers, labels = view.answers[:, -1], view.label
    hits = ((answers == 2) & (labels == 2)).sum()
    assert 2 * hits / ((answers == 2).sum() + (labels == 2).sum()) >= 0.75, "F1 of ventricular beats"
    assert 0.88 < test["majority"] < 0.90


def test_the_card_says_what_the_trace_holds(ecg):
    """Accuracy and balanced accuracy of every exit, and the confusion matrix, as printed in the card."""
    card = (ecg.folder / "README.md").read_text()
    test = card.split("### Test")[1].split("###")[0]
    for index, exit in enumerate(describe(ecg.trace)["splits"]["test"]["exits"]):
        (row,) = re.findall(rf"\| exit {index} \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \|", test)
        assert float(row[0]) == pytest.approx(100 * exit["accuracy"], abs=0.051) and float(row[1]) == pytest.approx(
            100 * exit["balanced_accuracy"], abs=0.051
        )
    view = ecg.view("test")
    for label, name in enumerate("NSVF"):
        (cells,) = re.findall(rf"\| {name} \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", card)
        assert [int(cell.replace(",", "")) for cell in cells] == np.bincount(view.answers[view.label == label, -1], minlength=4).tolist()


def test_recording_again_from_the_raw_records_gives_the_same_bytes(ecg, tmp_path):
    raw = os.environ.get("EESIM_RAW_DATA")
    if not raw or not (Path(raw) / "datasets" / "mitbih").is_dir():
        pytest.skip("EESIM_RAW_DATA names no folder with the raw MIT-BIH records, so nothing can be recorded again")
    import subprocess
    import sys

    command = [
        sys.executable,
        str(ecg.folder / "recipe.py"),
        "record",
        "--seed",
        str(ecg.trace.header.seed),
        "--trace",
        str(tmp_path / "trace.parquet"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert load_trace(tmp_path / "trace.parquet").content_hash == ecg.trace.content_hash


def test_the_recipe_says_in_one_sentence_what_it_lacks(tmp_path):
    import subprocess
    import sys

    environment = {name: value for name, value in os.environ.items() if name != "EESIM_RAW_DATA"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "ecg-mitbih" / "recipe.py"), "record"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "EESIM_RAW_DATA" in done.stderr


def _recipe(name):
    """The recipe of a workload as a module."""
    spec = importlib.util.spec_from_file_location(f"recipe_of_{name.replace('-', '_')}", ROOT / name / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
