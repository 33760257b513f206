"""Speech Commands test clips (Ogg Vorbis), their split by speaker, MFCC and augmentation."""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .raw import raw_file, stop

CLASSES = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown")
SILENCE, UNKNOWN = CLASSES.index("silence"), CLASSES.index("unknown")
DATASET = {
    "name": "Speech Commands v0.02, canonical test clips (Ogg Vorbis re-encode)",
    "licence": "CC BY 4.0; cite Warden, arXiv 1804.03209, 2018",
    "origin": "http://download.tensorflow.org/data/speech_commands_test_set_v0.02.tar.gz",
}
RATE, CLIP = 16_000, 16_000
WINDOW, STEP, BINS, COEFFICIENTS = 480, 320, 40, 10  # samples, samples, mel bins from 20 Hz to 4 kHz, MFCC kept
FRAMES = 1 + (CLIP - WINDOW) // STEP
INPUT_RANGE = (-4.0, 4.0)
SHARES = {"train": 60, "calibration": 75, "test": 100}  # percent of the speakers, cumulative


@dataclass(frozen=True)
class Clips:
    """Audio float32 [n, 16000] and label [n] of one part of the split, by class and file name."""

    audio: np.ndarray
    label: np.ndarray
    name: list[str]


def part_of(file):
    """'train', 'calibration' or 'test', from a hash of the speaker; silence has no speaker and goes by its file name.

    File names are SPEAKER_nohash_I.ogg and, for unknown words, WORD_SPEAKER_nohash_I.wav.ogg.
    """
    pieces = Path(file).name.split("_nohash_")
    owner = pieces[0].split("_")[-1]
    place = int(hashlib.sha1(owner.encode()).hexdigest(), 16) % 100
    return next(part for part, end in SHARES.items() if place < end)


def load(part):
    """The clips of 'train', 'calibration' or 'test'."""
    try:
        import soundfile
    except ImportError:
        stop("reading Ogg Vorbis needs soundfile; install it with pip install soundfile")
    found = []
    with tarfile.open(raw_file("datasets", "speech_commands", "speech_commands_v0.02_test_ogg.tar")) as archive:
        for member in archive:
            if member.name.endswith(".ogg") and part_of(member.name) == part:
                kind = Path(member.name).parent.name.strip("_")
                audio, rate = soundfile.read(io.BytesIO(archive.extractfile(member).read()), dtype="float32")
                assert rate == RATE and audio.shape == (CLIP,)
                found.append((CLASSES.index(kind), Path(member.name).name, audio))
    found.sort(key=lambda clip: clip[:2])
    return Clips(np.stack([clip[2] for clip in found]), np.array([clip[0] for clip in found]), [clip[1] for clip in found])


def distinct(clips):
    """The clips without those whose samples are all equal to those of an earlier one: some recordings are in the set under two names."""
    first = {audio.tobytes(): row for row, audio in reversed(list(enumerate(clips.audio)))}
    rows = sorted(first.values())
    return Clips(clips.audio[rows], clips.label[rows], [clips.name[row] for row in rows])


# ---------------------------------------------------------------------------------------------------------------------
# MFCC


def mel_matrix():
    """Triangles [257, 40] evenly spaced in mel from 20 Hz to 4 kHz, over the bins of a 512-point transform."""
    mel = lambda hertz: 1127 * np.log1p(np.asarray(hertz) / 700)  # noqa: E731
    corners = np.linspace(mel(20), mel(4000), BINS + 2)
    bins = mel(np.arange(257) * RATE / 512)[:, None]
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def cosine_matrix():
    """Orthonormal DCT-II [40, 10]."""
    angle = np.pi * (np.arange(BINS)[:, None] + 0.5) * np.arange(COEFFICIENTS) / BINS
    matrix = np.sqrt(2 / BINS) * np.cos(angle)
    matrix[:, 0] /= np.sqrt(2)
    return matrix.astype(np.float32)


MEL, COSINE, HANN = mel_matrix(), cosine_matrix(), np.hanning(WINDOW + 1)[:-1].astype(np.float32)
OFFSET = np.array([-35, *([0] * 9)], np.float32)  # so that coefficients lie mostly in INPUT_RANGE
SCALE = np.array([18, 6, *([3] * 8)], np.float32)


def log_mel(audio):
    """[..., samples] -> [..., frames, 40]."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, WINDOW, axis=-1)[..., ::STEP, :] * HANN
    spectrum = np.fft.rfft(frames, 512)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return np.log(power @ MEL + np.float32(1e-5))


def coefficients(mel):
    """[..., frames, 40] -> [..., frames, 10], shifted and scaled by constants."""
    return (mel @ COSINE - OFFSET) / SCALE


# ---------------------------------------------------------------------------------------------------------------------
# Words inside clips, and augmentation


def word_extent(audio):
    """First and last sample of the word in each clip [n, 2]: where the power of 20 ms exceeds 5 % of the clip's largest."""
    power = (audio.reshape(len(audio), -1, 320) ** 2).mean(axis=2)
    loud = power > 0.05 * power.max(axis=1, keepdims=True)
    first = loud.argmax(axis=1)
    last = loud.shape[1] - loud[:, ::-1].argmax(axis=1)
    return np.stack([first, last], axis=1) * 320


def stretched(audio, speed, shift):
    """Clips [n, 16000] played `speed` times as fast around their middle and moved by `shift` samples; zeros come in."""
    place = (np.arange(CLIP, dtype=np.float32) - CLIP / 2 - shift[:, None]) * speed[:, None] + np.float32(CLIP / 2)
    left = np.floor(place).astype(np.int64)
    part = (place - left).astype(np.float32)
    inside = (left >= 0) & (left < CLIP - 1)
    left = np.where(inside, left, 0)
    row = np.arange(len(audio))[:, None]
    return (audio[row, left] * (1 - part) + audio[row, left + 1] * part) * inside


PARTIAL = 0.07  # share of words that are cut to less than half and then called unknown, for windows that slide over speech


def augmented(clips, extent, noise, rows, rng):
    """A batch for training: MFCC float32 [n, 1, 49, 10] and labels.

    Speed, shift, gain, a cut through the word, background noise, masks over time and mel bins, another microphone.
    """
    n = len(rows)
    label = clips.label[rows].copy()
    speed = np.exp(rng.uniform(-0.18, 0.18, n)).astype(np.float32)
    start, end = ((extent[rows].T - CLIP / 2) / speed + CLIP / 2).astype(np.float32)
    room = np.stack([-start, CLIP - end])
    shift = np.clip(rng.uniform(-4000, 4000, n), room.min(axis=0), room.max(axis=0))
    cut = (rng.random(n) < PARTIAL) & (label != SILENCE)
    kept = rng.uniform(0.15, 0.5, n) * (end - start)
    shift = np.where(cut, np.where(rng.random(n) < 0.5, kept - end, CLIP - kept - start), shift)
    label[cut] = UNKNOWN
    lowest = np.where(clips.label[rows] == SILENCE, -5.0, -1.3)  # background is often much quieter than the clips of silence
    gain = np.exp(rng.uniform(lowest, 0.7)).astype(np.float32)[:, None]
    audio = stretched(clips.audio[rows], speed, shift.astype(np.float32)) * gain
    behind = noise[rng.integers(len(noise), size=n)]
    level = np.exp(rng.uniform(np.log(2e-4), np.log(1e-2), (n, 1))) / np.sqrt((behind**2).mean(axis=1, keepdims=True) + 1e-10)
    audio = audio + behind * level.astype(np.float32)
    mel = log_mel(audio)
    tilt = 0.5 * rng.standard_normal((n, 1, 3), dtype=np.float32) @ COSINE[:, 1:4].T * np.float32(np.sqrt(BINS / 2))
    mel = masked(mel + tilt, rng)
    return np.ascontiguousarray(coefficients(mel)[:, None], np.float32), label


def masked(mel, rng):
    """Two stretches of time (at most 6 and 4 frames; words last about 13) and one of mel bins (at most 7) set to the clip's mean."""
    n, frames, bins = mel.shape
    mean = mel.mean(axis=(1, 2), keepdims=True)
    hidden = np.zeros(mel.shape, bool)
    for axis, length, widest in ((1, frames, 6), (1, frames, 4), (2, bins, 7)):
        width = rng.integers(0, widest + 1, n)
        first = rng.integers(0, length - width + 1)
        place = np.arange(length)
        band = (place >= first[:, None]) & (place < (first + width)[:, None])
        hidden |= band[:, :, None] if axis == 1 else band[:, None, :]
    return np.where(hidden, mean, mel)


def training():
    """(samples, draw) of recipes.recipe.Recipe."""
    clips = load("train")
    extent, noise = word_extent(clips.audio), clips.audio[clips.label == SILENCE]

    def draw(rows, rng):
        inputs, label = augmented(clips, extent, noise, rows, rng)
        return (inputs,), label, None

    return len(clips.label), draw


def ds_cnn():
    """The keyword network of MLPerf Tiny (DS-CNN, 2.66 M MACs) with exits after its first convolution and its four blocks."""
    import torch
    from torch import nn

    from .networks import MultiExit, convolution

    def head(rows, dropout):
        pool = nn.AvgPool2d((25 // rows, 5)) if rows > 1 else nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(pool, nn.Flatten(), nn.Dropout(dropout), nn.Linear(64 * rows, len(CLASSES)))

    first = nn.Sequential(nn.Conv2d(1, 64, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU())
    blocks = [nn.Sequential(convolution(64, 64, 3, groups=64), convolution(64, 64, 1)) for _ in range(4)]
    network = MultiExit([first, *blocks], [head(5, 0.1), head(5, 0.2), head(1, 0.1), head(1, 0.1), head(1, 0.2)])
    return network.to(memory_format=torch.channels_last)  # twice as fast on a CPU
