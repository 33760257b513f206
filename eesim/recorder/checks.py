"""What can be known to be wrong before everything is recorded: arguments, labels, class names, types of inputs, logits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput
from eesim.files import check_writable
from eesim.recorder.dataset import Batch, Dataset
from eesim.recorder.models import OnnxModel, TorchModel


def target_of(path: str | Path) -> Path:
    """The file to write. Raises BadInput where it could not be written later."""
    if Path(path).suffix.lower() != ".parquet":
        raise BadInput("a trace is written as .parquet", file=path)
    check_writable(path)
    return Path(path)


def whole_number(value: Any, name: str, least: int | None = 1) -> int:
    """A whole number, numpy's too."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or (least is not None and value < least):
        raise BadInput(f"'{value}' must be a whole number{'' if least is None else f' of at least {least}'}", field=name)
    return int(value)


def check_texts(texts: Mapping[str, Any]) -> None:
    """Raise BadInput for a part of the header that is no text."""
    for name, value in texts.items():
        if not isinstance(value, str):
            raise BadInput(f"must be text, is {value!r}", field=name)


class Checks:
    """What can be known to be wrong before everything is recorded: labels, class names, types of inputs, logits."""

    def __init__(self, data: Dataset, names: list[str] | None, said_in: object, kind: np.dtype, model: Path | None):
        self.data, self.names, self.said_in, self.kind, self.model, self.known = data, names, said_in, kind, model, False

    def before(self, runner: OnnxModel | TorchModel) -> None:
        """Whatever does not need an answer of the network."""
        if runner.classes:
            self.classes(runner.classes)
        if self.data.whole is not None:
            for start in range(0, len(self.data.whole), self.data.size):
                rows = slice(start, start + self.data.size)
                runner.fitted({name: values[rows] for name, values in self.data.whole.inputs.items()}, start)

    def classes(self, count: int) -> None:
        """As soon as the number of classes is known: their names, and labels beyond them."""
        self.known = True
        if self.names and len(self.names) != count:
            raise BadInput(f"{len(self.names)} class names where the network answers {count} classes", file=self.said_in, field="classes")
        if self.data.whole is not None:
            self.labels(self.data.whole, 0, count)

    def labels(self, batch: Batch, first: int, count: int) -> None:
        """Labels of a batch, whose first row is row `first`."""
        label = batch.columns.get("label")
        if label is not None and (label >= count).any():
            row = int(np.argmax(label >= count))
            raise BadInput(f"row {first + row}: {label[row]} is outside -1 (unknown) to {count - 1}", file=self.data.where, field="label")

    def answers(self, said: np.ndarray, batch: Batch, first: int) -> None:
        """Logits [E, n, K] of a batch."""
        if not self.known:
            self.classes(said.shape[2])
        if self.data.whole is None:
            self.labels(batch, first, said.shape[2])
        if not np.isfinite(said).all():
            exit, row, _ = np.argwhere(~np.isfinite(said))[0]
            raise BadInput(
                f"exit {exit}, row {first + row}: the network answers a logit that is not a finite number", file=self.model, field="logits"
            )

    def fits(self, said: np.ndarray) -> None:
        """Whether the logits fit the type that they are written in; asked when the part is kept, which has them as float32."""
        if np.abs(said).max() > np.finfo(self.kind).max:
            most = f"a logit of {np.abs(said).max():g} is beyond {self.kind}"
            raise BadInput(f"{most}; record with --logits float32 (in Python logits='float32')", file=self.model, field="logits")
