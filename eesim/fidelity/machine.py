"""This machine against itself: a profile made of some networks predicts others, and a simulated queue predicts a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from eesim.cost import price_network
from eesim.fidelity.checks import Finding, finding
from eesim.hardware import load_profile
from eesim.measure.measuring import Measurement
from eesim.measure.profile import STAGE_CALLS, write_measured_profile

NETWORKS = ("ecg-mitbih", "har-wisdm", "kws-speech-commands", "cifar10-resnet8", "alexnet", "vgg16", "resnet18", "ecg-rhythm")
"""Bundled networks with weights, all with several exits."""


def exits_of_other_networks(measurements: Sequence[Measurement], folder, progress: Callable[[int], None] = lambda steps: None) -> Finding:
    """Latency of every exit of each network, predicted from a profile that is fitted on the layers of all *other* networks.

    folder : where the profiles may be written.
    """
    errors = []
    for left_out in measurements:
        others = [measurement for measurement in measurements if measurement.name != left_out.name]
        profile = load_profile(write_measured_profile(others, folder / f"without-{left_out.name.replace('/', '-')}.yaml"))
        priced = price_network(left_out.network, profile)
        decision, _ = profile.decision_cost(profile.point())
        reached = np.cumsum(priced.segment_ns)
        for row in left_out.totals.dropna(subset=["exit"]).itertuples():
            exit = int(row.exit)
            # every segment and the head are calls of their own; two calls are in the price of the input, two in a decision
            predicted = reached[exit] + priced.head_ns[exit] + (row.calls - STAGE_CALLS) * decision / STAGE_CALLS
            errors.append(predicted / (row.latency_ms * 1e6) - 1)
        progress(1)
    disturbed = float(np.mean([measurement.totals.disturbed.mean() for measurement in measurements]))
    left_out, scaled = (float(np.mean([measurement.totals[share].mean() for measurement in measurements])) for share in ("left_out", "scaled"))
    note = f"{len(measurements)} networks, {len(errors)} exits; of the repeats {left_out:.0%} were left out since the machine was slow, "
    note += f"{scaled:.0%} were scaled, and {disturbed:.0%} of those that count were disturbed"
    how = "each network predicted from the others"
    return finding("this machine, exits", f"{measurements[0].clock} clock", "latency", np.array(errors), how, note=note)
