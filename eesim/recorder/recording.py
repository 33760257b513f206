"""`record`: a network and a dataset in, an exit trace out."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput, unknown
from eesim.files import check_writable
from eesim.recorder.checks import Checks, check_texts, target_of, whole_number
from eesim.recorder.dataset import Dataset
from eesim.recorder.models import OnnxModel, TorchModel
from eesim.recorder.parts import Parts
from eesim.recorder.projection import reduced
from eesim.recorder.scaling import Difficulty
from eesim.trace.doubts import doubts, logits_of
from eesim.trace.features import Features, features_beside, write_features
from eesim.trace.parquet import TRAINING_MODES, check_classes, write_checked
from eesim.trace.trace import ExitTrace, TraceHeader

CHUNK = 512
"""Samples recorded between two writes to disk."""


def record(
    model: Any,
    dataset: Any,
    path: str | Path,
    *,
    network: str | None = None,
    classes: Sequence[str] | None = None,
    features: bool | str | Path = False,
    dimensions: int = 16,
    difficulty: bool | str = True,
    input_range: tuple[float, float] | None = None,
    tau_edge: float | None = None,
    logits: str = "float16",
    batch: int = 64,
    outputs: Sequence[str] | None = None,
    final_head: str | None = None,
    probabilities: bool = False,
    source: dict[str, str] | None = None,
    split_rule: str = "",
    training_mode: str = "",
    recipe: str = "",
    seed: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> ExitTrace:
    """Run a multi-exit network over a dataset and write what every exit said about every sample as a trace.

    model : path of an ONNX model with one output per exit, or a torch module that returns one logits tensor [n, K] per
        exit (or `(logits, features)`, a sequence of each); it is left in the mode, training or evaluation, that it came in.
    dataset : `.npz` file, mapping of arrays, or iterable of batches (mappings, or tuples `(input, …, label)`). Arrays:
        one per model input under its name (`inputs` for the only one), [N, …]; `label` [N] (-1 or absent: unknown);
        optionally `split` ('calibration' or 'test'; absent: all test), `stream_id`, `time_ns` (absent: the index),
        `sample_id` (absent: the index), `classes` (names).
    path : the `.parquet` to write. Parts already recorded lie beside it until it is whole: a recording that was
        interrupted goes on where it stopped.
    features : True, or a path: also write what enters each head, averaged over positions, beside the trace (`features.parquet`
        beside `trace.parquet`, `a.features.parquet` beside `a.parquet`); more than `dimensions` numbers an exit are reduced
        to their leading principal components.
    difficulty : DART's components of each input, scaled to [0, 1] by `input_range` (default: 0 to 255 for uint8, else the
        extremes of the data; an iterable of other numbers must say). A name chooses the input, False leaves them out.
    tau_edge : threshold of the edge density; default: the median gradient of up to 512 calibration inputs, spread evenly.
    logits : 'float16' or 'float32'.
    batch : samples that the model is given at a time, at most 512.
    outputs, final_head : of an ONNX model: the outputs that are exits, in order; the node where the final head begins.
    probabilities : the model ends in a softmax: record the logarithm of what it answers.
    source : name, licence and origin of the dataset; with `split_rule`, `training_mode` (frozen, joint, distilled),
        `recipe` and `seed` they go into the header.
    progress : called with samples done and their total (None when unknown).
    warn : called with what looks wrong but may be meant, a sentence at a time; by default Python's warnings.

    Returns the trace as read back from the file. Raises BadInput for a model or dataset that does not fit.
    """
    path, features_path, seed = target_of(path), None, None if seed is None else whole_number(seed, "seed", None)
    if logits not in ("float16", "float32"):
        raise unknown("type", logits, ("float16", "float32"), field="logits")
    if training_mode and training_mode not in TRAINING_MODES:
        raise unknown("training mode", training_mode, TRAINING_MODES, field="training_mode")
    batch, dimensions = min(whole_number(batch, "batch"), CHUNK), whole_number(dimensions, "dimensions")
    check_texts({"network": network or "", "split_rule": split_rule, "recipe": recipe, **(source or {})})
    if features:
        features_path = features_beside(path) if features is True else Path(features)
        check_writable(features_path)
        if features_path == path:
            raise BadInput("trace and features cannot be one file", file=path, field="features")
    if isinstance(classes, str):
        raise BadInput(f"must be a list of names, is the text '{classes}'", field="classes")
    warn = warn or (lambda text: warnings.warn(text, stacklevel=3))
    runner = _runner(model, outputs, final_head, bool(features), batch)
    try:
        data = Dataset(dataset, runner.input_names, CHUNK, warn)
        where = data.where or "dataset"
        names = None if classes is None and data.classes is None else [str(name) for name in (data.classes if classes is None else classes)]
        said_in = where if classes is None else None
        if names:
            check_classes(names, said_in, "classes")
        checks = Checks(data, names, said_in, np.dtype("float32" if probabilities else logits), getattr(runner, "path", None))
        checks.before(runner)
        scale = Difficulty(data, difficulty, input_range, tau_edge, warn)
        settings = repr((runner.fingerprint, bool(features), batch, outputs, final_head))
        parts = Parts(path, hashlib.sha256(settings.encode()).hexdigest())
        try:
            whole = _run(runner, data, scale, parts, checks, progress)
            trace = _trace(whole, np.dtype(logits), probabilities, getattr(runner, "path", None))
            given = names or [str(index) for index in range(trace.classes)]
            extra = ({"input_range": scale.range} if scale.range else {}) | ({"probabilities": True} if probabilities else {})
            header = TraceHeader(
                network or runner.name, trace.exits, given, dict(source or {}), split_rule, training_mode, recipe, seed, scale.tau_edge, extra=extra
            )
            trace = replace(trace, header=header)
            read = write_checked(trace, path, where)
        except BadInput as error:
            if not parts.count:
                raise
            kept = f"{error.problem} ({parts.count} finished parts are kept in '{parts.folder}' for another try)"
            raise BadInput(kept, file=error.file, field=error.field) from error
    finally:
        runner.close()
    if features_path:
        kept = [reduced(whole[f"features_{exit}"], trace.split == "calibration", dimensions) for exit in range(trace.exits)]
        about = {"schema_version": 1, "network": header.network, "trace": trace.content_hash, "exits": [note for _, note in kept]}
        write_features(Features(trace.sample_id, [values for values, _ in kept], about), features_path)
    parts.remove()
    for doubt in doubts(read):
        warn(doubt)
    return read


def _runner(model: Any, outputs, final_head, features: bool, batch: int) -> OnnxModel | TorchModel:
    if isinstance(outputs, str):
        raise BadInput(f"must be a list of names, such as ['{outputs}']", field="outputs")
    if isinstance(model, (str, Path)):
        if not Path(model).is_file():
            raise BadInput("no such model file", file=model)
        return OnnxModel(model, outputs=outputs, final_head=final_head, features=features, batch=batch)
    if isinstance(model, type):
        raise BadInput(f"is the class {model.__name__}; make a module of it, such as {model.__name__}()", field="model")
    if not all(hasattr(model, name) for name in ("state_dict", "modules", "eval")):
        raise BadInput(f"must be the path of an ONNX model or a torch module, not {type(model).__name__}", field="model")
    return TorchModel(model, features=features, batch=batch)


def _run(runner, data: Dataset, scale: Difficulty, parts: Parts, checks: Checks, progress) -> dict[str, np.ndarray]:
    """Everything recorded, by name: logits [E, N, K], features_e [N, D_e], difficulty_*, and the dataset's columns."""
    pieces, done = [], 0
    for index, batch in enumerate(data):
        content = batch.content_hash
        hardness = {f"difficulty_{name}": values for name, values in scale.of(batch).items()}
        piece = parts.load(index, content)
        if piece is None:
            said, entered = runner.run(batch.inputs, done)
            piece = {"logits": said, **{f"features_{exit}": values for exit, values in enumerate(entered)}}
            checks.answers(said, batch, done)
            parts.save(index, content, piece)
        else:
            checks.answers(piece["logits"], batch, done)
        checks.fits(piece["logits"])
        piece |= hardness | batch.columns
        if pieces and piece.keys() != pieces[0].keys():
            odd = sorted(piece.keys() ^ pieces[0].keys())[0]
            raise BadInput(f"batch {index}: only some batches have this column", field=odd)
        if pieces and piece["logits"].shape[::2] != pieces[0]["logits"].shape[::2]:
            shapes = " and ".join("{} exits of {} classes".format(*each["logits"].shape[::2]) for each in (pieces[0], piece))
            raise BadInput(f"batch {index}: the network answers {shapes}", file=checks.model, field="logits")
        pieces.append(piece)
        done += len(batch)
        if progress:
            progress(done, data.total)
    if not pieces:
        raise BadInput("holds no samples", file=data.where, field="dataset")
    return {name: np.concatenate([piece[name] for piece in pieces], axis=1 if name == "logits" else 0) for name in pieces[0]}


def _trace(whole: dict[str, np.ndarray], kind: np.dtype, probabilities: bool, model: Path | None) -> ExitTrace:
    said = logits_of(whole["logits"], model) if probabilities else whole["logits"]
    index = np.arange(said.shape[1], dtype=np.int64)
    difficulty = {name.removeprefix("difficulty_"): values for name, values in whole.items() if name.startswith("difficulty_")}
    return ExitTrace(
        TraceHeader("", said.shape[0], []),
        whole.get("sample_id", index),
        whole.get("stream_id", np.zeros(len(index), np.int32)),
        whole.get("time_ns", index),
        whole.get("split", np.full(len(index), "test")),
        whole.get("label", np.full(len(index), -1, np.int32)),
        said.astype(kind),
        difficulty,
    )
