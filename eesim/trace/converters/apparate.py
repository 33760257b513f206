"""Apparate's tables (arXiv 2312.05385): `conf[ramp][sample]`, how sure a ramp is, and `acc[ramp][sample]`, whether it agrees with the network.

They hold no logits. The trace made of them has one exit for each ramp and a last one for the network itself, which is
always right and sure, since agreement with it is all that is known. Class 0 is the network's answer; a ramp that disagrees
answers another class. The logits have exactly the confidence of the table; what is left is spread evenly over the other
classes, so entropy and margin are those of that spread and not of the network. The header says so (`synthetic`).
Upstream the tables are pickles; export them as JSON or `.npz`: pickles run code when opened, and are not read here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput
from eesim.trace.converters import Given, assemble
from eesim.trace.trace import ExitTrace

SUFFIXES = (".json",)

MOST_CLASSES = 1000
SURE = 1 - 1e-6
"""Confidence of the last exit; 1 would need an infinite logit."""


def read(path: Path, given: Given) -> ExitTrace:
    """See `eesim.trace.converters`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"not a readable JSON file ({str(error)[:120]})", file=path) from None
    if not isinstance(data, dict) or not {"conf", "acc"} <= data.keys():
        raise BadInput("must be an object with 'conf' and 'acc', each a list of ramps with one number a sample", file=path)
    return of_tables(path, data["conf"], data["acc"], given)


def of_tables(path: Path, conf: Any, acc: Any, given: Given | None = None) -> ExitTrace:
    """A trace of the tables, both [ramps, samples]."""
    try:
        if any(np.asarray(table).dtype.kind not in "iufb" for table in (conf, acc)):
            raise ValueError
        conf, acc = np.asarray(conf, np.float64), np.asarray(acc, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadInput("'conf' and 'acc' must be lists of lists of numbers, every ramp of the same length", file=path) from None
    if conf.ndim != 2 or conf.shape != acc.shape or 0 in conf.shape:
        raise BadInput(f"'conf' {list(conf.shape)} and 'acc' {list(acc.shape)} must both be [ramps, samples]", file=path)
    for name, values, right in (("conf", conf, (conf > 0) & (conf <= 1)), ("acc", acc, np.isin(acc, (0, 1)))):
        if not right.all():
            ramp, row = np.argwhere(~right)[0]
            must = "above 0 and at most 1" if name == "conf" else "0 or 1"
            raise BadInput(f"ramp {ramp}, sample {row}: {values[ramp, row]:g} must be {must}", file=path, field=name)
    classes = int(min(np.ceil(1 / max(conf.min(), 1e-9)), MOST_CLASSES)) + 1
    if classes > MOST_CLASSES:
        ramp, row = np.argwhere(conf == conf.min())[0]
        raise BadInput(f"ramp {ramp}, sample {row}: a confidence of {conf.min():g} needs over {MOST_CLASSES} classes", file=path, field="conf")
    classes = max(classes, 3)
    sure = np.concatenate([conf, np.ones((1, conf.shape[1]))]).clip(max=SURE)
    answer = np.concatenate([np.where(acc == 1, 0, 1), np.zeros((1, conf.shape[1]), int)]).astype(int)
    logits = np.zeros((*sure.shape, classes), np.float32)
    top = np.log(sure) - np.log((1 - sure) / (classes - 1))
    np.put_along_axis(logits, answer[..., None], np.maximum(top, 1e-6)[..., None].astype(np.float32), axis=2)
    named = None if given is None else Given(classes=given.classes)
    note = "confidence and agreement alone are Apparate's; logits were made to have them, the last exit is always right"
    return assemble(path, logits, {"label": np.zeros(conf.shape[1], int)}, named, extra={"synthetic": note})
