"""How inputs are scaled to [0, 1] for DART's difficulty, and the edge threshold: fixed before the first batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from eesim.errors import BadInput, unknown
from eesim.recorder.dataset import Batch, Dataset
from eesim.recorder.difficulty import components, median_slope

SAMPLED = 512
"""Inputs, evenly spaced, that fix `tau_edge` and the range of the inputs when neither is given."""
_WITHOUT = "or leave difficulty out (--no-difficulty, in Python difficulty=False)"


class Difficulty:
    """Which input difficulty is taken of, how it is scaled, and the edge threshold; `of` gives the components of a batch."""

    def __init__(
        self,
        data: Dataset,
        wanted: bool | str,
        input_range: tuple[float, float] | None,
        tau_edge: float | None,
        warn: Callable[[str], None],
    ):
        self.range, self.tau_edge, self._data, self._warn = None, None, data, warn
        if isinstance(wanted, str) and wanted not in data.names:
            raise unknown("input", wanted, data.names, field="difficulty")
        self.input = wanted if isinstance(wanted, str) else data.names[0] if wanted else None
        self._given = None if input_range is None else _pair(input_range)
        if tau_edge is not None and not (_number(tau_edge) and tau_edge >= 0):
            raise BadInput(f"'{tau_edge}' must be a finite number of at least 0", field="tau_edge")
        self._tau = tau_edge
        self._strict = self._given is None and data.whole is None
        if self.input is not None and data.whole is not None:
            self._fix(data.whole)

    def _fix(self, batch: Batch) -> None:
        """Choose range and threshold from the whole dataset, or from the first batch of an iterable."""
        values, given = batch.inputs[self.input], self._given
        if values.ndim < 2:
            raise BadInput(f"difficulty needs an image or a signal, '{self.input}' has one number a sample; {_WITHOUT[3:]}", field=self.input)
        if values.ndim == 4 and values.shape[3] in (1, 3, 4) and values.shape[1] > values.shape[3]:
            self._warn(
                f"'{self.input}' is of shape {['N', *values.shape[1:]]}".replace("'N'", "N")
                + f" and looks like [N, H, W, C]; difficulty takes it as [N, C, H, W]: transpose it, {_WITHOUT}"
            )
        if given is None and values.dtype == np.uint8:
            given = (0.0, 255.0)
        elif given is None:
            low, high = float(values.min()), float(values.max())
            given = (low, high) if self._data.whole is not None and high > low else (0.0, 1.0)
        with np.errstate(all="ignore"):
            span = np.float32(given[1]) - np.float32(given[0])
        if not math.isfinite(span):
            raise BadInput(
                f"from {given[0]:g} to {given[1]:g} is too far to be scaled to [0, 1] in float32; scale them, {_WITHOUT}", field=self.input
            )
        self.range, tau_edge = [float(given[0]), float(given[1])], self._tau
        if tau_edge is None:
            self._check(values)
            split = batch.columns.get("split")
            rows = np.flatnonzero(split == "calibration") if split is not None and (split == "calibration").any() else np.arange(len(batch))
            tau_edge = median_slope(self._scaled(values[rows[np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(int)]]))
        self.tau_edge = float(tau_edge)

    def _check(self, values: np.ndarray) -> None:
        """Raise BadInput where a range that nobody gave does not hold for this batch of an iterable; a range that was given clips."""
        low, high = float(values.min()), float(values.max())
        if self._strict and not (low >= self.range[0] and high <= self.range[1]):
            must = f"[{self.range[0]:g}, {self.range[1]:g}]".replace("[0, 255]", "[0, 255], as the first batch did")
            raise BadInput(
                f"inputs of an iterable must lie in {must} (here {low:g} to {high:g}), or input_range must say their range", field="input_range"
            )

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        low, high = self.range
        return ((values.astype(np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)

    def of(self, batch: Batch) -> dict[str, np.ndarray]:
        """Components of a batch, float32 [n] each; none where difficulty was not wanted."""
        if self.input is None:
            return {}
        if self.range is None:
            self._fix(batch)
        self._check(batch.inputs[self.input])
        return components(self._scaled(batch.inputs[self.input]), self.tau_edge)


def _number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and math.isfinite(value)


def _pair(given: object) -> tuple[float, float]:
    """Low and high. Raises BadInput where they are no range."""
    values = list(given) if isinstance(given, (list, tuple, np.ndarray)) else [given]
    if len(values) != 2 or not all(_number(value) for value in values):
        raise BadInput(f"'{given}' must be two finite numbers, e.g. (0, 255)", field="input_range")
    if not values[0] < values[1]:
        raise BadInput(f"{values[0]} to {values[1]} is no range; write the smaller number first", field="input_range")
    return float(values[0]), float(values[1])
