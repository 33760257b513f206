"""A network from any kind of file that can hold one."""

from __future__ import annotations

from pathlib import Path

from eesim.errors import BadInput
from eesim.network.network import Network, read_network

NETWORK_SUFFIXES = (".onnx", ".tflite", ".yaml", ".yml")


def load_network(path: str | Path) -> Network:
    """The network in an ONNX, TensorFlow Lite or YAML file. Raises BadInput for anything else, and for what the file does wrong."""
    path = Path(path)
    if not path.is_file():
        raise BadInput("no such model", file=path)
    if path.suffix == ".onnx":
        from eesim.network.onnx_import import import_onnx

        return import_onnx(path)
    if path.suffix == ".tflite":
        from eesim.network.tflite_import import import_tflite

        return import_tflite(path)
    if path.suffix in (".yaml", ".yml"):
        return read_network(path)
    raise BadInput(f"'{path.suffix}' is not a known kind of model; choose one of {', '.join(NETWORK_SUFFIXES)}", file=path)
