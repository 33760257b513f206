"""Recipe of the workload cifar10-resnet8: CIFAR-10 -> network.onnx -> trace.parquet -> tables of the card.

    EESIM_RAW_DATA=DIR python recipe.py train  [--seed 0]      # needs torch
    EESIM_RAW_DATA=DIR python recipe.py record [--seed 0]      # needs onnxruntime
    python recipe.py card

DIR holds datasets/cifar10/cifar10_jpeg.zip with train/<class>/NNNN.jpg and test/<class>/NNNN.jpg.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes import cifar10
from recipes.recipe import Recipe, run
from recipes.training import Plan


def build():
    from recipes.networks import resnet8

    return resnet8()


RECIPE = Recipe(
    folder=Path(__file__).resolve().parent,
    network="resnet8",
    classes=cifar10.CLASSES,
    source=cifar10.DATASET,
    split_rule=cifar10.SPLIT_RULE,
    inputs={"image": (3, 32, 32)},
    build=build,
    plan=(
        Plan(epochs=24, weights=(0.3, 0.3, 0.6, 1.0), peak=0.1, decay=2e-4),
        Plan(epochs=16, weights=(0.1, 0.1, 0.3, 1.0), peak=0.05, decay=1e-4),  # again, for the deeper exits above all
    ),
    training=cifar10.training,
    dataset=cifar10.dataset,
    input_range=(0.0, 1.0),
)

if __name__ == "__main__":
    run(RECIPE)
