"""Recipe of the workload ecg-mitbih: raw MIT-BIH records -> network.onnx -> trace.parquet -> tables of the card.

    EESIM_RAW_DATA=DIR python recipe.py train  [--seed 0]      # needs torch; writes network.onnx and network.yaml
    EESIM_RAW_DATA=DIR python recipe.py record [--seed 0]      # needs onnxruntime; writes trace.parquet and features.parquet
    python recipe.py card                                      # prints the tables of README.md from trace.parquet

DIR holds datasets/mitbih/mitbih_48.tar.xz with the 48 records as PhysioNet ships them (NNN.hea, NNN.dat, NNN.atr).
"""

import argparse
import sys
import tarfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.card import print_table
from recipes.raw import raw_file

HERE = Path(__file__).resolve().parent
SOURCE = {"name": "MIT-BIH Arrhythmia Database 1.0.0", "licence": "ODC-By 1.0", "origin": "https://physionet.org/content/mitdb/1.0.0/"}

# ---------------------------------------------------------------------------------------------------------------------
# Split by patient. DS1 and DS2 are those of de Chazal et al. 2004. The calibration patients are DS1 patients that are
# never trained on; they were picked from the counts of labels alone, so that all four classes occur. Record 201 of DS1 is
# left out: 202, of DS2, is the same person.
TRAINING = (101, 106, 108, 109, 112, 115, 116, 118, 119, 122, 203, 207, 208, 209, 215, 230)
CALIBRATION = (114, 124, 205, 220, 223)
TEST = (100, 103, 105, 111, 113, 117, 121, 123, 200, 202, 210, 212, 213, 214, 219, 221, 222, 228, 231, 232, 233, 234)

CLASSES = ("N", "S", "V", "F")
AAMI = {**dict.fromkeys("NLRej", 0), **dict.fromkeys("AaJS", 1), **dict.fromkeys("VE", 2), "F": 3}
UNKNOWN = "/fQ"  # class Q: beats for the rhythm, but left out of the rows
SYMBOLS = {
    1: "N",
    2: "L",
    3: "R",
    4: "a",
    5: "V",
    6: "F",
    7: "J",
    8: "A",
    9: "S",
    10: "E",
    11: "j",
    12: "/",
    13: "Q",
    34: "e",
    38: "f",
}  # WFDB annotation codes of beats

RATE = 360  # samples per second of the recordings
LEAD = "MLII"  # the lead that every record of DS1 and DS2 has
DECIMATION = 2  # the network sees 180 Hz
BEFORE, AFTER = 40, 72  # samples at 180 Hz around the annotated beat: 222 ms before, 400 ms after; neighbours stay outside
WIDTH = BEFORE + AFTER
RR_FEATURES = 8
EXITS = 5


# ---------------------------------------------------------------------------------------------------------------------
# Raw records


def open_raw():
    """Name -> bytes of the raw records."""
    with tarfile.open(raw_file("datasets", "mitbih", "mitbih_48.tar.xz")) as archive:
        return {Path(member.name).name: archive.extractfile(member).read() for member in archive if member.isfile()}


def read_signal(raw, record, angle=0):
    """The MLII lead in mV at 360 Hz, turned by `angle` degrees towards the record's other lead (training only).

    WFDB format 212: two 12-bit samples in three bytes, the two leads interleaved.
    """
    header = raw[f"{record}.hea"].decode("ascii").splitlines()
    data = np.frombuffer(raw[f"{record}.dat"], np.uint8).reshape(-1, 3).astype(np.int16)
    leads = {}
    for place, line in enumerate(header[1:3]):
        fields = line.split()
        counts = data[:, 2] | (data[:, 1] & 0xF0) << 4 if place else data[:, 0] | (data[:, 1] & 0x0F) << 8
        counts = np.where(counts > 2047, counts - 4096, counts)
        leads["main" if fields[-1] == LEAD else "other"] = (counts - int(fields[4])) / float(fields[2])
    turn = np.deg2rad(angle)
    return leads["main"] * np.cos(turn) + leads["other"] * np.sin(turn) if angle else leads["main"]


def read_annotations(raw, record):
    """What a WFDB annotation file holds, in order: (sample number, code, text), the text empty where there is none."""
    data = raw[f"{record}.atr"]
    words = np.frombuffer(data, "<u2").astype(np.int64)
    marks, time, i = [], 0, 0
    while i < len(words):
        code, value = words[i] >> 10, words[i] & 0x3FF
        i += 1
        if code == 0 and value == 0:  # end of file
            break
        if code == 59:  # SKIP: the next two words are a long interval, high word first
            interval = int(words[i]) << 16 | int(words[i + 1])
            time += interval - (1 << 32) if interval >> 31 else interval
            i += 2
        elif code == 63:  # AUX: a string of `value` bytes, padded to words, that belongs to the annotation before it
            marks[-1] = (*marks[-1][:2], data[2 * i : 2 * i + int(value)].split(b"\0")[0].decode("ascii"))
            i += (value + 1) // 2
        elif code not in (60, 61, 62):  # NUM, SUB, CHN carry no time
            time += int(value)
            marks.append((time, int(code), ""))
    return marks


def read_beats(raw, record):
    """Sample numbers and symbols of the beats; rhythm and comment marks are left out."""
    beats = [(sample, SYMBOLS[code]) for sample, code, _ in read_annotations(raw, record) if code in SYMBOLS]
    return np.array([sample for sample, _ in beats], np.int64), [symbol for _, symbol in beats]


# ---------------------------------------------------------------------------------------------------------------------
# Inputs of the network. Everything is causal within the record, except post-RR (known one beat later) and the 400 ms
# of signal after the beat.


def running_mean(values, slowest):
    """Mean of values[0..i] for every i, exponential from the point where 1/(i+1) falls below `slowest`."""
    result = np.empty_like(values)
    mean = np.zeros_like(values[0])
    for i, value in enumerate(values):
        mean = mean + (value - mean) * max(1.0 / (i + 1), slowest)
        result[i] = mean
    return result


def beat_inputs(signal, samples):
    """signal [n, 2, 1, WIDTH] and rr [n, RR_FEATURES] for every beat of one record.

    Channel 0 is the beat: pair averages (180 Hz), minus the median of the window, over the running mean amplitude of
    the record. Channel 1 is the beat minus the running mean beat of this record before it: how unlike this patient's
    usual beat it is.
    """
    low = signal[: len(signal) // DECIMATION * DECIMATION].reshape(-1, DECIMATION).mean(axis=1)
    index = samples[:, None] // DECIMATION + np.arange(-BEFORE, AFTER)
    window = low[np.clip(index, 0, len(low) - 1)]
    window = window - np.median(window, axis=1, keepdims=True)
    amplitude = running_mean(np.abs(window).max(axis=1), 0.02)
    usual = running_mean(window, 0.05)
    usual = np.concatenate([window[:1], usual[:-1]])
    both = np.stack([window, window - usual], axis=1) / np.maximum(amplitude, 0.05)[:, None, None]
    return np.clip(both, -4, 4)[:, :, None, :].astype(np.float32), rr_inputs(samples)


def rr_inputs(samples):
    """Logarithms of ratios of RR intervals: how early the beat came and how long the pause after it was."""
    interval = np.diff(samples) / RATE
    before = np.log(np.clip(np.concatenate([interval[:1], interval]), 0.2, 3.0))  # the first beat has none: as the next
    after = np.append(before[1:], before[-1])  # the last beat has none: as the last
    slow = running_mean(before, 0.01)
    local, spread, previous = np.empty_like(before), np.empty_like(before), np.empty_like(before)
    for i in range(len(before)):
        recent = before[max(0, i - 10) : i] if i else before[:1]
        local[i], spread[i] = np.median(recent), recent.std()
        previous[i] = recent[-1]
    columns = [before - local, after - local, before - after, previous - local, before - slow, local - slow, local + 0.25, spread - 0.1]
    return (3 * np.clip(np.stack(columns, axis=1), -1, 1)).astype(np.float32)


def prepare(raw, records, angle=0):
    """Rows of the given records, in ascending record and time: signal, rr, label, record, time_ns."""
    parts = []
    for record in sorted(records):
        samples, symbols = read_beats(raw, record)
        signal, rr = beat_inputs(read_signal(raw, record, angle), samples)
        keep = np.array([symbol not in UNKNOWN for symbol in symbols])
        label = np.array([AAMI.get(symbol, -1) for symbol in symbols], np.int32)
        time_ns = (samples * 1_000_000_000 + RATE // 2) // RATE
        parts.append((signal[keep], rr[keep], label[keep], np.full(keep.sum(), record, np.int32), time_ns[keep]))
    return [np.concatenate(part) for part in zip(*parts)]


# ---------------------------------------------------------------------------------------------------------------------
# Training

EPOCHS, BATCH, PEAK_RATE, DECAY, DROPOUT = 12, 128, 3e-3, 1e-2, 0.3
CLASS_POWER = 0.45  # a class that is r times rarer weighs r**0.45 as much per beat
PATIENT_POWER = 0.5  # within a class, a patient's n beats weigh together as (n + 20)**0.5
TRANSPLANT = 0.9  # how often an S beat takes its signal, or a V beat its RR intervals, from elsewhere
ROTATED = 0.5  # how often a beat is seen on a lead turned away from MLII
ANGLES = (15, -15, 30, -30, 45, -45)  # degrees between MLII and the record's other lead

# (operation, channels in, channels out, kernel, stride); a pool halves. One list for each segment.
SEGMENTS = (
    [("conv", 2, 16, 7, 2)],
    [("conv", 16, 32, 5, 1), ("pool",)],
    [("depthwise", 32, 32, 5, 1), ("conv", 32, 64, 1, 1), ("pool",)],
    [("conv", 64, 64, 5, 1), ("pool",)],
    [("conv", 64, 128, 3, 1), ("depthwise", 128, 128, 3, 1), ("conv", 128, 128, 1, 1)],
)
CHANNELS, HIDDEN = (16, 32, 64, 64, 128), 24


def build():
    """The network in torch: (segments, heads). A head sees the mean of each channel and the RR features."""
    from torch import nn

    def layers(operation, *sizes):
        if operation == "pool":
            return [nn.MaxPool1d(2)]
        inputs, outputs, kernel, stride = sizes
        groups = inputs if operation == "depthwise" else 1
        conv = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm1d(outputs), nn.ReLU()]

    segments = nn.ModuleList(nn.Sequential(*[layer for line in lines for layer in layers(*line)]) for lines in SEGMENTS)
    heads = nn.ModuleList(
        nn.Sequential(nn.Linear(channels + RR_FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, len(CLASSES))) for channels in CHANNELS
    )
    return segments, heads


def forward(segments, heads, signal, rr, dropout=0.0):
    """Logits of every exit. signal [n, 2, WIDTH], rr [n, RR_FEATURES]."""
    import torch
    from torch.nn import functional

    logits = []
    for segment, head in zip(segments, heads):
        signal = segment(signal)
        pooled = functional.dropout(signal.mean(dim=2), dropout, training=dropout > 0)
        logits.append(head(torch.cat([pooled, rr], dim=1)))
    return logits


def loss_weights(label, record):
    """Weight of each beat in the loss, mean 1: rare classes count more, patients with many beats of a class less."""
    counts = np.bincount(label, minlength=len(CLASSES))
    by_class = (counts.sum() / np.maximum(counts, 1)) ** CLASS_POWER
    weight = np.zeros(len(label))
    for kind in range(len(CLASSES)):
        of_class = label == kind
        for patient in np.unique(record[of_class]):
            rows = of_class & (record == patient)
            weight[rows] = (rows.sum() + 20.0) ** -PATIENT_POWER
        weight[of_class] *= by_class[kind] * of_class.sum() / weight[of_class].sum()
    return weight / weight.mean()


def transplant(rows, label, usual_rows, ventricular, rng):
    """Rows to take signal and RR from, so that S is learnt from rhythm and V from shape, whoever the patient is.

    S beats look like the patient's own N beats and come from few patients: with probability TRANSPLANT an S beat keeps
    its RR features and gets the signal of an N beat of a random patient; a V beat gets the RR features of another V.
    """
    signal_rows, rr_rows = rows.copy(), rows.copy()
    chosen = rng.random(len(rows)) < TRANSPLANT
    for i in np.flatnonzero(chosen & (label[rows] == 1)):
        patient = usual_rows[rng.integers(len(usual_rows))]
        signal_rows[i] = patient[rng.integers(len(patient))]
    v = chosen & (label[rows] == 2)
    rr_rows[v] = rng.choice(ventricular, v.sum())
    return signal_rows, rr_rows


def distort(signal, rr, rng):
    """Random shift, stretch, gain, baseline and noise of a batch: signal [n, 2, WIDTH], rr [n, RR_FEATURES]."""
    n, _, width = signal.shape
    stretch = 1 + rng.uniform(-0.08, 0.08, (n, 1))
    place = (np.arange(width) - BEFORE) * stretch + BEFORE + rng.integers(-3, 4, (n, 1))
    place = np.clip(place, 0, width - 1.001)
    left = place.astype(np.int64)
    part = (place - left)[:, None, :]
    row, channel = np.arange(n)[:, None, None], np.arange(2)[None, :, None]
    signal = signal[row, channel, left[:, None, :]] * (1 - part) + signal[row, channel, left[:, None, :] + 1] * part
    signal = signal * (1 + 0.2 * rng.standard_normal((n, 1, 1)))
    phase, cycles = rng.uniform(0, 2 * np.pi, (n, 1, 1)), rng.uniform(0, 1.5, (n, 1, 1))
    signal += 0.05 * rng.standard_normal((n, 1, 1)) * np.sin(2 * np.pi * cycles * np.arange(width) / width + phase)
    signal += 0.03 * rng.random((n, 1, 1)) * rng.standard_normal(signal.shape, dtype=np.float32)
    rr = rr + 0.15 * rng.standard_normal(rr.shape)
    return signal.astype(np.float32), rr.astype(np.float32)


def training_set(raw):
    """(signal, rr, draw): the training beats as the network sees them, and draw(rows, rng) -> (signal, rr, label, weight) of a batch."""
    signal, rr, label, record, _ = prepare(raw, TRAINING)
    rotated = [prepare(raw, TRAINING, angle)[0] for angle in ANGLES]
    leads = np.stack([signal, *rotated])[:, :, :, 0, :].astype(np.float16)  # [1 + angles, beats, 2, WIDTH]
    weight = loss_weights(label, record).astype(np.float32)
    usual_rows = [np.flatnonzero((label == 0) & (record == patient)) for patient in TRAINING]
    ventricular = np.flatnonzero(label == 2)

    def draw(rows, rng):
        signal_rows, rr_rows = transplant(rows, label, usual_rows, ventricular, rng)
        lead = np.where(rng.random(BATCH) < ROTATED, rng.integers(1, len(leads), BATCH), 0)
        return *distort(leads[lead, signal_rows].astype(np.float32), rr[rr_rows], rng), label[rows].astype(np.int64), weight[rows]

    return signal, rr, draw


def fit(parameters, answer, draw, beats, rng):
    """Train `parameters` on the sum of weighted cross-entropies of the logits that answer(signal, rr) lists; no early stopping."""
    import torch
    from torch.nn import functional

    optimiser = torch.optim.AdamW(parameters, PEAK_RATE, weight_decay=DECAY)
    steps = beats // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=EPOCHS * steps, pct_start=0.15)
    for epoch in range(EPOCHS):
        order, total = rng.permutation(beats), 0.0
        for step in range(steps):
            signal, rr, label, weight = map(torch.from_numpy, draw(order[step * BATCH : (step + 1) * BATCH], rng))
            loss = sum((weight * functional.cross_entropy(out, label, reduction="none")).mean() for out in answer(signal, rr))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total / steps:.4f}", file=sys.stderr, flush=True)


def learn_jointly(segments, heads, draw, beats, rng):
    """Backbone and all heads at once."""
    fit([*segments.parameters(), *heads.parameters()], lambda *inputs: forward(segments, heads, *inputs, dropout=DROPOUT), draw, beats, rng)


# ---------------------------------------------------------------------------------------------------------------------
# Export


def export(segments, heads, name):
    """The ONNX model: batch norms folded, convolutions as 2-D with 1xk kernels, batch size `N`."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, weights = [], []

    def value(name, array):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def node(operator, name, inputs, **attributes):
        nodes.append(helper.make_node(operator, inputs, [attributes.pop("output", name)], name=name, **attributes))
        return nodes[-1].output[0]

    tensor, outputs = "signal", []
    for e, (segment, head) in enumerate(zip(segments, heads)):
        layers = list(segment)
        while layers:
            kind = type(layers[0]).__name__
            if kind == "MaxPool1d":
                layers.pop(0)
                tensor = node("MaxPool", f"segment{e}/pool", [tensor], kernel_shape=[1, 2], strides=[1, 2])
                continue
            conv, norm, _ = (layers.pop(0) for _ in range(3))
            scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double().numpy()
            kernel = conv.weight.detach().double().numpy() * scale[:, None, None]
            bias = norm.bias.detach().double().numpy() - norm.running_mean.double().numpy() * scale
            width, pad = conv.kernel_size[0], conv.padding[0]
            shape = "depthwise" if conv.groups > 1 else "pointwise" if width == 1 else "conv"
            name = f"segment{e}/{shape}"
            tensor = node(
                "Conv",
                name,
                [tensor, value(f"{name}.weight", kernel[:, :, None, :]), value(f"{name}.bias", bias)],
                kernel_shape=[1, width],
                strides=[1, conv.stride[0]],
                pads=[0, pad, 0, pad],
                group=conv.groups,
            )
            tensor = node("Relu", f"{name}_relu", [tensor])
        pooled = node("Flatten", f"head{e}/flatten", [node("GlobalAveragePool", f"head{e}/pool", [tensor])])
        hidden = node("Concat", f"head{e}/concat", [pooled, "rr"], axis=1)
        for name, linear in ((f"head{e}/hidden", head[0]), (f"head{e}/fc", head[2])):
            operands = [value(f"{name}.weight", linear.weight.detach().numpy()), value(f"{name}.bias", linear.bias.detach().numpy())]
            last = name.endswith("fc")
            hidden = node("Gemm", name, [hidden, *operands], transB=1, output=f"logits_{e}" if last else name)
            hidden = hidden if last else node("Relu", f"{name}_relu", [hidden])
        outputs.append(helper.make_tensor_value_info(hidden, TensorProto.FLOAT, ["N", len(CLASSES)]))

    inputs = [
        helper.make_tensor_value_info("signal", TensorProto.FLOAT, ["N", 2, 1, WIDTH]),
        helper.make_tensor_value_info("rr", TensorProto.FLOAT, ["N", RR_FEATURES]),
    ]
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="recipe.py")
    checker.check_model(model, full_check=True)
    return model


def run_train(name, learn, seed, path):
    import onnx
    import onnxruntime
    import torch

    from eesim.network import write_network
    from eesim.network.onnx_import import import_onnx

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    signal, rr, draw = training_set(open_raw())
    segments, heads = build()
    learn(segments, heads, draw, len(rr), np.random.default_rng(seed))
    segments.eval()
    onnx.save(export(segments, heads, name), path)
    with torch.no_grad():
        expected = forward(segments, heads, torch.from_numpy(signal[:512, :, 0]), torch.from_numpy(rr[:512]))
    said = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"signal": signal[:512], "rr": rr[:512]})
    difference = np.abs(np.stack([out.numpy() for out in expected]) - np.stack(said)).max()
    if difference > 1e-4:
        raise SystemExit(f"recipe.py: network.onnx and torch differ by {difference:.1e}")
    write_network(import_onnx(path, name=name, final_head=f"head{EXITS - 1}/pool"), path.with_suffix(".yaml"))
    print(f"wrote {path.name}; largest difference from torch {difference:.1e}", file=sys.stderr)


# ---------------------------------------------------------------------------------------------------------------------
# Recording


def run_record(name, mode, seed, network, path):
    from eesim.trace import record as record_trace

    raw = open_raw()
    halves = [prepare(raw, records) for records in (CALIBRATION, TEST)]
    signal, rr, label, record, time_ns = (np.concatenate(parts) for parts in zip(*halves))
    split = np.repeat(["calibration", "test"], [len(half[2]) for half in halves])
    record_trace(
        network,
        {"signal": signal, "rr": rr, "label": label, "stream_id": record, "time_ns": time_ns, "split": split},
        path,
        network=name,
        classes=CLASSES,
        features=path.with_name("features.parquet"),
        input_range=(-4.0, 4.0),
        final_head=f"head{EXITS - 1}/pool",
        source=SOURCE,
        split_rule="by patient: calibration = records " + " ".join(map(str, CALIBRATION)) + " of DS1 (never trained on); "
        "test = DS2 of de Chazal et al. 2004; record 201 left out (same person as 202); "
        "rows in order of recording, one stream per record; class Q left out",
        training_mode=mode,
        recipe="recipe.py",
        seed=seed,
    )
    print(f"wrote {path.name}: {(split == 'calibration').sum()} calibration and {(split == 'test').sum()} test beats", file=sys.stderr)


# ---------------------------------------------------------------------------------------------------------------------
# Tables of the card


def scores(label, predicted):
    """Accuracy, macro-F1, balanced accuracy (classes with at least 50 beats), recall and F1 of each class."""
    matrix = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(matrix, (label, predicted), 1)
    hits, there, said = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    recall, f1 = hits / np.maximum(there, 1), 2 * hits / np.maximum(there + said, 1)
    return hits.sum() / len(label), f1[there > 0].mean(), recall[there >= 50].mean(), recall, f1, matrix


def run_card(network, path):
    from eesim.network.onnx_import import import_onnx
    from eesim.trace import read_trace

    net, trace = import_onnx(network), read_trace(path)
    print("Network (MACs of an exit: segments up to it and its own head)\n")
    rows, macs, params = [], 0, 0
    for e in range(net.exits):
        macs, params = macs + net.segment_macs[e], params + sum(layer.params for layer in net.segments[e])
        head_params = sum(layer.params for layer in net.heads[e])
        shape = " x ".join(map(str, net.segments[e][-1].output_shape[1:]))
        rows.append([str(e), shape, f"{macs + net.head_macs[e]:,}", f"{net.head_macs[e]:,}", f"{params + head_params:,}"])
    print_table(["exit", "feature map", "MACs", "of which head", "parameters"], rows)
    print(f"All segments and all heads: {sum(net.segment_macs) + sum(net.head_macs):,} MACs, {net.params:,} parameters.\n")

    percent = "{:.1f}".format
    prediction = trace.logits.argmax(axis=2)
    for split in ("test", "calibration"):
        here = trace.split == split
        label = trace.label[here]
        counts = np.bincount(label, minlength=len(CLASSES))
        print(f"{split.capitalize()}, %: {len(label):,} beats (" + ", ".join(f"{c} {n:,}" for c, n in zip(CLASSES, counts)) + ")\n")
        rows = []
        candidates = [(f"exit {e}", prediction[e, here]) for e in range(trace.exits)]
        right = prediction[:, here] == label
        candidates.append(("oracle", np.where(right.any(axis=0), label, prediction[-1, here])))
        candidates.append(("always N", np.zeros_like(label)))
        for name, predicted in candidates:
            accuracy, macro, balanced, recall, f1, _ = scores(label, predicted)
            rows.append(
                [
                    name,
                    percent(100 * accuracy),
                    percent(100 * macro),
                    percent(100 * balanced),
                    " / ".join(percent(100 * v) for v in recall),
                    " / ".join(percent(100 * v) for v in f1),
                ]
            )
        print_table(["", "accuracy", "macro-F1", "balanced", "recall N / S / V / F", "F1 N / S / V / F"], rows)
        if split == "test":
            print("Confusion matrix of the last exit on the test split\n")
            matrix = scores(label, prediction[-1, here])[-1]
            print_table(["label \\ answer", *CLASSES], [[c, *(f"{n:,}" for n in row)] for c, row in zip(CLASSES, matrix)])
            print("Max-softmax as a measure of trust, test split\n")
            rows = []
            for e in range(trace.exits):
                logits = trace.logits[e, here].astype(np.float64)
                top = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
                sure = top >= 0.95
                rows.append([str(e), percent(100 * ranking(top, right[e])), percent(100 * sure.mean()), percent(100 * right[e, sure].mean())])
            print_table(["exit", "AUROC right against wrong, %", "share with p >= 0.95, %", "accuracy of these, %"], rows)


def ranking(score, right):
    """Probability that a right answer scores above a wrong one (AUROC), ties counted half."""
    values, place = np.unique(score, return_inverse=True)
    wrong = np.bincount(place, weights=~right, minlength=len(values))
    below = np.cumsum(wrong) - wrong / 2
    return below[place[right]].mean() / wrong.sum()


def main(folder=HERE, learn=learn_jointly, mode="joint"):
    """The command line, for a workload in `folder` whose network `learn` trains."""
    parser = argparse.ArgumentParser(description=f"Recipe of the workload {folder.name}.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (
        ("train", "train on DS1 and write network.onnx and network.yaml"),
        ("record", "run network.onnx and write trace.parquet and features.parquet"),
        ("card", "print the tables of README.md"),
    ):
        command = verbs.add_parser(verb, help=text)
        command.add_argument("--network", type=Path, default=folder / "network.onnx")
        if verb != "train":
            command.add_argument("--trace", type=Path, default=folder / "trace.parquet")
        if verb != "card":
            command.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.verb == "train":
        run_train(folder.name, learn, options.seed, options.network)
    elif options.verb == "record":
        run_record(folder.name, mode, options.seed, options.network, options.trace)
    else:
        run_card(options.network, options.trace)


if __name__ == "__main__":
    main()
