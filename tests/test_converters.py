"""Traces from what others have: the numbers arrive unchanged, nothing foreign is unpickled, mistakes are one line."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from eesim.errors import BadInput
from eesim.trace import TraceView, read_trace
from eesim.trace.converters import Given, convert, with_calibration

RNG = np.random.default_rng(5)
LOGITS = RNG.standard_normal((3, 12, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, 12)


def test_npz_with_streams_times_and_splits(tmp_path):
    split = np.repeat(["calibration", "test"], 6)
    columns = {"targets": LABELS, "subject": np.repeat([3, 8], 6), "split": split, "time_ns": np.tile(np.arange(6), 2)}
    np.savez(tmp_path / "a.npz", logits=LOGITS, classes=list("wxyz"), **columns)
    trace = convert(tmp_path / "a.npz", given=Given(columns={"label": "targets", "stream_id": "subject"}))
    assert (trace.logits == LOGITS).all() and (trace.label == LABELS).all() and (trace.split == split).all()
    assert trace.stream_id.tolist() == [3] * 6 + [8] * 6 and trace.header.classes == list("wxyz")


def test_npy_logits_with_and_without_labels(tmp_path):
    np.save(tmp_path / "l.npy", LOGITS.astype(np.float64))
    np.save(tmp_path / "y.npy", LABELS)
    trace = convert(tmp_path / "l.npy", given=Given(labels=str(tmp_path / "y.npy")))
    assert trace.logits.dtype == np.float32 and (trace.logits == LOGITS).all() and (trace.label == LABELS).all()
    assert (convert(tmp_path / "l.npy").label == -1).all()


def test_csv_by_pattern_and_mapping(tmp_path):
    words = np.array(["cat", "dog", "emu", "fox"])[LABELS]
    head = ["who", "t", "truth", *(f"e{exit}/c{kind}" for exit in range(3) for kind in range(4))]
    rows = [[7 if row < 5 else 9, row * 10, words[row], *LOGITS[:, row].ravel()] for row in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(",".join(map(str, line)) for line in [head, *rows]))
    given = Given(logits="e{exit}/c{class}", columns={"stream_id": "who", "time_ns": "t", "label": "truth"}, classes=["cat", "dog", "emu", "fox"])
    trace = convert(tmp_path / "a.csv", given=given)
    np.testing.assert_allclose(trace.logits, LOGITS, rtol=1e-6)
    assert [trace.header.classes[label] for label in trace.label] == words.tolist()
    assert trace.stream_id.tolist() == [7] * 5 + [9] * 7 and trace.time_ns.tolist() == list(range(0, 120, 10))


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_apparate_tables_keep_confidence_and_agreement(tmp_path, suffix):
    conf = RNG.uniform(0.21, 1.0, (2, 30)).round(4)
    acc = RNG.integers(0, 2, (2, 30))
    conf[0, 0] = 1.0
    path = tmp_path / f"a{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps({"conf": conf.tolist(), "acc": acc.tolist()}))
    else:
        np.savez(path, conf=conf, acc=acc)
    trace = convert(path)
    view = TraceView(trace)
    assert trace.exits == 3 and (view.answers[:, 2] == 0).all() and "Apparate" in trace.header.extra["synthetic"]
    np.testing.assert_allclose(view.confidence[:, :2].T, conf.clip(max=1 - 1e-6), atol=2e-6)
    assert ((acc == 1) == (view.answers[:, :2] == view.answers[:, 2:]).T).all()
    assert (acc == view.correct[:, :2].T).all()


def test_torch_files_of_tensors_alone(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch")
    torch.save({"logits": torch.from_numpy(LOGITS), "targets": torch.from_numpy(LABELS)}, tmp_path / "a.pt")
    trace = convert(tmp_path / "a.pt")
    assert (trace.logits == LOGITS).all() and (trace.label == LABELS).all()
    parts = LOGITS[:, :5], LABELS[:5], LOGITS, LABELS
    torch.save(tuple(map(torch.from_numpy, parts)), tmp_path / "b.pth")
    trace = convert(tmp_path / "b.pth")
    assert (trace.split == "calibration").sum() == 5 and (trace.logits[:, 5:] == LOGITS).all()


class Bomb:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".npz", ".npy", ".json", ".csv"])
def test_pickles_are_never_opened(tmp_path, suffix):
    if suffix in (".pt", ".pth"):
        pytest.importorskip("torch", reason="needs torch")
    path, fuse = tmp_path / f"a{suffix}", tmp_path / "written"
    if suffix == ".npy":
        np.save(path, np.array([Bomb(fuse)], object), allow_pickle=True)
    elif suffix == ".npz":
        np.savez(path, logits=np.array([Bomb(fuse)], object), labels=LABELS)
    else:
        path.write_bytes(pickle.dumps(Bomb(fuse)))
    with pytest.raises(BadInput) as caught:
        convert(path)
    assert not fuse.exists() and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("streams", "share", "expected"),
    [([0] * 10, 0.3, [0, 1, 2]), ([4, 4, 4, 9, 9, 9, 2, 2, 2, 2], 0.2, [0, 1, 2]), ([4, 4, 4, 9, 9, 9, 2, 2, 2, 2], 0.4, [0, 1, 2, 3, 4, 5])],
)
def test_calibration_is_taken_by_stream(streams, share, expected):
    from eesim.trace.convert import trace_of_arrays

    trace = trace_of_arrays(LOGITS[:, :10], LABELS[:10], stream_id=np.array(streams))
    made = with_calibration(trace, share)
    assert np.flatnonzero(made.split == "calibration").tolist() == expected and "calibration = the first" in made.header.split_rule
    with pytest.raises(BadInput, match="already"):
        with_calibration(made, share)
    with pytest.raises(BadInput, match="leaves no test rows"):
        with_calibration(trace, 1.0)


def write(path, suffix, content):
    target = path / f"x{suffix}"
    if suffix == ".npz":
        np.savez(target, **content)
    elif suffix == ".npy":
        np.save(target, content)
    else:
        target.write_text(content)
    return target


@pytest.mark.parametrize(
    ("suffix", "content", "given", "telling"),
    [
        (".npz", {"logits": LOGITS}, {}, "labels: this array is missing; the file has logits"),
        (".npz", {"logits": LOGITS, "labels": LABELS, "stream_id": np.zeros(3, int)}, {}, "stream_id: must be 12 whole numbers"),
        (".npz", {"logits": LOGITS, "labels": LABELS, "classes": ["a", "b"]}, {}, "classes: 2 class names for 4 classes"),
        (".npy", LOGITS[0], {}, "must be floats of shape [exits, samples, classes]"),
        (".csv", "a,b\n1,2", {}, "no column is named like 'logit_{exit}_{class}'; the file has a, b"),
        (".csv", "logit_0_0,logit_0_2\n1,2", {}, "logit_0_1: this column is missing"),
        (".csv", "logit_0_0,logit_0_1\n1,x", {}, "logit_0_1: holds something that is not a number"),
        (".csv", "logit_0_0,logit_0_1\n1,2", {"columns": {"label": "logit_0_3"}}, "logit_0_3: there is no such column; did you mean"),
        (".csv", "logit_0_0,logit_0_1\n1,2", {"logits": "logit"}, "must hold {exit} and {class}"),
        (".json", "[1]", {}, "must be an object with 'conf' and 'acc'"),
        (".json", '{"conf": [[0.5]], "acc": [[0.5]]}', {}, "acc: ramp 0, sample 0: 0.5 must be 0 or 1"),
        (".json", '{"conf": [[0.5, 1.5]], "acc": [[1, 1]]}', {}, "conf: ramp 0, sample 1: 1.5 must be above 0"),
        (".json", '{"conf": [[0.5, 0.1], [1]], "acc": [[1, 1], [1]]}', {}, "lists of lists of numbers"),
        (".txt", "", {}, "'.txt' does not tell the format"),
    ],
)
def test_mistakes_are_one_line(tmp_path, suffix, content, given, telling):
    with pytest.raises(BadInput) as caught:
        convert(write(tmp_path, suffix, content), given=Given(**given))
    assert telling in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_the_verb_writes_what_check_accepts(tmp_path):
    from test_cli import eesim

    np.savez(tmp_path / "a.npz", logits=LOGITS, labels=LABELS)
    eesim("trace", "convert", "a.npz", "a.parquet", "--classes", "a,b,c,d", "--calibration", "25%", cwd=tmp_path, check=0)
    eesim("trace", "check", "a.parquet", cwd=tmp_path, check=0)
    assert (read_trace(tmp_path / "a.parquet").split == "calibration").sum() == 3
    for arguments, telling in (
        (("a.npz", "b.parquet", "--classes", "a,a,c,d"), "'a' is used 2 times"),
        (("a.npz", "b.parquet", "--columns", "lable=y"), "is not of the form ours=theirs"),
        (("a.npz", "b.parquet", "--from", "pickle"), "unknown format 'pickle'"),
        (("a.npz", "b.csv"), "written as .parquet"),
    ):
        done = eesim("trace", "convert", *arguments, cwd=tmp_path, check=2)
        assert telling in done.stderr and not (tmp_path / "b.parquet").exists()
