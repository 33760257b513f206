"""Recipe of the workload kws-wakeword-stream: running audio joined from clips, heard by the network of kws-speech-commands.

    python recipe.py train                                     # copies the network of ../kws-speech-commands; trains nothing
    EESIM_RAW_DATA=DIR python recipe.py record [--seed 0]      # needs onnxruntime and soundfile
    python recipe.py card

DIR holds datasets/speech_commands/speech_commands_v0.02_test_ogg.tar.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes import speech
from recipes.recipe import Recipe, describe, run
from recipes.speech import RATE, SILENCE, STEP, UNKNOWN

HERE = Path(__file__).resolve().parent
STREAMS = {"calibration": 4, "test": 8}
MINUTES = 8
HOP = 12 * STEP  # 240 ms, so that windows share their MFCC frames
WINDOW = (speech.FRAMES - 1) * STEP + speech.WINDOW  # 990 ms
QUIET, TALK = (15, 70), (8, 30)  # seconds of a stretch without words and of one with words, uniform
PAUSE = 0.9  # seconds between words in talk: 0.15 plus an exponential of this mean
OTHERS = 0.3  # share of words that are no keywords
INSIDE, PARTLY = 0.8, 0.2  # share of a word inside the window from which it counts as heard, and from which as something unknown


GRAIN, JOIN = (0.3, 0.9), 0.05  # seconds of a piece cut from a clip of noise, uniform, and of the cross-fade into the next


def texture(clip, samples, rng):
    """Noise of any length from a clip of 1 s that never repeats: pieces from anywhere in it, either way round, cross-faded."""
    result, join = np.zeros(samples), int(JOIN * RATE)
    fade, start = np.sqrt(np.arange(1, join + 1) / (join + 1)), 0
    while start < samples:
        length = int(rng.uniform(*GRAIN) * RATE)
        first = rng.integers(len(clip) - length + 1)
        piece = clip[first : first + length][:: rng.choice((1, -1))].astype(float)
        piece[:join] *= fade
        piece[-join:] *= fade[::-1]
        result[start : start + length] += piece[: samples - start]
        start += length - join
    return result


def background(noise, samples, rng):
    """Noise without end from clips of 1 s: the texture of one for 10 to 40 s at one level, then another."""
    result = np.zeros(samples, np.float32)
    start, fade = 0, RATE // 2
    while start < samples:
        length = min(int(rng.uniform(10, 40) * RATE) + fade, samples - start)
        clip = noise[rng.integers(len(noise))]
        piece = texture(clip, length, rng) / np.sqrt((clip**2).mean() + 1e-10)
        level = np.exp(rng.uniform(np.log(3e-4), np.log(6e-3)))
        slope = np.minimum(1, np.arange(1, length + 1) / fade)
        result[start : start + length] += (level * piece * slope * slope[::-1]).astype(np.float32)
        start += max(1, length - fade)
    return result


def word_times(rng):
    """Start samples of the words of one stream: stretches of talk between stretches of quiet."""
    times, now, end = [], 0.0, MINUTES * 60 - 2
    while now < end:
        now += rng.uniform(*QUIET)
        until = now + rng.uniform(*TALK)
        while now < min(until, end):
            times.append(now)
            now += 1 + 0.15 + rng.exponential(PAUSE)
    return (np.array(times) * RATE).astype(int)


def stream(clips, extent, keywords, others, noise, rng):
    """Audio of one stream and its words as rows (class, first sample, last sample). Clips are taken from the ends of two decks."""
    audio = background(noise, MINUTES * 60 * RATE, rng)
    fade = np.minimum(1, np.minimum(np.arange(speech.CLIP), np.arange(speech.CLIP)[::-1]) / (0.03 * RATE)).astype(np.float32)
    words = []
    for start in word_times(rng):
        deck = others if rng.random() < OTHERS else keywords
        if not deck:
            continue
        clip = deck.pop()
        audio[start : start + speech.CLIP] += clips.audio[clip] * fade * np.float32(np.exp(rng.uniform(-0.7, 0.4)))
        words.append((clips.label[clip], *(start + extent[clip])))
    return audio, np.array(words)


def labels(words, starts):
    """Class of each window: the word of which most lies inside; unknown when only part of one does; else silence."""
    result = np.full(len(starts), SILENCE)
    best = np.full(len(starts), PARTLY)
    for kind, first, last in words:
        inside = (np.minimum(last, starts + WINDOW) - np.maximum(first, starts)) / (last - first)
        better = inside >= best
        best[better] = inside[better]
        result[better] = np.where(inside[better] >= INSIDE, kind, UNKNOWN)
    return result


def dataset():
    """Windows of all streams for the recorder, calibration first, drawn with seeds of their own; each recording of a word is used once at most."""
    parts = {"mfcc": [], "label": [], "split": [], "stream_id": [], "time_ns": []}
    number = 0
    for seed, (split, count) in enumerate(STREAMS.items()):
        clips, rng = speech.distinct(speech.load(split)), np.random.default_rng(seed)
        extent, noise = speech.word_extent(clips.audio), clips.audio[clips.label == SILENCE]
        deck = rng.permutation(np.flatnonzero(clips.label != SILENCE))
        keywords, others = (deck[(clips.label[deck] == UNKNOWN) == other].tolist() for other in (False, True))
        for _ in range(count):
            audio, words = stream(clips, extent, keywords, others, noise, rng)
            mfcc = np.concatenate([speech.coefficients(speech.log_mel(audio[place : place + RATE * 60 + speech.WINDOW - STEP]))
                                   for place in range(0, len(audio), RATE * 60)])  # fmt: skip
            starts = np.arange(0, len(audio) - WINDOW + 1, HOP)
            parts["mfcc"].append(mfcc[starts[:, None] // STEP + np.arange(speech.FRAMES)][:, None].astype(np.float32))
            parts["label"].append(labels(words, starts))
            parts["split"].append(np.full(len(starts), split))
            parts["stream_id"].append(np.full(len(starts), number))
            parts["time_ns"].append((starts + WINDOW) * (1_000_000_000 // RATE))
            number += 1
    return {name: np.concatenate(values) for name, values in parts.items()}


def print_events():
    """Keywords found in at least one of their windows, and keywords named where there is none, per exit of the test split."""
    from recipes.card import percent, print_table

    from eesim.trace import read_trace

    trace = read_trace(HERE / "trace.parquet")
    here = trace.split == "test"
    label, stream, answers = trace.label[here], trace.stream_id[here], trace.logits[:, here].argmax(axis=2)
    begins = np.concatenate([[True], (label[1:] != label[:-1]) | (stream[1:] != stream[:-1])])
    run, keyword = np.cumsum(begins) - 1, label < SILENCE
    hours = STREAMS["test"] * MINUTES / 60
    rows = []
    for exit, said in enumerate(answers):
        found = np.bincount(run, weights=keyword & (said == label)) > 0
        false = [((said < SILENCE) & (label == kind)).sum() for kind in (SILENCE, UNKNOWN)]
        rows.append([exit, percent(100 * found[run[begins & keyword]].mean()), *(f"{count / hours:.0f}" for count in false)])
    print(f"Test split: {(begins & keyword).sum()} keywords in {60 * hours:.0f} minutes, one threshold-free answer a window\n")
    print_table(["exit", "keywords found in some window, %", "windows of silence called a keyword, per hour", "of unknown, per hour"], rows)


RECIPE = Recipe(
    folder=HERE,
    network="ds-cnn",
    classes=speech.CLASSES,
    source=speech.DATASET,
    split_rule="calibration streams from calibration speakers' clips, test streams from test speakers' clips; order constructed",
    inputs={"mfcc": (1, speech.FRAMES, speech.COEFFICIENTS)},
    build=speech.ds_cnn,
    plan=None,
    training=speech.training,
    dataset=dataset,
    input_range=speech.INPUT_RANGE,
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        shutil.copy(HERE.parent / "kws-speech-commands" / "network.onnx", HERE / "network.onnx")
        describe(RECIPE)
    else:
        run(RECIPE)
        if sys.argv[1] == "card":
            print_events()
