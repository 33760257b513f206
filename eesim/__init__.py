"""eesim: a hardware simulator and design-space explorer for early-exit neural networks.

    import eesim
    result = eesim.simulate("ecg-mitbih", "stm32l4r5-xcubeai", "max-softmax", {"threshold": 0.8}, arrivals="poisson:5/s")
    result.summary()        # accuracy, latency, energy, queueing
    result.requests         # one row per request

Everything is loaded when it is first used, so that `import eesim` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "BadInput": "eesim.errors",
    "EesimError": "eesim.errors",
    "Mechanism": "eesim.mechanisms",
    "Parameter": "eesim.mechanisms",
    "Result": "eesim.result",
    "compare": "eesim.explore.compare",
    "load_mechanism": "eesim.mechanisms",
    "load_profile": "eesim.hardware",
    "load_workload": "eesim.workload",
    "mechanism_names": "eesim.mechanisms",
    "plan": "eesim.explore.plan",
    "profile_names": "eesim.bundled",
    "simulate": "eesim.simulation",
    "sweep": "eesim.explore.sweep",
    "tune": "eesim.tuning",
    "workload_names": "eesim.bundled",
}
_MODULES = ("plot", "trace")

__all__ = ["__version__", *_WHERE, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = value  # a submodule of the same name must not take its place
        return value
    if name in _MODULES:
        return importlib.import_module(f"eesim.{name}")
    raise AttributeError(f"module 'eesim' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
