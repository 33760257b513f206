"""Recipe of the workload kws-speech-commands: raw clips -> network.onnx -> trace.parquet -> tables of the card.

    EESIM_RAW_DATA=DIR python recipe.py train  [--seed 0]      # needs torch and soundfile
    EESIM_RAW_DATA=DIR python recipe.py record [--seed 0]      # needs onnxruntime and soundfile
    python recipe.py card

DIR holds datasets/speech_commands/speech_commands_v0.02_test_ogg.tar.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes import speech
from recipes.recipe import Recipe, run
from recipes.training import Plan


def dataset():
    """Calibration and test clips for the recorder, in an order drawn once (seed 0), each recording once: the files are grouped by class."""
    parts = {part: speech.distinct(speech.load(part)) for part in ("calibration", "test")}
    order = {part: np.random.default_rng(0).permutation(len(clips.label)) for part, clips in parts.items()}
    audio = np.concatenate([clips.audio[order[part]] for part, clips in parts.items()])
    label = np.concatenate([clips.label[order[part]] for part, clips in parts.items()])
    split = np.repeat(list(parts), [len(clips.label) for clips in parts.values()])
    mfcc = np.concatenate([speech.coefficients(speech.log_mel(chunk)) for chunk in np.array_split(audio, 16)])
    return {"mfcc": mfcc[:, None].astype(np.float32), "label": label, "split": split}


RECIPE = Recipe(
    folder=Path(__file__).resolve().parent,
    network="ds-cnn",
    classes=speech.CLASSES,
    source=speech.DATASET,
    split_rule="by speaker: SHA-1 of the speaker modulo 100, below 60 trained on, 60-74 calibration, 75-99 test; silence by file name",
    inputs={"mfcc": (1, speech.FRAMES, speech.COEFFICIENTS)},
    build=speech.ds_cnn,
    plan=Plan(epochs=70, weights=(0.3, 0.4, 0.6, 0.8, 1.0), batch=64, peak=5e-3, decay=1e-2, optimiser="adam"),
    training=speech.training,
    dataset=dataset,
    input_range=speech.INPUT_RANGE,
)

if __name__ == "__main__":
    run(RECIPE)
