"""The exit trace in memory: arrays with one row per sample, and a header that says where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
RECORDER_VERSION = "1"
SPLITS = ("calibration", "test")
DIFFICULTY = ("edge", "variance", "gradient", "sobel_mean")
"""Components of DART's input difficulty (arXiv 2603.12269, Eq. 1-8) and the raw mean gradient of its public code."""


@dataclass(frozen=True)
class TraceHeader:
    """Where a trace comes from. `classes` are class names; `training_mode` is frozen, joint or distilled."""

    network: str
    exits: int
    classes: list[str]
    dataset: dict[str, str] = field(default_factory=dict)
    split_rule: str = ""
    training_mode: str = ""
    recipe: str = ""
    seed: int | None = None
    tau_edge: float | None = None
    schema_version: int = SCHEMA_VERSION
    recorder_version: str = RECORDER_VERSION
    content_hash: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ExitTrace:
    """A recorded trace of N samples, E exits and K classes.

    sample_id int64 [N]; stream_id int32 [N]; time_ns int64 [N], time within the stream; split: str [N], 'calibration' or
    'test'; label int32 [N], -1 = unknown; logits float16 or float32 [E, N, K]; difficulty: name -> float32 [N];
    gates: exit -> float32 [N].
    """

    header: TraceHeader
    sample_id: np.ndarray
    stream_id: np.ndarray
    time_ns: np.ndarray
    split: np.ndarray
    label: np.ndarray
    logits: np.ndarray
    difficulty: dict[str, np.ndarray] = field(default_factory=dict)
    gates: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def exits(self) -> int:
        """Number of recorded exits, E."""
        return self.logits.shape[0]

    @property
    def classes(self) -> int:
        """Number of classes, K."""
        return self.logits.shape[2]

    def __len__(self) -> int:
        return self.logits.shape[1]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over all columns in their stored order (names, types and little-endian bytes)."""
        digest = hashlib.sha256()
        columns: list[tuple[str, np.ndarray]] = [
            ("sample_id", self.sample_id.astype("<i8")),
            ("stream_id", self.stream_id.astype("<i4")),
            ("time_ns", self.time_ns.astype("<i8")),
            ("split", (self.split == "test").astype("u1")),
            ("label", self.label.astype("<i4")),
            *((f"logits_{index}", logits) for index, logits in enumerate(self.logits)),
            *((f"difficulty_{name}", values.astype("<f4")) for name, values in sorted(self.difficulty.items())),
            *((f"gate_{index}", values.astype("<f4")) for index, values in sorted(self.gates.items())),
        ]
        for name, values in columns:
            digest.update(f"{name}:{values.dtype.str}:{values.shape};".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()
