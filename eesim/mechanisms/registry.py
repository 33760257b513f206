"""Finding mechanisms: the files of this folder by name, or a user's own Python file by path."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from pathlib import Path

from eesim.errors import BadInput, unknown
from eesim.mechanisms.base import STATES, Mechanism

USER_MODULE = "eesim_user_"
"""What the module of a user's file is called, before the digest of its text."""
_PACKAGE = "eesim.mechanisms"
_NOT_MECHANISMS = {"base", "describe", "registry"}


def mechanism_names() -> list[str]:
    """Names of the bundled mechanisms: bounds and baselines first, then in alphabetical order."""
    folder = str(Path(__file__).parent)
    names = sorted(
        module.name.replace("_", "-")
        for module in pkgutil.iter_modules([folder])
        if module.name not in _NOT_MECHANISMS and not module.name.startswith("_")
    )
    first = [name for name in ("constant", "static", "first-exit", "oracle") if name in names]
    return first + [name for name in names if name not in first]


def load_mechanism(name: str | Path | Mechanism) -> Mechanism:
    """A mechanism by bundled name, by path to a Python file that defines one, or an instance itself.

    Raises BadInput for unknown names, for files that do not define exactly one mechanism, and for a mechanism that cannot be.
    """
    if isinstance(name, Mechanism):
        _check_state(name)
        return name
    text = str(name)
    if text in mechanism_names():
        return _only_one(importlib.import_module(f"{_PACKAGE}.{text.replace('-', '_')}"), text)()
    if text.endswith(".py") or "/" in text:
        return _from_file(Path(text))
    raise unknown("mechanism", text, mechanism_names())


def _from_file(path: Path) -> Mechanism:
    if not path.is_file() or path.suffix != ".py":
        raise BadInput("no such Python file (.py) of a mechanism", file=path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", file=path) from None
    name = f"{USER_MODULE}{hashlib.sha256(text).hexdigest()[:16]}"
    module = sys.modules.get(name)
    if module is None:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # compiled code kept on disk names it
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # whatever a user's file may raise becomes one line
            del sys.modules[name]
            raise BadInput(f"{type(error).__name__} while reading it: {error}", file=path) from error
    try:
        mechanism = _only_one(module, path)()
    except TypeError as error:
        raise BadInput(f"cannot be made without arguments: {error}", file=path) from None
    mechanism.name = mechanism.name or path.stem.replace("_", "-")
    if mechanism.name in mechanism_names():
        raise BadInput(f"'{mechanism.name}' is the name of a bundled mechanism; give the class another `name`", file=path)
    _check_state(mechanism, path)
    if "step" not in dir(mechanism) and type(mechanism).decide is Mechanism.decide:
        raise BadInput(f"class {type(mechanism).__name__} defines neither 'step' nor 'decide'", file=path)
    return mechanism


def _check_state(mechanism: Mechanism, file: Path | None = None) -> None:
    if mechanism.state not in STATES:
        raise BadInput(f"mechanism '{mechanism.name}': unknown state '{mechanism.state}'; legal is {', '.join(STATES)}", file=file, field="state")


def _only_one(module, where: object) -> type[Mechanism]:
    found = [item for _, item in inspect.getmembers(module, inspect.isclass) if issubclass(item, Mechanism) and item.__module__ == module.__name__]
    if len(found) != 1:
        raise BadInput(f"must define exactly one subclass of eesim.mechanisms.Mechanism, defines {len(found)}", file=where)
    return found[0]
