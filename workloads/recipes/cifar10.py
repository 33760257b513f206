"""CIFAR-10 from a zip of JPEG files (train/<class>/NNNN.jpg, test/<class>/NNNN.jpg), and its splits.

The files are a lossy re-encode of the original pixels, so accuracies differ a little from those of the original set.
"""

import io
import zipfile

import numpy as np

from .raw import raw_file

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DATASET = {
    "name": "CIFAR-10 (JPEG re-encode)",
    "licence": "none stated; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    "origin": "https://www.cs.toronto.edu/~kriz/cifar.html",
}
CALIBRATION = 500  # images of each class, the last of the training set by file number; never trained on
SPLIT_RULE = f"test = the test set; calibration = the last {CALIBRATION} training images of each class, never trained on"


def load(part):
    """Images uint8 [N, 3, 32, 32] and labels int64 [N] of 'train', 'calibration' or 'test', by class and file number."""
    from PIL import Image

    images, labels = [], []
    with zipfile.ZipFile(raw_file("datasets", "cifar10", "cifar10_jpeg.zip")) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for label, kind in enumerate(CLASSES):
            folder = "test" if part == "test" else "train"
            files = [name for name in names if f"{folder}/{kind}/" in name]
            chosen = {"test": files, "train": files[:-CALIBRATION], "calibration": files[-CALIBRATION:]}[part]
            images += [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in chosen]
            labels += [label] * len(chosen)
    return np.stack(images).transpose(0, 3, 1, 2), np.array(labels)


def augmented(images, rng):
    """A batch uint8 [n, 3, 32, 32] shifted by up to 4 pixels (reflected border) and mirrored at random, float32 in [0, 1]."""
    n = len(images)
    padded = np.pad(images, ((0, 0), (0, 0), (4, 4), (4, 4)), mode="reflect")
    rows = rng.integers(0, 9, (n, 1)) + np.arange(32)
    columns = rng.integers(0, 9, (n, 1)) + np.arange(32)
    columns = np.where(rng.random((n, 1)) < 0.5, columns[:, ::-1], columns)
    moved = padded[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # [n, 32, 32, 3]
    return moved.transpose(0, 3, 1, 2).astype(np.float32) / 255


def training():
    """(samples, draw) of recipes.recipe.Recipe: the training images, augmented."""
    images, labels = load("train")
    return len(labels), lambda rows, rng: ((augmented(images[rows], rng),), labels[rows], None)


def dataset():
    """Calibration and test images for the recorder, as float32 in [0, 1]; the order inside a split is drawn once, seed 0.

    The files are grouped by class; in their own order every stream would be ten long runs of one class.
    """
    parts = [load(part) for part in ("calibration", "test")]
    order = [np.random.default_rng(0).permutation(len(labels)) for _, labels in parts]
    images, labels = (np.concatenate([part[which][rows] for part, rows in zip(parts, order)]) for which in (0, 1))
    split = np.repeat(["calibration", "test"], [len(rows) for rows in order])
    return {"image": images.astype(np.float32) / 255, "label": labels, "split": split}
