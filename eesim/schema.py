"""Reading YAML into validated models: the schema of a file is a pydantic class, and every mistake is one line.

Units stand in field names (`clock_mhz`, `idle_mw`), so a key without its unit is an unknown key; the message then names
the key that carries it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from eesim.errors import BadInput, nearest

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of every file schema: unknown keys are errors, values are not coerced between types, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Safe YAML loader that refuses a key written twice in one mapping."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    loader.flatten_mapping(node)
    result: dict = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in result:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is written twice", key_node.start_mark)
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: str | Path) -> dict:
    """The mapping in a YAML file. Raises BadInput for anything that is not a readable mapping."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot be read: {getattr(error, 'strerror', None) or error}", file=path) from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise BadInput(f"not valid YAML: {getattr(error, 'problem', error)}", file=path, field=f"line {mark.line + 1}" if mark else None) from None
    if not isinstance(data, dict):
        raise BadInput("must hold a mapping of keys to values", file=path)
    return data


def validate(model: type[Model], data: Any, file: object, prefix: str = "") -> Model:
    """`data` as an instance of `model`. Raises BadInput with the first mistake: field, value, and what would be right."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explain(model, data, error.errors()[0], file, prefix) from None


def _explain(model: type[BaseModel], data: Any, error: dict, file: object, prefix: str) -> BadInput:
    location = [part for part in error["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    field = ".".join([prefix] * bool(prefix) + [str(part) for part in location])
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        key = str(location[-1])
        choices = _siblings(model, location[:-1])
        with_unit = [choice for choice in choices if choice.startswith(f"{key}_")]
        if with_unit:
            return BadInput(f"the key '{key}' lacks its unit; write '{with_unit[0]}'", file=file, field=field)
        close = nearest(key, choices)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys are {', '.join(choices)}" if choices else "no key belongs here"
        return BadInput(f"unknown key '{key}'; {hint}", file=file, field=field)
    if kind == "missing":
        return BadInput("this key is missing", file=file, field=field)
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    shown = "" if isinstance(value, (dict, list)) or kind == "value_error" else f", got {value!r}"
    if isinstance(value, str) and "number" in message:
        shown += " (the unit belongs in the key, the value is a plain number)"
    return BadInput(f"{message}{shown}", file=file, field=field)


def _siblings(model: type[BaseModel], location: list) -> list[str]:
    """Keys that are legal where an unknown one was found, by walking the model's annotations along `location`."""
    candidates: list[type[BaseModel]] = [model]
    for part in location:
        following: list[type[BaseModel]] = []
        for candidate in candidates:
            info = candidate.model_fields.get(str(part))
            following += _models_in(info.annotation) if info else []
        candidates = following or [inner for candidate in candidates for inner in [candidate] if str(part) not in candidate.model_fields]
    return [name for candidate in candidates for name in candidate.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _models_in(argument)]
