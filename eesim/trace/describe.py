"""What a trace holds, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from eesim.trace.trace import ExitTrace
from eesim.trace.view import TraceView


def describe(trace: ExitTrace) -> dict[str, Any]:
    """Header and, for each split: streams, class counts, and per exit accuracy, balanced accuracy, recall, mean
    confidence, expected calibration error (15 bins of equal mass) and agreement with the last exit.

    `persistence` is how often a sample has the label of the one before it in its stream; `oracle` the share of samples
    that some exit gets right.
    """
    header = trace.header
    splits = {}
    for split in ("calibration", "test"):
        if (trace.split == split).any():
            splits[split] = _split(TraceView(trace, split))
    return {
        "network": header.network,
        "exits": header.exits,
        "classes": header.classes,
        "training_mode": header.training_mode or None,
        "dataset": header.dataset,
        "split_rule": header.split_rule or None,
        "recipe": header.recipe or None,
        "seed": header.seed,
        "content_hash": header.content_hash or None,
        "splits": splits,
    }


def _split(view: TraceView) -> dict[str, Any]:
    counts = view.class_counts
    labelled = int(counts.sum())
    exits = []
    for exit in range(view.exits):
        right = view.correct[:, exit] == 1
        hits = np.bincount(view.label[right], minlength=view.classes)
        recall = [float(hit / count) if count else None for hit, count in zip(hits, counts, strict=True)]
        known = [value for value, count in zip(recall, counts, strict=True) if value is not None and count >= 50]
        exits.append({
            "accuracy": float(right.sum() / labelled) if labelled else None,
            "balanced_accuracy": float(np.mean(known)) if known else None,
            "mean_confidence": float(view.confidence[:, exit].mean()),
            "calibration_error": view.calibration_error(exit),
            "agreement": float((view.answers[:, exit] == view.answers[:, -1]).mean()),
            "recall": recall,
        })  # fmt: skip
    streams, number = view.streams
    order = streams.argsort(kind="stable")
    label, stream = view.label[order], streams[order]
    pairs = (stream[1:] == stream[:-1]) & (label[1:] >= 0) & (label[:-1] >= 0)
    return {
        "samples": len(view),
        "streams": number,
        "labelled": labelled,
        "class_counts": {str(name): int(count) for name, count in zip(view.trace.header.classes, counts, strict=True)},
        "majority": float(counts.max() / labelled) if labelled else None,
        "oracle": float((view.correct == 1).any(axis=1).sum() / labelled) if labelled else None,
        "persistence": float((label[1:] == label[:-1])[pairs].mean()) if pairs.any() else None,
        "exits": exits,
    }
