"""Recipe of the workload ecg-rhythm: running ECG of MIT-BIH -> network.onnx -> trace.parquet -> tables of the card.

    EESIM_RAW_DATA=DIR python recipe.py train  [--seed 0]      # needs torch
    EESIM_RAW_DATA=DIR python recipe.py record [--seed 0]      # needs onnxruntime
    python recipe.py card

DIR holds datasets/mitbih/mitbih_48.tar.xz with the 48 records as PhysioNet ships them (NNN.hea, NNN.dat, NNN.atr).
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


def beats_recipe():
    """The recipe of ecg-mitbih, which reads the same records; both files are called recipe.py, so it is loaded by its path."""
    spec = spec_from_file_location("ecg_mitbih", HERE.parent / "ecg-mitbih" / "recipe.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BEATS = beats_recipe()

TRAINING = (101, 108, 109, 112, 115, 116, 118, 119, 122, 124, 200, 203, 205, 207, 208, 209, 210, 215, 222, 223, 230, 231, 232, 233)
CALIBRATION = (106, 114, 219, 220)
TEST = (100, 103, 105, 111, 113, 117, 121, 123, 201, 202, 212, 213, 214, 221, 228, 234)

CLASSES = ("normal", "fibrillation or flutter", "other")
RHYTHMS = {"(N": 0, "(AFIB": 1, "(AFL": 1}  # every other rhythm is class 2
FINE, DECIMATION, RATE = 120, 6, 60  # beats are found at 120 Hz, the network sees 60 Hz
WIDTH, HOP = 20 * RATE, 2 * RATE
DELAY = 18  # samples at 120 Hz after which a beat is known to be the highest peak around it


def rhythm(raw, record, length):
    """Class of each of `length` samples at 60 Hz; what comes before the first rhythm annotation belongs to it."""
    marks = [(sample // DECIMATION, RHYTHMS.get(text, 2)) for sample, _, text in BEATS.read_annotations(raw, record) if text.startswith("(")]
    result = np.full(length, marks[0][1], np.int8)
    for start, kind in marks:
        result[start:] = kind
    return result


def read_leads(raw, record):
    """MLII and the other lead, mV at 60 Hz, and the intervals between beats: float32 [3, n]."""
    leads = np.stack([BEATS.read_signal(raw, record, angle) for angle in (0, 90)])
    leads = leads[:, : leads.shape[1] // DECIMATION * DECIMATION].reshape(2, -1, DECIMATION // 2).mean(axis=2)
    rows = np.concatenate([leads, intervals(find_beats(leads[0]), leads.shape[1])[None]])
    rows[:2, ::2] = (rows[:2, ::2] + rows[:2, 1::2]) / 2
    return rows[:, ::2].astype(np.float32)


def moving_mean(values, width):
    """Mean of the last `width` values; at the beginning, of those there are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - width, 0)
    return (sums[stop] - sums[start]) / (stop - start)


def find_beats(signal):
    """Positions of QRS complexes in a running signal at 120 Hz, from the signal alone: peaks of slope energy above a running level."""
    slope = np.concatenate([np.zeros(4), signal[4:] - signal[:-4]])
    energy = np.sqrt(moving_mean((slope - moving_mean(slope, 24)) ** 2, 12))
    around = np.lib.stride_tricks.sliding_window_view(np.pad(energy, DELAY), 2 * DELAY + 1).max(axis=1)
    level, last, beats = float(np.median(around[: 10 * FINE])), -FINE, []
    for place in np.flatnonzero((energy == around) & (energy > 0.02)):
        patience = max(0.25, 1 - max(0, place - last - 1.2 * FINE) / FINE)  # the longer the silence, the fainter a beat may be
        if energy[place] > 0.4 * level * patience and place - last > DELAY:
            beats.append(place)
            level, last = 0.85 * level + 0.15 * min(energy[place], 2 * level), place
    return np.array(beats)


def intervals(beats, length):
    """At every sample the last interval between beats as the logarithm of its ratio to the median of the last 12; 0 before there are two."""
    result, gaps = np.zeros(length), np.diff(beats)
    for i, gap in enumerate(gaps):
        usual = np.median(gaps[max(0, i - 11) : i + 1])
        result[beats[i + 1] + DELAY :] = np.log(gap / usual)
    return 2 * np.clip(result, -1, 1)


def shares(kinds, starts):
    """Share of each class in the window that begins at each start: [windows, classes]."""
    counts = np.cumsum(np.eye(len(CLASSES), dtype=np.int32)[kinds], axis=0)
    counts = np.concatenate([np.zeros((1, len(CLASSES)), np.int32), counts])
    return (counts[starts + WIDTH] - counts[starts]) / WIDTH


def normalise(windows):
    """Inputs [n, 2, 1, WIDTH] of windows [n, 2, WIDTH]: the signal in mV minus a running mean of one second, over the 98th
    percentile of what is left, clipped; and the intervals as they are.
    """
    half = RATE // 2
    padded = np.pad(windows[:, 0], ((0, 0), (half + 1, half)), mode="edge").cumsum(axis=1, dtype=np.float64)
    signal = windows[:, 0] - (padded[:, RATE + 1 :] - padded[:, : -RATE - 1])[:, :WIDTH] / (RATE + 1)
    scale = np.percentile(np.abs(signal), 98, axis=1, keepdims=True)
    signal = np.clip(signal / np.maximum(scale, 0.1), -4, 4)
    return np.stack([signal, windows[:, 1]], axis=1)[:, :, None].astype(np.float32)


def dataset():
    """Calibration and test windows for the recorder: all of them, in order, labelled by the rhythm that fills most of the window.

    The time of a window is that of its end, when a device has it.
    """
    raw = BEATS.open_raw()
    parts = []
    for split, records in (("calibration", CALIBRATION), ("test", TEST)):
        for record in records:
            leads = read_leads(raw, record)[[0, 2]]
            starts = np.arange(0, leads.shape[1] - WIDTH + 1, HOP)
            windows = normalise(leads[:, starts[:, None] + np.arange(WIDTH)].transpose(1, 0, 2))
            label = shares(rhythm(raw, record, leads.shape[1]), starts).argmax(axis=1)
            time_ns = (starts + WIDTH) * 1_000_000_000 // RATE
            parts.append((windows, label, np.full(len(starts), record), time_ns, np.full(len(starts), split)))
    return dict(zip(("signal", "label", "stream_id", "time_ns", "split"), map(np.concatenate, zip(*parts))))


PURITY = 0.7  # share of its window that a training label must fill
EPOCH = 8000  # windows an epoch draws, a third of each class
PATIENT_POWER = 0.5  # within a class, a patient with n windows is drawn as if there were n**0.5
TURN = 75  # degrees: the lead of a training window lies up to this far from MLII, towards or away from the other lead
STRETCH = 0.12
UNEVEN = 0.5  # the logarithms of intervals are multiplied by up to exp(0.5), or divided
STRANGE, BLIND = 0.5, 0.15  # how often a window has the signal of another window, or none


def training_windows(raw, records, step=RATE // 2):
    """(leads, record, start, kind, weight): running signals, and every window of one rhythm with its probability of being drawn."""
    leads, found = {}, []
    for record in records:
        leads[record] = read_leads(raw, record)
        starts = np.arange(0, leads[record].shape[1] - WIDTH, step)
        share = shares(rhythm(raw, record, leads[record].shape[1]), starts)
        pure = share.max(axis=1) >= PURITY
        found.append(np.stack([np.full(pure.sum(), record), starts[pure], share[pure].argmax(axis=1)]))
    record, start, kind = np.concatenate(found, axis=1)
    weight = np.zeros(len(record))
    for each in range(len(CLASSES)):
        for patient in np.unique(record[kind == each]):
            rows = (kind == each) & (record == patient)
            weight[rows] = rows.sum() ** (PATIENT_POWER - 1)
        weight[kind == each] /= weight[kind == each].sum()
    return leads, record, start, kind, weight / weight.sum()


def distorted(leads, start, rng):
    """One window [2, WIDTH] of a record's leads and intervals [3, n]: another lead, heart rate and beginning, other intervals, noise."""
    pace = np.exp(rng.uniform(-STRETCH, STRETCH))
    middle = start + WIDTH / 2 + rng.uniform(-RATE, RATE)
    place = np.clip(middle + (np.arange(WIDTH) - WIDTH / 2) * pace, 0, leads.shape[1] - 1.001)
    left = place.astype(np.int64)
    part = (place - left).astype(np.float32)
    turn = np.deg2rad(rng.uniform(-TURN, TURN))
    moved = leads[:2, left] * (1 - part) + leads[:2, left + 1] * part
    signal = np.cos(turn) * moved[0] + np.sin(turn) * moved[1] + rng.uniform(0, 0.05) * rng.standard_normal(WIDTH, dtype=np.float32)
    return np.stack([signal, leads[2, left] * np.exp(rng.uniform(-UNEVEN, UNEVEN))])


def strangers(windows, rng):
    """Windows of a batch, many with the signal of another: few patients fibrillate, so the intervals, alike in all, must count most."""
    taken = rng.random(len(windows)) < STRANGE
    windows[taken, 0] = windows[rng.permutation(len(windows))[taken], 0]
    blind = rng.random(len(windows)) < BLIND
    windows[blind, 0] = 0
    return windows


def training():
    """(samples, draw) of recipes.recipe.Recipe: windows drawn so that classes are equally frequent, whatever rows are asked for."""
    return drawing(BEATS.open_raw(), TRAINING)


def drawing(raw, records):
    leads, record, start, kind, weight = training_windows(raw, records)
    bounds = np.cumsum(weight)

    def draw(rows, rng):
        chosen = np.searchsorted(bounds, rng.random(len(rows)) * bounds[-1])
        windows = np.stack([distorted(leads[record[row]], start[row], rng) for row in chosen])
        return (normalise(strangers(windows, rng)),), kind[chosen].astype(np.int64), None

    return EPOCH, draw


def build():
    """Five segments of 1-D convolutions; a head sees mean and, but for the last, maximum of each channel."""
    from recipes.networks import MultiExit, convolution
    from torch import cat, channels_last, nn

    class Head(nn.Module):
        def __init__(self, channels, maximum):
            super().__init__()
            self.mean, self.maximum = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1) if maximum else None
            self.classify = nn.Sequential(
                nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels * (2 if maximum else 1), 32), nn.ReLU(), nn.Linear(32, len(CLASSES))
            )

        def forward(self, x):
            return self.classify(cat([self.mean(x), self.maximum(x)], 1) if self.maximum is not None else self.mean(x))

    segments = [
        nn.Sequential(convolution(2, 16, (1, 9), (1, 2)), nn.MaxPool2d((1, 2))),
        nn.Sequential(convolution(16, 32, (1, 5)), nn.MaxPool2d((1, 2))),
        nn.Sequential(convolution(32, 40, (1, 5)), nn.MaxPool2d((1, 2))),
        nn.Sequential(convolution(40, 56, (1, 7)), nn.MaxPool2d((1, 2))),
        nn.Sequential(convolution(56, 64, (1, 9)), convolution(64, 64, (1, 9))),
    ]
    network = MultiExit(segments, [*(Head(channels, True) for channels in (16, 32, 40, 56)), Head(64, False)])
    return network.to(memory_format=channels_last)  # trains a third faster on a processor


def recipe():
    """What the shared recipe needs to know."""
    from recipes.recipe import Recipe
    from recipes.training import Plan

    return Recipe(
        folder=HERE,
        network="ecg-rhythm",
        classes=CLASSES,
        source=BEATS.SOURCE,
        split_rule="by patient: calibration = records " + " ".join(map(str, CALIBRATION)) + "; test = records " + " ".join(map(str, TEST)) + "; "
        "paced records left out; 201 and 202 are one person, both in test; rows in order of recording, one stream per record",
        inputs={"signal": (2, 1, WIDTH)},
        build=build,
        plan=Plan(epochs=6, weights=(0.5, 0.5, 0.7, 1.0, 1.0), batch=64, peak=3e-3, decay=1e-2, optimiser="adamw"),
        training=training,
        dataset=dataset,
        input_range=(-4.0, 4.0),
    )


if __name__ == "__main__":
    from recipes.recipe import run

    run(recipe())
