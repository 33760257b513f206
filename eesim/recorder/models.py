"""Networks to record: an ONNX model with one output per exit, or a torch module that returns one logits tensor per exit."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eesim.errors import BadInput
from eesim.trace.columns import array_of


class OnnxModel:
    """Runs an ONNX model in onnxruntime, one thread and always the same batch size, so that bytes repeat."""

    def __init__(self, path: str | Path, *, outputs: Sequence[str] | None, final_head: str | None, features: bool, batch: int):
        from eesim.network.onnx_files import external_files
        from eesim.network.onnx_import import read_exits

        self.path = Path(path)
        graph, self.outputs, parts = read_exits(self.path, outputs, final_head)
        self.input_names = list(graph.data_inputs)
        self.name, self.exits, self.features = self.path.stem, len(self.outputs), features
        widths = [graph.shapes[name][-1] for name in self.outputs if len(graph.shapes.get(name, ())) == 2]
        self.classes = widths[0] if widths and widths[0] > 1 else None
        self.entries = [_entries(graph, parts, exit) for exit in range(self.exits)] if features else [[] for _ in self.outputs]
        digest = hashlib.sha256(self.path.read_bytes())
        for name in external_files(self.path):
            digest.update((self.path.parent / name).read_bytes())
        self.fingerprint = digest.hexdigest()
        self._session, self.batch = self._open(batch)
        self._types = {value.name: _NUMPY.get(value.type) for value in self._session.get_inputs()}

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
            raise BadInput(f"onnxruntime cannot run this model: {_short(error)}", file=self.path) from None
        fixed = {value.shape[0] for value in session.get_inputs() if value.shape and isinstance(value.shape[0], int)}
        return session, (max(fixed) if fixed else batch)

    def fitted(self, inputs: dict[str, np.ndarray], start: int = 0) -> dict[str, np.ndarray]:
        """The inputs in the types the model wants. Raises BadInput, counting rows from `start`, where that would change a value."""
        return {name: _cast(values, self._types[name], name, start) for name, values in inputs.items()}

    def run(self, inputs: dict[str, np.ndarray], first: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
        """Logits float32 [E, n, K] and per exit the features float32 [n, D_e] (none unless asked for); `first`: place of the first row."""
        n = len(next(iter(inputs.values())))
        inputs = self.fitted(inputs, first)
        fetch = list(dict.fromkeys([*self.outputs, *(tensor for entry in self.entries for tensor in entry if tensor not in inputs)]))
        rows: list[dict[str, np.ndarray]] = []
        for start in range(0, n, self.batch):
            part = {name: values[start : start + self.batch] for name, values in inputs.items()}
            short = self.batch - len(next(iter(part.values())))
            filled = {name: np.concatenate([values, values[-1:].repeat(short, 0)]) if short else values for name, values in part.items()}
            try:
                results = self._session.run(fetch, filled)
            except Exception as error:  # onnxruntime's errors have no common base
                raise BadInput(f"the model cannot run on these inputs: {_short(error)}", file=self.path) from None
            rows.append({**filled, **dict(zip(fetch, results, strict=True))})
        whole = {name: np.concatenate([row[name] for row in rows])[:n] for name in (*fetch, *inputs)}
        logits = stack_logits([whole[name] for name in self.outputs], n, self.path)
        return logits, [np.concatenate([pooled(whole[name]) for name in entry], axis=1) for entry in self.entries if entry]

    def close(self) -> None:
        """Nothing to put back."""


_NUMPY = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(bool)": np.bool_,
          **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64)}}  # fmt: skip


class TorchModel:
    """Runs a torch module in evaluation mode on the CPU. It returns one logits tensor per exit, or (logits, features), each a sequence."""

    def __init__(self, module: Any, *, features: bool, batch: int):
        import torch

        self._torch, self.path, self.module, self.features, self.batch = torch, None, module, features, batch
        self.name, self.input_names, self.exits, self.classes = type(module).__name__, ["inputs"], 0, None
        floats = {values.dtype for values in module.parameters() if values.is_floating_point()}
        self._kind = floats.pop() if len(floats) == 1 else torch.float32
        self.fingerprint = _fingerprint(module)
        self._modes = [(part, part.training) for part in module.modules()]
        module.eval()

    def close(self) -> None:
        """Put the module back into the modes that it was in."""
        for part, training in self._modes:
            part.training = training

    def fitted(self, inputs: dict[str, np.ndarray], start: int = 0) -> dict[str, np.ndarray]:
        """Floats and unsigned numbers as float32, the rest as it is. Raises BadInput where a value does not fit."""
        return {name: _cast(values, np.float32 if values.dtype.kind in "fu" else None, name, start) for name, values in inputs.items()}

    def run(self, inputs: dict[str, np.ndarray], first: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
        """Logits float32 [E, n, K] and per exit the features float32 [n, D_e] (none unless asked for); `first`: place of the first row."""
        n = len(next(iter(inputs.values())))
        arrays = [np.ascontiguousarray(values) for values in self.fitted(inputs, first).values()]
        parts = [self._part([values[start : start + self.batch] for values in arrays]) for start in range(0, n, self.batch)]
        if len({(logits.shape[::2], *(values.shape[1:] for values in features)) for logits, features in parts}) > 1:
            raise BadInput(f"{self.name} answers tensors of other shapes for another batch", field="model")
        logits = np.concatenate([logits for logits, _ in parts], axis=1)
        self.exits = len(logits)
        return logits, [np.concatenate(values) for values in zip(*(features for _, features in parts), strict=True)]

    def _part(self, arrays: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """What the module says about one batch: logits [E, n, K], and features, one array [n, D_e] an exit."""
        torch = self._torch
        tensors = [torch.from_numpy(values) for values in arrays]
        try:
            with torch.no_grad():
                said = self.module(*(tensor.to(self._kind) if tensor.is_floating_point() else tensor for tensor in tensors))
        except Exception as error:  # whatever a user's module may raise becomes one line
            shape = ", ".join(str(list(values.shape)) for values in arrays)
            raise BadInput(f"{self.name} cannot run on inputs of shape {shape}: {type(error).__name__}: {_short(error)}", field="model") from error
        features: Any = []
        if isinstance(said, tuple) and len(said) == 2 and isinstance(said[1], (list, tuple)):
            said, features = said
        said = list(said) if isinstance(said, (list, tuple)) else [said]
        if not said or not all(hasattr(out, "detach") or isinstance(out, np.ndarray) for out in (*said, *features)):
            odd = next((out for out in (*said, *features) if not hasattr(out, "detach")), said)
            raise BadInput(f"{self.name} answers {type(odd).__name__}; it must return a list with one tensor of logits an exit", field="model")
        if self.features and len(features) != len(said):
            raise BadInput(f"features were asked for; the module must return (logits, features) with {len(said)} tensors each", field="features")
        try:
            logits = stack_logits([array_of(out) for out in said], len(arrays[0]), None)
            return logits, [pooled(array_of(out).astype(np.float32)) for out in features] if self.features else []
        except ValueError as error:
            raise BadInput(f"{self.name} answers what is no array of numbers: {_short(error)}", field="model") from None


def _fingerprint(module: Any) -> str:
    """Hash of a module's weights and code: the file that each class of its own comes from, else the bytes of its `forward`."""
    digest = hashlib.sha256(repr(module).encode())
    for name, values in module.state_dict().items():
        try:
            digest.update(f"{name}:".encode() + (array_of(values).tobytes() if hasattr(values, "detach") else b""))
        except ValueError as error:
            raise BadInput(f"'{name}' has no values to run with: {_short(error)}", field="model") from None
    seen: set[object] = set()
    for part in module.modules():
        kind, forward = type(part), vars(part).get("forward")
        if kind.__module__.split(".")[0] != "torch" and kind not in seen:
            seen.add(kind)
            digest.update(_code(kind))
        if forward is not None:  # replaced on the instance
            digest.update(_code(forward))
    return digest.hexdigest()


def _code(thing: Any) -> bytes:
    """The text of the file that a class or function comes from, else of itself, else its compiled code."""
    try:
        return Path(inspect.getsourcefile(thing) or "").read_bytes()
    except (OSError, TypeError):
        pass
    try:
        return inspect.getsource(thing).encode()
    except (OSError, TypeError):
        code = getattr(getattr(thing, "forward", thing), "__code__", None)
        return b"" if code is None else _compiled(code)


def _compiled(code: Any) -> bytes:
    constants = (_compiled(each) if hasattr(each, "co_code") else repr(each).encode() for each in code.co_consts)
    return b";".join([code.co_code, repr(code.co_names).encode(), *constants])


def _cast(values: np.ndarray, kind: type | None, name: str, start: int) -> np.ndarray:
    """The values in a model's type; floats may be rounded, nothing else may change."""
    if kind is None or values.dtype == kind:
        return values
    with np.errstate(all="ignore"):
        cast = values.astype(kind)
        same = np.isfinite(cast) if np.issubdtype(kind, np.floating) else (cast == values) & ((cast < 0) == (values < 0))
    if not same.all():
        place = np.argwhere(~same)[0]
        raise BadInput(
            f"row {start + place[0]}: {values[tuple(place)]:.6g} does not fit {np.dtype(kind)}, which the model takes (the data are {values.dtype})",
            field=name,
        )
    return cast


def _short(error: Exception) -> str:
    """An error's text as one line, not too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}…"


def stack_logits(outputs: list[np.ndarray], n: int, path: Path | None) -> np.ndarray:
    """One array float32 [E, n, K] of the exits' outputs. Raises BadInput where they are not [n, K] of one K."""
    for exit, out in enumerate(outputs):
        if out.ndim != 2 or out.shape != outputs[0].shape or len(out) != n or out.shape[1] < 2:
            raise BadInput(
                f"exit {exit} answers {list(out.shape)} to {n} samples; every exit must answer [samples, classes], alike, with two classes or more",
                file=path,
            )
    with np.errstate(over="ignore"):
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
