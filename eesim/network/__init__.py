"""Multi-exit networks: layers grouped in segments and heads, read from YAML or ONNX."""

from eesim.network.layer import KINDS, Layer
from eesim.network.network import Network, read_network, write_network

__all__ = ["KINDS", "Layer", "Network", "read_network", "write_network"]
