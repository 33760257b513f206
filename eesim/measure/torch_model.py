"""Measuring a PyTorch module: end to end, by leaf module through hooks, and by exit where it has `segments` and `heads`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eesim.errors import BadInput, choose
from eesim.measure.energy import find_meter, idle_power, measure_energy
from eesim.measure.machine import pinned, this_machine
from eesim.measure.measuring import _COLUMNS, ROUNDS, Measurement, _extra, _Settings, doubts, layer_row, totals_frame
from eesim.measure.timing import Repeats, clock_of, joined, statistics, summary, timed, warm
from eesim.network.layer import Layer, convolution_kind

BETWEEN = "(between modules)"
"""The row of what runs outside of leaf modules: functions, additions, calls."""
_KINDS = (
    ("Conv", "conv"), ("Linear", "fully_connected"), ("Pool", "pooling"), ("Norm", "normalization"), ("Softmax", "softmax"), ("Attention", "matmul"),
    ("LSTM", "recurrent"), ("GRU", "recurrent"), ("RNN", "recurrent"), ("Flatten", "reshape"), ("Unflatten", "reshape"), ("Embedding", "reshape"),
)  # fmt: skip


def load(place: str) -> tuple[Any, tuple[Any, ...]]:
    """The module and its example inputs, from FILE.py:NAME. Raises BadInput where they are not to be had."""
    text, _, name = (f"{place}:" if place.endswith(".py") else place).rpartition(":")
    path = Path(text)
    if not name:
        raise BadInput(f"name the function in it that returns (module, example_inputs), such as {path}:build", file=path)
    spec = importlib.util.spec_from_file_location(f"eesim_measured_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    try:
        spec.loader.exec_module(loaded)
        if not hasattr(loaded, name):
            raise BadInput(f"defines no '{name}'; {choose(name, [key for key in vars(loaded) if not key.startswith('_')])}", file=path)
        made = getattr(loaded, name)()
    except BadInput:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's file may raise becomes one line
        raise BadInput(f"{type(error).__name__} while making '{name}': {error}", file=path) from error
    if not (isinstance(made, tuple) and len(made) == 2 and hasattr(made[0], "state_dict")):
        raise BadInput(f"'{name}' must return (module, example_inputs), it returns {type(made).__name__}", file=path)
    module, inputs = made
    return module, tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)


def measure_torch(place: str, settings: _Settings) -> Measurement:
    """See `eesim.measure.measure_model`."""
    text = place if place.endswith(".py") else place.rpartition(":")[0]
    if not Path(text).is_file():  # before torch is loaded, which takes seconds
        raise BadInput("no such Python file; give FILE.py:NAME, a function that returns (module, example_inputs)", file=text or place)
    try:
        import torch
    except ImportError:
        raise BadInput("measuring PyTorch modules needs torch; install it with pip install 'eesim[torch]'") from None
    cuda = settings.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise BadInput("PyTorch finds no CUDA device here; measure with --device cpu", field="device")
    module, inputs = load(place)
    modes, threads = [(part, part.training) for part in module.modules()], torch.get_num_threads()
    try:
        with pinned(settings.threads) as cores, torch.inference_mode():
            torch.set_num_threads(settings.threads)
            module = module.eval().to(settings.device)
            inputs = tuple(value.to(settings.device) if hasattr(value, "to") else value for value in inputs)
            return _measure(place, module, inputs, settings, cores, torch)
    finally:
        torch.set_num_threads(threads)
        for part, training in modes:
            part.training = training


def _measure(place: str, module: Any, inputs: tuple, settings: _Settings, cores: list[int], torch: Any) -> Measurement:
    wait = torch.cuda.synchronize if settings.device == "cuda" else _nothing

    def run() -> None:
        module(*inputs)
        wait()

    try:
        run()
    except Exception as error:  # whatever a user's module may raise becomes one line
        raise BadInput(f"the module cannot run on its example inputs: {type(error).__name__}: {error}", file=place) from error
    notes = [] if cores else ["the process could not be kept on one core"]
    ask = clock_of(settings.clock)
    chain = _staged(module, inputs, torch, ask)
    if chain is None:
        notes.append("exit by exit nothing was measured: the module has no `segments` and `heads` that can be called in turn")
    leaves = _Leaves(module, torch, ask, settings.device == "cuda")
    warm(run, settings.warmup)
    rounds: list[Repeats] = []
    chains: list[Repeats] = []
    stamps: list[np.ndarray] = []
    for _ in range(ROUNDS):
        rounds.append(timed(run, **settings.block("whole")))
        with leaves:
            leaves.repeats.append(timed(leaves.once(run), **settings.block("layers")))
        if chain is not None:
            chains.append(timed(lambda: stamps.append(chain(wait)), **settings.block("exits")))
        settings.progress(1)
    total = statistics(rounds)
    timing = [total]
    if chain is not None:
        times = np.array(stamps)  # [n, 1 + 2 E]: start, then the end of each segment and head
        spans = np.diff(times, axis=1)
        through = np.cumsum(spans[:, 0::2], axis=1) + spans[:, 1::2]
        timing += [summary(through[:, exit], counted=joined(chains).counted) for exit in range(through.shape[1])]
    meter = find_meter(settings.device)
    energies = [measure_energy(meter, run, idle_power(meter)), *[None] * (len(timing) - 1)]
    notes += [meter.why_not] if meter.why_not else []
    notes += doubts(total, settings.clock)
    frame, profiling = leaves.frame(place, total)
    accelerator = torch.cuda.get_device_name() if settings.device == "cuda" else None
    kinds = {str(values.dtype).removeprefix("torch.") for values in module.parameters() if values.is_floating_point()}
    data_type = {"float16": "fp16", "bfloat16": "bf16"}.get(next(iter(kinds), ""), "fp32")
    machine, file = this_machine(("torch", "numpy"), accelerator), Path(place.rpartition(":")[0])
    totals = totals_frame(place, timing, energies, [1] * len(timing))
    return Measurement(
        place, file, "torch", settings.device, settings.threads, settings.clock, cores, machine, None, frame, totals, data_type, profiling, notes
    )


def _nothing() -> None:
    """A processor is done when its call returns."""


def _staged(module: Any, inputs: tuple, torch: Any, clock: Callable[[], int]) -> Callable | None:
    """A run through `segments` and `heads` in turn that gives int64 [1 + 2 E] stamps; None where that is not what the module does."""
    segments, heads = (list(getattr(module, name, None) or ()) for name in ("segments", "heads"))
    if not heads or len(segments) != len(heads) or len(inputs) != 1:
        return None

    def chain(wait: Callable, said: list | None = None) -> np.ndarray:
        stamps, x = [clock()], inputs[0]
        for segment, head in zip(segments, heads, strict=True):
            x = segment(x)
            wait()
            stamps.append(clock())
            out = head(x)
            wait()
            stamps.append(clock())
            if said is not None:
                said.append(out)
        return np.array(stamps, np.int64)

    said: list = []
    try:
        chain(_nothing, said)
        whole = module(*inputs)
        whole = whole[0] if isinstance(whole, tuple) and len(whole) == 2 and isinstance(whole[0], (list, tuple)) else whole
        same = len(whole) == len(said) and all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(whole, said, strict=True))
    except Exception:  # a module that is made otherwise
        return None
    return chain if same else None


class _Leaves:
    """Times of the leaf modules, taken by hooks while it is entered: the clock on a processor, events on a graphics processor."""

    def __init__(self, module: Any, torch: Any, clock: Callable[[], int], cuda: bool):
        self._torch, self._clock, self._cuda, self._handles = torch, clock, cuda, []
        self.leaves = {name: part for name, part in module.named_modules() if not next(part.children(), None) and name}
        self.leaves = self.leaves or {type(module).__name__: module}
        self.layers: dict[str, Layer] = {}
        self._open: dict[str, Any] = {}
        self._now: list[tuple[str, Any, Any]] = []
        self.runs: list[dict[str, float]] = []
        self.repeats: list[Repeats] = []

    def __enter__(self) -> _Leaves:
        for name, part in self.leaves.items():
            self._handles.append(part.register_forward_pre_hook(lambda _, __, name=name: self._begin(name)))
            self._handles.append(part.register_forward_hook(lambda part, given, out, name=name: self._end(name, part, given, out)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _stamp(self) -> Any:
        if not self._cuda:
            return self._clock()
        event = self._torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _begin(self, name: str) -> None:
        self._open[name] = self._stamp()

    def _end(self, name: str, part: Any, given: tuple, out: Any) -> None:
        self._now.append((name, self._open.pop(name), self._stamp()))
        if name not in self.layers:
            self.layers[name] = _layer(name, part, given, out)

    def once(self, run: Callable[[], None]) -> Callable[[], None]:
        """A run after which what the hooks saw is summed up."""
        return lambda: (run(), self.collect())[0]

    def collect(self) -> None:
        """Sum up one run."""
        found: dict[str, float] = {}
        for name, begin, end in self._now:
            found[name] = found.get(name, 0.0) + (begin.elapsed_time(end) * 1e6 if self._cuda else end - begin)
        self._now.clear()
        self.runs.append(found)

    def frame(self, place: str, total: Any) -> tuple[pd.DataFrame, dict[str, float]]:
        """The table of leaf modules; where they sum to more than the whole (hooks take time too), they are scaled to it."""
        kept, scales = joined(self.repeats).counted
        values = {name: (np.array([run.get(name, 0.0) for run in self.runs]) * scales)[kept] for name in self.layers}
        middles = {name: summary(each).middle for name, each in values.items()}
        whole = sum(middles.values())
        scale = min(1.0, total.median / whole) if whole else 1.0
        rows = [layer_row(place, layer, "fp32", "", middles[name] * scale, values[name]) for name, layer in self.layers.items()]
        rest = np.array([max(total.median - whole * scale, 0.0)])
        rows.append(_extra(place, BETWEEN, "", float(rest[0]), rest))
        return pd.DataFrame(rows, columns=list(_COLUMNS)), {"profiled_ms": whole / 1e6, "scale": scale}


def _layer(name: str, part: Any, given: tuple, out: Any) -> Layer:
    """A leaf module as a layer."""
    shape = lambda value: tuple(value.shape) if hasattr(value, "shape") else ()  # noqa: E731
    read = [shape(value) for value in given]
    out = out[0] if isinstance(out, (tuple, list)) else out
    written, op = shape(out), type(part).__name__
    params = sum(values.numel() for values in part.parameters())
    kind = next((kind for text, kind in _KINDS if text in op), "elementwise")
    weight = shape(getattr(part, "weight", None))
    macs, kernel, stride, groups = 0, (), (), 1
    if kind == "conv" and weight:
        kernel, groups = tuple(weight[2:]), int(part.groups)
        stride = tuple(part.stride)
        macs = prod(read[0] if "Transpose" in op else written) * prod(weight[1:])
        kind = convolution_kind(kernel, groups, read[0][1])
    elif kind == "fully_connected" and weight:
        macs = prod(written) * weight[-1]
    elif kind == "recurrent":
        matrices = sum(values.numel() for values in part.parameters() if values.dim() > 1)
        macs = prod(read[0][:2]) * matrices
    return Layer(
        name, op, kind, read[0] if read else (), written, macs, params, sum(map(prod, read)), prod(written) if written else 0, kernel, stride, groups
    )
