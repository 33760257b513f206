"""Recipe of the workload cifar10-stream: scenes made of CIFAR-10 images -> trace.parquet -> tables of the card.

    EESIM_RAW_DATA=DIR python recipe.py record [--seed 0]      # needs onnxruntime
    python recipe.py card

The network is that of ../cifar10-resnet8, which must be trained first; nothing is trained here. The order is constructed:
a stream is a chain of scenes, a scene is one still image under a camera that drifts, zooms and sees changing light.
DIR holds datasets/cifar10/cifar10_jpeg.zip.
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from recipes import cifar10

HERE = Path(__file__).resolve().parent
STREAMS = {"calibration": 4, "test": 8}
FRAMES = 1500  # of each stream
PERIOD_NS = 100_000_000  # ten frames a second
SCENE = 15.0  # mean frames of a scene, geometric
STAY = 0.6  # how often the next scene shows another object of the same class
DRIFT, ZOOM, LIGHT, NOISE = 0.25, 0.01, 0.02, 0.01  # of each frame: pixels, share, share, standard deviation in [0, 1]


def scenes(labels, rng):
    """For each frame of a stream the row of its image, and whether it begins a scene."""
    by_class = [rng.permutation(np.flatnonzero(labels == kind)) for kind in range(len(cifar10.CLASSES))]
    used = np.zeros(len(by_class), int)
    rows, begins, kind = [], [], rng.integers(len(by_class))
    while len(rows) < FRAMES:
        row = by_class[kind][used[kind] % len(by_class[kind])]
        used[kind] += 1
        length = int(rng.geometric(1 / SCENE))
        rows += [row] * length
        begins += [True] + [False] * (length - 1)
        if rng.random() >= STAY:
            kind = (kind + rng.integers(1, len(by_class))) % len(by_class)
    return np.array(rows[:FRAMES]), np.array(begins[:FRAMES])


def filmed(images, begins, rng):
    """Frames float32 [n, 3, 32, 32] in [0, 1]: each image under a camera and a light that walk at random from frame to frame."""
    state = np.zeros(5)  # shift in rows and columns, zoom, mirrored, light
    frames = np.empty(images.shape, np.float32)
    for index, (image, begin) in enumerate(zip(images, begins)):
        if begin:
            state = np.array([*rng.uniform(-1.5, 1.5, 2), rng.uniform(-0.05, 0.05), rng.random() < 0.5, rng.uniform(-0.1, 0.1)])
        else:
            state[:2] = np.clip(state[:2] + DRIFT * rng.standard_normal(2), -3, 3)
            state[2] = np.clip(state[2] + ZOOM * rng.standard_normal(), -0.1, 0.1)
            state[4] = np.clip(state[4] + LIGHT * rng.standard_normal(), -0.2, 0.2)
        frames[index] = view(image[:, :, ::-1] if state[3] else image, *state[:3]) * (1 + state[4])
    return np.clip(frames + NOISE * rng.standard_normal(frames.shape), 0, 1).astype(np.float32)


def view(image, down, right, zoom):
    """The image [3, 32, 32] uint8 shifted and zoomed about its middle, bilinear, border repeated, in [0, 1]."""
    grid = (np.arange(32) - 15.5) * (1 - zoom) + 15.5
    pieces = []
    for places in (grid + down, grid + right):
        places = np.clip(places, 0, 31)
        low = np.minimum(places.astype(int), 30)
        pieces.append((low, (places - low).astype(np.float32)))
    (rows, part), (columns, share) = pieces
    image = image.astype(np.float32) / 255
    upper, lower = image[:, rows], image[:, rows + 1]
    mixed = upper + (lower - upper) * part[None, :, None]
    left, right = mixed[:, :, columns], mixed[:, :, columns + 1]
    return left + (right - left) * share[None, None, :]


def dataset(seed):
    """Mapping for eesim.trace.record: 12 streams, calibration and test each from their own images."""
    parts = []
    for split, count in STREAMS.items():
        images, labels = cifar10.load(split)
        for stream in range(count):
            rng = np.random.default_rng([seed, list(STREAMS).index(split), stream])
            rows, begins = scenes(labels, rng)
            parts.append({
                "image": filmed(images[rows], begins, rng), "label": labels[rows], "split": np.full(FRAMES, split),
                "stream_id": np.full(FRAMES, len(parts)), "time_ns": np.arange(FRAMES, dtype=np.int64) * PERIOD_NS,
            })  # fmt: skip
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def run_record(seed):
    """Copy the network of cifar10-resnet8 and run it over the constructed streams."""
    from eesim.trace import record

    for name in ("network.onnx", "network.yaml"):
        shutil.copyfile(HERE.parent / "cifar10-resnet8" / name, HERE / name)
    trace = record(
        HERE / "network.onnx",
        dataset(seed),
        HERE / "trace.parquet",
        network="resnet8",
        classes=cifar10.CLASSES,
        features=True,
        input_range=(0.0, 1.0),
        source=cifar10.DATASET,
        split_rule="test streams from the test images, calibration streams from the calibration images of cifar10-resnet8; order constructed",
        training_mode="joint",
        recipe="recipe.py",
        seed=seed,
    )
    right = [(trace.logits[exit].argmax(axis=1) == trace.label)[trace.split == "test"].mean() for exit in range(trace.exits)]
    print(f"wrote trace.parquet; test accuracy per exit {' '.join(f'{value:.4f}' for value in right)}", file=sys.stderr)


def main():
    import argparse

    parser = argparse.ArgumentParser(description="Recipe of the workload cifar10-stream.")
    parser.add_argument("verb", choices=("record", "card"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.verb == "record":
        run_record(options.seed)
    else:
        from recipes.card import print_card

        print_card(HERE)


if __name__ == "__main__":
    main()
