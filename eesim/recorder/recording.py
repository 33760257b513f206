"""`record`: a network and a dataset in, an exit trace out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput, unknown
from eesim.recorder.dataset import Batch, Dataset
from eesim.recorder.difficulty import components, median_slope
from eesim.recorder.models import OnnxModel, TorchModel
from eesim.recorder.parts import Parts
from eesim.recorder.projection import reduced
from eesim.trace.features import Features, write_features
from eesim.trace.parquet import TRAINING_MODES, read_trace, write_trace
from eesim.trace.trace import ExitTrace, TraceHeader

CHUNK = 512
"""Samples recorded between two writes to disk."""
SAMPLED = 512
"""Inputs, evenly spaced, that fix `tau_edge` and the range of the inputs when neither is given."""


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
    source: dict[str, str] | None = None,
    split_rule: str = "",
    training_mode: str = "",
    recipe: str = "",
    seed: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> ExitTrace:
    """Run a multi-exit network over a dataset and write what every exit said about every sample as a trace.

    model : path of an ONNX model with one output per exit, or a torch module that returns one logits tensor [n, K] per
        exit (or `(logits, features)`, a sequence of each).
    dataset : `.npz` file, mapping of arrays, or iterable of batches (mappings, or tuples `(input, …, label)`). Arrays:
        one per model input under its name (`inputs` for the only one), [N, …]; `label` [N] (-1 or absent: unknown);
        optionally `split` ('calibration' or 'test'; absent: all test), `stream_id`, `time_ns` (absent: the index),
        `sample_id` (absent: the index), `classes` (names).
    path : the `.parquet` to write. Parts already recorded lie beside it until it is whole: a recording that was
        interrupted goes on where it stopped.
    features : True, or a path: also write what enters each head, averaged over positions, to `features.parquet` beside
        the trace; more than `dimensions` numbers an exit are reduced to their leading principal components.
    difficulty : DART's components of each input, scaled to [0, 1] by `input_range` (default: 0 to 255 for uint8, else the
        extremes of the data; an iterable of other numbers must say). A name chooses the input, False leaves them out.
    tau_edge : threshold of the edge density; default: the median gradient of up to 512 calibration inputs, spread evenly.
    logits : 'float16' or 'float32'.
    source : name, licence and origin of the dataset; with `split_rule`, `training_mode` (frozen, joint, distilled),
        `recipe` and `seed` they go into the header.
    progress : called with samples done and their total (None when unknown).

    Returns the trace as read back from the file. Raises BadInput for a model or dataset that does not fit.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise BadInput("a trace is written as .parquet", file=path)
    if logits not in ("float16", "float32"):
        raise unknown("type", logits, ("float16", "float32"), field="logits")
    if training_mode and training_mode not in TRAINING_MODES:
        raise unknown("training mode", training_mode, TRAINING_MODES, field="training_mode")
    for name, value in (("batch", batch), ("dimensions", dimensions)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BadInput(f"'{value}' must be a whole number of at least 1", field=name)
    runner = _runner(model, outputs, final_head, bool(features), batch)
    data = Dataset(dataset, runner.input_names, CHUNK)
    scale = _Difficulty(data, difficulty, input_range, tau_edge)
    settings = repr((runner.fingerprint, bool(features), scale.settings, logits, batch, outputs, final_head))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = Parts(path, hashlib.sha256(settings.encode()).hexdigest())
        whole = _run(runner, data, scale, parts, progress)
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror or error}", file=path) from None

    trace = _trace(whole, runner, np.dtype(logits), path)
    names = list(classes) if classes is not None else data.classes or [str(index) for index in range(trace.classes)]
    if len(names) != trace.classes:
        raise BadInput(f"{len(names)} class names where the network answers {trace.classes} classes", field="classes")
    given = [str(name) for name in names]
    extra = {"input_range": scale.range} if scale.range else {}
    header = TraceHeader(
        network or runner.name, runner.exits, given, dict(source or {}), split_rule, training_mode, recipe, seed, scale.tau_edge, extra=extra
    )
    trace = replace(trace, header=header)
    target = path.with_name("features.parquet") if features is True else Path(features) if features else None
    unchecked = path.with_name(f"{path.name}.unchecked.parquet")
    try:
        write_trace(trace, unchecked)
        try:
            read = read_trace(unchecked)
        except BadInput as error:
            raise BadInput(error.problem, file=data.where or "dataset", field=error.field) from None
        if target:
            kept = [reduced(whole[f"features_{exit}"], trace.split == "calibration", dimensions) for exit in range(runner.exits)]
            about = {"schema_version": 1, "network": header.network, "trace": trace.content_hash, "exits": [note for _, note in kept]}
            write_features(Features(trace.sample_id, [values for values, _ in kept], about), target)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
    parts.remove()
    return read


def _runner(model: Any, outputs, final_head, features: bool, batch: int) -> OnnxModel | TorchModel:
    if isinstance(model, (str, Path)):
        if not Path(model).is_file():
            raise BadInput("no such model file", file=model)
        return OnnxModel(model, outputs=outputs, final_head=final_head, features=features, batch=batch)
    if not (hasattr(model, "state_dict") and callable(model)):
        raise BadInput(f"must be the path of an ONNX model or a torch module, not {type(model).__name__}", field="model")
    return TorchModel(model, features=features, batch=batch)


class _Difficulty:
    """Which input difficulty is taken of, how it is scaled to [0, 1], and the edge threshold; all fixed before the first batch."""

    def __init__(self, data: Dataset, wanted: bool | str, input_range: tuple[float, float] | None, tau_edge: float | None):
        self.range, self.tau_edge, self._data, self._given = None, None, data, (input_range, tau_edge)
        if isinstance(wanted, str) and wanted not in data.names:
            raise unknown("input", wanted, data.names, field="difficulty")
        self.input = wanted if isinstance(wanted, str) else data.names[0] if wanted else None
        if input_range is not None and not input_range[0] < input_range[1]:
            raise BadInput(f"{input_range[0]} to {input_range[1]} is no range; write the smaller number first", field="input_range")
        if self.input is not None and data.whole is not None:
            self.fix(data.whole)

    @property
    def settings(self) -> tuple:
        """What a part depends on."""
        return self.input, self._given, self.range, self.tau_edge

    def fix(self, batch: Batch) -> None:
        """Choose range and threshold from the whole dataset, or from the first batch of an iterable."""
        values = batch.inputs[self.input]
        given, tau_edge = self._given
        if values.ndim < 2:
            raise BadInput(f"difficulty needs an image or a signal, '{self.input}' has one number a sample; pass difficulty=False", field=self.input)
        low, high = float(values.min()), float(values.max())
        if given is None and values.dtype == np.uint8:
            given = (0.0, 255.0)
        elif given is None and self._data.whole is None and not (low >= 0 and high <= 1):
            raise BadInput(
                f"inputs of an iterable must lie in [0, 1] (here {low:g} to {high:g}), or input_range must say their range", field="input_range"
            )
        elif given is None:
            given = (low, high) if self._data.whole is not None and high > low else (0.0, 1.0)
        self.range = [float(given[0]), float(given[1])]
        if tau_edge is None:
            split = batch.columns.get("split")
            rows = np.flatnonzero(split == "calibration") if split is not None and (split == "calibration").any() else np.arange(len(batch))
            tau_edge = median_slope(self._scaled(values[rows[np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(int)]]))
        self.tau_edge = float(tau_edge)

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        low, high = self.range
        return ((values.astype(np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)

    def of(self, batch: Batch) -> dict[str, np.ndarray]:
        """Components of a batch, float32 [n] each; none where difficulty was not wanted."""
        if self.input is None:
            return {}
        if self.range is None:
            self.fix(batch)
        return components(self._scaled(batch.inputs[self.input]), self.tau_edge)


def _run(runner, data: Dataset, scale: _Difficulty, parts: Parts, progress) -> dict[str, np.ndarray]:
    """Everything recorded, by name: logits [E, N, K], features_e [N, D_e], difficulty_*, and the dataset's columns."""
    pieces, done = [], 0
    for index, batch in enumerate(data):
        content = batch.content_hash
        piece = parts.load(index, content)
        if piece is None:
            said, entered = runner.run(batch.inputs)
            piece = {"logits": said, **{f"features_{exit}": values for exit, values in enumerate(entered)}}
            piece |= {f"difficulty_{name}": values for name, values in scale.of(batch).items()} | batch.columns
            parts.save(index, content, piece)
        elif scale.range is None and scale.input is not None:
            scale.fix(batch)
        if pieces and piece.keys() != pieces[0].keys():
            odd = sorted(piece.keys() ^ pieces[0].keys())[0]
            raise BadInput(f"batch {index}: only some batches have this column", field=odd)
        pieces.append(piece)
        done += len(batch)
        if progress:
            progress(done, data.total)
    if not pieces:
        raise BadInput("holds no samples", file=data.where, field="dataset")
    return {name: np.concatenate([piece[name] for piece in pieces], axis=1 if name == "logits" else 0) for name in pieces[0]}


def _trace(whole: dict[str, np.ndarray], runner, kind: np.dtype, path: Path) -> ExitTrace:
    said = whole["logits"]
    limit = np.finfo(kind).max
    if not np.isfinite(said).all():
        exit, row, _ = np.argwhere(~np.isfinite(said))[0]
        raise BadInput(
            f"exit {exit}, row {row}: the network answers a logit that is not a finite number", file=getattr(runner, "path", None), field="logits"
        )
    if np.abs(said).max() > limit:
        raise BadInput(f"a logit of {np.abs(said).max():g} is beyond {kind}; record with logits='float32'", field="logits")
    index = np.arange(said.shape[1], dtype=np.int64)
    runner.exits = said.shape[0]
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
