"""Networks to record: an ONNX model with one output per exit, or a torch module that returns one logits tensor per exit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput


class OnnxModel:
    """Runs an ONNX model in onnxruntime, one thread and always the same batch size, so that bytes repeat."""

    def __init__(self, path: str | Path, *, outputs: Sequence[str] | None, final_head: str | None, features: bool, batch: int):
        from eesim.network.onnx_import import read_exits

        self.path = Path(path)
        graph, self.outputs, parts = read_exits(self.path, outputs, final_head)
        self.input_names = list(graph.data_inputs)
        self.input_types = {name: graph.types.get(name) for name in self.input_names}
        self.name, self.exits, self.features = self.path.stem, len(self.outputs), features
        self.entries = [_entries(graph, parts, exit) for exit in range(self.exits)] if features else [[] for _ in self.outputs]
        self.fingerprint = hashlib.sha256(self.path.read_bytes()).hexdigest()
        self._session, self.batch = self._open(batch)

    def _open(self, batch: int):
        import onnx

        try:
            import onnxruntime
        except ImportError:
            raise BadInput("recording from ONNX needs onnxruntime; install it with pip install 'eesim[record]'", file=self.path) from None
        model = onnx.load(str(self.path))
        missing = [value.name for value in model.graph.input if value.name not in self.input_names]
        valueless = set(missing) - {tensor.name for tensor in model.graph.initializer}
        if valueless:
            raise BadInput(
                f"the model ships without weights ('{sorted(valueless)[0]}' has no value), so it cannot be run; its recipe trains them",
                file=self.path,
            )
        present = {value.name for value in model.graph.output}
        for tensor in dict.fromkeys(name for entry in self.entries for name in entry if name not in self.input_names):
            if tensor not in present:
                model.graph.output.append(onnx.ValueInfoProto(name=tensor))
                present.add(tensor)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base
            raise BadInput(f"onnxruntime cannot run this model: {str(error).splitlines()[0][:160]}", file=self.path) from None
        fixed = {value.shape[0] for value in session.get_inputs() if value.shape and isinstance(value.shape[0], int)}
        return session, (max(fixed) if fixed else batch)

    def run(self, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Logits float32 [E, n, K] and per exit the features float32 [n, D_e] (none unless asked for)."""
        n = len(next(iter(inputs.values())))
        wanted = {value.name: value.type for value in self._session.get_inputs()}
        inputs = {name: values.astype(_NUMPY.get(wanted[name], values.dtype), copy=False) for name, values in inputs.items()}
        fetch = list(dict.fromkeys([*self.outputs, *(tensor for entry in self.entries for tensor in entry if tensor not in inputs)]))
        rows: list[dict[str, np.ndarray]] = []
        for start in range(0, n, self.batch):
            part = {name: values[start : start + self.batch] for name, values in inputs.items()}
            short = self.batch - len(next(iter(part.values())))
            filled = {name: np.concatenate([values, values[-1:].repeat(short, 0)]) if short else values for name, values in part.items()}
            try:
                results = self._session.run(fetch, filled)
            except Exception as error:  # onnxruntime's errors have no common base
                raise BadInput(f"the model cannot run on these inputs: {str(error).splitlines()[0][:160]}", file=self.path) from None
            rows.append({**filled, **dict(zip(fetch, results, strict=True))})
        whole = {name: np.concatenate([row[name] for row in rows])[:n] for name in (*fetch, *inputs)}
        logits = stack_logits([whole[name] for name in self.outputs], self.path)
        return logits, [np.concatenate([pooled(whole[name]) for name in entry], axis=1) for entry in self.entries if entry]


_NUMPY = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64,
          "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}  # fmt: skip


class TorchModel:
    """Runs a torch module in evaluation mode on the CPU. It returns one logits tensor per exit, or (logits, features), each a sequence."""

    def __init__(self, module: Any, *, features: bool, batch: int):
        import torch

        self.path, self.module, self.features, self.batch = None, module.eval(), features, batch
        self.name, self.input_names = type(module).__name__, ["inputs"]
        digest = hashlib.sha256(repr(module).encode())
        for name, values in module.state_dict().items():
            digest.update(name.encode() + values.detach().cpu().contiguous().numpy().tobytes())
        self.fingerprint, self._torch, self.exits = digest.hexdigest(), torch, 0

    def run(self, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Logits float32 [E, n, K] and per exit the features float32 [n, D_e] (none unless asked for)."""
        torch = self._torch
        arrays = [np.ascontiguousarray(values) for values in inputs.values()]
        with torch.no_grad():
            said = self.module(*(torch.from_numpy(values.astype(np.float32) if values.dtype.kind in "fu" else values) for values in arrays))
        features: list[Any] = []
        if isinstance(said, tuple) and len(said) == 2 and isinstance(said[0], (list, tuple)):
            said, features = said
        if torch.is_tensor(said):
            said = [said]
        if self.features and len(features) != len(said):
            raise BadInput(f"features were asked for; the module must return (logits, features) with {len(said)} tensors each", field="features")
        self.exits = len(said)
        logits = stack_logits([out.detach().cpu().float().numpy() for out in said], None)
        return logits, [pooled(out.detach().cpu().float().numpy()) for out in features] if self.features else []


def stack_logits(outputs: list[np.ndarray], path: Path | None) -> np.ndarray:
    """One array float32 [E, n, K] of the exits' outputs. Raises BadInput where they are not [n, K] of one K."""
    for exit, out in enumerate(outputs):
        if out.ndim != 2 or out.shape != outputs[0].shape or out.shape[1] < 2:
            raise BadInput(
                f"exit {exit} answers {list(out.shape)}; every exit must answer [samples, classes], alike, with two classes or more", file=path
            )
    return np.stack(outputs).astype(np.float32)


def pooled(tensor: np.ndarray) -> np.ndarray:
    """[n, D]: the mean over positions of [n, D, …]. Tokens [n, T, D] cannot be told from [n, D, L]: have the network return their mean."""
    return tensor.reshape(*tensor.shape[:2], -1).mean(axis=2) if tensor.ndim > 2 else tensor.reshape(len(tensor), -1)


def _entries(graph, parts: dict[int, tuple[int, bool]], exit: int) -> list[str]:
    """Tensors that enter head `exit` from the backbone or from the model's inputs, in order of use."""
    head = {node for node, place in parts.items() if place == (exit, True)}
    inside = {output for node in head for output in graph.nodes[node].output}
    used = (tensor for node in sorted(head) for tensor in graph.data(graph.nodes[node]) if tensor not in inside)
    return list(dict.fromkeys(used))
