"""Datasets to record on: `.npz` files, mappings of arrays, or iterables of batches, all as one stream of batches."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput

_COLUMNS = {"label": np.int32, "stream_id": np.int32, "time_ns": np.int64, "sample_id": np.int64}
_ALIASES = {"labels": "label", "targets": "label", "y": "label", "x": "inputs", "input": "inputs"}


@dataclass(frozen=True)
class Batch:
    """n samples: inputs by name, each [n, …]; label, stream_id, time_ns, sample_id int [n]; split str [n]; None = not given."""

    inputs: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def content_hash(self) -> str:
        """Of the inputs and columns, so that a part already recorded is known again."""
        digest = hashlib.blake2b(digest_size=8)
        for name, values in sorted((self.inputs | self.columns).items()):
            digest.update(f"{name}:{values.dtype}:{values.shape};".encode())
            digest.update(np.ascontiguousarray(values).tobytes() if values.dtype.kind != "U" else "\n".join(values.tolist()).encode())
        return digest.hexdigest()


class Dataset:
    """A dataset in batches of `size`. `total` is None where an iterable does not say how long it is."""

    def __init__(self, source: Any, input_names: list[str], size: int):
        self.names, self.size = input_names, size
        self.where = source if isinstance(source, (str, Path)) else None
        if self.where is not None:
            source = _load(Path(source))
        self.classes = [str(name) for name in np.ravel(source["classes"])] if isinstance(source, Mapping) and "classes" in source else None
        if isinstance(source, Mapping):
            self.whole: Batch | None = self._batch({name: values for name, values in source.items() if name != "classes"})
            self.total: int | None = len(self.whole)
        elif isinstance(source, Iterable):
            self.whole, self._iterable = None, source
            self.total = len(source) * size if hasattr(source, "__len__") else None
        else:
            raise BadInput(f"a dataset is an .npz file, a mapping of arrays or an iterable of batches, not {type(source).__name__}", field="dataset")

    def __iter__(self) -> Iterator[Batch]:
        if self.whole is None:
            for batch in self._iterable:
                yield self._batch(dict(batch) if isinstance(batch, Mapping) else self._of_tuple(batch))
            return
        for start in range(0, len(self.whole), self.size):
            rows = slice(start, start + self.size)
            yield Batch(*({name: values[rows] for name, values in part.items()} for part in (self.whole.inputs, self.whole.columns)))

    def _of_tuple(self, batch: Any) -> dict[str, Any]:
        """(input, …, label), as a torch DataLoader yields it."""
        parts = list(batch) if isinstance(batch, (tuple, list)) else [batch]
        if len(parts) not in (len(self.names), len(self.names) + 1):
            raise BadInput(f"a batch of {len(parts)} parts for inputs {', '.join(self.names)} and a label", field="dataset")
        return dict(zip([*self.names, "label"], parts, strict=False))

    def _batch(self, arrays: Mapping[str, Any]) -> Batch:
        arrays = {_ALIASES.get(name, name) if name not in self.names else name: np.asarray(values) for name, values in arrays.items()}
        if len(self.names) == 1 and self.names[0] not in arrays and "inputs" in arrays:
            arrays[self.names[0]] = arrays.pop("inputs")
        for name in self.names:
            if name not in arrays:
                raise self._bad(f"this input of the model is missing; the dataset has {', '.join(sorted(arrays))}", name)
        inputs = {name: arrays.pop(name) for name in self.names}
        n = len(inputs[self.names[0]]) if inputs[self.names[0]].ndim else 0
        if n == 0:
            raise self._bad("holds no samples", self.names[0])
        for name, values in inputs.items():
            if values.dtype.kind not in "fiub":
                raise self._bad(f"must be numbers, is {values.dtype}", name)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                row = int(np.argmax(~np.isfinite(values).reshape(n, -1).all(axis=1)))
                raise self._bad(f"row {row}: holds a value that is not a finite number", name)
        columns = {}
        for name, values in arrays.items():
            if name in _COLUMNS:
                if values.dtype.kind not in "iu":
                    raise self._bad(f"must be whole numbers, is {values.dtype}", name)
                columns[name] = values.astype(_COLUMNS[name])
            elif name == "split":
                columns[name] = values.astype(str)
        for name, values in (inputs | columns).items():
            if values.shape[:1] != (n,) or (name in columns and values.ndim != 1):
                raise self._bad(f"is of shape {list(values.shape)} where {self.names[0]} has {n} samples", name)
        return Batch(inputs, columns)

    def _bad(self, problem: str, field: str) -> BadInput:
        return BadInput(problem, file=self.where, field=field)


def _load(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz file; nothing is unpickled."""
    if not path.is_file():
        raise BadInput("no such dataset file", file=path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"not a readable .npz file ({(str(error).splitlines() or [''])[0][:120]})", file=path) from None
