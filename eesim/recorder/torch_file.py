"""A torch module from a user's Python file: FILE.py:NAME, where NAME is a function that returns it, or the module itself."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

from eesim.errors import BadInput, choose


def module_of(place: str) -> Any:
    """Run the file and return its module. Raises BadInput where file, name or module is not to be had."""
    text, _, name = (f"{place}:" if place.endswith(".py") else place).rpartition(":")
    path = Path(text)
    if not path.is_file():
        raise BadInput("no such Python file", file=path)
    if not name:
        raise BadInput(f"name the function in it that returns the module, such as {path}:{_first_name(path)}", file=path)
    spec = importlib.util.spec_from_file_location(f"eesim_model_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, name):
            known = [key for key in vars(module) if not key.startswith("_")]
            raise BadInput(f"defines no '{name}'; {choose(name, known)}", file=path)
        found = getattr(module, name)
        made = found if hasattr(found, "state_dict") and not isinstance(found, type) else found()
        if not hasattr(made, "state_dict"):
            raise BadInput(f"'{name}' returns {type(made).__name__}, not a torch module", file=path)
        return made
    except BadInput:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's file may raise becomes one line
        raise BadInput(f"{type(error).__name__} while making '{name}': {error}", file=path) from error


def _first_name(path: Path) -> str:
    """The first function that the file defines; the file is not run for it."""
    try:
        defined = [node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    except (OSError, ValueError, SyntaxError):
        defined = []
    return (defined or ["build"])[0]
