"""Recipe of the workload har-wisdm: raw watch accelerometer files -> network.onnx -> trace.parquet -> tables of the card.

    EESIM_RAW_DATA=DIR python recipe.py train  [--seed 0]      # needs torch
    EESIM_RAW_DATA=DIR python recipe.py record [--seed 0]      # needs onnxruntime
    python recipe.py card

DIR holds datasets/wisdm/wisdm_watch_accel_20.tar.xz with data_<subject>_accel_watch.txt.
"""

import sys
import tarfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.raw import raw_file
from recipes.recipe import Recipe, run
from recipes.training import Plan

# By subject number alone: the first twelve, the next three, the last five.
TRAINING = (1601, 1602, 1603, 1604, 1606, 1610, 1611, 1613, 1614, 1615, 1619, 1622)
CALIBRATION = (1627, 1630, 1631)
TEST = (1632, 1633, 1634, 1635, 1636)
LETTERS = "ABCDEFGHIJKLMOPQRS"
CLASSES = (
    *("walking", "jogging", "stairs", "sitting", "standing", "typing", "teeth", "soup", "chips"),
    *("pasta", "drinking", "sandwich", "kicking", "catch", "dribbling", "writing", "clapping", "folding"),
)
GRAVITY = 9.80665
WIDTH, HOP = 100, 30  # samples at 20 Hz: 5 s every 1.5 s
EPOCH = 12_000  # windows drawn for one epoch


def read_segments(subjects):
    """(subject, label, times ns [n], acceleration in g [n, 3]) of every activity, subjects ascending, activities by time.

    The files are ordered by letter; the clock is the watch's own.
    """
    segments = []
    with tarfile.open(raw_file("datasets", "wisdm", "wisdm_watch_accel_20.tar.xz")) as archive:
        for member in archive:
            name = Path(member.name).name
            if not (name.startswith("data_") and int(name.split("_")[1]) in subjects):
                continue
            rows = [line.strip(";\r").split(",") for line in archive.extractfile(member).read().decode("ascii").split("\n") if line.strip()]
            letters = np.array([row[1] for row in rows])
            times = np.array([int(row[2]) for row in rows], np.int64)
            values = np.array([row[3:6] for row in rows], np.float32) / np.float32(GRAVITY)
            for label, letter in enumerate(LETTERS):
                here = letters == letter
                segments.append((int(rows[0][0]), label, times[here], values[here]))
    return sorted(segments, key=lambda segment: (segment[0], segment[2][0]))


def rotations(n, rng, spread=0.25):
    """Matrices [n, 3, 3] by which the watch may sit otherwise: small turns, the other way round, on the other arm.

    The watch's x axis runs along the forearm: turned by half a turn on the wrist, x and y change sign; on the other arm, x.
    """
    x, y, z = (spread * rng.standard_normal((3, n))).astype(np.float32)
    zero, one = np.zeros_like(x), np.ones_like(x)
    about_x = np.stack([one, zero, zero, zero, np.cos(x), -np.sin(x), zero, np.sin(x), np.cos(x)], 1).reshape(n, 3, 3)
    about_y = np.stack([np.cos(y), zero, np.sin(y), zero, one, zero, -np.sin(y), zero, np.cos(y)], 1).reshape(n, 3, 3)
    about_z = np.stack([np.cos(z), -np.sin(z), zero, np.sin(z), np.cos(z), zero, zero, zero, one], 1).reshape(n, 3, 3)
    turned = np.where(rng.random(n) < 0.3, -1, 1).astype(np.float32)
    arm = np.where(rng.random(n) < 0.2, -1, 1).astype(np.float32)
    sides = np.stack([turned * arm, turned, one], axis=1)
    return about_x @ about_y @ about_z * sides[:, None, :]


def augmented(windows, rng):
    """Raw windows [n, 3, 2 * WIDTH] cut to WIDTH at another speed, turned, scaled, with noise; float32 [n, 3, 1, WIDTH]."""
    n, _, length = windows.shape
    speed = np.exp(rng.uniform(-0.2, 0.2, (n, 1)))
    place = np.clip(length / 2 + (np.arange(WIDTH) - WIDTH / 2) * speed, 0, length - 1.001)
    left = place.astype(np.int64)
    part = (place - left)[:, None, :].astype(np.float32)
    row, axis = np.arange(n)[:, None, None], np.arange(3)[None, :, None]
    cut = windows[row, axis, left[:, None, :]] * (1 - part) + windows[row, axis, left[:, None, :] + 1] * part
    mean = cut.mean(axis=2, keepdims=True)
    cut = mean + (cut - mean) * np.exp(0.15 * rng.standard_normal((n, 1, 1), dtype=np.float32))
    cut = rotations(n, rng) @ cut
    cut += 0.02 * rng.random((n, 1, 1), dtype=np.float32) * rng.standard_normal(cut.shape, dtype=np.float32)
    return np.ascontiguousarray(cut[:, :, None, :], np.float32)


def training_of(subjects):
    """(samples, draw): an epoch is as many windows of every subject and activity, each from a random place."""
    segments = read_segments(subjects)
    labels = np.array([label for _, label, _, _ in segments])

    def draw(rows, rng):
        chosen = rows % len(segments)
        windows = np.empty((len(rows), 3, 2 * WIDTH), np.float32)
        for window, segment in zip(windows, chosen):
            values = segments[segment][3]
            start = rng.integers(0, len(values) - 2 * WIDTH)
            window[:] = values[start : start + 2 * WIDTH].T
        return (augmented(windows, rng),), labels[chosen], None

    return EPOCH, draw


def windows_of(subjects, hop=HOP):
    """Every window in recorded order: signal [n, 3, 1, WIDTH], label, subject, time of its last sample since the subject's first."""
    signal, label, subject, time = [], [], [], []
    first = {}
    for who, activity, times, values in read_segments(subjects):
        first.setdefault(who, times[0])
        starts = np.arange(0, len(values) - WIDTH + 1, hop)
        signal.append(values[starts[:, None] + np.arange(WIDTH)].transpose(0, 2, 1)[:, :, None, :])
        label.append(np.full(len(starts), activity))
        subject.append(np.full(len(starts), who))
        time.append(times[starts + WIDTH - 1] - first[who])
    return [np.concatenate(part) for part in (signal, label, subject, time)]


def dataset():
    """Calibration and test subjects for the recorder, one stream each."""
    signal, label, subject, time = windows_of(CALIBRATION + TEST)
    split = np.where(np.isin(subject, TEST), "test", "calibration")
    order = np.argsort(split, kind="stable")
    return {"signal": signal[order], "label": label[order], "split": split[order], "stream_id": subject[order], "time_ns": time[order]}


def build():
    """Exits after each of five segments; a head is the mean over time, a hidden layer of 32 and the logits."""
    from recipes.networks import MultiExit, convolution
    from torch import nn

    def separable(inputs, outputs, kernel):
        return [convolution(inputs, inputs, (1, kernel), groups=inputs), convolution(inputs, outputs, 1)]

    def head(channels, dropout):
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*pool, nn.Dropout(dropout), nn.Linear(channels, 32), nn.ReLU(), nn.Linear(32, len(CLASSES)))

    half = nn.MaxPool2d((1, 2))
    segments = [
        nn.Sequential(convolution(3, 24, (1, 7), (1, 2))),
        nn.Sequential(convolution(24, 48, (1, 5)), half),
        nn.Sequential(*separable(48, 64, 5), *separable(64, 64, 5)),
        nn.Sequential(convolution(64, 96, (1, 5)), nn.Dropout(0.2), half),
        nn.Sequential(convolution(96, 128, (1, 5)), *separable(128, 128, 5)),
    ]
    heads = [head(24, 0.0), head(48, 0.1), head(64, 0.2), head(96, 0.3), head(128, 0.4)]
    return MultiExit(segments, heads)


RECIPE = Recipe(
    folder=Path(__file__).resolve().parent,
    network="har-wisdm",
    classes=CLASSES,
    source={
        "name": "WISDM Smartphone and Smartwatch Activity and Biometrics Dataset, watch accelerometer, 20 subjects",
        "licence": "none stated where the copy comes from; cite Weiss, Yoneda and Hayajneh, IEEE Access 7, 2019",
        "origin": "https://archive.ics.uci.edu/dataset/507/wisdm+smartphone+and+smartwatch+activity+and+biometrics+dataset",
    },
    split_rule="by subject: 1627 1630 1631 calibration, 1632-1636 test; twelve others trained on",
    inputs={"signal": (3, 1, WIDTH)},
    build=build,
    plan=Plan(epochs=16, weights=(0.4, 0.5, 0.7, 0.8, 1.0), peak=4e-3, decay=2e-2, optimiser="adam", smoothing=0.05),
    training=lambda: training_of(TRAINING),
    dataset=dataset,
    input_range=(-2.0, 2.0),
)

if __name__ == "__main__":
    run(RECIPE)
