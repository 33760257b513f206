"""A network from any kind of file that can hold one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eesim.errors import BadInput
from eesim.network.network import Network, read_network

NETWORK_SUFFIXES = (".onnx", ".tflite", ".yaml", ".yml")


def load_network(path: str | Path, passes: Sequence[str] = ()) -> Network:
    """The network in an ONNX, TensorFlow Lite or YAML file. Raises BadInput for anything else, and for what the file does wrong.

    Outputs that make no exits (boxes and scores, a state) become one network with one exit, and a warning.

    passes : what the runtime does to an ONNX graph first, a profile's `graph_passes`; the other formats are taken as they are.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput("no such model", file=path)
    if path.suffix == ".onnx":
        from eesim.network.onnx_import import import_onnx

        return import_onnx(path, passes=passes, whole=True)
    if path.suffix == ".tflite":
        from eesim.network.tflite_import import import_tflite

        return import_tflite(path, whole=True)
    if path.suffix in (".yaml", ".yml"):
        return read_network(path)
    raise BadInput(f"'{path.suffix}' is not a known kind of model; choose one of {', '.join(NETWORK_SUFFIXES)}", file=path)
