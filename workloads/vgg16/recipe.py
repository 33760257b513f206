"""Recipe of the workload vgg16: CIFAR-10 -> network.onnx -> trace.parquet -> tables of the card.

    EESIM_RAW_DATA=DIR python recipe.py train                            # a quarter of the channels, needs torch
    EESIM_RAW_DATA=DIR python recipe.py record
    python recipe.py card
    python recipe.py network                                             # layer table of the full network
    EESIM_RAW_DATA=DIR python recipe.py train --width 1 --epochs 100 --folder FULL    # the full network; bring a GPU
    EESIM_RAW_DATA=DIR python recipe.py record --width 1 --folder FULL

DIR holds datasets/cifar10/cifar10_jpeg.zip with train/<class>/NNNN.jpg and test/<class>/NNNN.jpg.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes import dart
from recipes.training import Plan

PLANS = (
    Plan(epochs=18, weights=(0.2, 0.4, 0.6, 0.8, 0.9, 1.0), peak=0.05),
    Plan(epochs=28, weights=(0.2, 0.4, 0.6, 0.8, 0.9, 1.0), peak=0.05),
    Plan(epochs=12, weights=(0.1, 0.2, 0.3, 0.6, 0.8, 1.0), peak=0.04),  # for the deeper exits above all
)


def build():
    from recipes.networks import vgg16

    return vgg16


if __name__ == "__main__":
    dart.run("vgg16", build, PLANS, Path(__file__).resolve().parent)
