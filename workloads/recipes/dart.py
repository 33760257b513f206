"""The three CNNs of DART (arXiv 2603.12269) on CIFAR-10, at any width: what their recipes share.

Trained at full width they need a GPU; the bundled traces are of a quarter of the channels, and say so in their names. Of the
full network there are the layer table and the graph without weights (`network-full.yaml`, `network-full.onnx`).
"""

import argparse
from dataclasses import replace
from pathlib import Path

from . import cifar10
from .recipe import Recipe, describe, record, train

BUNDLED_WIDTH = 0.25


def name_of(kind, width):
    """`vgg16`, or `vgg16-w0.25` where the width is reduced."""
    return kind if width == 1 else f"{kind}-w{width:g}"


def recipe_of(kind, build, plan, width, folder):
    """The recipe at one width, writing into a folder."""
    return Recipe(
        folder=folder,
        network=name_of(kind, width),
        classes=cifar10.CLASSES,
        source=cifar10.DATASET,
        split_rule=cifar10.SPLIT_RULE,
        inputs={"image": (3, 32, 32)},
        build=lambda: build()(width),
        plan=plan,
        training=cifar10.training,
        dataset=cifar10.dataset,
        input_range=(0.0, 1.0),
        notes={"width": width},
    )


def write_full(kind, build, folder):
    """network-full.onnx (no weights) and network-full.yaml of the network at full width; the same bytes each time."""
    import onnx
    import torch

    from eesim.network import write_network
    from eesim.network.onnx_import import import_onnx

    from .export import to_onnx, weightless

    torch.manual_seed(0)
    model = to_onnx(build()(1.0).eval(), {"image": (3, 32, 32)})
    path = folder / "network-full.onnx"
    onnx.save(weightless(model), str(path))
    write_network(import_onnx(path, name=kind), folder / "network-full.yaml")


def run(kind, build, plans, folder):
    """The command line: train, record, card, network. `build()` imports and returns the function that makes the network; `plans` are
    stages of training, one after the other."""
    parser = argparse.ArgumentParser(description=f"Recipe of the workload {kind}.")
    parser.add_argument("verb", choices=("train", "record", "card", "network"), help="network: write the layer table of the full network")
    parser.add_argument("--width", type=float, default=BUNDLED_WIDTH, help="share of the paper's channels; 1 is the full network")
    parser.add_argument("--folder", type=Path, default=folder, help="where the files are written")
    parser.add_argument("--epochs", type=int, help="one stage of so many instead of the recipe's stages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    plan = plans if options.epochs is None else replace(plans[0], epochs=options.epochs)
    recipe = recipe_of(kind, build, plan, options.width, options.folder)
    if options.verb == "train":
        train(recipe, options.seed, options.threads)
    elif options.verb == "record":
        record(recipe, options.seed)
    elif options.verb == "network":
        write_full(kind, build, options.folder)
        if (options.folder / "network.onnx").is_file():
            describe(recipe)
    else:
        from .card import print_card

        print_card(options.folder)
