"""A workload: a network, its exit trace and its default arrivals, kept together in one folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from eesim.arrivals import Recording, parse_arrivals
from eesim.bundled import arrival_names, find_workload, workload_names
from eesim.errors import BadInput
from eesim.network.network import Network, read_network
from eesim.schema import Strict, read_yaml, stamp, validate
from eesim.trace.features import read_features
from eesim.trace.parquet import read_trace
from eesim.trace.trace import ExitTrace
from eesim.trace.view import TraceView
from eesim.units import integers


class _WorkloadSchema(Strict):
    schema_version: int
    name: str
    title: str
    network: str = "network.yaml"
    onnx: str | None = "network.onnx"
    trace: str = "trace.parquet"
    without_trace: str | None = None
    features: str = "features.parquet"
    card: str = "README.md"
    recipe: str | None = None
    arrivals: str


@dataclass(frozen=True, eq=False)
class Workload:
    """Read one with `load_workload`. Views of its splits are computed once and kept."""

    name: str
    title: str
    folder: Path
    network: Network
    recorded: ExitTrace | None
    """The exit trace, where there is one; whoever needs it asks for `trace`."""
    arrivals: str
    card: str = "README.md"
    recipe: str | None = None
    features_file: str = "features.parquet"
    memo: dict = field(default_factory=dict, repr=False, compare=False)
    """Whatever was computed from this workload once and may be wanted again."""
    without_trace: str | None = None
    """Why the workload ships without a trace, and what makes one."""

    @property
    def trace(self) -> ExitTrace:
        """The exit trace. Raises BadInput that says what makes one where the workload ships without."""
        if self.recorded is None:
            raise BadInput(f"the workload '{self.name}' ships without a trace: {self.without_trace}", file=self.folder)
        return self.recorded

    def view(self, split: str = "test", exits: tuple[int, ...] | None = None) -> TraceView:
        """One split as mechanisms see it, restricted to the enabled exits. Raises BadInput when the split is empty."""
        if ("view", split) not in self.memo:
            self.memo["view", split] = TraceView(self.trace, split, sibling=self.view, features=self.features)
        view = self.memo["view", split]
        return view if exits is None else view.restricted(exits)

    def features(self, split: str = "test", exits: tuple[int, ...] | None = None) -> list[np.ndarray]:
        """Pooled features of each enabled exit, float16 [N, D_e], rows as in `view(split)`; read from disk when first asked for.

        Raises BadInput when the workload has none, or when they are not of its trace.
        """
        if "features" not in self.memo:
            exits_recorded, path = self.trace.exits, self.folder / self.features_file
            if not path.is_file():
                raise BadInput(f"the workload '{self.name}' was recorded without features; record them with --features", file=path)
            read = read_features(path)
            if len(read.values) != exits_recorded:
                raise BadInput(f"features of {len(read.values)} exits, the trace has {exits_recorded}", file=path)
            if read.header.get("trace", self.trace.content_hash) != self.trace.content_hash:
                raise BadInput("was recorded with another trace than the one beside it; record both again", file=path, field="trace")
            self.memo["features"] = read
        if ("features", split) not in self.memo:
            self.memo["features", split] = self.memo["features"].rows(self.view(split).sample_id)
        rows = self.memo["features", split]
        return rows if exits is None else [rows[exit] for exit in exits]

    def enabled(self, exits: object = None) -> tuple[int, ...]:
        """Enabled exits in order, the final one always among them; all without an argument. Raises BadInput for unknown ones."""
        last = self.network.exits - 1
        if exits is None:
            return tuple(range(last + 1))
        listed = integers(exits, "exits") if isinstance(exits, str) else list(exits) if isinstance(exits, Iterable) else [exits]
        for exit in listed:
            if isinstance(exit, bool) or not isinstance(exit, (int, np.integer)) or not 0 <= exit <= last:
                raise BadInput(f"exit {exit!r} does not exist; '{self.name}' has exits 0 to {last}, written as a list: [0, {last}]", field="exits")
        return tuple(sorted({int(exit) for exit in listed} | {last}))

    def recording(self, split: str = "test") -> Recording:
        """The trace's own timing, stream after stream."""
        view = self.view(split)
        order = view.streams[0].argsort(kind="stable")
        return Recording(view.time_ns[order], view.streams[0][order])

    def __repr__(self) -> str:
        return f"Workload({self.name!r})"


def bundled_workloads() -> tuple[list[str], list[str]]:
    """Names of the bundled workloads: those with a trace, and those that ship without one and can only be priced."""
    names = workload_names()
    recorded = [name for name in names if load_workload(name).recorded is not None]
    return recorded, [name for name in names if name not in recorded]


def load_workload(name: str | Path | Workload) -> Workload:
    """A workload by bundled name or by the path of its folder; while its files stay as they are, the same object each time.

    The trace may be missing where workload.yaml says why (`without_trace`); `Workload.trace` then raises.

    Raises BadInput naming file, field and value when something in it is wrong, or when network and trace do not match.
    """
    if isinstance(name, Workload):
        return name
    folder = find_workload(name)
    return _read(folder, tuple((path.name, *stamp(path)) for path in sorted(folder.glob("*.*"))))


@lru_cache(maxsize=16)
def _read(folder: Path, stamps: tuple) -> Workload:
    """The workload in a folder. `stamps` are there for the cache: scores are worked out once."""
    path = folder / "workload.yaml"
    data = validate(_WorkloadSchema, read_yaml(path), path)
    if data.schema_version != 1:
        raise BadInput(f"version {data.schema_version} is not known; this eesim reads version 1", file=path, field="schema_version")
    network = read_network(folder / data.network)
    trace = _matching(network, folder / data.trace) if data.without_trace is None or (folder / data.trace).is_file() else None
    arrivals = data.arrivals
    if arrivals.startswith("file:") and arrivals.removeprefix("file:") not in ("", *arrival_names()):
        arrivals = f"file:{folder / arrivals.removeprefix('file:')}"
    workload = Workload(
        data.name, data.title, folder, network, trace, arrivals, data.card, data.recipe, data.features, without_trace=data.without_trace
    )  # fmt: skip
    try:
        parse_arrivals(arrivals, workload.recording() if trace is not None else None)
    except BadInput as error:
        raise error if error.file else BadInput(error.problem, file=path, field="arrivals") from None
    return workload


def _matching(network: Network, path: Path) -> ExitTrace:
    """The trace in a file. Raises BadInput where it is not one of this network."""
    trace = read_trace(path)
    if network.exits != trace.exits:
        raise BadInput(f"the network has {network.exits} exits, the trace {trace.exits}", file=path, field="exits")
    if network.classes is not None and network.classes != trace.classes:
        raise BadInput(f"the network has {network.classes} classes, the trace {trace.classes}", file=path, field="classes")
    return trace
