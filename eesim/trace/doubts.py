"""What looks wrong with a trace although it may be meant: said as warnings; and logits of exits that answer probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eesim.errors import BadInput
from eesim.trace.trace import ExitTrace

ROUNDING = 2e-3
"""What a sum of probabilities kept as float16 may miss 1 by."""


def doubts(trace: ExitTrace) -> list[str]:
    """One sentence each."""
    found = []
    sure = [str(exit) for exit, logits in enumerate(trace.logits) if not _improbable(logits).any()]
    if sure:
        found.append(
            f"what exit{'s' if len(sure) > 1 else ''} {', '.join(sure)} answered{'' if len(sure) > 1 else 's'} are probabilities, not logits "
            "(between 0 and 1, sum 1), and would pass another softmax; write the trace again with --probabilities (probabilities=True)"
        )
    if (trace.label == -1).all():
        found.append("no label is known, so accuracy cannot be told")
    if not (trace.split == "calibration").any():
        found.append("there is no calibration split, so no mechanism can be tuned on this trace")
    return found


def logits_of(probabilities: np.ndarray, file: str | Path | None) -> np.ndarray:
    """Logarithm of probabilities [E, N, K], which is what a softmax turns back into them. Raises BadInput where they are none."""
    for exit, part in enumerate(probabilities):
        odd = _improbable(part)
        if odd.any():
            row = int(np.argmax(odd))
            problem = f"exit {exit}, row {row}: from {part[row].min():.4g} to {part[row].max():.4g} with sum {part[row].sum():.4g}"
            raise BadInput(f"{problem} is no distribution; these are no probabilities, so leave --probabilities out", file=file, field="logits")
    tiny = np.float32(np.finfo(np.float32).tiny)
    return np.log(np.maximum(probabilities.astype(np.float32), tiny))


def _improbable(logits: np.ndarray) -> np.ndarray:
    """bool [N]: rows of [N, K] that are no probability distribution."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (logits < 0).any(axis=1) | (logits > 1).any(axis=1) | ~(np.abs(logits.sum(axis=1, dtype=np.float32) - 1) < ROUNDING)
