"""Small networks, traces, profiles and workloads made up for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from eesim.network import KINDS, Layer, Network, write_network
from eesim.trace import ExitTrace, TraceHeader, TraceView, write_trace
from eesim.trace.features import Features, write_features
from eesim.workload import Workload, load_workload


def layer(name: str, kind: str = "conv", macs: int = 1000, elements: int = 100, params: int = 50, inputs: tuple[str, ...] = ()) -> Layer:
    return Layer(name, "Conv", kind, (1, elements), (1, elements), macs, params, elements, elements, inputs=inputs)


def network(exits: int = 4, macs: list[int] | None = None, classes: int = 4) -> Network:
    """Segments of growing work, heads of 100 MACs."""
    macs = macs or [10_000 * (index + 1) for index in range(exits)]
    segments, heads, before = [], [], "input"
    for index in range(exits):
        segments.append((layer(f"segment{index}", macs=macs[index], inputs=(before,)),))
        before = f"segment{index}"
        heads.append((layer(f"head{index}", "fully_connected", 100, classes, inputs=(before,)),))
    return Network("made-up", {"input": (1, 100)}, tuple(segments), tuple(heads), "fp32", classes)


def trace(
    samples: int = 600,
    exits: int = 4,
    classes: int = 4,
    seed: int = 0,
    streams: int = 3,
    calibration: int = 200,
    unlabelled: int = 0,
    gap_ns: int = 10**7,
) -> ExitTrace:
    """Exits that see the same noisy evidence with less and less noise; the first `calibration` rows are the calibration split."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, samples).astype(np.int32)
    truth = np.eye(classes)[label]
    logits = np.stack([truth * (1 + exit) + rng.normal(size=(samples, classes)) for exit in range(exits)]).astype(np.float16)
    if unlabelled:
        label[rng.choice(samples, unlabelled, replace=False)] = -1
    split = np.where(np.arange(samples) < calibration, "calibration", "test")
    stream = np.zeros(samples, np.int32)
    time = np.zeros(samples, np.int64)
    for part in ("calibration", "test"):
        rows = np.flatnonzero(split == part)
        for number, chunk in enumerate(np.array_split(rows, streams)):
            stream[chunk] = number + (0 if part == "calibration" else 100)
            time[chunk] = np.cumsum(rng.integers(gap_ns // 2, 2 * gap_ns, chunk.size))
    header = TraceHeader("made-up", exits, [f"class{index}" for index in range(classes)], training_mode="joint", seed=seed)
    other = np.random.default_rng([seed, 1])
    difficulty = {name: other.random(samples).astype(np.float32) for name in ("edge", "variance", "gradient", "sobel_mean")}
    return ExitTrace(header, np.arange(samples, dtype=np.int64), stream, time, split, label, logits, difficulty)


def features(made: ExitTrace, size: int = 6) -> list[np.ndarray]:
    """Features that tell as much as the logits do, mixed up: [N, size] for each exit."""
    rng = np.random.default_rng(7)
    return [(logits.astype(float) @ rng.normal(size=(made.classes, size))).astype(np.float16) for logits in made.logits]


def view(split: str = "test", **options) -> TraceView:
    """A view of a made-up trace with features beside it."""
    made = trace(**options)
    views: dict[str, TraceView] = {}

    def sibling(name: str) -> TraceView:
        if name not in views:
            views[name] = TraceView(made, name, sibling=sibling, features=lambda part: [item[made.split == part] for item in features(made)])
        return views[name]

    return sibling(split)


def profile_data(name: str = "made-up-device", **changes) -> dict:
    """A complete profile of a made-up microcontroller: 100 MHz, one cycle a MAC."""
    data = {
        "schema_version": 1, "name": name, "title": "a made-up device", "vendor": "nobody", "board": "none", "core": "none", "runtime": "none",
        "device_class": "mcu", "data_type": "int8", "memory": {"flash_kib": 1024, "sram_kib": 256},
        "default_operating_point": "fast",
        "operating_points": {
            "fast": {"clock_mhz": 100, "supply_v": 3.0, "active_mw": {"default": 50.0}, "idle_mw": 5.0},
            "slow": {"clock_mhz": 50, "supply_v": 1.8, "active_mw": {"default": 20.0}, "idle_mw": 2.0},
        },
        "energy_scope": {"rail": "board", "idle": "included"},
        "cost_model": {
            "model": "linear", "time_unit": "cycles",
            "data_types": {"int8": {kind: {"per_mac": 1.0, "per_byte": 0.1, "per_call": 50.0} for kind in KINDS}},
        },
        "decision": {"cycles": 20},
        "sources": [{"covers": ["*"], "kind": "assumed", "origin": "made up for tests"}],
    }  # fmt: skip
    return {**data, **changes}


def write_profile(folder: Path, data: dict | None = None) -> Path:
    data = data or profile_data()
    path = folder / f"{data['name']}.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def write_workload(folder: Path, made: ExitTrace | None = None, net: Network | None = None, arrivals: str = "poisson:200/s") -> Path:
    made = made or trace()
    folder.mkdir(parents=True, exist_ok=True)
    write_trace(made, folder / "trace.parquet")
    write_features(Features(made.sample_id, features(made)), folder / "features.parquet")
    write_network(net or network(made.exits, classes=made.classes), folder / "network.yaml")
    head = {"schema_version": 1, "name": folder.name, "title": "made up", "network": "network.yaml", "onnx": None, "arrivals": arrivals}
    (folder / "workload.yaml").write_text(yaml.safe_dump(head))
    return folder


def workload(folder: Path, **options) -> Workload:
    return load_workload(write_workload(folder, trace(**options)))
