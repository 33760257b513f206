"""Recipe of the workload t2t-vit-14: the network's files, and what makes a trace where there is a GPU.

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
from recipes.transformers import Recipe, run, t2t_vit_14

RECIPE = Recipe(
    folder=Path(__file__).resolve().parent,
    build=t2t_vit_14,
    final_head="/heads.13/heads.13.0/Gather",
    plan=Plan(epochs=120, weights=(0.3,) * 13 + (1.0,), batch=128, peak=5e-4, decay=0.05, smoothing=0.1, optimiser="adamw"),
)

if __name__ == "__main__":
    run(RECIPE)
