"""Claims replayed on small made-up workloads: tables hold what sentences say, and the Markdown holds both."""

from __future__ import annotations

from dataclasses import replace

import builders
import numpy as np
import pytest

import eesim
from eesim.explore.claims import temporal
from eesim.explore.claims.claim import Claim
from eesim.explore.claims.dart import cost_shares
from eesim.explore.claims.jei_dnn import conformal
from eesim.report.reproduction import markdown
from eesim.trace import ExitTrace


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A workload whose neighbours are alike: each sample is repeated eight times with a little noise."""
    base = builders.trace(samples=400, calibration=160, classes=3)
    rows = np.repeat(np.arange(len(base)), 8)
    rng = np.random.default_rng(0)
    logits = base.logits[:, rows] + rng.normal(0, 0.05, (base.exits, rows.size, base.classes))
    whole = ExitTrace(
        replace(base.header, content_hash=""), np.arange(rows.size), base.stream_id[rows], np.arange(rows.size) * 10**6, base.split[rows],
        base.label[rows], logits.astype(np.float16), {name: values[rows] for name, values in base.difficulty.items()},
    )  # fmt: skip
    return eesim.load_workload(builders.write_workload(tmp_path_factory.mktemp("scenes") / "scenes", whole))


def test_order_saves_where_neighbours_are_alike_and_not_when_shuffled(scenes):
    claim = temporal([scenes])
    rows = claim.table.set_index("mechanism")
    for rule in ("difference-detection", "temporal-patience"):
        assert rows.loc[rule, "saved, recorded"] > rows.loc[rule, "saved, shuffled"] + 0.2
    assert rows.loc["max-softmax", "saved, recorded"] == rows.loc["max-softmax", "saved, shuffled"]
    assert rows.loc["constant", "saved, recorded"] == 1
    text = markdown([claim], "a command")
    assert claim.found[0] in text and text.count("| scenes |") == len(claim.table) and "a command" in text


def test_cells_that_are_shares_stand_in_percent():
    import pandas as pd

    claim = Claim("t", "s", "c", "d", pd.DataFrame([{"name": "a", "accuracy": 0.5, "latency, ms": 12.0, "lost": None}]), ("f",))
    assert "| a | 50.0 % | 12.00 | – |" in markdown([claim], "x")


def test_cost_shares_rise_and_stay_below_one(scenes, made_profile):
    shares = cost_shares(scenes, eesim.load_profile(made_profile))
    assert len(shares) == scenes.network.exits - 1 and list(shares) == sorted(shares) and shares[0] > 0 and shares[-1] <= 1


def test_conformal_sets_hold_the_truth_about_as_often_as_they_say(scenes):
    for name, parameters in (("budgeted", {"q": 0.8}), ("jei-dnn", {"trade_off": 0.3})):
        sets, labels = conformal(scenes, name, parameters, alpha=0.1)
        assert sets.shape == (len(labels), 3) and sets[np.arange(len(labels)), labels].mean() > 0.8
