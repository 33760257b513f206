"""Reading YAML into validated models: the schema of a file is a pydantic class, and every mistake is one line.

Units stand in field names (`clock_mhz`, `idle_mw`), so a key without its unit is an unknown key; the message then names
the key that carries it.
"""

from __future__ import annotations

import math
import re
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
    """Safe YAML loader that refuses a key written twice in one mapping and reads `1e-3` as a number, as YAML 1.2 does."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    written = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        if key_node.value in written:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key_node.value}' is written twice", key_node.start_mark)
        written.add(key_node.value)
    loader.flatten_mapping(node)  # after the check: a key may override the one that `<<` brings
    return {loader.construct_object(key, deep=True): loader.construct_object(value, deep=True) for key, value in node.value}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


class Dumper(yaml.SafeDumper):
    """Safe YAML dumper that quotes what `_Loader` would read as a number."""


for _kind in (_Loader, Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def to_yaml(data: Any, **options: Any) -> str:
    """`data` as YAML that `read_yaml` reads back the same, keys in their order, lines of any length."""
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, width=math.inf, **options)


def stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does: (time, size, inode), empty where there is no file. For caches of what was read from it."""
    if not path.is_file():
        return ()
    state = path.stat()
    return state.st_mtime_ns, state.st_size, state.st_ino


def read_yaml(path: str | Path) -> dict:
    """The mapping in a YAML file. Raises BadInput for anything that is not a readable mapping."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot be read: {getattr(error, 'strerror', None) or error}", file=path) from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist, for example
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
        errors = error.errors()
        first = errors[0]
        if first["type"] == "missing":  # the missing key may be there under a wrong name
            first = next((other for other in errors if other["type"] == "extra_forbidden" and other["loc"][:-1] == first["loc"][:-1]), first)
        raise _explain(model, data, first, file, prefix) from None


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
    got = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)
    shown = "" if kind == "value_error" else f", got {got}"
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
