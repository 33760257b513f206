"""What a mechanism says of itself, as plain data."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np

from eesim.mechanisms.base import Mechanism, Parameter, Values


def describe(mechanism: Mechanism) -> dict[str, Any]:
    """Name, rule (the first sentence of its text), whole text, source, state, what of the moment it reads, whether it is fitted, parameters."""
    text = inspect.cleandoc(type(mechanism).__doc__ or "") if "__doc__" in vars(type(mechanism)) else ""
    first = " ".join(text.split("\n\n")[0].split())
    return {
        "name": mechanism.name,
        "rule": re.split(r"(?<!Eq)(?<!al)\. |; state:|, asked in simulated time", first)[0].rstrip("."),
        "text": text,
        "source": mechanism.source,
        "state": mechanism.state,
        "reads": _reads(mechanism),
        "fitted": mechanism.trained,
        "bound": mechanism.bound,
        "parameters": [_parameter(parameter) for parameter in mechanism.parameters],
    }


def _reads(mechanism: Mechanism) -> list[str]:
    """What of the moment a live rule looks at: names of `situation` that its step uses."""
    if not mechanism.live:
        return []
    code = getattr(getattr(mechanism.step, "py_func", mechanism.step), "__code__", None)
    used = set(code.co_names) if code else set()
    found = ["the queue"] * ("QUEUE" in used) + ["the deadline"] * bool(used & {"SLACK_NS", "NEXT_NS"})
    return found or ["the queue", "the deadline"]


def brief(mechanism: Mechanism, values: Values) -> Values:
    """The values worth telling: that of the first parameter, and those that are not at their defaults."""
    first = mechanism.parameters[0].name if mechanism.parameters else None
    return {name: value for name, value in values.items() if name == first or value != mechanism.value({}, name)}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    words = (["never"] if parameter.never is not None else []) + list(parameter.choices)
    if callable(parameter.high):
        span = f"{parameter.low:g} to a bound that depends on the number of classes"
    elif np.isfinite([parameter.low, parameter.high]).all():
        span = f"{parameter.low:g} to {parameter.high:g}"
    else:
        span = "" if parameter.choices and np.isinf(parameter.low) else f"at least {parameter.low:g}" if np.isfinite(parameter.low) else "a number"
    shape = "one or one for each exit; " if parameter.per_exit else "one for each class; " if parameter.per_class else ""
    return {
        "name": parameter.name,
        "default": parameter.default,
        "range": shape + ("whole, " if parameter.integer else "") + ", ".join(filter(None, [span, *words])),
        "help": parameter.help + (f" (only with {parameter.only[0]}={' or '.join(parameter.only[1])})" if parameter.only else ""),
        "optional": parameter.optional,
    }
