"""Workload folders: what is in them is loaded, what is missing or does not fit is one line, exits and default arrivals are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pytest
import yaml
from numpy.testing import assert_array_equal

import eesim
from eesim.arrivals import parse_arrivals
from eesim.bundled import workload_names
from eesim.errors import BadInput
from eesim.network.onnx_import import import_onnx
from eesim.seeds import Seeds
from eesim.workload import Workload, load_workload


def line(call, *arguments, **options) -> str:
    """The one line of the BadInput that the call must raise."""
    with pytest.raises(BadInput) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1 and caught.value.exit_status == 2
    return str(caught.value)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small workload that a test may break."""
    return builders.write_workload(tmp_path / "small", builders.trace(samples=60, calibration=20))


def rewrite(folder, drop=(), **changes) -> Path:
    path = folder / "workload.yaml"
    data = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({key: value for key, value in {**data, **changes}.items() if key not in drop}))
    return path


def test_a_folder_is_loaded_whole(folder):
    made = builders.trace(samples=60, calibration=20)
    loaded = load_workload(folder)
    assert (loaded.name, loaded.title, loaded.folder, loaded.arrivals, loaded.card) == ("small", "made up", folder, "poisson:200/s", "README.md")
    assert loaded.network == builders.network() and loaded.trace.content_hash == made.content_hash
    assert load_workload(folder / "workload.yaml").folder == folder and load_workload(str(folder)).name == "small"
    assert load_workload(loaded) is loaded and repr(loaded) == "Workload('small')"
    assert isinstance(eesim.load_workload(folder), Workload)


def test_files_may_have_other_names_and_npz_serves_as_a_trace(folder):
    made = builders.trace(samples=60, calibration=20)
    (folder / "network.yaml").rename(folder / "net.yaml")
    (folder / "trace.parquet").unlink()
    np.savez(folder / "trace.npz", logits=made.logits, labels=made.label)
    rewrite(folder, network="net.yaml", trace="trace.npz", recipe="recipe.py")
    loaded = load_workload(folder)
    assert len(loaded.view()) == 60 and loaded.recipe == "recipe.py"
    assert line(loaded.view, "calibration") == "the trace of 'trace' has no calibration split; mechanisms are tuned on it"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("network.yaml", "cannot be read: No such file or directory"),
        ("trace.parquet", "no such trace file"),
        ("workload.yaml", "a workload is a folder that holds a workload.yaml; there is none here"),
    ],
)
def test_missing_files_are_named(folder, name, expected):
    (folder / name).unlink()
    assert line(load_workload, folder) == f"{folder if name == 'workload.yaml' else folder / name}: {expected}"


def test_names_that_are_no_workload(tmp_path):
    assert line(load_workload, tmp_path / "none") == f"{tmp_path / 'none'}: no such workload file or folder"
    assert line(load_workload, "no-such-workload").startswith("unknown workload 'no-such-workload'; ")


@pytest.mark.parametrize(
    ("changes", "drop", "expected"),
    [
        ({"schema_version": 2}, (), "schema_version: version 2 is not known; this eesim reads version 1"),
        ({"schema_version": "1"}, (), "schema_version: should be a valid integer, got '1'"),
        ({"arivals": "closed"}, (), "arivals: unknown key 'arivals'; did you mean 'arrivals'?"),
        ({}, ("arrivals",), "arrivals: this key is missing"),
        ({}, ("name",), "name: this key is missing"),
        ({"title": 5}, (), "title: should be a valid string, got 5"),
        ({"arrivals": "poison:5/s"}, (), "arrivals: unknown arrival process 'poison'; did you mean 'poisson'?"),
        ({"arrivals": "poisson:5"}, (), "arrivals: rate '5' lacks its unit; write for example '5/s' (in 'poisson:5'; the form is poisson:50/s)"),
        ({"arrivals": 5}, (), "arrivals: should be a valid string, got 5"),
    ],
)
def test_mistakes_in_workload_yaml(folder, changes, drop, expected):
    path = rewrite(folder, drop, **changes)
    assert line(load_workload, folder) == f"{path}: {expected}"


def test_network_and_trace_must_match(tmp_path):
    made = builders.trace(samples=60, calibration=20)
    folder = builders.write_workload(tmp_path / "exits", made, builders.network(3))
    assert line(load_workload, folder) == f"{folder / 'trace.parquet'}: exits: the network has 3 exits, the trace 4"
    folder = builders.write_workload(tmp_path / "classes", made, builders.network(4, classes=5))
    assert line(load_workload, folder) == f"{folder / 'trace.parquet'}: classes: the network has 5 classes, the trace 4"
    folder = builders.write_workload(tmp_path / "any", made, replace(builders.network(4), classes=None))
    assert load_workload(folder).trace.classes == 4


@pytest.mark.parametrize("name", ["network.yaml", "trace.parquet"])
def test_a_broken_part_names_its_own_file(folder, name):
    (folder / name).write_text("broken: [")
    assert line(load_workload, folder).startswith(f"{folder / name}: ")


@pytest.mark.parametrize(
    ("exits", "enabled"),
    [
        (None, (0, 1, 2, 3)), ([], (3,)), ([3], (3,)), ([0], (0, 3)), ([2, 0, 2], (0, 2, 3)), ((0, 1, 2, 3), (0, 1, 2, 3)),
        (np.array([1]), (1, 3)), (iter([1, 2]), (1, 2, 3)), ("0,2", (0, 2, 3)), (range(2), (0, 1, 3)), (1, (1, 3)), ({2}, (2, 3)),
    ],
)  # fmt: skip
def test_exits_are_chosen_and_the_final_one_is_always_among_them(made_workload, exits, enabled):
    assert made_workload.enabled(exits) == enabled
    assert all(type(exit) is int for exit in made_workload.enabled(exits))


@pytest.mark.parametrize(
    ("exits", "shown"), [([4], "4"), ([-1], "-1"), ([0, 9], "9"), ([0.5], "0.5"), (["1"], "'1'"), ([True], "True"), ([None], "None"), ("0,7", "7")]
)
def test_exits_that_do_not_exist(made_workload, exits, shown):
    assert line(made_workload.enabled, exits).startswith(f"exits: exit {shown} does not exist; 'made-up' has exits 0 to 3")


def test_exits_that_are_no_list(made_workload):
    assert "exits 'some'" in line(made_workload.enabled, "some") and "0.5" in line(made_workload.enabled, "0.5")


def test_views_are_computed_once_and_restricted(made_workload):
    view = made_workload.view()
    assert made_workload.view() is view and made_workload.view("test", (0, 1, 2, 3)) is view
    part = made_workload.view("test", (1, 3))
    assert part is made_workload.view("test", (1, 3)) and part.recorded_exits == (1, 3)
    assert_array_equal(part.logits, view.logits[[1, 3]])
    assert len(made_workload.view("calibration")) == 200 and len(view) == 400
    assert "split 'train' is neither 'calibration' nor 'test'" in line(made_workload.view, "train")


def test_the_recording_is_stream_after_stream_even_where_rows_are_interleaved(tmp_path):
    made = builders.trace(samples=60, calibration=20, streams=2)
    order = np.concatenate([np.arange(20), np.arange(20, 60).reshape(2, 20).T.ravel()])
    columns = ("sample_id", "stream_id", "time_ns", "split", "label")
    mixed = replace(made, logits=made.logits[:, order], **{name: getattr(made, name)[order] for name in columns})
    recording = load_workload(builders.write_workload(tmp_path / "mixed", mixed)).recording()
    assert_array_equal(recording.time_ns, made.time_ns[20:])
    assert recording.stream.tolist() == [0] * 20 + [1] * 20


def test_default_arrivals_are_those_of_a_run(folder, made_profile):
    rewrite(folder, arrivals="recorded:2")
    loaded = load_workload(folder)
    result = eesim.simulate(loaded, made_profile)
    assert result["arrivals"] == "recorded:2"
    assert_array_equal(result.requests.arrival_ns, parse_arrivals("recorded:2", loaded.recording()).times(Seeds(0), 40))


def test_a_file_of_default_arrivals_lies_in_the_workloads_own_folder(folder, made_profile, monkeypatch):
    rewrite(folder, arrivals="file:times.csv")
    assert line(load_workload, folder) == f"{folder / 'times.csv'}: no such file of arrival times"
    (folder / "times.csv").write_text("arrival_ms\n5\n6\n7.5\n")
    monkeypatch.chdir(folder.parent.parent)
    result = eesim.simulate(folder, made_profile)
    assert result.requests.arrival_ns.tolist() == [5_000_000, 6_000_000, 7_500_000]
    (folder / "times.csv").write_text("arrival_ms\n5\n4\n")
    assert line(load_workload, folder).startswith(f"{folder / 'times.csv'}: arrival_ms: row 1: ")


@pytest.mark.parametrize("name", workload_names())
def test_bundled_workloads_hold_what_the_contract_asks_for(name):
    """Folder name, card, a network that its ONNX file gives, and, unless it says why there is no trace, both splits and a full header."""
    loaded = load_workload(name)
    assert loaded.name == name == loaded.folder.name and (loaded.folder / loaded.card).stat().st_size > 500
    assert (loaded.folder / loaded.recipe).is_file() and loaded.network.onnx
    imported = import_onnx(loaded.folder / loaded.network.onnx, name=loaded.network.name, final_head=loaded.network.final_head)
    assert imported == loaded.network and imported.data_type == loaded.network.data_type
    if loaded.recorded is None:
        assert loaded.without_trace
        return
    header = loaded.trace.header
    assert header.training_mode in ("frozen", "joint", "distilled") and header.split_rule and header.recipe and header.seed is not None
    assert {"name", "licence", "origin"} <= header.dataset.keys() and all(header.dataset.values())
    assert header.content_hash == loaded.trace.content_hash
    assert len(loaded.view("test")) > 0 and len(loaded.view("calibration")) > 0
    assert not set(loaded.view("test").sample_id) & set(loaded.view("calibration").sample_id)


def test_a_workload_of_ones_own_is_made_by_a_verb(tmp_path):
    from test_cli import eesim as command

    digits = Path(__file__).parents[1] / "workloads" / "digits"
    given = ("--onnx", digits / "network.onnx", "--trace", digits / "trace.parquet")
    command("workloads", "new", "mine", *given, "--arrivals", "poisson:3/s", "--title", "my digits", cwd=tmp_path, check=0)
    made, bundled = load_workload(tmp_path / "mine"), load_workload("digits")
    assert (made.name, made.title, made.arrivals) == ("mine", "my digits", "poisson:3/s")
    assert made.network.layers == bundled.network.layers and made.trace.content_hash == bundled.trace.content_hash
    assert all((a == b).all() for a, b in zip(made.features("test"), bundled.features("test"), strict=True))
    for arguments, telling in (
        (("mine", *given), "exists already"),
        (("other", *given, "--arrivals", "poison:1/s"), "did you mean 'poisson'"),
        (("other", *given[:3], digits.parent / "ecg-mitbih" / "trace.parquet"), "the network has 3 exits, the trace 5"),
        (("other", "--onnx", digits / "README.md", *given[2:]), "not a readable ONNX model"),
    ):
        done = command("workloads", "new", *arguments, cwd=tmp_path, check=2)
        assert telling in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
