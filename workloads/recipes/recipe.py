"""A recipe as three verbs: train (raw data -> network.onnx), record (-> trace.parquet, features.parquet), card (-> tables)."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Recipe:
    """What a workload's own `recipe.py` has to say.

    build()       the untrained network, a module with `segments` and `heads` (recipes.networks.MultiExit)
    training()    (samples, draw): rows of an epoch and draw(rows, rng) -> (input arrays, labels, weights or None)
    plan          how to train; several are stages, one after the other
    dataset()     mapping for eesim.trace.record: inputs, label, split, and stream_id and time_ns where there is an order
    """

    folder: Path
    network: str
    classes: tuple[str, ...]
    source: dict[str, str]
    split_rule: str
    inputs: dict[str, tuple[int, ...]]
    build: Callable[[], Any]
    plan: Any
    training: Callable[[], Any]
    dataset: Callable[[], dict[str, np.ndarray]]
    training_mode: str = "joint"
    input_range: tuple[float, float] | None = None
    frozen: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


def run(recipe):
    """The command line of a recipe."""
    parser = argparse.ArgumentParser(description=f"Recipe of the workload {recipe.folder.name}.")
    parser.add_argument("verb", choices=("train", "record", "card"), help="train and export; record the trace; print the card's tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    if options.verb == "train":
        train(recipe, options.seed, options.threads)
    elif options.verb == "record":
        record(recipe, options.seed)
    else:
        from .card import print_card

        print_card(recipe.folder)


def train(recipe, seed=0, threads=1):
    """Train, export to network.onnx and write network.yaml. An interrupted training goes on where it stopped."""
    import torch

    from .export import export
    from .training import train as learn

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    network = recipe.build()
    samples, draw = recipe.training()
    plans = recipe.plan if isinstance(recipe.plan, tuple) else (recipe.plan,)
    states = [recipe.folder / f"training{stage or ''}.pt" for stage in range(len(plans))]
    for stage, (plan, state) in enumerate(zip(plans, states)):
        learn(network, plan, samples, draw, seed + stage, state, recipe.frozen)
    export(network, recipe.folder / "network.onnx", recipe.inputs)
    describe(recipe)
    for state in states:
        state.unlink()


def describe(recipe):
    """network.yaml from network.onnx."""
    from eesim.network import write_network
    from eesim.network.onnx_import import import_onnx

    write_network(import_onnx(recipe.folder / "network.onnx", name=recipe.network), recipe.folder / "network.yaml")


def record(recipe, seed=0):
    """Run network.onnx over the calibration and test splits and write trace.parquet and features.parquet."""
    from eesim.trace import record as record_trace

    trace = record_trace(
        recipe.folder / "network.onnx",
        recipe.dataset(),
        recipe.folder / "trace.parquet",
        network=recipe.network,
        classes=recipe.classes,
        features=True,
        input_range=recipe.input_range,
        source=recipe.source,
        split_rule=recipe.split_rule,
        training_mode=recipe.training_mode,
        recipe="recipe.py",
        seed=seed,
        progress=lambda done, total: print(f"\r{done}/{total}", end="", file=sys.stderr, flush=True),
    )
    right = [(trace.logits[exit].argmax(axis=1) == trace.label)[trace.split == "test"].mean() for exit in range(trace.exits)]
    print(f"\nwrote trace.parquet; test accuracy per exit {' '.join(f'{value:.4f}' for value in right)}", file=sys.stderr)
