"""Datasets to record on: `.npz` files, mappings of arrays, or iterables of batches, all as one stream of batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput, nearest
from eesim.trace.columns import KINDS, array_of, check_columns, whole_numbers
from eesim.trace.converters.npz import arrays_of

_ALIASES = {"labels": "label", "targets": "label", "y": "label", "x": "inputs", "input": "inputs"}
_COLUMNS = (*KINDS, "split")


@dataclass(frozen=True)
class Batch:
    """n samples: inputs by name, each [n, …]; label, stream_id, time_ns, sample_id int [n]; split str [n]; None = not given."""

    inputs: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def content_hash(self) -> str:
        """Of the inputs, so that a part already recorded is known again."""
        digest = hashlib.blake2b(digest_size=8)
        for name, values in sorted(self.inputs.items()):
            digest.update(f"{name}:{values.dtype}:{values.shape};".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


class Dataset:
    """A dataset in batches of `size`. `total` is None where an iterable does not say how long it is."""

    def __init__(self, source: Any, input_names: list[str], size: int, warn: Callable[[str], None]):
        self.names, self.size, self.whole, self.total = input_names, size, None, None
        self.where = source if isinstance(source, (str, Path)) else None
        if self.where is not None:
            if not Path(source).is_file():
                raise BadInput("is a folder, not an .npz file" if Path(source).is_dir() else "no such dataset file", file=source)
            source = arrays_of(Path(source))
        named = isinstance(source, Mapping) and "classes" in source
        self.classes = [str(name) for name in np.ravel(array_of(source["classes"]))] if named else None
        if isinstance(source, Mapping):
            arrays = {name: values for name, values in source.items() if name != "classes"}
            self.whole = self._batch(arrays, warn)
            self.total = len(self.whole)
            check_columns(self.whole.columns, file=self.where or "dataset")
        elif isinstance(source, np.ndarray) or hasattr(source, "detach") or not isinstance(source, Iterable):
            what = f"not {type(source).__name__}; write {{'inputs': images, 'label': labels}}"
            raise BadInput(f"a dataset is an .npz file, a mapping of arrays or an iterable of batches, {what}", field="dataset")
        else:
            self._iterable, self.total = source, _length(source)

    def __iter__(self) -> Iterator[Batch]:
        if self.whole is None:
            for index, batch in enumerate(self._iterable):
                try:
                    found = self._batch(dict(batch) if isinstance(batch, Mapping) else self._of_tuple(batch))
                    check_columns(found.columns, file=None, whole=False)
                except BadInput as error:
                    raise BadInput(f"batch {index}: {error.problem}", field=error.field) from None
                yield found
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

    def _batch(self, given: Mapping[str, Any], warn: Callable[[str], None] = lambda _: None) -> Batch:
        arrays: dict[str, np.ndarray] = {}
        said: dict[str, str] = {}
        for name, values in given.items():
            known = name if name in self.names else _ALIASES.get(name, name)
            known = self.names[0] if known == "inputs" and len(self.names) == 1 else known
            if known in arrays:
                raise self._bad(f"says the same as '{said[known]}'; leave one of them out", name)
            said[known] = name
            try:
                arrays[known] = array_of(values)
            except ValueError as error:
                raise self._bad(f"is no array of numbers ({(str(error).splitlines() or [''])[0][:80]})", name) from None
        for name in self.names:
            if name not in arrays:
                raise self._bad(f"this input of the model is missing; the dataset has {', '.join(sorted(arrays))}", name)
        inputs = {name: arrays.pop(name) for name in self.names}
        n = len(inputs[self.names[0]]) if inputs[self.names[0]].ndim else 0
        if n == 0:
            raise self._bad("holds no samples", said[self.names[0]])
        for name, values in inputs.items():
            if values.dtype.kind not in "fiub":
                raise self._bad(f"must be numbers, is {values.dtype}", name)
            if values.shape[:1] != (n,):
                raise self._bad(f"is of shape {list(values.shape)} where {self.names[0]} has {n} samples", name)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                row = int(np.argmax(~np.isfinite(values).reshape(n, -1).all(axis=1)))
                raise self._bad(f"row {row}: holds a value that is not a finite number", name)
        columns = {}
        for name, values in arrays.items():
            if name in KINDS:
                columns[name] = whole_numbers(name, values, n, file=self.where, field=said[name])
            elif name == "split":
                columns[name] = values.astype(str)
                if columns[name].shape != (n,):
                    raise self._bad(f"must be {n} words, is {list(values.shape)}", name)
            else:
                close = nearest(name, _COLUMNS)
                warn(f"the array '{name}' is not used" + (f"; did you mean '{close[0]}'?" if close else ""))
        return Batch(inputs, columns)

    def _bad(self, problem: str, field: str) -> BadInput:
        return BadInput(problem, file=self.where, field=field)


def _length(source: Iterable) -> int | None:
    """Samples in a torch DataLoader; nothing is known of other iterables."""
    size, whole = getattr(source, "batch_size", None), getattr(source, "sampler", None)
    try:
        return len(source) * size if getattr(source, "drop_last", False) else len(whole)
    except TypeError:
        return None
