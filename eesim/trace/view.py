"""What a mechanism may look at: one split of a trace, restricted to the enabled exits, with its scores computed once.

Scores are float64 from the stored logits; entropy is in nats. Exits are counted among the enabled ones, from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import numpy as np

from eesim.errors import BadInput
from eesim.measures.calibration import expected_calibration_error
from eesim.trace.trace import SPLITS, ExitTrace

KEPT_DERIVED = 64
"""How many derived things a view remembers; the oldest goes first."""


class TraceView:
    """N samples of one split in recorded order, E enabled exits, K classes. Arrays are shared: do not write to them."""

    def __init__(
        self,
        trace: ExitTrace,
        split: str = "test",
        *,
        sibling: Callable[[str], TraceView] | None = None,
        features: Callable[[str], list[np.ndarray]] | None = None,
    ):
        """sibling, features: how to get at the whole view of a split, and at its recorded features [N, D_e] of every recorded exit."""
        if split not in SPLITS:
            raise BadInput(f"split '{split}' is neither 'calibration' nor 'test'")
        rows = np.flatnonzero(trace.split == split)
        if rows.size == 0:
            purpose = "; mechanisms are tuned on it" if split == "calibration" else ""
            raise BadInput(f"the trace of '{trace.header.network}' has no {split} split{purpose}")
        self.trace, self.split = trace, split
        whole = rows.size == len(trace)
        take = (lambda array: array) if whole else (lambda array: array[rows])
        self.sample_id, self.time_ns, self.label = take(trace.sample_id), take(trace.time_ns), take(trace.label)
        self.stream_id = take(trace.stream_id)
        self.logits = trace.logits if whole else trace.logits[:, rows]
        self.difficulty = {name: take(values) for name, values in trace.difficulty.items()}
        self.recorded_exits = tuple(range(trace.exits))
        self.temperatures: tuple[float, ...] | None = None
        self._sibling, self._feature_source, self._others = sibling or self._other_split, features, {split: self}
        self._parent: TraceView | None = None
        self._whole: tuple[TraceView, np.ndarray] | None = None
        self._variants: dict[Hashable, TraceView] = {}
        self._derived: dict[Hashable, Any] = {}

    @classmethod
    def of_arrays(cls, logits: np.ndarray, labels: np.ndarray, **columns: np.ndarray) -> TraceView:
        """A view over bare arrays, for tests and notebooks: logits [E, N, K], labels [N]; one stream, time = index."""
        from eesim.trace.convert import trace_of_arrays

        return cls(trace_of_arrays(np.asarray(logits), np.asarray(labels), **columns))

    def restricted(self, exits: tuple[int, ...]) -> TraceView:
        """The same samples as seen with only some recorded exits enabled; scores already computed are reused."""
        if exits == self.recorded_exits:
            return self
        if exits not in self._variants:
            view = self._variant()
            view._places = [self.recorded_exits.index(exit) for exit in exits]
            view.logits, view.recorded_exits, view._parent = self.logits[view._places], exits, self
            if self._whole is not None:
                view._whole = (self._whole[0].restricted(exits), self._whole[1])
            if self.temperatures is not None:
                view.temperatures = tuple(self.temperatures[place] for place in view._places)
            self._variants[exits] = view
        return self._variants[exits]

    def tempered(self, temperatures: tuple[float, ...]) -> TraceView:
        """The same samples with the logits of each enabled exit divided by its temperature."""
        if ("tempered", temperatures) not in self._variants:
            view = self._variant()
            view.logits = self.logits.astype(np.float64) / np.asarray(temperatures)[:, None, None]
            view.recorded_exits, view._parent, view.temperatures = self.recorded_exits, None, temperatures
            view.__dict__["answers"] = self.answers
            if self._whole is not None:
                view._whole = (self._whole[0].tempered(temperatures), self._whole[1])
            self._variants["tempered", temperatures] = view
        return self._variants["tempered", temperatures]

    def _variant(self) -> TraceView:
        view = object.__new__(TraceView)
        view.__dict__.update({name: value for name, value in self.__dict__.items() if name not in _PER_EXIT})
        view._variants, view._derived = {}, {}
        return view

    def taken(self, rows: np.ndarray) -> TraceView:
        """The samples at `rows`, in that order; the stream id travels with its row. Scores already computed are reused."""
        view = object.__new__(TraceView)
        for name in ("trace", "split", "recorded_exits", "temperatures", "_sibling", "_feature_source"):
            setattr(view, name, getattr(self, name))
        view._parent, view._variants, view._derived, view.logits = None, {}, {}, self.logits[:, rows]
        view._whole = (self, np.asarray(rows)) if self._whole is None else (self._whole[0], self._whole[1][rows])
        view.difficulty = {name: values[rows] for name, values in self.difficulty.items()}
        for name in ("sample_id", "time_ns", "label", "stream_id"):
            setattr(view, name, getattr(self, name)[rows])
        for name in _SCORES:
            if name in self.__dict__:
                view.__dict__[name] = np.ascontiguousarray(self.__dict__[name][rows])
        return view

    def derived(self, key: Hashable, make: Callable[[TraceView], Any]) -> Any:
        """`make(view)`, an array or a tuple of arrays with one row for each sample, made once for all samples in recorded order."""
        whole, rows = (self, None) if self._whole is None else self._whole
        if key not in whole._derived:
            while len(whole._derived) >= KEPT_DERIVED:
                del whole._derived[next(iter(whole._derived))]
            whole._derived[key] = make(whole)
        found = whole._derived[key]
        if rows is None:
            return found
        return tuple(part[rows] for part in found) if isinstance(found, tuple) else found[rows]

    @property
    def calibration(self) -> TraceView:
        """The whole calibration split, seen as this view is (exits, temperatures). Raises BadInput when there is none."""
        view = self._sibling("calibration").restricted(self.recorded_exits)
        return view if self.temperatures is None else view.tempered(self.temperatures)

    def _other_split(self, split: str) -> TraceView:
        if split not in self._others:
            self._others[split] = TraceView(self.trace, split)
        return self._others[split]

    @property
    def features(self) -> list[np.ndarray]:
        """Pooled features of each enabled exit, float16 [N, D_e]. Raises BadInput where none were recorded."""
        if self._feature_source is None:
            raise BadInput("this trace has no features beside it; record them with eesim trace record --features")
        parts = [part for exit, part in enumerate(self._feature_source(self.split)) if exit in self.recorded_exits]
        return parts if self._whole is None else [part[self._whole[1]] for part in parts]

    @property
    def rows(self) -> np.ndarray:
        """Where each sample stands in the whole split, int64 [N]."""
        return np.arange(len(self)) if self._whole is None else self._whole[1]

    def __len__(self) -> int:
        return self.logits.shape[1]

    @property
    def exits(self) -> int:
        """Number of enabled exits, E."""
        return self.logits.shape[0]

    @property
    def classes(self) -> int:
        """Number of classes, K."""
        return self.logits.shape[2]

    def _inherit(self, name: str) -> np.ndarray | None:
        return None if self._parent is None else np.ascontiguousarray(getattr(self._parent, name)[:, self._places])

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of every exit, float64 [N, E, K]."""
        if (inherited := self._inherit("probabilities")) is not None:
            return inherited
        scores = np.ascontiguousarray(self.logits.transpose(1, 0, 2)).astype(np.float64)
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        return scores

    @cached_property
    def confidence(self) -> np.ndarray:
        """Largest softmax entry p1, float64 [N, E]."""
        return inherited if (inherited := self._inherit("confidence")) is not None else self.probabilities.max(axis=2)

    @cached_property
    def margin(self) -> np.ndarray:
        """p1 - p2, the two largest softmax entries, float64 [N, E]."""
        if (inherited := self._inherit("margin")) is not None:
            return inherited
        top = np.partition(self.probabilities, -2, axis=2)
        return top[..., -1] - top[..., -2]

    @cached_property
    def entropy(self) -> np.ndarray:
        """Entropy of the softmax in nats, float64 [N, E]."""
        if (inherited := self._inherit("entropy")) is not None:
            return inherited
        p = self.probabilities
        return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=2)

    @cached_property
    def answers(self) -> np.ndarray:
        """Class each exit answers (the first largest logit), int32 [N, E]."""
        if (inherited := self._inherit("answers")) is not None:
            return inherited
        return np.ascontiguousarray(self.logits.argmax(axis=2).T.astype(np.int32))

    @cached_property
    def correct(self) -> np.ndarray:
        """1 where an exit's answer is the label, 0 where not, -1 where the label is unknown; int8 [N, E]."""
        if (inherited := self._inherit("correct")) is not None:
            return inherited
        return score_answers(self.answers, self.label[:, None])

    def calibration_error(self, exit: int, bins: int = 15) -> float | None:
        """Expected calibration error of one exit, over `bins` bins of equal mass; None without labels."""
        known = np.flatnonzero(self.correct[:, exit] >= 0)
        if known.size == 0:
            return None
        return expected_calibration_error(self.confidence[known, exit], self.correct[known, exit], bins)

    @cached_property
    def streams(self) -> tuple[np.ndarray, int]:
        """Streams numbered from 0 in order of appearance, int32 [N], and how many there are."""
        _, first, codes = np.unique(self.stream_id, return_index=True, return_inverse=True)
        rank = np.empty(first.size, np.int32)
        rank[np.argsort(first)] = np.arange(first.size, dtype=np.int32)
        return rank[codes], first.size

    @cached_property
    def class_counts(self) -> np.ndarray:
        """Labelled samples of each class, int64 [K]."""
        return np.bincount(self.label[self.label >= 0], minlength=self.classes)


_SCORES = ("probabilities", "confidence", "margin", "entropy", "answers", "correct")
_PER_EXIT = {"logits", "recorded_exits", "_parent", "_variants", "_derived", "_places", *_SCORES}


def score_answers(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 correct, 0 wrong, -1 no label; int8, broadcast."""
    return np.where(labels < 0, np.int8(-1), (answers == labels).astype(np.int8)).astype(np.int8)
