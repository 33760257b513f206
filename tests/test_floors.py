"""The shape of the house: imports go down only, kernels never relax floating point, what is public says what it does."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "eesim"
FLOORS = [
    {"errors"},
    {"units", "jit", "bundled", "schema", "seeds", "files", "measures"},
    {"network", "hardware", "trace", "arrivals"},
    {"workload", "mechanisms", "recorder"},
    {"cost"},
    {"support"},
    {"engine"},
    {"result"},
    {"tuning"},
    {"simulation"},
    {"explore", "measure"},
    {"fidelity"},
    {"plot", "report", "bench"},
    {"cli"},
]
"""From the ground up. A module may import from its own floor's room and from lower floors."""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        if "_data" not in path.parts:
            yield path, ast.parse(path.read_text())


def room(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "eesim" and len(parts) > 1 else None


def floor(name: str) -> int:
    return next(index for index, rooms in enumerate(FLOORS) if name in rooms)


def imported(tree):
    """Modules named in imports, those under TYPE_CHECKING left out."""
    hidden = {
        inner for node in ast.walk(tree) if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING" for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node not in hidden and isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif node not in hidden and isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_go_down_only():
    seen = 0
    for path, tree in modules():
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        for name in imported(tree):
            other = room(name)
            if other and other != own:
                seen += 1
                assert floor(other) < floor(own) or {own, other} <= {"hardware", "network"}, f"{path.name} in '{own}' imports '{name}' from above"
    assert seen > 100


def test_the_nouns_know_nothing_of_each_other_but_layers():
    for path, tree in modules():
        own = path.relative_to(PACKAGE).parts[0]
        if own in ("network", "trace", "arrivals"):
            assert not {room(name) for name in imported(tree)} & ({"hardware", "network", "trace", "arrivals"} - {own}), path
        if own == "hardware":
            assert {name for name in imported(tree) if room(name) in ("trace", "arrivals")} == set(), path
            assert all(name == "eesim.network.layer" for name in imported(tree) if room(name) == "network"), path


def test_modules_of_the_engine_do_not_import_in_circles():
    graph = {}
    for path, tree in modules():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {other for other in imported(tree) if other.startswith("eesim.")}

    def reach(start, goal, path):
        for other in graph.get(start, ()):
            if other == goal:
                return [*path, other]
            if other not in path and (found := reach(other, goal, [*path, other])):
                return found
        return None

    circles = [reach(name, name, [name]) for name in graph if name.startswith("eesim.engine")]
    assert not any(circles), next(circle for circle in circles if circle)


def test_compiled_functions_never_relax_floating_point():
    for path, _ in modules():
        assert "fastmath" not in path.read_text(), path


def test_everything_public_has_a_docstring():
    missing = []
    for path, tree in modules():
        if not ast.get_docstring(tree):
            missing.append(str(path))
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    missing.append(f"{path}:{node.name}")
                for inner in getattr(node, "body", []):
                    public = isinstance(node, ast.ClassDef) and isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_")
                    if public and not ast.get_docstring(inner) and path.parts[-2] != "cli":
                        missing.append(f"{path}:{node.name}.{inner.name}")
    assert not missing, missing
