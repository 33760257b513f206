"""Cost models: how a profile's coefficients turn a layer into time and energy.

One file per model, named as in the profile's `cost_model.model`. Each defines

- ``Parameters``: the pydantic schema of the profile's `cost_model` section. Among its fields are `model` and `data_types`, which
  maps each data type to layer kinds and their rates (None: no cost is known); a model in clock cycles has a `time_unit`,
- ``price(layer, data_type, parameters, point) -> LayerCost`` for one layer, whatever stands around it.

A new model is one new file here.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Cost of one layer: nanoseconds, nanojoules (None where the profile cannot give them), and what limits it."""

    ns: float
    nj: float | None
    bound: str
    """'compute', 'memory' or 'overhead': the largest of the three terms."""


def model_names() -> list[str]:
    """Names of the cost models that exist."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_model(name: str) -> ModuleType:
    """The module of one cost model."""
    return importlib.import_module(f"{__name__}.{name}")
