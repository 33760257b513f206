"""Recipe of the workload alexnet: CIFAR-10 -> network.onnx -> trace.parquet -> tables of the card.

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

PLANS = (Plan(epochs=16, weights=(0.05, 0.08, 0.1, 0.12, 0.15, 0.5), peak=0.1),)


def build():
    from recipes.networks import alexnet

    return alexnet


if __name__ == "__main__":
    dart.run("alexnet", build, PLANS, Path(__file__).resolve().parent)
