"""Claims replayed on small made-up workloads: tables hold what sentences say, and the Markdown holds both."""

from __future__ import annotations

from dataclasses import replace

import builders
import numpy as np
import pandas as pd
import pytest

import eesim
from eesim.explore.claims import temporal
from eesim.explore.claims.claim import Claim, points, span, spelled
from eesim.explore.claims.dart import PARTS, PLAIN, _found, cost_shares
from eesim.explore.claims.jei_dnn import conformal, mac_shares
from eesim.explore.claims.survey import _needless
from eesim.explore.claims.temporal import _verdict
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
    assert (rows["persistence"] > rows["persistence, shuffled"] + 0.3).all()
    assert claim.found[0].startswith("Verdict, difference-detection: ") and "on 1 of 1 streams (scenes)" in claim.found[0]
    text = markdown([claim], "a command")
    assert claim.found[0] in text and text.count("| scenes |") == len(claim.table) and "a command" in text


def test_cells_say_percent_points_and_settings_and_like_rows_are_folded():
    row = {"method": "a", "accuracy": 0.5, "latency, ms": 12.0, "lost, recorded": 0.0519, "lost": None, "persistence": 0.91504, "beta_diff": 0.3}
    claim = Claim("t", "s", "c", "d", pd.DataFrame([row, {**row, "method": "b"}, {**row, "method": "c", "accuracy": 0.6}]), ("f",))
    text = markdown([claim], "x")
    assert "| method | accuracy | latency, ms | lost, recorded, points | lost, points |" in text
    assert "| a; b | 50.0 % | 12.00 | 5.2 | – | 0.915 | 0.3 |" in text and "| c | 60.0 % |" in text


def test_words_fit_the_sign():
    assert points(0.041) == "loses 4.1 points" and points(-0.041) == "gains 4.1 points" and points(-0.0004) == "loses nothing"
    assert spelled(["a"]) == "a" and spelled("abc") == "a, b and c" and spelled([]) == "none"
    assert span([1, -2], " %") == "-0.5 % on average (-2.0 to +1.0)" and span([-0.01]) == "+0.0"


def methods(**speeds):
    """Rows of DART's claim, one for each method: its speed-up, or None where it fell back to static."""
    rows = []
    for name in ("static", *PLAIN, *PARTS):
        speed = speeds.get(name.split(" ")[0].strip(",").lower(), 1.5)
        kept = name == "static" or speed is None
        rows.append({
            "network": "net", "device": "board", "method": name, "runs as": "static" if kept else "dart", "accuracy lost": 0.0 if kept else 0.02,
            "speed-up": 1.0 if kept else speed, "energy gain": 1.0 if kept else speed, "DAES": 1.0,
        })  # fmt: skip
    return pd.DataFrame(rows)


def test_what_is_slower_is_called_slower_and_what_fell_back_static():
    found = " ".join(_found(methods(dart=0.98, branchynet=None)))
    assert "faster than static in 0 of 1 cases" in found and "slower on the test split in 1" in found
    assert "DART is 0.98 times as fast as static (slower) and loses 2.0 points, with 1.02 times the energy" in found
    assert "BranchyNet (entropy) finds nothing faster within the drop and keeps static" in found and "times faster" not in found
    kept = list(_found(methods(dart=None)))
    assert "DART finds nothing faster within the drop and keeps static. BranchyNet" in kept[1]
    quick = list(_found(methods(dart=2.0)))
    assert "faster than static in 1 of 1 cases" in quick[0] and "DART against max-softmax, per exit: +33.3 %" in quick[1]
    assert "against itself without difficulty: +33.3 %" in quick[2] and "in 1 and 1 of 1 cases" in quick[2]
    nothing = list(_found(methods(dart=None, branchynet=None, **{"max-softmax": None, "without": None, "sign": None, "adaptive": None})))
    assert "faster than static in 0 of 1" in nothing[0] and "nothing within the drop was faster" in nothing[1] and len(nothing) == 2


def test_the_verdict_on_order_counts_thresholds_per_exit():
    def rows(name, saved, shuffled, equal, each, control=0.2):
        return [
            {"workload": name, "mechanism": rule, "persistence": 0.9, "persistence, shuffled": control, "saved, recorded": saved,
             "saved, shuffled": shuffled, "balanced lost, recorded": 0.02, "max-softmax at equal": equal, "max-softmax, per exit at equal": each}
            for rule in ("difference-detection", "temporal-patience")
        ]  # fmt: skip

    table = pd.DataFrame([*rows("won", 0.9, 0.1, 0.5, 0.6), *rows("half", 0.7, 0.1, 0.5, 0.8), *rows("none", 0.7, 0.7, 0.8, 0.8, 0.95)])
    found = list(_verdict(table, 0.05))
    assert "on 1 of 3 streams (won); more than one shared threshold, but not more than one for each exit, on half" in found[0]
    assert "within 5 points: won." in found[1] and "none (0.900 to 0.950)" in found[2] and len(found) == 3


def test_a_deadline_that_static_keeps_is_remarked():
    cases = [("static", "0.5", 1, 0.8), ("anytime", "0.5", 0, 0.7), ("static", "1", 0, 0.8), ("anytime", "1", 0, 0.7)]
    rows = pd.DataFrame([{"setting": f"{name}, deadline {share}", "deadline missed": missed, "accuracy": accuracy}
                         for name, share, missed, accuracy in cases])  # fmt: skip
    assert _needless(rows).startswith(". At 1, static is in time itself") and not _needless(rows[:2])


def test_mac_shares_count_heads_and_rise(scenes):
    recorded, fitted = (mac_shares(scenes, modules) for modules in ("recorded", "fitted"))
    assert len(recorded) == scenes.network.exits - 1 and list(recorded) == sorted(recorded) and 0 < recorded[0] < recorded[-1] < 1
    assert recorded != fitted, "modules of its own are not the heads"


def test_cost_shares_rise_and_stay_below_one(scenes, made_profile):
    shares = cost_shares(scenes, eesim.load_profile(made_profile))
    assert len(shares) == scenes.network.exits - 1 and list(shares) == sorted(shares) and shares[0] > 0 and shares[-1] <= 1


def test_conformal_sets_hold_the_truth_about_as_often_as_they_say(scenes):
    for name, parameters in (("budgeted", {"q": 0.8}), ("jei-dnn", {"trade_off": 0.3, "modules": "fitted"})):
        sets, labels = conformal(scenes, name, parameters, alpha=0.1)
        assert sets.shape == (len(labels), 3) and sets[np.arange(len(labels)), labels].mean() > 0.8
