"""Exit traces: what is written is read back bit for bit, every broken file is one line with column and row, scores follow their formulas."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import zipfile
from dataclasses import replace

import builders
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import eesim.trace.parquet as parquet_module
from eesim.errors import BadInput
from eesim.trace import ExitTrace, TraceHeader, TraceView, read_trace, write_trace
from eesim.trace.convert import trace_of_arrays
from eesim.trace.describe import describe
from eesim.trace.view import score_answers

N, EXITS, CLASSES = 8, 2, 3


def line(call, *arguments, **options) -> str:
    """The one line of the BadInput that the call must raise."""
    with pytest.raises(BadInput) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1 and caught.value.exit_status == 2
    return str(caught.value)


def header(**changes) -> dict:
    """Every key of the contract."""
    made = {
        "schema_version": 1, "network": "made-up", "exits": EXITS, "classes": ["cat", "dog", "eel"],
        "dataset": {"name": "pets", "licence": "CC0", "origin": "https://example.org"}, "split_rule": "first three", "training_mode": "frozen",
        "recipe": "recipe.py", "seed": 7, "recorder_version": "3", "tau_edge": 0.25, "content_hash": "abc",
    }  # fmt: skip
    return {**made, **changes}


def columns(**changes) -> dict:
    """Columns as the contract says, in plain pyarrow. `None` leaves one out."""
    rng = np.random.default_rng(0)
    made = {
        "sample_id": pa.array(np.arange(100, 100 + N), pa.int64()),
        "stream_id": pa.array([0, 1, 0, 1, 0, 1, 0, 1], pa.int32()),
        "time_ns": pa.array([0, 5, 10, 5, 20, 7, 20, 9], pa.int64()),
        "split": pa.array(["calibration"] * 3 + ["test"] * 5),
        "label": pa.array([0, 1, 2, -1, 0, 1, 2, 0], pa.int32()),
    }
    for exit in range(EXITS):
        made[f"logits_{exit}"] = lists(rng.normal(size=(N, CLASSES)).astype(np.float16))
    return {name: values for name, values in {**made, **changes}.items() if values is not None}


def lists(rows: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).ravel()), rows.shape[1])


def write(folder, head=None, **changes):
    """A file written by plain pyarrow."""
    path = folder / "trace.parquet"
    metadata = {"eesim.header": json.dumps(header() if head is None else head)} if not isinstance(head, (bytes, str)) else {"eesim.header": head}
    pq.write_table(pa.table(columns(**changes)).replace_schema_metadata(metadata), path)
    return path


def said(folder, head=None, **changes) -> str:
    """What reading such a file says, without the file's name, which must come first."""
    path = write(folder, head, **changes)
    text = line(read_trace, path)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def same(one: ExitTrace, other: ExitTrace) -> None:
    for name in ("sample_id", "stream_id", "time_ns", "split", "label", "logits"):
        left, right = getattr(one, name), getattr(other, name)
        assert_array_equal(left, right, strict=name != "split")
        assert name == "split" or left.tobytes() == right.tobytes()
    assert one.difficulty.keys() == other.difficulty.keys() and one.gates.keys() == other.gates.keys()
    for left, right in [
        *((one.difficulty[name], other.difficulty[name]) for name in one.difficulty),
        *((one.gates[e], other.gates[e]) for e in one.gates),
    ]:
        assert left.tobytes() == right.tobytes() and left.dtype == right.dtype == np.float32


# ---------------------------------------------------------------------------------------------------------------------
# Writing and reading


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path, kind):
    made = builders.trace(samples=40, calibration=10, unlabelled=5)
    rng = np.random.default_rng(1)
    logits = made.logits.astype(kind)
    logits[0, 0] = [np.finfo(kind).max, -np.finfo(kind).max, np.finfo(kind).smallest_subnormal, -0.0]
    difficulty = {name: rng.random(40, np.float32) for name in ("edge", "variance", "gradient", "sobel_mean")}
    head = replace(
        made.header,
        dataset={"name": "n", "licence": "l", "origin": "o"},
        split_rule="r",
        recipe="x.py",
        seed=3,
        tau_edge=0.1,
        extra={"note": [1, {"a": None}]},
    )
    made = replace(made, header=head, logits=logits, difficulty=difficulty, gates={0: rng.random(40, np.float32), 2: rng.random(40, np.float32)})
    write_trace(made, tmp_path / "t.parquet")
    read = read_trace(tmp_path / "t.parquet")
    same(made, read)
    assert (read.label == -1).sum() == 5
    assert read.header == replace(head, content_hash=made.content_hash)
    assert read.content_hash == read.header.content_hash == made.content_hash
    write_trace(read, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "t.parquet").read_bytes()


def test_a_file_of_plain_pyarrow_as_the_contract_says_is_read(tmp_path):
    extra = {f"difficulty_{name}": pa.array(np.linspace(0, 1, N), pa.float32()) for name in ("edge", "variance", "gradient", "sobel_mean")}
    read = read_trace(write(tmp_path, gate_1=pa.array(np.linspace(0, 1, N), pa.float32()), **extra))
    assert (read.exits, read.classes, len(read)) == (EXITS, CLASSES, N)
    assert read.header == TraceHeader(**header())
    assert (
        read.logits.dtype == np.float16
        and read.time_ns.dtype == read.sample_id.dtype == np.int64
        and read.label.dtype == read.stream_id.dtype == np.int32
    )
    assert_array_equal(read.logits[1], np.array(columns()["logits_1"].to_pylist(), np.float16))
    assert read.split.tolist() == ["calibration"] * 3 + ["test"] * 5
    assert set(read.difficulty) == {"edge", "variance", "gradient", "sobel_mean"} and set(read.gates) == {1}
    assert read.gates[1][-1] == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {f"logits_{exit}": lists(np.full((N, CLASSES), 0.1 + exit, np.float32)) for exit in range(EXITS)},
        {"logits_0": pa.array([[0.5, 1.0, -2.0]] * N, pa.list_(pa.float32()))},
        {"logits_0": pa.array([[0.5, 1.0, -2.0]] * N, pa.large_list(pa.float32()))},
        {"split": pa.array(["calibration"] * 3 + ["test"] * 5, pa.large_string())},
        {"split": pa.array(["calibration"] * 3 + ["test"] * 5).dictionary_encode()},
        {"something_else": pa.array(["anything"] * N)},
    ],
)
def test_other_spellings_of_the_same_columns_are_read(tmp_path, changes):
    read = read_trace(write(tmp_path, **changes))
    assert read.split.tolist() == ["calibration"] * 3 + ["test"] * 5
    for exit in range(EXITS):
        assert read.logits[exit].tolist() == {**columns(), **changes}[f"logits_{exit}"].to_pylist()


def test_one_exit_and_two_classes_are_enough(tmp_path):
    columns = {"label": pa.array([0, 1] * 4, pa.int32()), "logits_0": lists(np.tile([0.0, np.log(3.0)], (N, 1)).astype(np.float32)), "logits_1": None}
    read = read_trace(write(tmp_path, header(exits=1, classes=["no", "yes"]), **columns))
    view = TraceView(read)
    assert (read.exits, read.classes) == (1, 2)
    assert view.confidence == pytest.approx(np.full((5, 1), 0.75)) and view.margin == pytest.approx(np.full((5, 1), 0.5))
    assert read_trace(npz(tmp_path / "t.npz", logits=np.zeros((1, 5, 2)), labels=np.zeros(5, int))).classes == 2


def test_many_row_groups_with_dictionaries_of_their_own_are_one_trace(tmp_path):
    made = columns()
    made["split"] = made["split"].dictionary_encode()
    table = pa.table(made).replace_schema_metadata({"eesim.header": json.dumps(header())})
    with pq.ParquetWriter(tmp_path / "t.parquet", table.schema) as writer:
        for start, stop in ((0, 2), (2, 3), (3, 8)):
            part = {name: values.slice(start, stop - start) for name, values in made.items()}
            part["split"] = part["split"].cast(pa.string()).dictionary_encode()
            writer.write_table(pa.table(part).replace_schema_metadata(table.schema.metadata), row_group_size=2)
    read = read_trace(tmp_path / "t.parquet")
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups > 3
    assert read.split.tolist() == ["calibration"] * 3 + ["test"] * 5 and read.sample_id.tolist() == list(range(100, 108))


def test_interleaved_streams_and_equal_times_are_fine(tmp_path):
    assert read_trace(write(tmp_path)).time_ns.tolist() == [0, 5, 10, 5, 20, 7, 20, 9]


def test_classes_may_be_a_number_and_optional_keys_absent(tmp_path):
    least = {"schema_version": 1, "network": "n", "exits": EXITS, "classes": CLASSES}
    assert read_trace(write(tmp_path, least)).header == TraceHeader("n", EXITS, ["0", "1", "2"])
    nulls = dict.fromkeys(("dataset", "split_rule", "training_mode", "recipe", "seed", "tau_edge", "content_hash", "recorder_version"))
    assert read_trace(write(tmp_path, {**least, **nulls})).header == TraceHeader("n", EXITS, ["0", "1", "2"])


def test_the_content_hash_is_sha256_over_names_types_and_bytes():
    """Studies are told apart by it, so it must stay what it is."""
    trace = trace_of_arrays(np.array([[[0.5, 1.0]]], np.float16), np.array([1]), stream_id=np.array([7]), time_ns=np.array([9]))
    columns = [("sample_id", "<i8", 0), ("stream_id", "<i4", 7), ("time_ns", "<i8", 9), ("split", "|u1", 1), ("label", "<i4", 1)]
    plain = b"".join(f"{name}:{kind}:(1,);".encode() + np.array([value], kind).tobytes() for name, kind, value in columns)
    plain += b"logits_0:<f2:(1, 2);" + np.array([0.5, 1.0], "<f2").tobytes()
    assert trace.content_hash == hashlib.sha256(plain).hexdigest()


def test_the_content_hash_covers_every_column_and_nothing_else():
    base = builders.trace(samples=20, calibration=5)
    base = replace(base, difficulty={"edge": np.zeros(20, np.float32)}, gates={0: np.zeros(20, np.float32)})
    assert base.content_hash == replace(base, header=TraceHeader("other", 4, ["a", "b", "c", "d"])).content_hash

    def changed(array, place):
        copy = array.copy()
        copy[place] = "test" if copy.dtype.kind == "U" else copy[place] + 1
        return copy

    others = {name: replace(base, **{name: changed(getattr(base, name), 0)}) for name in ("sample_id", "stream_id", "time_ns", "split", "label")}
    others["logits"] = replace(base, logits=changed(base.logits, (3, 19, 3)))
    others["difficulty"] = replace(base, difficulty={"edge": changed(base.difficulty["edge"], 19)})
    others["which difficulty"] = replace(base, difficulty={"variance": base.difficulty["edge"]})
    others["gates"] = replace(base, gates={0: changed(base.gates[0], 19)})
    others["which gate"] = replace(base, gates={1: base.gates[0]})
    others["precision"] = replace(base, logits=base.logits.astype(np.float32))
    hashes = {name: other.content_hash for name, other in others.items()}
    assert len({base.content_hash, *hashes.values()}) == len(hashes) + 1, hashes


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    write_trace(builders.trace(samples=20, calibration=5), path)
    before = path.read_bytes()

    def half(table, target, **options):
        target.write_bytes(b"PAR1 half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(KeyboardInterrupt):
        write_trace(builders.trace(samples=30, calibration=5), path)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]
    with pytest.raises(KeyboardInterrupt):
        write_trace(builders.trace(samples=30, calibration=5), tmp_path / "new.parquet")
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]


def test_logits_of_another_type_are_not_written(tmp_path):
    made = builders.trace(samples=20, calibration=5)
    text = line(write_trace, replace(made, logits=made.logits.astype(np.float64)), tmp_path / "t.parquet")
    assert "float16 or float32, are float64" in text and not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# Broken files


def broken_logits(value):
    rows = np.zeros((N, CLASSES), np.float16)
    rows[5, 1] = value
    return lists(rows)


MISTAKES = {
    "NaN logit": ({"logits_1": broken_logits(np.nan)}, "logits_1: row 5: nan among the logits"),
    "infinite logit": ({"logits_1": broken_logits(-np.inf)}, "logits_1: row 5: -inf among the logits"),
    "short row": (
        {"logits_0": pa.array([[0.0, 0.0, 0.0]] * 6 + [[0.0, 0.0]] + [[0.0, 0.0, 0.0]], pa.list_(pa.float32()))},
        "logits_0: row 6: 2 logits where the header names 3 classes",
    ),
    "wrong width": ({"logits_0": lists(np.zeros((N, 4), np.float16))}, "logits_0: row 0: 4 logits where the header names 3 classes"),
    "double logits": ({"logits_0": lists(np.zeros((N, 3)))}, "logits_0: must hold float16 or float32, holds double"),
    "logits no list": ({"logits_0": pa.array(np.zeros(N, np.float32))}, "logits_0: must be lists of 3 float16 or float32, is float"),
    "null list": ({"logits_0": pa.array([[0.0] * 3] * 7 + [None], pa.list_(pa.float32(), 3))}, "logits_0: row 7: is null"),
    "null in a list": (
        {"logits_0": pa.array([[0.0] * 3] * 2 + [[0.0, None, 0.0]] + [[0.0] * 3] * 5, pa.list_(pa.float32(), 3))},
        "logits_0: row 2: holds a null",
    ),
    "time backwards": (
        {"time_ns": pa.array([0, 5, 10, 4, 9, 7, 20, 9], pa.int64())},
        "time_ns: row 3: 4 is earlier than the row before it in stream 1; rows must be in time order",
    ),
    "negative time": ({"time_ns": pa.array([0, 5, 10, 5, 20, 7, 20, -9], pa.int64())}, "time_ns: row 7: -9 is negative"),
    "extreme times": (
        {"time_ns": pa.array([-(2**63), 0, 2**63 - 1, 0, 2**63 - 1, 0, 2**63 - 1, 0], pa.int64())},
        f"time_ns: row 0: {-(2**63)} is negative",
    ),
    "time null": ({"time_ns": pa.array([0, 5, 10, 5, None, 7, 20, 9], pa.int64())}, "time_ns: row 4: is null"),
    "time type": ({"time_ns": pa.array(np.zeros(N), pa.float64())}, "time_ns: must be of type int64, is double"),
    "label above": ({"label": pa.array([0, 1, 2, -1, 0, 1, 3, 0], pa.int32())}, "label: row 6: 3 is outside -1 (unknown) to 2"),
    "label below": ({"label": pa.array([0, -2, 2, -1, 0, 1, 3, 0], pa.int32())}, "label: row 1: -2 is outside -1 (unknown) to 2"),
    "label type": ({"label": pa.array(np.zeros(N), pa.int64())}, "label: must be of type int32, is int64"),
    "label null": ({"label": pa.array([0, 1, None, -1, 0, 1, 2, 0], pa.int32())}, "label: row 2: is null"),
    "no test split": ({"split": pa.array(["calibration"] * N)}, "split: no row is of the test split; results are reported on it"),
    "split unknown": ({"split": pa.array(["test"] * 7 + ["tset"])}, "split: row 7: 'tset' is unknown; did you mean 'test'?"),
    "split far off": ({"split": pa.array(["test"] * 7 + ["zz"])}, "split: row 7: 'zz' is unknown; choose one of calibration, test"),
    "split null": ({"split": pa.array(["test"] * 7 + [None])}, "split: row 7: is null"),
    "split type": ({"split": pa.array([1] * N)}, "split: must be of type string, is int64"),
    "split dictionary type": ({"split": pa.array([1] * N).dictionary_encode()}, "split: must be of type string, is int64"),
    "split dictionary unknown": ({"split": pa.array(["test"] * 7 + ["trial"]).dictionary_encode()}, "split: row 7: 'trial' is unknown"),
    "sample id twice": ({"sample_id": pa.array([9, 8, 7, 6, 7, 4, 8, 2], pa.int64())}, "sample_id: row 4: id 7 is used twice"),
    "sample id type": ({"sample_id": pa.array([str(n) for n in range(N)])}, "sample_id: must be of type int64, is string"),
    "stream type": ({"stream_id": pa.array(np.zeros(N), pa.int64())}, "stream_id: must be of type int32, is int64"),
    "difficulty type": ({"difficulty_edge": pa.array(np.zeros(N))}, "difficulty_edge: must be of type float32, is double"),
    "difficulty not finite": (
        {"difficulty_edge": pa.array([0.0] * 6 + [np.nan, 0.0], pa.float32())},
        "difficulty_edge: row 6: nan is not a finite number",
    ),
    "gate not finite": ({"gate_0": pa.array([0.0] * 3 + [np.inf] + [0.0] * 4, pa.float32())}, "gate_0: row 3: inf is not a finite number"),
    "gate null": ({"gate_0": pa.array([0.0] * 3 + [None] + [0.0] * 4, pa.float32())}, "gate_0: row 3: is null"),
    "a third exit": ({"logits_2": lists(np.zeros((N, 3), np.float16))}, "eesim.header.exits: the header says 2 exits, the file has 3 logits columns"),
    "an exit misnamed": ({"logits_1": None, "logits_2": lists(np.zeros((N, 3), np.float16))}, "logits_1: this column is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_is_one_line_with_column_and_row(tmp_path, name):
    changes, expected = MISTAKES[name]
    assert said(tmp_path, **changes).startswith(expected)


@pytest.mark.parametrize("name", ["sample_id", "stream_id", "time_ns", "split", "label"])
def test_a_missing_column_is_named_with_those_there_are(tmp_path, name):
    text = said(tmp_path, **{name: None})
    assert text.startswith(f"{name}: this column is missing; the file has ") and "logits_0" in text


def test_the_first_mistake_of_many_rows_is_the_one_named(tmp_path):
    rows = np.zeros((N, CLASSES), np.float16)
    rows[3:, 0] = np.nan
    assert said(tmp_path, logits_0=lists(rows)).startswith("logits_0: row 3:")
    assert said(tmp_path, label=pa.array([9] * N, pa.int32())).startswith("label: row 0: 9")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schema_version": 2}, "eesim.header.schema_version: version 2 is not known; this eesim reads version 1"),
        ({"schema_version": "1"}, "eesim.header.schema_version: version 1 is not known"),
        ({"exits": 3}, "eesim.header.exits: the header says 3 exits, the file has 2 logits columns"),
        ({"exits": 0}, "eesim.header.exits: must be a whole number of at least 1, got 0"),
        ({"exits": True}, "eesim.header.exits: must be a whole number of at least 1, got True"),
        ({"exits": "2"}, "eesim.header.exits: must be a whole number of at least 1, got '2'"),
        ({"classes": ["cat", "dog"]}, "logits_0: row 0: 3 logits where the header names 2 classes"),
        ({"classes": 4}, "logits_0: row 0: 3 logits where the header names 4 classes"),
        ({"classes": 1}, "eesim.header.classes: must be a list of at least two class names, got 1"),
        ({"classes": -5}, "eesim.header.classes: must be a list of at least two class names, got -5"),
        ({"classes": "cat"}, "eesim.header.classes: must be a list of at least two class names, got 'cat'"),
        ({"classes": ["cat", None, "eel"]}, "eesim.header.classes: must be a list of at least two class names"),
        ({"classes": ["cat", "dog", "cat"]}, "eesim.header.classes: the class name 'cat' is used 2 times"),
        ({"training_mode": "frosen"}, "eesim.header.training_mode: unknown training mode 'frosen'; did you mean 'frozen'?"),
        ({"dataset": "pets"}, "eesim.header.dataset: must be an object with name, licence and origin, got 'pets'"),
        ({"seed": "7"}, "eesim.header.seed: must be a whole number, got '7'"),
        ({"tau_edge": "x"}, "eesim.header.tau_edge: must be a number, got 'x'"),
        ({"network": 5}, "eesim.header.network: must be text, got 5"),
    ],
)
def test_mistakes_in_the_header(tmp_path, changes, expected):
    assert said(tmp_path, header(**changes)).startswith(expected)


@pytest.mark.parametrize("key", ["schema_version", "network", "exits", "classes"])
def test_a_header_without_a_needed_key(tmp_path, key):
    head = header()
    del head[key]
    assert said(tmp_path, head) == f"eesim.header.{key}: this key is missing"


@pytest.mark.parametrize("raw", ["not json", b"\xff\xfe", "[1, 2]", '"text"', "5", "", "[" * 100_000])
def test_a_header_that_is_no_json_object(tmp_path, raw):
    assert said(tmp_path, raw) == "eesim.header: is not a JSON object"


def test_files_that_are_no_traces(tmp_path):
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table(columns()), plain)
    assert line(read_trace, plain) == f"{plain}: the Parquet metadata lacks the key 'eesim.header', so this is no exit trace"
    assert line(read_trace, tmp_path / "none.parquet") == f"{tmp_path / 'none.parquet'}: no such trace file"
    assert "no such trace file" in line(read_trace, tmp_path)
    text = tmp_path / "text.parquet"
    for content in (b"", b"PAR1", b"sample_id,label\n1,2\n", b"PAR1" * 50):
        text.write_bytes(content)
        assert line(read_trace, text).startswith(f"{text}: not a readable Parquet file (")
    path = write(tmp_path, **{name: values.slice(0, 0) for name, values in columns().items()})
    assert line(read_trace, path) == f"{path}: holds no samples"


def test_two_columns_of_one_name(tmp_path):
    made = columns()
    table = pa.table([*made.values(), made["label"]], names=[*made, "label"]).replace_schema_metadata({"eesim.header": json.dumps(header())})
    pq.write_table(table, tmp_path / "t.parquet")
    assert line(read_trace, tmp_path / "t.parquet") == f"{tmp_path / 't.parquet'}: label: there are two columns of this name"


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    write_trace(builders.trace(samples=20, calibration=5), path)
    whole = path.read_bytes()
    for size in [*range(1, 40), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert line(read_trace, path).startswith(f"{path}: ")


def test_a_damaged_page_is_refused(tmp_path):
    """A byte changed in any column's data: pages carry checksums, so that no damaged number is simulated."""
    path = tmp_path / "t.parquet"
    made = builders.trace(samples=400, calibration=5)
    write_trace(made, path)
    whole = path.read_bytes()
    about = pq.ParquetFile(path).metadata.row_group(0)
    for index in range(about.num_columns):
        column = about.column(index)
        damaged = bytearray(whole)
        damaged[(column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 3] ^= 0xFF  # headers have no checksum
        path.write_bytes(damaged)
        assert line(read_trace, path).startswith(f"{path}: "), column.path_in_schema


def test_split_values_that_are_no_text(tmp_path):
    raw = pa.Array.from_buffers(pa.string(), N, [None, pa.array(np.arange(0, 2 * N + 1, 2), pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe" * N)])
    assert said(tmp_path, split=raw).startswith("split: row 0: '\\xff\\xfe' is unknown; choose one of calibration, test")


# ---------------------------------------------------------------------------------------------------------------------
# npz


def npz(path, **arrays):
    logits = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    made = {"logits": logits, "labels": np.array([0, 1, 2, -1, 0]), **arrays}
    np.savez(path, **{name: value for name, value in made.items() if value is not None})
    return path


def test_npz_is_all_test_one_stream_with_the_index_as_time(tmp_path):
    path = npz(tmp_path / "six.npz")
    read = read_trace(path)
    assert read.logits.tobytes() == np.load(path)["logits"].tobytes() and read.logits.dtype == np.float32
    assert read.sample_id.tolist() == read.time_ns.tolist() == [0, 1, 2, 3, 4]
    assert set(read.split) == {"test"} and set(read.stream_id) == {0} and read.label.tolist() == [0, 1, 2, -1, 0]
    assert read.header.network == "six" and read.header.classes == ["0", "1", "2"]
    assert line(TraceView, read, "calibration") == "the trace of 'six' has no calibration split; mechanisms are tuned on it"
    write_trace(read, tmp_path / "six.parquet")
    same(read, read_trace(tmp_path / "six.parquet"))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.dtype(">f4")])
def test_npz_of_any_float_and_labels_of_any_integer(tmp_path, kind):
    logits = np.arange(30).reshape(2, 5, 3)
    read = read_trace(npz(tmp_path / "t.npz", logits=logits.astype(kind), labels=np.array([0, 1, 2, 1, 0], np.uint8)))
    assert read.logits.dtype == (np.float16 if kind is np.float16 else np.float32) and read.label.dtype == np.int32
    assert_array_equal(read.logits, logits)
    write_trace(read, tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"logits": None}, "logits: this array is missing; the file has labels"),
        ({"labels": None, "label": np.zeros(5)}, "labels: this array is missing; the file has label, logits"),
        ({"logits": np.zeros((2, 5))}, "logits: must be floats of shape [exits, samples, classes] with at least two classes, is float64 [2, 5]"),
        ({"logits": np.zeros((2, 5, 3), int)}, "logits: must be floats"),
        (
            {"logits": np.zeros((2, 5, 1))},
            "logits: must be floats of shape [exits, samples, classes] with at least two classes, is float64 [2, 5, 1]",
        ),
        ({"logits": np.zeros((2, 0, 3)), "labels": np.zeros(0, int)}, "logits: must be floats"),
        ({"labels": np.zeros(4, int)}, "labels: must be 5 whole numbers, is int64 [4]"),
        ({"labels": np.zeros((5, 1), int)}, "labels: must be 5 whole numbers, is int64 [5, 1]"),
        ({"labels": np.zeros(5)}, "labels: must be 5 whole numbers, is float64 [5]"),
        ({"labels": np.array([0, 1, 3, 0, 0])}, "labels: row 2: 3 is outside -1 (unknown) to 2"),
        ({"labels": np.array([0, 1, 0, 0, -2])}, "labels: row 4: -2 is outside -1 (unknown) to 2"),
        ({"labels": np.array([0, 1, 0, 0, 2**64 - 1], np.uint64)}, "labels: row 4: 18446744073709551615 is outside"),
        ({"logits": np.where(np.arange(30).reshape(2, 5, 3) == 22, np.nan, 0.0)}, "logits: exit 1, row 2: a logit is not a finite float32"),
        ({"logits": np.where(np.arange(30).reshape(2, 5, 3) == 14, 1e39, 0.0)}, "logits: exit 0, row 4: a logit is not a finite float32"),
    ],
)
def test_npz_mistakes_name_array_and_row(tmp_path, arrays, expected):
    path = npz(tmp_path / "t.npz", **arrays)
    assert line(read_trace, path).startswith(f"{path}: {expected}")


class Bomb:
    """Goes off when unpickled."""

    gone_off = False

    def __reduce__(self):
        return setattr, (Bomb, "gone_off", True)


def test_npz_is_never_unpickled(tmp_path):
    pickled = np.empty(5, object)
    pickled[:] = [Bomb()] * 5
    for arrays in ({"labels": pickled}, {"logits": pickled}):
        assert "not a readable .npz file" in line(read_trace, npz(tmp_path / "t.npz", **arrays))
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Bomb()))
    assert "not a readable .npz file" in line(read_trace, tmp_path / "p.npz")
    assert not Bomb.gone_off
    pickle.loads((tmp_path / "p.npz").read_bytes())
    assert Bomb.gone_off, "the test's own bomb does not work"


def test_npz_files_that_are_something_else(tmp_path):
    path = npz(tmp_path / "t.npz")
    whole = path.read_bytes()
    for size in [0, 1, *range(10, len(whole), 61), len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert line(read_trace, path).startswith(f"{path}: not a readable .npz file (")
    np.save(tmp_path / "one.npy", np.zeros(3))
    path.write_bytes((tmp_path / "one.npy").read_bytes())
    assert line(read_trace, path) == f"{path}: not a readable .npz file (it is a single array)"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logits.npy", b"no array")
        archive.writestr("labels", b"no array")
    assert line(read_trace, path).startswith(f"{path}: ")


def test_compressed_npz_that_is_damaged_says_so(tmp_path):
    path = tmp_path / "t.npz"
    np.savez_compressed(path, logits=np.random.default_rng(0).normal(size=(2, 50, 3)), labels=np.zeros(50, int))
    whole = path.read_bytes()
    for place in range(60, len(whole) // 2, 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        assert line(read_trace, path).startswith(f"{path}: ")


# ---------------------------------------------------------------------------------------------------------------------
# Views


def softmax(logits: list[float]) -> list[float]:
    """Plain Python, float64."""
    largest = max(logits)
    powers = [math.exp(logit - largest) for logit in logits]
    return [power / math.fsum(powers) for power in powers]


@pytest.fixture
def scored():
    """A view with hard rows among random ones: huge logits, ties, zero probabilities, all equal."""
    logits = np.random.default_rng(2).normal(scale=3, size=(3, 40, 5)).astype(np.float32)
    logits[:, 0] = [1e30, -1e30, 0, 0, 0]
    logits[:, 1] = [2, 2, 2, 2, 2]
    logits[:, 2] = [-1, 4, 4, 0, 4]
    logits[:, 3] = [3e38, 3e38, -3e38, 0, 0]
    logits[:, 4] = [0, 0, 0, 800, 799]
    labels = np.random.default_rng(3).integers(-1, 5, 40)
    labels[:6] = [0, 0, 1, 0, 3, -1]
    return TraceView.of_arrays(logits, labels)


def test_scores_follow_their_formulas(scored):
    for row in range(len(scored)):
        for exit in range(scored.exits):
            raw = [float(logit) for logit in scored.logits[exit, row]]
            expected = softmax(raw)
            first, second = sorted(expected, reverse=True)[:2]
            assert scored.probabilities[row, exit] == pytest.approx(expected, rel=1e-13, abs=1e-300)
            assert scored.confidence[row, exit] == pytest.approx(first, rel=1e-13)
            assert scored.margin[row, exit] == pytest.approx(first - second, rel=1e-12, abs=1e-15)
            assert scored.entropy[row, exit] == pytest.approx(-math.fsum(p * math.log(p) for p in expected if p > 0), rel=1e-12, abs=1e-15)
            assert scored.answers[row, exit] == raw.index(max(raw))
            label = int(scored.label[row])
            assert scored.correct[row, exit] == (-1 if label < 0 else int(label == raw.index(max(raw))))
    for name in ("probabilities", "confidence", "margin", "entropy"):
        assert getattr(scored, name).dtype == np.float64 and np.isfinite(getattr(scored, name)).all()
    assert scored.answers.dtype == np.int32 and scored.correct.dtype == np.int8


def test_scores_of_the_hard_rows(scored):
    assert scored.entropy[0].tolist() == [0.0] * 3 and scored.confidence[0].tolist() == [1.0] * 3
    assert scored.entropy[1] == pytest.approx([math.log(5)] * 3, rel=1e-15) and scored.margin[1].tolist() == [0.0] * 3
    assert scored.entropy[3] == pytest.approx([math.log(2)] * 3, rel=1e-15)
    assert scored.answers[1].tolist() == [0] * 3 and scored.answers[2].tolist() == [1] * 3 and scored.answers[3].tolist() == [0] * 3


def test_scores_of_float16_are_of_the_stored_numbers():
    logits = np.array([[[1.1, 2.3, 60000.0], [0.1, 0.2, 0.3]]], np.float16)
    view = TraceView.of_arrays(logits, np.zeros(2, int))
    assert view.probabilities[1, 0] == pytest.approx(softmax([float(np.float16(value)) for value in (0.1, 0.2, 0.3)]), rel=1e-14)
    assert view.confidence[0, 0] == 1.0


SCORES = ("probabilities", "confidence", "margin", "entropy", "answers", "correct")


@pytest.mark.parametrize("computed_before", [True, False])
def test_a_restricted_view_equals_one_recorded_with_those_exits_only(scored, computed_before):
    exits = (0, 2)
    alone = TraceView.of_arrays(scored.logits[list(exits)], scored.label)
    if computed_before:
        for name in SCORES:
            getattr(scored, name)
    view = scored.restricted(exits)
    assert (view.exits, view.recorded_exits, len(view)) == (2, exits, len(scored)) and view is scored.restricted(exits)
    assert scored.restricted((0, 1, 2)) is scored
    for name in SCORES:
        assert_array_equal(getattr(view, name), getattr(alone, name), strict=True)
        assert getattr(view, name).flags.c_contiguous
    assert_array_equal(view.restricted((2,)).entropy, alone.entropy[:, 1:])
    assert view.restricted((2,)).recorded_exits == (2,)


@pytest.mark.parametrize("computed_before", [True, False])
def test_taken_rows_keep_their_order_streams_and_scores(computed_before):
    view = TraceView(builders.trace(samples=60, calibration=20, unlabelled=5))
    if computed_before:
        for name in SCORES:
            getattr(view, name)
    rows = np.array([30, 3, 3, 39, 0])
    part = view.taken(rows)
    for name in (*SCORES, "sample_id", "time_ns", "label", "stream_id"):
        assert_array_equal(getattr(part, name), getattr(view, name)[rows], strict=True)
    assert_array_equal(part.logits, view.logits[:, rows])
    assert len(part) == 5 and part.recorded_exits == view.recorded_exits
    assert_array_equal(part.restricted((1, 3)).confidence, view.confidence[rows][:, [1, 3]])
    assert part.streams[0].tolist() == [0, 1, 1, 0, 1] and part.streams[1] == 2


def test_a_view_holds_one_split_in_recorded_order():
    made = builders.trace(samples=60, calibration=20)
    mixed = replace(made, split=np.where(np.arange(60) % 3 == 0, "calibration", "test"), difficulty={"edge": np.arange(60, dtype=np.float32)})
    view = TraceView(mixed, "calibration")
    assert view.sample_id.tolist() == list(range(0, 60, 3)) and view.difficulty["edge"].tolist() == list(range(0, 60, 3))
    assert_array_equal(view.logits, made.logits[:, ::3])
    assert len(TraceView(mixed)) == 40
    assert "split 'train' is neither" in line(TraceView, made, "train")


def test_streams_are_numbered_as_they_appear():
    columns = {"stream_id": np.array([9, -4, 9, 2**31 - 1, -4, 0])}
    view = TraceView.of_arrays(np.zeros((1, 6, 2)), np.zeros(6, int), **columns)
    streams, count = view.streams
    assert streams.tolist() == [0, 1, 0, 2, 1, 3] and count == 4 and streams.dtype == np.int32


def test_class_counts_leave_out_what_has_no_label():
    view = TraceView.of_arrays(np.zeros((1, 6, 4)), np.array([0, 2, -1, 2, 2, -1]))
    assert view.class_counts.tolist() == [1, 0, 3, 0]
    assert score_answers(np.array([1, 1, 1]), np.array([1, 0, -1])).tolist() == [1, 0, -1]


# ---------------------------------------------------------------------------------------------------------------------
# Describing


def test_describe_says_what_can_be_counted_by_hand():
    """Two exits, two classes, 60 samples of class 0, 10 of class 1 and 2 without a label, in two streams; recall counts from 50 samples."""
    labels = np.array([0] * 60 + [1] * 10 + [-1] * 2)
    logits = np.zeros((2, 72, 2), np.float32)
    logits[:, :, 0] = np.log(3.0)  # both exits answer 0 with confidence 3/4 …
    logits[1, 60:65, 0] = -np.log(3.0)  # … but the last one gets five of class 1 right
    trace = trace_of_arrays(logits, labels, network="hand", classes=["no", "yes"], stream_id=np.arange(72) % 2)
    record = describe(trace)
    test = record["splits"]["test"]
    assert (record["network"], record["exits"], record["classes"], list(record["splits"])) == ("hand", 2, ["no", "yes"], ["test"])
    assert (test["samples"], test["streams"], test["labelled"], test["class_counts"]) == (72, 2, 70, {"no": 60, "yes": 10})
    assert test["majority"] == 60 / 70 and test["oracle"] == 65 / 70
    first, last = test["exits"]
    assert (first["accuracy"], first["recall"], first["balanced_accuracy"]) == (60 / 70, [1.0, 0.0], 1.0)  # class 1 has fewer than 50
    assert (last["accuracy"], last["recall"], last["agreement"], first["agreement"]) == (65 / 70, [1.0, 0.5], 1.0, 67 / 72)
    assert first["mean_confidence"] == pytest.approx(0.75) and last["mean_confidence"] == pytest.approx(0.75, rel=1e-6)
    assert test["persistence"] == 66 / 68  # 35 labelled a stream, 34 pairs, one change each
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize(("count", "balanced"), [(49, 1.0), (50, 0.5)])
def test_balanced_accuracy_counts_classes_from_fifty_samples(count, balanced):
    labels = np.array([0] * 60 + [1] * count)
    logits = np.tile([1.0, 0.0], (1, labels.size, 1)).astype(np.float32)
    assert describe(trace_of_arrays(logits, labels))["splits"]["test"]["exits"][0]["balanced_accuracy"] == balanced


def test_describe_tells_the_header_and_both_splits():
    made = builders.trace(samples=60, calibration=20)
    head = replace(made.header, dataset={"name": "d"}, split_rule="by row", recipe="r.py", seed=3, training_mode="frozen", content_hash="abc")
    record = describe(replace(made, header=head))
    about = {"training_mode": "frozen", "dataset": {"name": "d"}, "split_rule": "by row", "recipe": "r.py", "seed": 3, "content_hash": "abc"}
    assert {key: record[key] for key in about} == about
    assert {name: split["samples"] for name, split in record["splits"].items()} == {"calibration": 20, "test": 40}
    bare = describe(replace(made, header=TraceHeader("n", 4, ["a", "b", "c", "d"])))
    assert [bare[key] for key in about] == [None, {}, None, None, None, None]


def test_describe_without_labels_has_nulls():
    record = describe(trace_of_arrays(np.zeros((1, 3, 2), np.float32), np.full(3, -1)))
    test = record["splits"]["test"]
    assert test["labelled"] == 0 and test["majority"] is test["oracle"] is test["persistence"] is None
    assert test["exits"][0]["accuracy"] is test["exits"][0]["balanced_accuracy"] is None and test["exits"][0]["recall"] == [None, None]


def test_reading_does_not_load_pandas(tmp_path):
    """Loading pandas costs as much as reading a trace: the command line would feel it."""
    import subprocess
    import sys

    path = write(tmp_path)
    code = f"import sys; from eesim.trace import read_trace; read_trace({str(path)!r}); assert 'pandas' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert parquet_module.HEADER_KEY == b"eesim.header"
