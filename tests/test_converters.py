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


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("label,logit_0_0,logit_0_1\ndog,5,-5\ncat,-5,5", {"classes": ["dog", "cat"]}, [0, 1]),
        ("label,logit_0_0,logit_0_1\ndog,5,-5\ndog,-5,5", {"classes": ["cat", "dog"]}, [1, 1]),
        ("label,logit_0_0,logit_0_1\n1.0,5,-5\n0.0,-5,5", {}, [1, 0]),
        (
            "label,logit_0_0,logit_0_1\ndog,5,-5\ncat,-5,5",
            {},
            "the labels are words; add --classes with the names of the 2 logits in their order, such",
        ),
        ("label,logit_0_0,logit_0_1\ndog,5,-5\ncta,-5,5", {"classes": ["cat", "dog"]}, "label: row 1: 'cta' is no class; did you mean 'cat'?"),
        ("label,logit_0_0,logit_0_1\ndog,5,-5\n,-5,5", {"classes": ["cat", "dog"]}, "label: row 1: is empty"),
        ("label,logit_0_0,logit_0_1\n1e300,5,-5", {}, "label: must be 1 whole numbers, is float64"),
        ("label,logit_0_0,logit_0_1\n0,5,", {}, "logit_0_1: row 0: is empty"),
        ("label,logit_0_0,logit_0_0\n0,5,6", {}, "logit_0_0: there are two columns of this name"),
        ("label,logit_0_0,logit_00_00\n0,5,6", {}, "logit_00_00: is exit 0, class 0, and so is 'logit_0_0'"),
        ("label,logit_0_0,logit_99999999999_0\n0,5,6", {}, "logit_1_0: this column is missing"),
        ("label,logit_0_0,logit_0_1\n0,5,6", {"logits": "logit_{exit}_{class}_{exit}"}, "once each"),
        ("läbel,logit_0_0,logit_0_1\n0,5,6".encode("latin-1"), {}, "is not text in UTF-8"),
        ("label,logit_0_0,logit_0_1\n0,5,6".encode("utf-16"), {}, "is not text in UTF-8"),
    ],
)
def test_csv_labels_and_columns(tmp_path, text, given, expected):
    (tmp_path / "w.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    if isinstance(expected, str):
        with pytest.raises(BadInput) as caught:
            convert(tmp_path / "w.csv", given=Given(**given))
        assert expected in str(caught.value) and len(str(caught.value).splitlines()) == 1
    else:
        assert convert(tmp_path / "w.csv", given=Given(**given)).label.tolist() == expected


SOURCES = {
    "split": {"split": np.repeat(["train", "val"], 6)},
    "calibration alone": {"split": np.full(12, "calibration")},
    "backwards": {"time_ns": np.arange(12)[::-1]},
    "negative": {"time_ns": np.arange(12) - 1},
    "twice": {"sample_id": np.zeros(12, int)},
    "names": {"classes": list("aabc")},
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_refused_source_leaves_the_target_as_it_was_and_is_the_one_named(tmp_path, name):
    from test_cli import eesim

    np.savez(tmp_path / "bad.npz", logits=LOGITS, labels=LABELS, **SOURCES[name])
    (tmp_path / "good.parquet").write_bytes(b"good")
    done = eesim("trace", "convert", "bad.npz", "good.parquet", cwd=tmp_path, check=2)
    assert done.stderr.startswith("eesim: bad.npz: ") and len(done.stderr.strip().splitlines()) == 1
    assert (tmp_path / "good.parquet").read_bytes() == b"good" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("arrays", "telling"),
    [
        ({"logits": LOGITS, "labels": LABELS, "classes": np.array("a")}, "1 class names for 4 classes"),
        ({"conf": np.array([["a"]]), "acc": np.array([["a"]])}, "must be lists of lists of numbers"),
        ({"conf": np.ones((1, 2), complex), "acc": np.ones((1, 2))}, "must be lists of lists of numbers"),
        ({"conf": np.full((1, 1), 1e-320), "acc": np.ones((1, 1))}, "needs over 1000 classes"),
    ],
)
def test_arrays_that_are_something_else(tmp_path, arrays, telling):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadInput, match=telling):
        convert(tmp_path / "a.npz")


def test_columns_that_are_not_there_are_named_and_suffixes_may_be_capital(tmp_path):
    np.savez(tmp_path / "a.npz", logits=LOGITS, labels=LABELS)
    with pytest.raises(BadInput, match="lables: there is no such column; did you mean 'labels'"):
        convert(tmp_path / "a.npz", given=Given(columns={"label": "lables"}))
    with pytest.raises(BadInput, match="a file of labels goes with"):
        convert(tmp_path / "a.npz", given=Given(labels="y.npy"))
    with pytest.raises(BadInput, match="leaves no calibration rows"):
        convert(tmp_path / "a.npz", calibration=0.0)
    np.save(tmp_path / "l.npy", LOGITS)
    np.save(tmp_path / "y.npy", LABELS[:5])
    with pytest.raises(BadInput, match=r"y.npy: labels: is of shape \[5\]"):
        convert(tmp_path / "l.npy", given=Given(labels=str(tmp_path / "y.npy")))
    (tmp_path / "a.npz").rename(tmp_path / "A.NPZ")
    assert (convert(tmp_path / "A.NPZ").label == LABELS).all() and (read_trace(tmp_path / "A.NPZ").label == LABELS).all()


def test_big_numbers_in_json_are_one_line(tmp_path):
    (tmp_path / "a.json").write_text('{"conf": [[1' + "0" * 400 + ']], "acc": [[1]]}')
    with pytest.raises(BadInput, match="must be lists of lists of numbers"):
        convert(tmp_path / "a.json")


@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_tensor_is_read_or_refused_in_one_line(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch")
    logits, labels = torch.from_numpy(LOGITS), torch.from_numpy(LABELS)
    good = {"bf16": logits.bfloat16(), "sparse": logits.to_sparse(), "quantised": torch.quantize_per_tensor(logits, 0.1, 0, torch.qint8)}
    for name, values in good.items():
        torch.save({"logits": values, "labels": labels}, tmp_path / f"{name}.pt")
        assert np.abs(convert(tmp_path / f"{name}.pt").logits - LOGITS).max() < 0.06, name
    bad = {
        "meta": {"logits": logits.to("meta"), "labels": labels},
        "scalar": (logits, torch.tensor(3), logits, labels),
        "classes": (logits, labels, logits[:, :, :2], labels),
        "code": {"logits": Bomb(tmp_path / "written")},
    }
    for name, content in bad.items():
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(BadInput) as caught:
            convert(tmp_path / f"{name}.pt")
        assert len(str(caught.value).splitlines()) == 1 and "allow" not in str(caught.value), name
    assert not (tmp_path / "written").exists()


def test_probabilities_are_told_and_taken_for_what_they_are(tmp_path):
    from test_cli import eesim

    from eesim.trace.doubts import doubts

    exponents = np.exp(LOGITS.astype(np.float64))
    probabilities = exponents / exponents.sum(axis=2, keepdims=True)
    probabilities[0, 0] = [1, 0, 0, 0]
    np.savez(tmp_path / "p.npz", logits=probabilities, labels=LABELS)
    np.savez(tmp_path / "l.npz", logits=LOGITS, labels=LABELS)
    done = eesim("trace", "convert", "p.npz", "p.parquet", cwd=tmp_path, check=0)
    assert "exits 0, 1, 2 answered are probabilities, not logits" in done.stderr
    assert "are probabilities" in eesim("trace", "check", "p.parquet", cwd=tmp_path, check=0).stderr
    done = eesim("trace", "convert", "p.npz", "q.parquet", "--probabilities", cwd=tmp_path, check=0)
    assert "probabilities" not in done.stderr
    trace = read_trace(tmp_path / "q.parquet")
    np.testing.assert_allclose(np.exp(trace.logits), probabilities, atol=1e-6)
    assert trace.header.extra["probabilities"] is True and not any("probabilities" in doubt for doubt in doubts(trace))
    eesim("trace", "convert", "p.parquet", "r.parquet", "--probabilities", cwd=tmp_path, check=0)
    assert (read_trace(tmp_path / "r.parquet").logits == trace.logits).all()
    with pytest.raises(BadInput, match="these are no probabilities, so leave --probabilities out"):
        convert(tmp_path / "l.npz", given=Given(probabilities=True))


def test_what_check_and_show_understand(tmp_path):
    from test_cli import eesim

    np.savez(tmp_path / "a.npz", logits=LOGITS, labels=LABELS)
    assert "no calibration split" in eesim("trace", "convert", "a.npz", "a.parquet", cwd=tmp_path, check=0).stderr
    assert "nothing wrong" in eesim("trace", "check", "digits", cwd=tmp_path, check=0).stdout
    for arguments, telling in (
        (("show", "ecg-mitbi"), "did you mean the bundled workload 'ecg-mitbih'?"),
        (("check", "."), "a workload is a folder that holds a workload.yaml"),
        (("convert", "a.npz", "b.parquet", "--classes", "a,,b"), "holds an empty name"),
        (("convert", "a.parquet", "b.parquet", "--columns", "label=y"), "is a trace already"),
    ):
        done = eesim("trace", *arguments, cwd=tmp_path, check=2)
        assert telling in done.stderr and len(done.stderr.strip().splitlines()) == 1
    eesim("trace", "convert", "a.npz", "b.parquet", "--classes", "a, b, c, d", cwd=tmp_path, check=0)
    assert read_trace(tmp_path / "b.parquet").header.classes == list("abcd")


def test_a_trace_changed_after_recording_is_wrong(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from test_cli import eesim

    np.savez(tmp_path / "a.npz", logits=LOGITS, labels=LABELS)
    eesim("trace", "convert", "a.npz", "a.parquet", cwd=tmp_path, check=0)
    table = pq.read_table(tmp_path / "a.parquet")
    changed = table.set_column(table.column_names.index("label"), "label", pa.array(np.roll(LABELS, 1), pa.int32()))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), tmp_path / "a.parquet")
    assert "eesim.header.content_hash" in eesim("trace", "check", "a.parquet", cwd=tmp_path, check=2).stderr
