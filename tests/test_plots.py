"""What pictures show: words, series, scales. Pixels are not compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eesim.errors import BadInput
from eesim.plot import exits, queueing, tradeoff, versus, write_picture
from eesim.plot.files import SERIES, series, write_comparison, write_sweep_plots
from eesim.plot.style import BOUNDS, COLOURS, MARKERS, MECHANISMS, looks

ROOT = Path(__file__).parents[1]


def row(profile, mechanism, accuracy, mj, **other):
    """A flat row of a sweep, with the columns that pictures read."""
    ms = 10 * mj
    base = {
        "workload": "beats", "profile": profile, "operating_point": "1.8V", "mechanism": mechanism, "exits": "0,1,2", "subset": None,
        "arrivals": "poisson:5/s", "order": "recorded", "split": "test", "servers": 1, "queue": None, "deadline_ms": None, "seed": 0,
        "requests": 1000, "accuracy": accuracy, "balanced_accuracy": accuracy - 0.2, "active_mj_mean": mj, "energy_mj_mean": mj + 9,
        "energy_mj_idle": 9000.0, "energy_mj_total": 1000 * (mj + 9), "energy_scope_rail": "supply of the board: core and memory",
        "energy_scope_idle": "included", "latency_ms_mean": ms, "latency_ms_p99": 2 * ms, "wait_ms_mean": 0.0, "utilization": 0.01 * ms,
        "exit_fraction_0": 0.9, "exit_fraction_1": 0.07, "exit_fraction_2": 0.03, "macs_mean": 1e5 * mj, "warnings": "",
        "parameters": {}, "parameters_threshold": np.nan,
    }  # fmt: skip
    return base | other


def device(profile, scale=1.0):
    """Rows of one device: two rules of four settings, and the bounds."""
    rules = [
        row(profile, name, accuracy - loss, scale * mj * more, parameters_threshold=threshold)
        for name, loss, more in (("entropy", 0.004, 1.3), ("max-softmax", 0.0, 1.0))
        for threshold, accuracy, mj in ((0.9, 0.93, 0.8), (0.5, 0.88, 0.2), (0.7, 0.91, 0.4), (np.inf, 0.94, 1.1))
    ]
    bounds = [
        row(profile, "static", 0.94, scale, wait_ms_mean=0.0),
        row(profile, "first-exit", 0.87, 0.1 * scale),
        row(profile, "oracle", 0.99, 0.15 * scale),
        row(profile, "constant", 0.5, 0.0, exit_fraction_0=0.0, exit_fraction_1=0.0, exit_fraction_2=0.0),
    ]
    return rules + bounds


@pytest.fixture
def frame():
    return pd.DataFrame(device("small") + device("big", 100.0))


@pytest.fixture
def subsets():
    rows = []
    for number, subset in enumerate(("0,1,2", "0,2", "1,2")):
        for each in device("small"):
            better = 0.003 * number if each["parameters_threshold"] == 0.5 + 0.2 * number else 0.0
            rows.append(each | {"exits": subset, "subset": "approximate" if number else None, "accuracy": each["accuracy"] + better})
    return pd.DataFrame(rows)


def words(made):
    """Everything written in a figure but tick labels."""
    texts = [text.get_text() for text in made.texts] + [made._suptitle.get_text()]
    for panel in made.axes:
        texts += [text.get_text() for text in panel.texts] + [panel.get_xlabel(), panel.get_ylabel()]
    return "\n".join(texts)


def written(panel):
    return "\n".join(text.get_text() for text in panel.texts)


def line(panel, label):
    (found,) = [each for each in panel.lines if each.get_label() == label]
    return found


def pairs(drawn):
    return sorted(zip(np.asarray(drawn.get_xdata(), float), np.asarray(drawn.get_ydata(), float)))


def legend_labels(made):
    legends = [*made.legends, *[panel.get_legend() for panel in made.axes if panel.get_legend()]]
    return [text.get_text() for each in legends for text in each.get_texts()]


# How mechanisms look


def test_a_mechanism_looks_the_same_in_every_company():
    together = looks(MECHANISMS)
    assert len({(look["color"], look["marker"]) for look in together.values()}) == len(MECHANISMS) == 20
    for name in MECHANISMS:
        assert looks([name, "static"]) == {name: together[name]}
    assert len(set(COLOURS)) * len(set(MARKERS)) == np.lcm(len(COLOURS), len(MARKERS)), "pairs repeat early"
    first = list(together.values())[: len(COLOURS)]
    assert len({look["color"] for look in first}) == len({look["marker"] for look in first}) == len(COLOURS)


def test_every_bundled_mechanism_has_a_fixed_place():
    from eesim.mechanisms.registry import load_mechanism, mechanism_names

    for name in mechanism_names():
        assert name in (BOUNDS if load_mechanism(name).bound else MECHANISMS), f"{name} has no place in eesim.plot.style"


def test_mechanisms_of_users_keep_their_look_and_never_take_a_bundled_one():
    alone = looks(["two-looks"])["two-looks"]
    assert looks(["entropy", "two-looks", "static"])["two-looks"] == alone
    many = looks([*MECHANISMS, *[f"own-{number}" for number in range(22)]])
    assert len({(look["color"], look["marker"]) for look in many.values()}) == 42
    assert len(looks([f"own-{number}" for number in range(60)])) == 60


# Trade-offs


def test_a_tradeoff_says_what_it_shows(frame):
    made, axes = tradeoff(frame)
    text = words(made)
    for part in ("beats: accuracy over active energy per inference", "1,000 requests", "poisson:5/s", "test split", "1 server", "up and to the left"):
        assert part in text, part
    assert axes[0].get_xlabel() == "active energy per inference, mJ" and axes[0].get_ylabel() == "accuracy"
    assert "idling is 86 to 99 % of all its energy" in written(axes[0]), "of static and rules, 9 of 9.1 to 10.43 mJ"
    assert "supply of the board" in written(axes[0]) and "core and memory" not in text
    assert tradeoff(frame, "energy_mj_mean", "balanced_accuracy")[1][0].get_xlabel() == "energy per inference with idling, mJ"
    assert tradeoff(frame, "latency_ms_p99")[1][0].get_xlabel() == "99th percentile of latency, ms"


def test_the_points_are_those_of_the_frame(frame):
    _, axes = tradeoff(frame)
    for panel, profile in zip(axes, ("small", "big"), strict=True):
        for name in ("entropy", "max-softmax"):
            rows = frame[(frame.profile == profile) & (frame.mechanism == name)]
            drawn = line(panel, name)
            assert pairs(drawn) == sorted(zip(rows.active_mj_mean, rows.accuracy))
            assert (drawn.get_color(), drawn.get_marker()) == tuple(looks([name])[name].values())
            assert drawn.get_markerfacecolor() == "none", "hollow, so that those below show"


def test_settings_are_joined_by_their_parameter_and_percentiles_are_not(frame):
    joined = line(tradeoff(frame)[1][0], "max-softmax")
    assert list(joined.get_xdata()) == [0.2, 0.4, 0.8, 1.1] and joined.get_linestyle() == "-", "'never' last"
    assert line(tradeoff(frame, "latency_ms_p99")[1][0], "max-softmax").get_linestyle() == "None"
    falling = frame.assign(parameters_threshold=frame.parameters_threshold.map(lambda value: value if np.isinf(value) else -value))
    assert list(line(tradeoff(falling)[1][0], "max-softmax").get_xdata()) == [0.2, 0.4, 0.8, 1.1]
    two = frame.assign(parameters_patience=range(len(frame)))
    assert line(tradeoff(two)[1][0], "max-softmax").get_linestyle() == "None", "no one order with two parameters"


def test_the_front_is_drawn_as_steps_and_nothing_lies_above_it(frame):
    for cost in ("active_mj_mean", "latency_ms_p99"):
        for panel, profile in zip(tradeoff(frame, cost)[1], ("small", "big"), strict=True):
            front = line(panel, "Pareto front")
            xs, ys = np.array(front.get_xdata(), float), np.array(front.get_ydata(), float)
            assert front.get_drawstyle() == "steps-post" and (np.diff(xs) > 0).all() and (np.diff(ys) > 0).all() and len(xs) == 5
            real = frame[(frame.profile == profile) & ~frame.mechanism.isin(["oracle", "constant"])]
            for x, y in zip(real[cost], real.accuracy):
                assert y <= ys[xs <= x].max(), "a setting beats the front"
            assert set(zip(xs, ys)) <= set(zip(real[cost], real.accuracy)), "every step stands on a setting"


def test_all_panels_share_a_logarithmic_scale(frame):
    _, axes = tradeoff(frame)
    assert {panel.get_xscale() for panel in axes} == {"log"}
    assert len({panel.get_xlim() for panel in axes}) == len({panel.get_ylim() for panel in axes}) == 1
    low, high = axes[0].get_xlim()
    assert low < 0.1 and high > 130
    near = frame[frame.active_mj_mean.between(0.4, 1.4) & (frame.profile == "small")]
    panel = tradeoff(near)[1][0]
    assert panel.get_xscale() == "linear" and panel.get_xlim()[0] == 0


def test_far_bounds_stand_at_the_edge_and_do_not_stretch_the_axis(frame):
    _, (panel, _) = tradeoff(frame)
    low, high = panel.get_ylim()
    assert 0.8 < low < 0.866 and 0.94 < high < 0.99
    texts = [text.get_text() for text in panel.texts]
    assert "oracle 0.990 ↑" in texts and "constant answer 0.500 ↓" in texts
    assert list(line(panel, "per-sample oracle").get_xdata()) == [0.15]
    near = frame.assign(accuracy=frame.accuracy.where(frame.mechanism != "oracle", 0.95).where(frame.mechanism != "constant", 0.86))
    _, (panel, _) = tradeoff(near)
    assert pairs(line(panel, "per-sample oracle")) == [(0.15, 0.95)] and panel.get_ylim()[1] > 0.95
    assert list(line(panel, "constant answer").get_ydata()) == [0.86, 0.86] and not [text for text in panel.texts if "↓" in text.get_text()]


def test_the_legend_names_all_that_is_drawn_once(frame):
    made, _ = tradeoff(frame)
    assert legend_labels(made) == [
        "Pareto front", "max-softmax", "entropy", "static (no exits), its accuracy dashed", "always first exit", "per-sample oracle",
    ]  # fmt: skip
    static = line(made.axes[0], BOUNDS["static"]["label"])
    assert static.get_linestyle() == "--", "the dashed line is in the legend"


@pytest.mark.parametrize("panels", [1, 2, 3, 4, 5, 7, 11])
def test_a_hole_holds_the_legend_and_there_is_one_at_most(panels):
    made, axes = tradeoff(pd.DataFrame([each for number in range(panels) for each in device(f"device-{number}", 10.0 ** (number % 5))]))
    holes = [panel for panel in made.axes if not panel.axison]
    assert len(axes) == panels and len(holes) <= 1
    assert all(hole.get_legend() for hole in holes) and len(legend_labels(made)) == 6
    shown = [panel for panel in axes if panel.get_xlabel()]
    assert shown and all(panel.get_xlabel() == shown[0].get_xlabel() for panel in shown)


def test_latencies_in_overload_are_left_out_and_counted(frame):
    frame.loc[(frame.mechanism == "static") & (frame.profile == "big"), ["latency_ms_p99", "warnings"]] = [9e9, "overload: 1.40 times"]
    _, (small, big) = tradeoff(frame, "latency_ms_p99")
    assert "1 settings in overload left out (static)" in written(big) and "overload" not in written(small)
    assert big.get_xlim()[1] < 1e5
    assert line(tradeoff(frame)[1][1], BOUNDS["static"]["label"]).get_xdata()[0] == 100.0, "energies stay"


def test_several_arrivals_are_panels_of_their_own(frame):
    both = pd.concat([frame, frame.assign(arrivals="poisson:9/s")])
    made, axes = tradeoff(both)
    assert [panel.get_label() for panel in axes] == [f"poisson:{rate}/s, {name}, 1.8V" for name in ("small", "big") for rate in (5, 9)] or [
        panel.get_label() for panel in axes
    ] == [f"poisson:{rate}/s, {name}, 1.8V" for rate in (5, 9) for name in ("small", "big")]
    assert "arrivals poisson" not in words(made)


# Subsets of exits


def test_subsets_show_front_points_only_with_the_exits_written_beside_them(subsets):
    made, (panel,) = tradeoff(subsets)
    front = set(pairs(line(panel, "Pareto front")))
    drawn = [each for each in panel.lines if each.get_gid()]
    assert {point for each in drawn for point in pairs(each)} == front
    for each in drawn:
        name = each.get_gid().split()[0]
        for x, y in pairs(each):
            match = subsets[(subsets.active_mj_mean == x) & (subsets.accuracy == y)]
            assert name in set(match.exits)
    shown = {each.get_gid().split()[0] for each in drawn}
    assert len(shown) > 1 and {f"exits {name}" for name in shown} <= set(legend_labels(made))
    assert {text.get_text() for text in panel.texts if re.fullmatch(r"[\d,]+", text.get_text())} == shown
    assert len({each.get_color() for each in drawn}) == len(shown)
    assert "max-softmax" not in legend_labels(made) and "by max-softmax" in legend_labels(made)
    assert len(line(panel, "per-sample oracle").get_xdata()) == 1, "one oracle, that of all exits"
    assert "coloured by the exits" in words(made)


# Odd frames


def test_frames_that_cannot_be_drawn_are_refused_in_one_line(frame):
    for bad, what in (
        (frame.iloc[:0], "no rows"),
        (frame.drop(columns="accuracy"), "accuracy"),
        (frame.drop(columns=["active_mj_mean", "latency_ms_mean"]), "latency_ms_mean"),
        (frame.drop(columns="mechanism"), "mechanism"),
        (frame.assign(active_mj_mean=np.nan, latency_ms_mean=np.nan), "nothing to draw"),
        (frame[frame.mechanism == "constant"], "nothing to draw"),
        ([1, 2], "list"),
    ):
        with pytest.raises(BadInput, match=what) as caught:
            tradeoff(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="active_mj_mean"):
        tradeoff(frame, "active_mj_men")
    for function in (queueing, exits):
        with pytest.raises(BadInput):
            function(frame.iloc[:0])
    with pytest.raises(BadInput, match="exit_fraction_0"):
        exits(frame[["mechanism", "profile"]])
    with pytest.raises(BadInput, match="too many"):
        exits(pd.concat([frame] * 9))
    with pytest.raises(BadInput, match="latency_ms_p99"):
        queueing(frame.drop(columns="latency_ms_p99"))


def test_small_and_holed_frames_give_sensible_pictures(frame, tmp_path):
    one = frame[(frame.mechanism == "static") & (frame.profile == "small")]
    for number, odd in enumerate(
        (
            one,
            frame[["mechanism", "accuracy", "active_mj_mean"]],
            frame[~frame.mechanism.isin(["static", "oracle", "constant", "first-exit"])],
            frame.assign(active_mj_mean=frame.active_mj_mean.astype(object).where(frame.profile == "big", None)),
            frame.assign(energy_mj_idle=None, requests=None, energy_scope_rail=None),
            frame.assign(active_mj_mean=frame.active_mj_mean.where(frame.mechanism != "entropy", 0.0)),
        )
    ):
        made, axes = tradeoff(odd)
        assert write_picture(made, tmp_path / f"{number}.png").stat().st_size > 5000
        assert all(np.isfinite([*panel.get_xlim(), *panel.get_ylim()]).all() and panel.get_ylim()[0] < panel.get_ylim()[1] for panel in axes)
    without = frame.assign(active_mj_mean=frame.active_mj_mean.where(frame.profile == "big"))
    _, (small, big) = tradeoff(without)
    assert "not known for this device" in [text.get_text() for text in small.texts] and not small.lines and big.lines
    assert tradeoff(frame.assign(active_mj_mean=np.nan))[1][0].get_xlabel() == "mean latency, ms", "no energy: latency"


# Bars


def test_queueing_clips_overload_and_says_so(frame):
    rows = frame[frame.parameters_threshold.isna() | (frame.parameters_threshold == 0.5)].reset_index(drop=True)
    over = (rows.profile == "small") & (rows.mechanism == "static")
    rows.loc[over, ["latency_ms_mean", "latency_ms_p99", "wait_ms_mean", "warnings"]] = [2e5, 4e5, 2e5 - 10, "overload: 1.31 times what …"]
    made, (small, big) = queueing(rows)
    assert small.get_xlim()[1] < 10, "the others set the scale"
    (text,) = [text.get_text() for text in small.texts if "overload" in text.get_text()]
    assert "200 s" in text and not [each for each in big.texts if "overload" in each.get_text()]
    assert max(bar.get_x() + bar.get_width() for bar in small.patches) <= small.get_xlim()[1] + 1e-9
    ticks = line(small, "latency, 99th percentile")
    names = [label.get_text() for label in small.get_yticklabels()]
    assert np.isnan(ticks.get_xdata()[names.index("static")]) and not ticks.get_clip_on()
    assert "waiting, mean" in legend_labels(made) and "No request waits" not in words(made)
    assert "Each device has its own scale" in words(made)


def test_queueing_without_waiting_shows_accuracies_and_no_empty_series(frame):
    rows = frame[(frame.parameters_threshold.isna() | (frame.parameters_threshold == 0.5)) & (frame.profile == "small")]
    made, (panel,) = queueing(rows.assign(runs_as=rows.mechanism.replace("entropy", "static")))
    assert legend_labels(made) == ["latency, 99th percentile", "computing, mean"] and "No request waits" in words(made)
    assert [label.get_text() for label in panel.get_yticklabels()] == ["entropy = static", "max-softmax", "static", "first-exit", "oracle"]
    texts = [text.get_text() for text in panel.texts]
    assert {"accuracy", "balanced", "94.0 %", "87.0 %", "74.0 %"} <= set(texts)
    assert [bar.get_width() for bar in panel.patches] == pytest.approx([2.6, 2.0, 10.0, 1.0, 1.5]) and panel.get_xlabel() == "latency, ms"
    slow = rows.assign(latency_ms_mean=rows.latency_ms_mean * 1e4, latency_ms_p99=rows.latency_ms_p99 * 1e4)
    (panel,) = queueing(slow)[1]
    assert panel.get_xlabel() == "latency, s" and panel.get_xlim()[1] == pytest.approx(208)
    fast = rows.assign(latency_ms_mean=rows.latency_ms_mean * 1e-3, latency_ms_p99=rows.latency_ms_p99 * 1e-3)
    assert queueing(fast)[1][0].get_xlabel() == "latency, µs"


def test_exits_hatch_rules_whose_answer_leaves_before_computing_ends(frame):
    rows = frame[frame.parameters_threshold.isna() & (frame.profile == "small")]
    made, (panel,) = exits(rows.assign(mechanism=rows.mechanism.replace("first-exit", "apparate")))
    names = [label.get_text() for label in panel.get_yticklabels()]
    hatched = {names[round(bar.get_y() + bar.get_height() / 2)] for bar in panel.patches if bar.get_hatch()}
    assert hatched == {"apparate"} and "hatched (apparate): answers leave there, computing runs to the end" in words(made).replace("\n", " ")
    known = rows.assign(answers_early=rows.mechanism == "oracle")
    assert "hatched (oracle)" in words(exits(known)[0]).replace("\n", " ")
    assert "hatched" not in words(exits(rows)[0])


def differing(**others):
    """Rows as `eesim.compare` gives them, with their differences in percent and points."""
    rows = []
    for name, (cost, low, high), points in (
        ("dart", (9, 7, 11), 0.0), ("berxit", (28, 20, 160), 0.3), ("entropy", (15, 11, 21), -0.5), ("patience", (0.5, -1, 2), 2.0),
        ("calm", (11, 10, 12), 0.5), ("pcee", (12, 11, 13), 0.5),
        ("first-exit", (-96, -97, -95), -14.0), ("static", (4000, 3900, 4100), 2.0), ("anytime", (4100, 4000, 4200), 2.0),
    ):  # fmt: skip
        differences = {"cost_difference_value": cost, "cost_difference_low": low, "cost_difference_high": high}
        differences |= {f"accuracy_difference_{part}": points + add for part, add in (("value", 0), ("low", -0.2), ("high", 0.2))}
        more = {"versus": "margin", "versus_thresholds": "per exit", "nothing_to_tune": name in ("static", "first-exit", "anytime"),
                "tuned_objective": "energy", "tuned_accuracy_drop": 0.01, "tuned_metric": "accuracy"}  # fmt: skip
        rows.append(row("small", name, 0.9, 1.0) | {key: value / 100 for key, value in differences.items()} | more | others)
    return pd.DataFrame(rows)


def test_versus_names_what_was_tuned_and_against_which_rule():
    made, (cost, points) = versus(differing())
    text = words(made).replace("\xa0", " ")
    assert "beats: mechanisms tuned for energy to lose at most 1 point of accuracy" in text and "1 server, seed 0" in text
    assert "margin, thresholds per exit" in text and "tie" not in text and "hollow: the interval holds 0" in text
    assert cost.get_xlabel() == "active energy against the best plain rule, %"
    assert versus(differing(tuned_objective="latency"))[1][0].get_xlabel() == "mean latency against the best plain rule, %"
    bare = differing().drop(columns=["versus_thresholds", "nothing_to_tune", "tuned_objective", "tuned_accuracy_drop", "tuned_metric"])
    assert "tuned to the same drop of accuracy" in words(versus(bare)[0])
    grey = {label.get_text() for label in cost.get_yticklabels() if label.get_color() == "0.5"}
    assert grey == {"static", "first-exit", "anytime"} and "Grey names: nothing to tune" in text.replace("\n", " ")
    hollow = {each.get_label() for each in cost.lines if each.get_markerfacecolor() == "white"}
    assert hollow == {"patience"} and {each.get_label() for each in points.lines if each.get_markerfacecolor() == "white"} == {"dart"}


def test_versus_cuts_what_lies_far_off_and_says_so():
    _, (cost, points) = versus(differing())
    left, right = cost.get_xlim()
    assert -40 < left < 0 < 60 < right < 160, "the near ones set the scale, on each side its own"
    assert {"+4,000 ▸", "+4,100 ▸", "◂ -96"} <= {text.get_text() for text in cost.texts}
    arrows = [each for each in cost.lines if each.get_marker() == ">" and not each.get_clip_on()]
    names = [label.get_text() for label in cost.get_yticklabels()]
    assert [names[int(each.get_ydata()[0])] for each in arrows] == ["berxit"] and arrows[0].get_xdata()[0] == right
    assert -14.2 > points.get_xlim()[0] > -18 and 2.2 < points.get_xlim()[1] < 4, "no empty half"
    nothing = differing(**{f"accuracy_difference_{part}": np.nan for part in ("value", "low", "high")})
    assert versus(nothing)[1][1].get_xlim() == (-1, 1)


def test_facts_break_behind_commas_only(frame):
    rows = frame[frame.parameters_threshold.isna()]
    for made in (exits(rows)[0], queueing(rows)[0]):
        assert "1\xa0server" in words(made) and not [line for text in made.texts for line in text.get_text().split("\n") if line != line.strip()]
    assert "queueing" in queueing(rows)[0]._suptitle.get_text()


def test_exits_show_every_share_as_a_number_and_every_device(frame):
    rows = frame[frame.parameters_threshold.isna() | (frame.parameters_threshold == 0.5)]
    made, axes = exits(rows)
    assert len(axes) == 1 and "small, 1.8V" in words(made) and "and alike: big, 1.8V" in words(made)
    assert "beats: where requests exit" in words(made) and "Darker is deeper" in words(made)
    assert {"90.0", "7.0", "3.0"} <= {text.get_text() for text in axes[0].texts}
    widths = np.array([bar.get_width() for bar in axes[0].patches]).reshape(3, 5)
    assert widths.sum(axis=0) == pytest.approx([100] * 5) and widths[1] == pytest.approx([7] * 5)
    assert "constant" not in [label.get_text() for label in axes[0].get_yticklabels()]
    other = rows.assign(exit_fraction_0=rows.exit_fraction_0 - 0.1 * (rows.profile == "big"), exit_fraction_2=0.03 + 0.1 * (rows.profile == "big"))
    assert [panel.get_label() for panel in exits(other)[1]] == ["small, 1.8V", "big, 1.8V"]
    lights = [sum(bar.get_facecolor()[:3]) for bar in axes[0].patches[::5]]
    assert lights == sorted(lights, reverse=True), "darker and darker"


# Files


def test_verbs_write_their_pictures_with_what_is_drawn_in_them(frame, tmp_path):
    names = [path.name for path in write_sweep_plots(frame, tmp_path)]
    assert names == ["tradeoff-energy-beats.png", "tradeoff-balanced-beats.png", "tradeoff-latency-beats.png"]
    stored = json.loads(Image.open(tmp_path / names[0]).text[SERIES])
    assert stored == series(tradeoff(frame)[0]) and set(stored) == {"small, 1.8V", "big, 1.8V"}
    assert stored["small, 1.8V"]["max-softmax"] == [[0.2, 0.4, 0.8, 1.1], [0.88, 0.91, 0.93, 0.94]]
    rows = frame[frame.parameters_threshold.isna()].to_dict("records")
    assert [path.name for path in write_comparison(rows, tmp_path / "compare")] == ["comparison.parquet", "queueing.png", "exits.png"]
    assert not list(tmp_path.rglob("*.unfinished"))


def test_the_picture_in_the_readme_is_what_the_notebook_draws_now(tmp_path, monkeypatch):
    notebook = nbformat.read(ROOT / "notebooks" / "01-first-tradeoff.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    writing = next(index for index, source in enumerate(cells) if "first-tradeoff.png" in source)
    monkeypatch.chdir(tmp_path)
    scope = {}
    for source in cells[: writing + 1]:
        exec(source, scope)
    drawn = json.loads(Image.open(tmp_path / "first-tradeoff.png").text[SERIES])
    kept = json.loads(Image.open(ROOT / "notebooks" / "first-tradeoff.png").text[SERIES])
    assert set(kept) == set(drawn) and len(kept) == 3
    for panel, lines in drawn.items():
        assert set(kept[panel]) == set(lines)
        for name, values in lines.items():
            if name != "Pareto front":  # follows from the others; its length may change with a last digit
                np.testing.assert_allclose(kept[panel][name], values, rtol=0.01, err_msg=f"{panel}, {name}: run the notebook in its folder")


def test_the_readme_names_what_its_picture_shows():
    (text,) = re.findall(r"!\[([^]]*)\]\(notebooks/first-tradeoff\.png\)", (ROOT / "README.md").read_text())
    kept = json.loads(Image.open(ROOT / "notebooks" / "first-tradeoff.png").text[SERIES])
    for panel, lines in kept.items():
        assert panel.split(",")[0] in text
        assert all(name in text for name in lines if name in MECHANISMS)
    named = {word.strip(",:.") for word in text.split()}
    assert {name for name in MECHANISMS if name in named} == {name for name in next(iter(kept.values())) if name in MECHANISMS}
