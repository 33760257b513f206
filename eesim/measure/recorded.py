"""The raw inputs that a bundled workload was recorded on, from its recipe."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from eesim.errors import BadInput
from eesim.workload import Workload, load_workload


def recorded_inputs(workload: str | Path | Workload, split: str = "test") -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs by name, [N, …], and labels int [N] of a split, rows as in ``workload.view(split)``; labels as recorded.

    The recipe's code runs. Its raw data come from the folder named by EESIM_RAW_DATA (the workload `digits` needs scikit-learn
    instead). Raises BadInput where the workload has no recipe, the recipe does not say what it records, the raw data are missing, or
    they are not what was recorded.
    """
    workload = load_workload(workload)
    if workload.recipe is None or not (workload.folder / workload.recipe).is_file():
        raise BadInput(f"the workload '{workload.name}' has no recipe that could make its inputs", file=workload.folder)
    path, recorded = workload.folder / workload.recipe, workload.view(split).label
    try:
        found = _dataset(_loaded(path), path, split)
    except SystemExit:
        raise BadInput(f"the raw inputs of '{workload.name}' are missing; EESIM_RAW_DATA must name the folder of raw data", file=path) from None
    except ImportError as error:
        raise BadInput(f"making the inputs of '{workload.name}' needs the package {error.name}", file=path) from None
    label = np.asarray(found["label"])
    inputs = {name: np.asarray(found[name]) for name in workload.network.inputs if name in found}
    if len(inputs) != len(workload.network.inputs):
        raise BadInput(f"the recipe makes {', '.join(found)}, the network takes {', '.join(workload.network.inputs)}", file=path)
    if not np.array_equal(label, recorded):
        raise BadInput(f"its {len(label)} {split} samples are not the {len(recorded)} that were recorded, or not in their order", file=path)
    return inputs, label


def _loaded(path: Path) -> ModuleType:
    """The recipe as a module. Beside it lies the package `recipes`, which it finds by itself."""
    name = f"eesim_recipe_{path.parent.name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def _dataset(module: ModuleType, path: Path, split: str) -> dict[str, np.ndarray]:
    """What a recipe records of a split. Recipes say it in one of three ways."""
    if hasattr(module, "RECIPE"):
        whole = module.RECIPE.dataset()
        rows = np.asarray(whole.get("split", np.full(len(whole["label"]), "test"))) == split
        return {name: np.asarray(values)[rows] for name, values in whole.items()}
    module = getattr(module, "TWIN", module)  # a recipe that shares the data of another
    if hasattr(module, "prepare") and hasattr(module, "open_raw"):
        records = module.TEST if split == "test" else module.CALIBRATION
        signal, rr, label, *_ = module.prepare(module.open_raw(), records)
        return {"signal": signal, "rr": rr, "label": label}
    if hasattr(module, "load") and hasattr(module, "TRAINING"):
        images, labels = (part[module.TRAINING :] for part in module.load())
        rows = slice(module.CALIBRATION, None) if split == "test" else slice(module.CALIBRATION)
        return {"image": images[rows], "label": labels[rows]}
    raise BadInput("the recipe does not say in a known way what it records (RECIPE.dataset())", file=path)
