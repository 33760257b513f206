"""Recipe of the workload levit-128s: the network's files, and what makes a trace where there is a GPU.

    python recipe.py network                                # network.onnx (without weights), network.yaml; needs torch
    EESIM_RAW_DATA=DIR python recipe.py train  [--seed 0]   # trained.onnx; needs torch with CUDA
    EESIM_RAW_DATA=DIR python recipe.py record [--seed 0]   # trace.parquet, from trained.onnx
    python recipe.py card                                   # the tables of the card

DIR holds datasets/cifar10/cifar10_jpeg.zip with train/<class>/NNNN.jpg and test/<class>/NNNN.jpg.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.training import Plan
from recipes.transformers import Recipe, levit_128s, run

RECIPE = Recipe(
    folder=Path(__file__).resolve().parent,
    build=levit_128s,
    final_head="/heads.3/heads.3.0/ReduceMean",
    plan=Plan(epochs=120, weights=(0.25, 0.5, 0.75, 1.0), batch=256, peak=1e-3, decay=0.025, smoothing=0.1, optimiser="adamw"),
)

if __name__ == "__main__":
    run(RECIPE)
