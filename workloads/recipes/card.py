"""The tables of a workload's card, from its network and its trace."""

import numpy as np

percent = "{:.1f}".format


def print_table(heading, rows):
    """A Markdown table."""
    print("| " + " | ".join(heading) + " |")
    print("|" + "---|" * len(heading))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print()


def print_card(folder, matrix=True):
    """Cost of each exit; accuracy, balanced accuracy, macro-F1, calibration error and agreement per exit; confusion of the last."""
    from eesim.network import read_network
    from eesim.trace import read_trace
    from eesim.trace.describe import describe

    network = read_network(folder / "network.yaml")
    rows, macs, params = [], 0, 0
    for exit in range(network.exits):
        macs, params = macs + network.segment_macs[exit], params + sum(layer.params for layer in network.segments[exit])
        head = sum(layer.params for layer in network.heads[exit])
        rows.append([exit, f"{macs + network.head_macs[exit]:,}", f"{network.head_macs[exit]:,}", f"{params + head:,}"])
    print("Network (MACs of an exit: segments up to it and its own head)\n")
    print_table(["exit", "MACs", "of which head", "parameters"], rows)
    if not (folder / "trace.parquet").is_file():
        return
    trace = read_trace(folder / "trace.parquet")
    classes, answers = trace.header.classes, trace.logits.argmax(axis=2)
    for split, about in reversed(describe(trace)["splits"].items()):
        here = trace.split == split
        label = trace.label[here]
        persistence, streams = about["persistence"], "one stream" if about["streams"] == 1 else f"{about['streams']} streams"
        print(
            f"{split.capitalize()}, %: {about['samples']:,} samples in {streams}; "
            f"the most frequent class is {percent(100 * about['majority'])}; some exit is right on {percent(100 * about['oracle'])}; "
            f"same label as the sample before: {'no order' if persistence is None else percent(100 * persistence)}; "
            "calibration error in 15 bins of equal mass\n"
        )
        rows = []
        for exit, said in enumerate(about["exits"]):
            confusion = np.zeros((len(classes), len(classes)), np.int64)
            np.add.at(confusion, (label, answers[exit, here]), 1)
            there, named = confusion.sum(axis=1), confusion.sum(axis=0)
            f1 = 2 * confusion.diagonal() / np.maximum(there + named, 1)
            means = [said["mean_confidence"], said["calibration_error"], said["agreement"]]
            figures = [said["accuracy"], said["balanced_accuracy"], f1[there > 0].mean(), *means]
            rows.append([exit, *("–" if value is None else percent(100 * value) for value in figures)])
        print_table(["exit", "accuracy", "balanced", "macro-F1", "mean confidence", "calibration error", "agrees with the last exit"], rows)
        if split == "test" and matrix:
            print("Confusion matrix of the last exit on the test split\n")
            print_table(["label \\ answer", *classes], [[name, *(f"{count:,}" for count in row)] for name, row in zip(classes, confusion)])
