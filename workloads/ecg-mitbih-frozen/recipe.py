"""Recipe of the workload ecg-mitbih-frozen: the data, network and splits of ecg-mitbih, the heads trained on a frozen backbone.

    EESIM_RAW_DATA=DIR python recipe.py train  [--seed 0]      # needs torch; writes network.onnx and network.yaml
    EESIM_RAW_DATA=DIR python recipe.py record [--seed 0]      # needs onnxruntime; writes trace.parquet and features.parquet
    python recipe.py card                                      # prints the tables of README.md from trace.parquet

DIR holds datasets/mitbih/mitbih_48.tar.xz with the 48 records as PhysioNet ships them (NNN.hea, NNN.dat, NNN.atr).
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

HERE = Path(__file__).resolve().parent


def joint_twin():
    """The recipe of ecg-mitbih as a module; both files are called recipe.py, so it is loaded by its path."""
    spec = spec_from_file_location("ecg_mitbih", HERE.parent / "ecg-mitbih" / "recipe.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TWIN = joint_twin()


def learn_frozen(segments, heads, draw, beats, rng):
    """The backbone for the last exit alone; then the earlier heads on it, with its weights and batch statistics held.

    Each earlier head learns for itself: the sum of their losses shares no parameter.
    """
    print("backbone and last head", file=sys.stderr)
    TWIN.fit(
        [*segments.parameters(), *heads[-1].parameters()],
        lambda *inputs: TWIN.forward(segments, heads, *inputs, dropout=TWIN.DROPOUT)[-1:],
        draw,
        beats,
        rng,
    )
    segments.eval().requires_grad_(False)
    print("earlier heads", file=sys.stderr)
    TWIN.fit(
        [*heads[:-1].parameters()],
        lambda *inputs: TWIN.forward(segments, heads, *inputs, dropout=TWIN.DROPOUT)[:-1],
        draw,
        beats,
        rng,
    )


if __name__ == "__main__":
    TWIN.main(HERE, learn_frozen, "frozen")
