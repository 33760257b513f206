"""Difference Detection and Temporal Patience: worked examples, plain twins, options, costs, tuning, and lanes."""

from __future__ import annotations

import math
from itertools import product

import builders
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import eesim
from eesim.engine import replay as lanes
from eesim.errors import BadInput
from eesim.mechanisms import STOP, Mechanism, Parameter, _asking, load_mechanism
from eesim.mechanisms._asking import decide_in_order, step_of
from eesim.mechanisms._deciding import decide
from eesim.mechanisms._scene import changes, largest_square, majority
from eesim.trace import TraceView

NAMES = ("difference-detection", "temporal-patience")


def view_of(probabilities, labels=None, **columns):
    """A view in which exit e says `probabilities[e][n]` about sample n."""
    logits = np.log(np.asarray(probabilities, float)).astype(np.float32)
    return TraceView.of_arrays(logits, np.zeros(logits.shape[1], int) if labels is None else np.asarray(labels), **columns)


def scene_arrays(samples=300, exits=4, classes=3, seed=0, hold=12, drift=0.9):
    """Logits [E, N, K] and labels [N] of scenes: labels hold for a while, noise changes slowly, deeper exits see less of it."""
    rng = np.random.default_rng(seed)
    label = np.repeat(rng.integers(0, classes, samples // hold + 1), hold)[:samples].astype(np.int32)
    noise = rng.normal(size=(exits, samples, classes))
    for sample in range(1, samples):
        noise[:, sample] = drift * noise[:, sample - 1] + math.sqrt(1 - drift**2) * noise[:, sample]
    depth = 1 + np.arange(exits)[:, None, None]
    return (np.eye(classes)[label][None] * depth + 1.2 * noise).astype(np.float16), label


def scenes(streams=3, **options):
    """A view of scenes in several streams that take turns in no order."""
    logits, label = scene_arrays(**options)
    turn = np.random.default_rng(1).integers(0, streams, label.size).astype(np.int32)
    order = np.argsort(turn, kind="stable")
    view = TraceView.of_arrays(logits[:, order], label[order], stream_id=turn[order])
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    return view.taken(back)


def decided(name, view, **values):
    """Decisions of a rule; visited heads as sets, exits, classes."""
    rule = load_mechanism(name)
    decisions = decide(rule, view, rule.settle(values, view))
    heads = [{exit for exit in range(view.exits) if decisions.paths[path].visited >> exit & 1} for path in decisions.path]
    return heads, decisions.exit.tolist(), decisions.prediction.tolist()


def distance_of(kind, left, right):
    if kind == "l1":
        return sum(abs(a - b) for a, b in zip(left, right, strict=True))
    if kind == "cosine":
        return 1 - sum(left * right) / math.sqrt(sum(left * left)) / math.sqrt(sum(right * right))
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(left, right, strict=True)))


def vote_of(answers):
    """The most frequent answer; the last exit's where there are several."""
    counts = {answer: list(answers).count(answer) for answer in answers}
    most = [answer for answer, count in counts.items() if count == max(counts.values())]
    return most[0] if len(most) == 1 else answers[-1]


def difference_detection(view, *, threshold, distance="l2", label="vote", reference="scene", max_scene="never"):
    """Section 6.1, one sample after the other."""
    scenes, heads, exits, classes = {}, [], [], []
    last = view.exits - 1
    for index in range(len(view)):
        said, answers = view.probabilities[index], view.answers[index].tolist()
        scene = scenes.get(view.stream_id[index])
        same = scene is not None and threshold != "never" and (max_scene == "never" or scene["length"] < max_scene)
        if same and distance_of(distance, said[0], scene["reference"]) <= threshold:
            heads.append({0})
            exits.append(0)
            classes.append(answers[0] if label == "first" else scene["label"])
            scene["length"] += 1
            if reference == "previous":
                scene["reference"] = said[0]
            continue
        mine = vote_of(answers) if label == "vote" else answers[-1]
        scenes[view.stream_id[index]] = {"reference": said[0], "label": mine, "length": 1}
        heads.append(set(range(view.exits)) if label == "vote" else {0, last})
        exits.append(last)
        classes.append(mine)
    return heads, exits, classes


def temporal_patience(view, *, threshold, distance="l2", reference="scene", label="exit", evaluate="exit", max_scene="never", reopen_when_final="no"):
    """Section 6.2, one sample after the other."""
    scenes, heads, exits, classes = {}, [], [], []
    last = view.exits - 1
    limits = [*threshold, threshold[-1]] if isinstance(threshold, list) else [threshold] * view.exits
    for index in range(len(view)):
        said, answers = view.probabilities[index], view.answers[index].tolist()
        scene = scenes.get(view.stream_id[index])
        if scene is not None and (max_scene == "never" or scene["length"] < max_scene):
            chosen = scene["exit"]
            asked = range(chosen + 1) if evaluate == "all" else [chosen]
            same = all(
                limits[e] != "never" and answers[e] == scene["answers"][e] and distance_of(distance, said[e], scene["said"][e]) <= limits[e]
                for e in asked
            )
            if same:
                heads.append(set(asked))
                exits.append(chosen)
                classes.append({"exit": answers[chosen], "vote": scene["vote"]}.get(label, scene["final"]))
                scene["length"] += 1
                if reference == "previous":
                    for e in asked:
                        scene["said"][e], scene["answers"][e] = said[e], answers[e]
                if chosen == last and reopen_when_final == "yes":
                    del scenes[view.stream_id[index]]
                continue
        chosen = next(e for e in range(view.exits) if answers[e] == answers[-1])
        scenes[view.stream_id[index]] = {
            "length": 1, "exit": chosen, "final": answers[-1], "vote": vote_of(answers), "said": list(said), "answers": list(answers)
        }  # fmt: skip
        heads.append(set(range(view.exits)))
        exits.append(last)
        classes.append(vote_of(answers) if label == "vote" else answers[-1])
    return heads, exits, classes


TWINS = {"difference-detection": difference_detection, "temporal-patience": temporal_patience}
OPTIONS = {
    "difference-detection": {"label": ["vote", "final", "first"], "reference": ["scene", "previous"], "max_scene": ["never", 1, 5]},
    "temporal-patience": {
        "label": ["exit", "reference", "final", "vote"], "reference": ["scene", "previous"], "evaluate": ["exit", "all"],
        "max_scene": ["never", 4], "reopen_when_final": ["no", "yes"],
    },
}  # fmt: skip


def test_changes_of_the_reference_example():
    """(.8,.2) (.7,.3) (.5,.5) (.55,.45) with threshold .2: changes .141421 and .424264 to the first, .070711 to the third."""
    first = [(0.8, 0.2), (0.7, 0.3), (0.5, 0.5), (0.55, 0.45)]
    view = view_of([first, [(0.9, 0.1), (0.1, 0.9), (0.1, 0.9), (0.9, 0.1)]])
    heads, exits, classes = decided("difference-detection", view, threshold=0.2, label="final")
    assert heads == [{0, 1}, {0}, {0, 1}, {0}] and exits == [1, 0, 1, 0]
    assert classes == [0, 0, 1, 1], "a scene keeps the label of the sample that opened it"
    assert decided("difference-detection", view, threshold=0.14, label="final")[1] == [1, 1, 1, 0]
    assert decided("difference-detection", view, threshold=0.2, label="first")[2][1] == 0, "its own at the first exit"
    assert decided("difference-detection", view, threshold="never")[1] == [1, 1, 1, 1]
    assert changes(view, 0, "l2") == pytest.approx([0.141421, 0.282843, 0.070711], abs=1e-6)


def test_patience_of_the_reference_example():
    """Scene start (.6,.4), (.2,.8), final the second class: e is the second exit. (.3,.7) goes on, (.55,.45) ends the scene."""
    third = [(0.1, 0.9), (0.9, 0.1), (0.9, 0.1)]
    view = view_of([[(0.6, 0.4)] * 3, [(0.2, 0.8), (0.3, 0.7), (0.55, 0.45)], third])
    heads, exits, classes = decided("temporal-patience", view, threshold=0.2)
    assert heads == [{0, 1, 2}, {1}, {0, 1, 2}] and exits == [2, 1, 2] and classes == [1, 1, 0]
    assert decided("temporal-patience", view, threshold=1)[0] == heads, "another answer ends the scene however near it is"
    assert decided("temporal-patience", view, threshold=0.14)[0] == [{0, 1, 2}, {0, 1, 2}, {0}], "in the new scene the first exit agrees"
    assert decided("temporal-patience", view, threshold=0.2, evaluate="all")[0] == [{0, 1, 2}, {0, 1}, {0, 1, 2}]


def test_all_heads_are_compared_with_what_they_answered_even_at_a_tie():
    """(.5,.5) answers the first class, (.45,.55) the second: the first exit, before the chosen one, ends the scene."""
    view = view_of([[(0.5, 0.5), (0.45, 0.55)], [(0.2, 0.8), (0.25, 0.75)], [(0.1, 0.9)] * 2])
    assert decided("temporal-patience", view, threshold=0.2, evaluate="all")[0] == [{0, 1, 2}] * 2
    assert decided("temporal-patience", view, threshold=0.2)[0] == [{0, 1, 2}, {1}]
    logits, label = scene_arrays(samples=600)
    tied = TraceView.of_arrays(np.round(logits.astype(float) / 2).astype(np.float16), label)
    ranked = np.sort(tied.probabilities[:, :-1], axis=2)
    assert (ranked[:, :, -1] == ranked[:, :, -2]).mean() > 0.1
    for reference in ("scene", "previous"):
        values = {"threshold": 0.6, "evaluate": "all", "reference": reference}
        assert decided("temporal-patience", tied, **values) == temporal_patience(tied, **values)


def test_a_vote_needs_a_majority_and_ties_go_to_the_last_exit():
    answers = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 2], [0, 0, 2, 2], [1, 2, 0, 0], [0, 1, 2, 3]])
    assert majority(answers.astype(np.int32), 4).tolist() == [1, 0, 0, 2, 0, 3]
    assert majority(np.array([[0, 0, 1, 1, 2]], np.int32), 3).tolist() == [2], "even where the last exit is alone"


def test_squares_are_compared_exactly_as_distances_are():
    rng = np.random.default_rng(0)
    for threshold in [0.0, 0.1, 0.2, math.sqrt(0.02), *rng.random(200)]:
        square = largest_square(float(threshold))
        assert math.sqrt(square) <= threshold < math.sqrt(math.nextafter(square, math.inf))
    for square in rng.random(200):
        assert square <= largest_square(math.sqrt(square)), "a distance that is the threshold itself belongs to the scene"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_does_what_its_plain_twin_does(name):
    """The compiled rule against section 6 written out, over several streams that take turns."""
    views = [scenes(seed=seed, exits=exits, classes=classes, hold=9) for seed, exits, classes in ((0, 4, 3), (1, 2, 5), (2, 5, 2))]
    reused = back_from_last = 0
    for number, chosen in enumerate(product(*OPTIONS[name].values())):
        values = dict(zip(OPTIONS[name], chosen, strict=True))
        view = views[number % len(views)]
        values["distance"] = ("l2", "l1", "cosine")[number // len(views) % 3]
        for threshold in (0.15, 0.4, "never"):
            found = decided(name, view, threshold=threshold, **values)
            expected = TWINS[name](view, threshold=threshold, **values)
            for part, wanted in zip(found, expected, strict=True):
                assert part == wanted, (values, threshold)
            reused += sum(len(heads) < view.exits for heads in found[0])
            back_from_last += sum(heads == {view.exits - 1} for heads in found[0])
    assert reused > 3000, "scenes must last for this test to say something"
    assert name != NAMES[1] or back_from_last > 50


def test_patience_takes_a_threshold_for_each_exit_and_the_last_one_takes_that_before_it():
    view = scenes(exits=4)
    for threshold in ([0.1, 0.3, 0.5], ["never", 0.5, 0.2], [0.4, 0.4, "never"]):
        assert decided("temporal-patience", view, threshold=threshold) == temporal_patience(view, threshold=threshold)
    kept = view.restricted((1, 3))
    assert decided("temporal-patience", kept, threshold=[0.9, 0.3, 0.7]) == temporal_patience(kept, threshold=0.3)
    alone = view.restricted((3,))
    assert decided("temporal-patience", alone, threshold=[0.9, 0.3, 0.7]) == temporal_patience(alone, threshold=0.7)


def test_a_changed_sample_whose_exit_is_the_last_renews_all_references():
    """e is the last exit at first; the sample that ends that scene finds an earlier one, having gone back for the other heads."""
    view = view_of([[(0.9, 0.1), (0.9, 0.1), (0.9, 0.1)], [(0.1, 0.9), (0.9, 0.1), (0.9, 0.1)]])
    heads, exits, classes = decided("temporal-patience", view, threshold=0.1)
    assert heads == [{0, 1}, {0, 1}, {0}] and exits == [1, 1, 0] and classes == [1, 0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_scenes_belong_to_streams_and_a_stream_begins_with_one(name):
    logits, label = scene_arrays(samples=40, hold=40, drift=1)
    view = TraceView.of_arrays(np.repeat(logits[:, :1], 40, axis=1), label, stream_id=np.repeat([7, 3], 20).astype(np.int32))
    assert [index for index, exit in enumerate(decided(name, view, threshold=0, max_scene=8)[0]) if len(exit) == view.exits] == [0, 8, 16, 20, 28, 36]
    assert sum(len(heads) == view.exits for heads in decided(name, view, threshold=0)[0]) == 2, "equal samples are 0 apart"
    assert sum(len(heads) == view.exits for heads in decided(name, view, threshold=0, distance="cosine")[0]) == 2


@pytest.mark.parametrize("name", NAMES)
def test_ranges_follow_the_distance(name):
    view, rule = scenes(), load_mechanism(name)
    for distance, limit in (("l2", math.sqrt(2)), ("l1", 2.0), ("cosine", 1.0)):
        assert rule.check({"threshold": limit, "distance": distance}, view)["threshold"] == limit
        with pytest.raises(BadInput, match="outside its range") as caught:
            rule.check({"threshold": limit + 0.01, "distance": distance}, view)
        assert "\n" not in str(caught.value)
        if name == NAMES[0]:  # at the largest distance there is one scene
            assert sum(exit > 0 for exit in decided(name, view, threshold=limit, distance=distance)[1]) == view.streams[1]
    assert rule.check({"threshold": 1.5, "distance": "L1"}, view)["threshold"] == 1.5
    with pytest.raises(BadInput, match="outside its range"):
        rule.check({"threshold": 1.5}, view)
    for bad, telling in (
        ({"threshold": -0.1}, "outside"), ({"threshold": "ever"}, "not a number"), ({"distance": "l3"}, "did you mean"),
        ({"max_scene": 0}, "whole number"), ({"max_scene": 2.5}, "whole number"), ({"reference": "first"}, "reference"), ({"label": 3}, "label"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=telling) as caught:
            rule.check(bad, view)
        assert "\n" not in str(caught.value)
    if name == NAMES[0]:
        with pytest.raises(BadInput, match="takes one value"):
            rule.check({"threshold": [0.1, 0.2, 0.3]}, view)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_that_is_no_number_never_stays_in_a_scene(name):
    logits, label = scene_arrays(samples=30, hold=30, drift=1)
    logits = np.repeat(logits[:, :1], 30, axis=1).astype(np.float32)
    logits[:, 10] = np.nan
    view = TraceView.of_arrays(logits, label)
    opened = [index for index, heads in enumerate(decided(name, view, threshold=math.sqrt(2))[0]) if len(heads) == view.exits]
    assert opened == [0, 10, 11]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("exits", [1, 2])
def test_few_exits_and_unlabelled_samples(name, exits):
    view = builders.view(samples=200, exits=exits, calibration=80, unlabelled=150)
    rule = load_mechanism(name)
    assert decided(name, view, threshold=0.5) == (TWINS[name](view, threshold=0.5))
    for values in rule.candidates(view.calibration, 20):
        decide(rule, view, rule.settle(values, view))


def test_memory_is_what_the_references_take():
    view = scenes(exits=4, classes=3)
    assert load_mechanism("difference-detection").memory(view, {}) == 3 + 2
    assert load_mechanism("temporal-patience").memory(view, {}) == 4 * 3 + 4
    assert load_mechanism("temporal-patience").memory(view, {"evaluate": "all"}) == 4 * 3 + 4 + 4, "and what each reference answered"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("distance", ["l2", "l1", "cosine"])
def test_candidates_lie_where_changes_do(name, distance):
    view, rule = scenes(samples=900), load_mechanism(name)
    found = [values["threshold"] for values in rule.candidates(view, 100, {"distance": distance})]
    assert found[-1] == "never" and found[:-1] == sorted(found[:-1]) and 30 <= len(found) <= 66 and found[0] == 0
    seen = changes(view, 0, distance)
    by_hand = [
        distance_of(distance, view.probabilities[after, 0], view.probabilities[before, 0])
        for stream in np.unique(view.stream_id)
        for before, after in zip(np.flatnonzero(view.stream_id == stream), np.flatnonzero(view.stream_id == stream)[1:], strict=False)
    ]
    assert np.sort(seen) == pytest.approx(np.sort(by_hand), abs=1e-12), "changes are within a stream"
    near = [value for value in found[:-1] if np.quantile(seen, 0.05) <= value <= np.quantile(seen, 0.95)]
    assert len(near) >= 15
    for value in found:
        rule.check({"threshold": value, "distance": distance}, view)
    assert rule.candidates(view, 100, {"threshold": 0.2}) == [{}]


def test_what_a_sample_costs(tmp_path):
    """Within a scene: the segments up to the chosen exit, one head, one decision. A sample that opens one: all of them."""
    made = builders.trace(samples=300, exits=3, calibration=100)
    made.logits[:] = made.logits[:, :1]  # nothing changes: every stream is one scene
    made.logits[1] = made.logits[2]
    made.logits[0] = -made.logits[2]  # the first exit never agrees with the last, the second does
    work = eesim.load_workload(builders.write_workload(tmp_path / "still", made))
    profile = eesim.load_profile(builders.write_profile(tmp_path))
    network = work.network
    for name, values, heads, opens in (
        ("difference-detection", {"label": "vote"}, [0], [0, 1, 2]), ("difference-detection", {"label": "final"}, [0], [0, 2]),
        ("temporal-patience", {}, [1], [0, 1, 2]), ("temporal-patience", {"evaluate": "all"}, [0, 1], [0, 1, 2]),
    ):  # fmt: skip
        result = eesim.simulate(work, profile, name, {"threshold": 0.1, **values})
        macs = [
            sum(network.segment_macs[: max(ran) + 1]) + sum(network.head_macs[head] for head in ran) for ran in (heads, opens)
        ]  # fmt: skip
        assert result["macs_mean"] == pytest.approx((macs[0] * 197 + macs[1] * 3) / 200), (name, values)
        assert result["exit_fractions"][heads[-1]] == pytest.approx(197 / 200)
        assert result["decision_ops_mean"] > 0
    charge = load_mechanism("difference-detection").charge(eesim.mechanisms.Site(10, 4))
    assert [sum(piece.operations for piece in charge.at(exit)) for exit in range(3)] == [71, 11, 11]
    charge = load_mechanism("temporal-patience").charge(eesim.mechanisms.Site(10, 4))
    assert sum(piece.operations for piece in charge.at(1)) == 40 + 42


@pytest.mark.parametrize("name", NAMES)
def test_tuning_finds_what_scenes_save(tmp_path, name):
    """On scenes much is saved within two points; shuffled, the same thresholds save less."""
    logits, label = scene_arrays(samples=6000, exits=4, classes=4, hold=40, drift=0.98, seed=5)
    made = builders.trace(samples=6000, exits=4, classes=4, calibration=2000)
    made.logits[:], made.label[:] = logits, label
    work = eesim.load_workload(builders.write_workload(tmp_path / "scenes", made))
    profile = eesim.load_profile(builders.write_profile(tmp_path))
    tuned = eesim.tune(work, profile, name, accuracy_drop=0.02, objective="macs")
    assert tuned.mechanism.name == name and tuned.parameters["threshold"] != "never"
    full, saved, mixed = (
        eesim.simulate(work, profile, rule, values, order=order)["macs_mean"]
        for rule, values, order in (("static", {}, "recorded"), (name, tuned.parameters, "recorded"), (name, tuned.parameters, "shuffled"))
    )
    assert saved < 0.8 * full and saved < mixed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("engine", ["lindley", "calendar"])
def test_engines_agree_with_the_oracle(tmp_path, name, engine):
    """Also where requests are dropped, which leave no mark in the memory, and over several laps, each beginning anew."""
    work = builders.workload(tmp_path / "w", samples=260, exits=3, calibration=100)
    profile = eesim.load_profile(builders.write_profile(tmp_path))
    load = {"queue": 1} if engine == "calendar" else {}
    results = [
        eesim.simulate(work, profile, name, {"threshold": 0.9}, arrivals="poisson:4000/s", requests=500, engine=way, **load)
        for way in (engine, "simpy")
    ]
    assert_array_equal(results[0].requests.to_numpy(), results[1].requests.to_numpy())
    assert not load or results[0]["dropped"] > 0


def test_lanes_ask_without_counting_references_and_steps_may_still_allocate():
    """What makes a thousand settings of a rule over a long trace a matter of seconds; a step that makes arrays takes the slow way."""

    class Sorts(Mechanism):
        """Stops where the largest p1 so far reaches the threshold, found by sorting."""

        name, state = "sorts-test", "within"
        parameters = (Parameter("threshold", 0.6, 0.0, 1.0),)

        @staticmethod
        def step(exit, observed, scratch, memory, parameters, situation, answer):
            if exit >= 0 and np.sort(observed[: exit + 1, 0])[-1] >= parameters[0]:
                return STOP
            return exit + 1

    view = scenes(exits=4)
    for rule in (Sorts(), *map(load_mechanism, NAMES)):
        settings = [rule.settle({"threshold": value}, view) for value in np.linspace(0, 1, 40)]
        found = list(lanes.replay(view, rule, settings))
        assert rule.name == "sorts-test" or step_of(rule) not in _asking._ALLOCATING
        for part in found:
            for place, correct in zip(part.settings, part.correct, strict=True):
                assert correct == (decide_in_order(rule, view, settings[place]).prediction == view.label).sum()
