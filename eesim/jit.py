"""Compiled kernels that are specialised on a small function, and still cached on disk.

Numba inlines a plain function captured by a kernel's closure, and keys its disk cache by the closure's contents. Such a
function is pickled by name, so an edit to it would go unnoticed: the `fingerprint` of its code, captured beside it,
makes the key change with the code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType
from typing import Any


def fingerprint(function: Callable) -> int:
    """A number that changes when the function, a function it calls, or a constant it uses changes."""
    digest = hashlib.sha256()
    _digest_function(function, digest, set())
    return int.from_bytes(digest.digest()[:7], "little") + 1


def jittable(function: Callable) -> Callable:
    """`function` in a form that compiled kernels can call and inline."""
    from numba.extending import register_jitable

    return register_jitable(forceinline=True)(getattr(function, "py_func", function))


def _digest_function(function: Any, digest: Any, seen: set[int]) -> None:
    function = getattr(function, "py_func", function)
    if id(function) in seen:
        return
    seen.add(id(function))
    if not isinstance(function, FunctionType):
        digest.update(repr(function).encode())
        return
    names = _digest_code(function.__code__, digest)
    digest.update(repr(function.__defaults__).encode())
    scope = function.__globals__ | dict(zip(function.__code__.co_freevars, (cell.cell_contents for cell in function.__closure__ or ()), strict=True))
    for name in names:
        value = scope.get(name)
        if isinstance(value, FunctionType) or hasattr(value, "py_func"):
            _digest_function(value, digest, seen)
        elif not isinstance(value, (ModuleType, type(None), type)) and not callable(value):
            digest.update(f"{name}={value!r}".encode())


def _digest_code(code: CodeType, digest: Any) -> list[str]:
    digest.update(code.co_code)
    names = [*code.co_names, *code.co_freevars]
    digest.update(repr(names).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += _digest_code(constant, digest)
        else:
            digest.update(repr(constant).encode())
    return names
