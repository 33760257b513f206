"""Mechanisms that learn from the calibration split: budgeted, eenet, berxit, zero-time-waste, class-means."""

from __future__ import annotations

import builders
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import eesim
from eesim.cost import MechanismCost, price_network
from eesim.errors import BadInput
from eesim.hardware.profile import load_profile
from eesim.mechanisms import _fitting, load_mechanism
from eesim.mechanisms._eenet_fit import EDGE, applied, exit_distribution, inputs, scores_of, with_past
from eesim.mechanisms._eenet_fit import fit as fit_eenet
from eesim.mechanisms._fitting import folds
from eesim.mechanisms._logistic import minimum
from eesim.mechanisms._losses import arithmetic, budget_loss, cut_cross_entropy, geometric, squared_error
from eesim.mechanisms._walk import geometric_shares, walked
from eesim.mechanisms.base import Path, Site
from eesim.mechanisms.berxit import fit as fit_berxit
from eesim.mechanisms.class_means import compared
from eesim.mechanisms.class_means import fit as fit_means
from eesim.mechanisms.zero_time_waste import fit as fit_ensembles
from eesim.mechanisms.zero_time_waste import told
from eesim.trace import TraceView

LEARNED = ("eenet", "berxit", "zero-time-waste", "class-means")


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("EESIM_CACHE", "")


@pytest.fixture(scope="module")
def view():
    return builders.view(samples=2400, exits=4, calibration=1200, unlabelled=60, seed=4)


def widths_view(widths=(3, 6, 4), samples=300):
    """A view whose exits have features of different widths."""
    made, rng = builders.trace(samples=samples, exits=3, calibration=samples // 2), np.random.default_rng(0)
    whole = [(logits.astype(float) @ rng.normal(size=(4, width))).astype(np.float16) for logits, width in zip(made.logits, widths, strict=True)]
    views = {}

    def sibling(name):
        if name not in views:
            views[name] = TraceView(made, name, sibling=sibling, features=lambda split: [part[made.split == split] for part in whole])
        return views[name]

    return sibling("test")


# budgeted


def test_geometric_shares():
    assert geometric_shares(0.5, 5) == pytest.approx([0.516129, 0.258065, 0.129032, 0.064516, 0.032258], abs=1e-6)
    assert geometric_shares(1, 5) == pytest.approx([0.2] * 5)
    assert geometric_shares(2, 5) == pytest.approx(geometric_shares(0.5, 5)[::-1])
    assert np.isfinite(geometric_shares(1e6, 60)).all() and geometric_shares(1e-6, 60)[0] == pytest.approx(1, abs=1e-5)


def test_the_walk_by_hand():
    first, second = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.95, 0.1), (0.5, 0.6, 0.9, 0.8, 0.7, 0.4, 0.85, 0.3, 0.99, 0.2)
    scores = np.column_stack([first, second])
    bars = walked(scores, np.array([0.3, 0.4, 0.3]))
    assert bars.tolist() == [0.8, 0.7]
    passed = scores >= bars
    assert (np.where(passed.any(axis=1), passed.argmax(axis=1), 2) + 1).tolist() == [1, 1, 2, 2, 2, 3, 2, 3, 1, 3]


def test_the_walk_at_its_ends():
    scores = np.column_stack([[0.5, 0.5, 0.5, 0.1], [0.4, 0.9, 0.3, 0.2]])
    assert walked(scores, np.array([0.24, 0.5, 0.26])).tolist() == [np.inf, 0.4], "a share below one sample: nobody leaves"
    assert walked(scores, np.array([0.5, 0.25, 0.25])).tolist() == [0.5, 0.2], "equal scores leave together, so only one is left"
    assert walked(scores, np.array([0.5, 0.5, 0.0])).tolist() == [0.5, 0.2], "fewer are left than shall leave"
    assert walked(scores, np.array([0.5, 0.25, 0.25]), exact=True).tolist() == [0.5, 0.3], "or exactly as many as asked"


def plain_walk(scores, shares):
    """The walk sample by sample, as it is described."""
    gone, bars = set(), []
    for exit, share in enumerate(shares[:-1]):
        wanted, count, bar = int(share * len(scores) + 1e-9), 0, np.inf
        ranked = sorted((sample for sample in range(len(scores)) if sample not in gone), key=lambda sample: -scores[sample, exit])
        for sample in ranked:
            if count < wanted:
                count, bar = count + 1, scores[sample, exit]
        gone |= {sample for sample in range(len(scores)) if scores[sample, exit] >= bar}
        bars.append(bar)
    return bars


@pytest.mark.parametrize("score", ["max-softmax", "entropy", "margin"])
def test_budgeted_takes_its_bars_from_the_walk_over_the_calibration_split(view, score):
    rule = load_mechanism("budgeted")
    for ratio in (0.1, 0.7, 1.0, 1.6):
        values = rule.settle({"q": ratio, "score": score}, view)
        scores = rule.score(view.calibration, values)
        bars = rule.bars(values, view)
        assert bars.tolist() == plain_walk(scores, geometric_shares(ratio, 4))
        shares = np.bincount(rule.decide(view.calibration, values).exit, minlength=4) / 1200
        assert shares == pytest.approx(geometric_shares(ratio, 4), abs=0.02)
        expected = [next((exit for exit in range(3) if row[exit] >= bars[exit]), 3) for row in rule.score(view, values)]
        assert_array_equal(rule.decide(view, values).exit, expected)


def test_budgeted_shares_only_among_the_exits_that_are_asked(view):
    rule = load_mechanism("budgeted")
    values = rule.settle({"q": 1.0, "min_exit": 1}, view)
    assert np.bincount(rule.decide(view.calibration, values).exit, minlength=4) / 1200 == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.01)
    values = rule.settle({"q": 1.0, "max_exit": 2}, view)
    assert np.bincount(rule.decide(view.calibration, values).exit, minlength=4) / 1200 == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=0.01)


def test_budgeted_by_accuracy(view):
    rule, calibration = load_mechanism("budgeted"), view.calibration
    values = rule.settle({"recipe": "accuracy", "target": 0.9}, view)
    bars = rule.bars(values, view)
    known = calibration.label >= 0
    for exit in range(3):
        pairs = sorted(zip(-calibration.confidence[known, exit], calibration.correct[known, exit] == 1, strict=True), key=lambda pair: pair[0])
        good = [place for place in range(10, len(pairs)) if np.mean([right for _, right in pairs[: place + 1]]) > 0.9]
        assert bars[exit] == (-pairs[good[-1]][0] if good else 1.0)
    assert bars[0] > bars[2]
    impossible = rule.settle({"recipe": "accuracy", "target": 1.0}, view)
    assert rule.bars(impossible, view).tolist() == [1, 1, 1]
    assert rule.bars({**impossible, "score": "entropy"}, view).tolist() == [0, 0, 0]
    full = rule.settle({"recipe": "accuracy"}, view)
    own = float((calibration.correct[known, -1] == 1).mean())
    assert_array_equal(rule.bars(full, view), rule.bars({**full, "target": own}, view))


def test_budgeted_candidates_and_costs(view):
    rule = load_mechanism("budgeted")
    grid = [values["q"] for values in rule.candidates(view.calibration, 40)]
    assert grid == [place / 20 for place in range(1, 40)]
    assert set(grid) <= {values["q"] for values in rule.candidates(view.calibration, 500)}
    assert all("target" in values for values in rule.candidates(view.calibration, 20, {"recipe": "accuracy"}))
    assert rule.variant({"score": "max-softmax"}) is rule
    operations = {kind: sum(piece.operations for piece in rule.variant({"score": kind}).charge(Site(10, 4)).at(0)) for kind in
                  ("max-softmax", "entropy", "margin")}  # fmt: skip
    assert operations == {"max-softmax": 41, "entropy": 71, "margin": 52}
    unlabelled = builders.view(samples=60, calibration=30, unlabelled=60)
    assert rule.bars(rule.settle({}, unlabelled), unlabelled).size == 3, "shares need no labels"
    with pytest.raises(BadInput, match="no labels"):
        rule.bars(rule.settle({"recipe": "accuracy"}, unlabelled), unlabelled)


def foreign(path, **arrays):
    with open(path, "wb") as file:
        np.savez(file, **arrays)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: foreign(path, other=np.zeros(3)),
        lambda path: foreign(path),
        lambda path: foreign(path, **{key: np.zeros((1, 1)) for key in np.load(path).files}),
        lambda path: np.save(open(path, "wb"), np.zeros(3)),  # noqa: SIM115
        lambda path: path.write_bytes(path.read_bytes()[:70]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x01\x09")),
    ],
)
def test_a_file_that_is_no_such_model_counts_as_absent(name, spoil, monkeypatch, tmp_path):
    monkeypatch.setenv("EESIM_CACHE", str(tmp_path))
    rule, found = load_mechanism(name), []
    for _ in range(2):
        for memory in ("_remembered", "_from_disk", "_distrusted"):
            monkeypatch.setattr(f"eesim.mechanisms._fitting.{memory}", type(getattr(_fitting, memory))())
        view = builders.view(samples=200, exits=3, calibration=100)
        found.append(rule.decide(view, rule.settle({}, view)))
        files = list(tmp_path.glob("*.npz"))
        assert files
        for path in files:
            spoil(path)
    assert_array_equal(found[0].exit, found[1].exit)
    assert_array_equal(found[0].prediction, found[1].prediction)


# losses and how they are minimised


def checked(loss, place, tolerance=1e-5):
    """Whether the gradient is that of the loss, by differences."""
    _, gradient = loss(place)
    for index in np.linspace(0, place.size - 1, min(place.size, 25)).astype(int):
        step = np.zeros(place.size)
        step[index] = 1e-6
        assert (loss(place + step)[0] - loss(place - step)[0]) / 2e-6 == pytest.approx(gradient[index], rel=1e-3, abs=tolerance)


def test_gradients():
    rng = np.random.default_rng(0)
    rows, target = rng.normal(size=(50, 4)), rng.integers(0, 2, 50).astype(float)
    checked(lambda place: squared_error(place, rows, target), rng.normal(size=5))
    logs = np.log(rng.dirichlet(np.ones(3), (50, 2)))
    label = rng.integers(0, 3, 50)
    checked(lambda place: geometric(place, logs, label), rng.normal(size=5))
    checked(lambda place: arithmetic(place, np.exp(logs), label), rng.normal(size=5))
    share = rng.dirichlet(np.ones(50))
    checked(lambda place: cut_cross_entropy(place, rows, target, share, 0.01), rng.normal(size=4))
    deep = rng.normal(size=(3, 50, 5))
    widths, hidden, wanted = np.array([3, 4, 5]), np.array([2, 3, 2]), rng.dirichlet(np.ones(3), 50)
    size = int((hidden * (widths + 2) + 1).sum())
    for budget in (0.2, 0.9):
        checked(lambda place, budget=budget: budget_loss(place, deep, widths, hidden, 3.0, wanted, np.array([0.3, 0.6, 1.0]), budget, 1e-2, 1e-2),
                rng.normal(size=size), 1e-4)  # fmt: skip


def test_losses_by_hand():
    logs = np.log(np.array([[[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]]]))
    weights = np.array([0.4, -0.3, 0.1, -0.2, 0.0])
    mixed = (np.exp(0.4) * logs[0, 0] + np.exp(-0.3) * logs[0, 1]) / 2 + weights[2:]
    decay = 0.5e-5 * (weights**2).sum()
    assert geometric(weights, logs, np.array([1]))[0] - decay == pytest.approx(np.log(np.exp(mixed).sum()) - mixed[1])
    sums = np.exp(0.4) * np.exp(logs[0, 0]) + np.exp(-0.3) * np.exp(logs[0, 1]) + np.exp(weights[2:])
    assert arithmetic(weights, np.exp(logs), np.array([1]))[0] - decay == pytest.approx(-np.log(sums[1] / sums.sum()))
    one, share = np.array([[1.0]]), np.array([1.0])
    for score, target, expected in ((0.3, 1, -np.log(0.3)), (0.3, 0, -np.log(0.7)), (1.5, 1, 0), (-0.5, 0, 0), (-1, 1, 1.01 / 0.01 - np.log(0.01))):
        value = cut_cross_entropy(np.array([score]), one, np.array([float(target)]), share, EDGE)[0] - 0.5e-3 * score**2
        assert value == pytest.approx(expected, abs=1e-5), (score, target)


def test_the_minimum_is_found():
    def valley(place):
        x, y = place
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2, np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])

    assert minimum(valley, np.array([-1.2, 1.0]), 200) == pytest.approx([1, 1], abs=1e-3)
    assert minimum(valley, np.array([1.0, 1.0])).tolist() == [1, 1]


# all of them


@pytest.mark.parametrize("name", LEARNED)
def test_learned_rules_are_fitted_out_of_fold_and_the_same_each_time(view, name):
    rule = load_mechanism(name)
    values = rule.settle({}, view)
    calibration = view.calibration
    again = builders.view(samples=2400, exits=4, calibration=1200, unlabelled=60, seed=4)
    assert_array_equal(rule.scored(calibration, values).score, load_mechanism(name).scored(again.calibration, values).score)
    fold = folds(calibration)[1]
    rest = calibration.taken(np.setdiff1d(np.arange(1200), fold))
    if name == "berxit":
        model = fit_berxit(rest, True)
        expected = -1 / (1 + np.exp(-(calibration.features[1][fold].astype(float) @ model["weights"][1, :-1] + model["weights"][1, -1])))
    elif name == "class-means":
        expected = compared(fit_means(rest), calibration.taken(fold))[0][:, 1]
    elif name == "zero-time-waste":
        expected = told(fit_ensembles(rest, "geometric"), calibration.taken(fold), "geometric")[0][:, 1]
    else:
        expected = applied(fit_eenet(rest, 0.5, (0.25, 0.5, 0.75, 1.0), (1e-3, 1e-2, 1.0, 0.5, 10.0)), calibration.taken(fold))[0][:, 1]
    assert rule.score(calibration, values)[fold, 1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", LEARNED)
def test_learned_rules_say_what_they_lack(name):
    rule = load_mechanism(name)
    bare = TraceView(builders.trace(samples=90, calibration=40))
    unlabelled = builders.view(samples=90, calibration=40, unlabelled=90)
    cases = [(unlabelled, "no labels")] + ([(bare, "no features")] if name in ("berxit", "class-means") else [])
    for lacking, telling in cases:
        with pytest.raises(BadInput, match=telling) as caught:
            rule.candidates(lacking.calibration, 4)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", LEARNED)
def test_learned_rules_tune_on_a_workload(tmp_path, name, made_profile):
    workload = builders.workload(tmp_path / "made", samples=3000, calibration=1500, exits=3)
    found = eesim.tune(workload, made_profile, name, accuracy_drop=0.03)
    assert found.mechanism.name == name
    result = eesim.simulate(workload, made_profile, found.mechanism, found.parameters)
    static = eesim.simulate(workload, made_profile, "static")
    assert result["accuracy"] > static["accuracy"] - 0.06 and result["exit_fractions"][-1] < 0.95
    assert result["decision_ops_mean"] > 0


@pytest.mark.parametrize("name", LEARNED)
def test_fits_are_found_again_on_disk(tmp_path, monkeypatch, view, name):
    """Their names must not depend on what else was fitted before."""
    monkeypatch.setenv("EESIM_CACHE", str(tmp_path))
    names = []
    for _ in range(2):
        monkeypatch.setattr("eesim.mechanisms._fitting._remembered", {})
        fresh = builders.view(samples=300, exits=3, calibration=150, seed=8)
        rule = load_mechanism(name)
        rule.scored(fresh, rule.settle({}, fresh))
        names.append(sorted(path.name for path in tmp_path.iterdir()))
    assert names[0] == names[1] and len(names[0]) == 1


# berxit


def test_berxit_learns_where_exits_err():
    """Wrong exactly where the first feature is positive: u must separate the two."""
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(2, 800, 3))
    label = np.zeros(800, int)
    wrong = hidden[:, :, 0] > 0
    logits = np.stack([np.where(wrong, 0.0, 2.0), np.where(wrong, 2.0, 0.0)], axis=2)
    logits = np.concatenate([logits, np.tile([2.0, 0.0], (1, 800, 1))])
    features = [*hidden, hidden[0]]
    view = TraceView.of_arrays(logits.astype(np.float32), label)
    view._feature_source = lambda split: [part.astype(np.float16) for part in features]
    weights = fit_berxit(view, True)["weights"]
    assert_array_equal(weights[0], weights[1])
    assert weights[0, 0] > 10 * np.abs(weights[0, 1:]).max()
    apart = fit_berxit(view, False)["weights"]
    assert not np.array_equal(apart[0], apart[1])


def test_berxit_is_strict_and_charges_its_features(view):
    rule = load_mechanism("berxit")
    values = rule.settle({"threshold": 0.3}, view)
    u = -rule.score(view, values)
    assert_array_equal(rule.decide(view, values).exit, [next((e for e in range(3) if row[e] < 0.3), 3) for row in u])
    sample = int(np.argmin(u[:, 0]))
    least = float(u[sample, 0])
    assert rule.decide(view, {**values, "threshold": least}).exit[sample] != 0
    assert rule.decide(view, {**values, "threshold": float(np.nextafter(least, 1))}).exit[sample] == 0
    charge = rule.charge(Site(10, 3, features=(8, 16, 32)))
    assert [sum(piece.macs for piece in charge.at(exit)) for exit in (0, 1)] == [8, 16]
    assert {values["sharing"] for values in rule.candidates(view.calibration, 20)} == {"shared", "per-exit"}


def test_berxit_has_weights_for_each_exit_where_widths_differ():
    view, rule = widths_view(), load_mechanism("berxit")
    for sharing in ("shared", "per-exit"):
        values = rule.settle({"sharing": sharing, "threshold": 0.4}, view)
        weights = fit_berxit(view.calibration, sharing == "shared")["weights"]
        assert weights.shape == (2, 7) and not weights[0, 3:6].any() and weights[1, 3:6].all()
        assert set(rule.decide(view, values).exit) <= {0, 1, 2}
    assert all("sharing" not in values for values in rule.candidates(view.calibration, 20))


# zero time waste


@pytest.mark.parametrize("kind", ["geometric", "arithmetic"])
def test_ensembles_by_hand_and_better_than_their_parts(view, kind):
    rule, calibration = load_mechanism("zero-time-waste"), view.calibration
    model = fit_ensembles(calibration, kind)
    values = rule.settle({"ensemble": kind, "threshold": 0.7}, view)
    confidence, answers = rule.score(view, values), rule.answers(view, values)
    for sample in (0, 3, 40):
        for exit in range(3):
            scale, bias, p = np.exp(model["weights"][exit, : exit + 1]), model["biases"][exit], view.probabilities[sample, : exit + 1]
            z = (scale[:, None] * np.log(p)).mean(axis=0) + bias if kind == "geometric" else np.log(scale @ p + np.exp(bias))
            softmax = np.exp(z) / np.exp(z).sum()
            assert confidence[sample, exit] == pytest.approx(softmax.max(), abs=1e-6) and answers[sample, exit] == softmax.argmax()
    assert not model["weights"][0, 1:].any()
    assert_array_equal(answers[:, -1], view.answers[:, -1])
    known = view.label >= 0
    ensemble, own = ((part[known] == view.label[known, None]).mean(axis=0) for part in (answers, view.answers))
    gain = 0.01 if kind == "geometric" else -0.005  # an average of softmax vectors does not multiply evidence
    assert ensemble[1] > own[1] + gain and ensemble[2] > own[2] + min(gain, 0), "exits of this view see independent noise"
    decisions = rule.decide(view, values)
    passed = confidence[:, :-1] > 0.7
    exits = np.where(passed.any(axis=1), passed.argmax(axis=1), 3)
    assert_array_equal(decisions.exit, exits)
    assert_array_equal(decisions.prediction, answers[np.arange(len(view)), exits])


def test_ensembles_cost_more_the_deeper_they_are():
    charge = load_mechanism("zero-time-waste").charge(Site(10, 4))
    assert [sum(piece.macs for piece in charge.at(exit)) for exit in range(3)] == [10, 20, 30]


# class means


def test_class_means_against_plain_code(view):
    rule, calibration = load_mechanism("class-means"), view.calibration
    known = calibration.label >= 0
    values = rule.settle({"threshold": 0.5}, view)
    confidence, answers = rule.score(view, values), rule.answers(view, values)
    for exit in range(3):
        part, label = calibration.features[exit][known].astype(float), calibration.label[known]
        means = [part[label == k].mean(axis=0) for k in range(4)]
        usual = [np.mean([np.linalg.norm(row - means[k]) for row in part[label == k]]) for k in range(4)]
        for sample in (0, 9, 77):
            d = np.array([np.linalg.norm(view.features[exit][sample].astype(float) - means[k]) / usual[k] for k in range(4)])
            p = np.exp(-d) / np.exp(-d).sum()
            assert answers[sample, exit] == d.argmin() and confidence[sample, exit] == pytest.approx(p.max(), abs=1e-9)
    assert_array_equal(answers[:, -1], view.answers[:, -1])
    exact = float(confidence[5, 0])
    assert rule.decide(view, {**values, "threshold": exact}).exit[5] > 0
    assert rule.decide(view, {**values, "threshold": float(np.nextafter(exact, 0))}).exit[5] == 0


def test_a_class_without_samples_is_never_answered_and_one_sample_is_no_division_by_zero():
    made = builders.trace(samples=200, exits=3, calibration=100)
    label = made.label.copy()
    label[(label == 2) & (made.split == "calibration")] = -1
    rows = np.flatnonzero((label == 3) & (made.split == "calibration"))
    label[rows[1:]] = -1
    object.__setattr__(made, "label", label)
    parts = builders.features(made)
    view = TraceView(made, "test", features=lambda split: [part[made.split == split] for part in parts])
    view._sibling = lambda split: TraceView(made, split, features=view._feature_source)
    rule = load_mechanism("class-means")
    values = rule.settle({"threshold": 0.0}, view)
    answers = rule.answers(view, values)[:, :-1]
    assert np.isfinite(rule.score(view, values)).all() and 2 not in answers and 3 in answers


def test_class_means_put_themselves_in_place_of_heads(made_workload, made_profile):
    rule = load_mechanism("class-means")
    charge = rule.charge(Site(10, 3, feature_elements=(400, 200, 100), features=(8, 16, 32)))
    assert [sum(piece.macs for piece in charge.at(exit)) for exit in (0, 1)] == [80, 160]
    assert [piece.elements for piece in charge.at(0) if piece.kind == "pooling"] == [400]
    network = made_workload.network
    cost = MechanismCost(price_network(network, load_profile(made_profile)), tuple(range(network.exits)), rule, 4)
    assert rule.replaces_heads and cost.head_ns[:-1].tolist() == [0] * (network.exits - 1) and cost.head_ns[-1] > 0
    own = sum(piece.macs for piece in rule.charge(cost.site).at(0))
    assert cost.paths([Path(1)]).macs[0] == network.segment_macs[0] + own != network.segment_macs[0] + network.head_macs[0]


# eenet


def test_eenet_inputs_and_scores_by_hand(view):
    seen = inputs(view)
    p = view.probabilities[3, 2]
    assert seen[3, 2] == pytest.approx([*p, p.max(), 1 + (p * np.log(p)).sum() / np.log(4)])
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 10))
    scores = scores_of(weights, seen)
    past = []
    for exit in range(4):
        q = seen[3, exit] @ weights[exit, :6] + sum(earlier * weight for earlier, weight in zip(past, weights[exit, 6:], strict=False))
        assert scores[3, exit] == pytest.approx(q)
        past.append(min(max(q, 0), 1))
    assert ((scores < 0) | (scores > 1)).any(), "not cut for the thresholds"


def test_eenet_distribution_by_hand():
    rng = np.random.default_rng(0)
    seen, past = rng.random((5, 2, 3)), rng.random((5, 2))
    whole, widths = with_past(seen, past)
    assert widths.tolist() == [3, 4] and whole[1, :, 3].tolist() == past[:, 0].tolist()
    hidden = np.array([2, 1])
    place = rng.normal(size=2 * 5 + 1 + 1 * 6 + 1)
    ends = []
    for x, (w, b, v, c) in zip(
        (whole[0, :, :3], whole[1, :, :4]),
        ((place[:6].reshape(3, 2), place[6:8], place[8:10], place[10]), (place[11:15].reshape(4, 1), place[15:16], place[16:17], place[17])),
        strict=True,
    ):
        ends.append(1 / (1 + np.exp(-(1 / (1 + np.exp(-(x @ w + b))) @ v + c))))
    powers = np.exp(7 * np.stack(ends, axis=1))
    assert exit_distribution(place, whole, widths, hidden, 7.0)[0] == pytest.approx(powers / powers.sum(axis=1, keepdims=True))


def test_eenet_keeps_its_budget(view):
    rule = load_mechanism("eenet")
    for given in ({"budget": 0.35}, {"budget": 0.6}, {"budget": 0.8}, {"budget": 0.5, "cost": "0.1,0.2,0.4"}):
        values = rule.settle(given, view)
        costs = np.array(rule.costs(view, values))
        assert rule.shares(view, values) @ costs == pytest.approx(given["budget"], rel=0.1), "the public code accepts 10 %"
        for part, tolerance in ((view.calibration, 0.03), (view, 0.15)):
            taken = np.bincount(rule.decide(part, values).exit, minlength=4) / len(part)
            assert taken @ costs == pytest.approx(given["budget"], rel=tolerance)
    plain = rule.settle({"budget": 0.3, "sharpness": 1.0}, view)
    shares = rule.shares(view, plain)
    assert shares.max() / shares.min() <= np.e + 1e-6 and shares @ [0.25, 0.5, 0.75, 1] > 0.4, "sigmoids alone cannot reach it"


def test_eenet_scores_say_how_probably_an_exit_is_right(view):
    rule = load_mechanism("eenet")
    q = np.clip(rule.score(view, rule.settle({"budget": 0.6}, view)), 0, 1)
    known = view.label >= 0
    for exit in range(3):
        right = view.correct[known, exit] == 1
        assert q[known, exit].mean() == pytest.approx(right.mean(), abs=0.05)
        assert q[known, exit][right].mean() > q[known, exit][~right].mean() + 0.05


def test_eenet_thresholds_are_walked_over_calibration_scores(view):
    rule = load_mechanism("eenet")
    values = rule.settle({"budget": 0.6}, view)
    q, shares = rule.score(view.calibration, values), rule.shares(view, values)
    left, expected = list(range(1200)), []
    for exit in range(3):
        count = int(np.floor(shares[exit] * 1200))
        ranked = sorted(left, key=lambda sample: -q[sample, exit])
        expected.append(q[ranked[count - 1], exit] if count else 1.0)
        left = ranked[count:]
    assert rule.bars(values, view).tolist() == expected
    rule.shares = lambda view, values: np.array([0.0005, 0.5, 0.0, 0.4995])
    bars = rule.bars(values, view)
    assert bars[[0, 2]].tolist() == [1, 1] and bars[1] != 1, "no share: the bar is 1"


def test_eenet_candidates_costs_and_bad_input(view):
    rule = load_mechanism("eenet")
    budgets = [values["budget"] for values in rule.candidates(view.calibration, 500)]
    assert len(budgets) == 20 and budgets[0] == 0.25 and budgets[-1] == 1
    assert rule.costs(view.restricted((1, 3)), {}) == (0.5, 1.0)
    for given in ({"cost": "0.5,0.4,0.9"}, {"cost": "0,0.4,0.9"}):
        with pytest.raises(BadInput, match="do not fall"):
            rule.decide(view, rule.settle(given, view))
    with pytest.raises(BadInput, match="takes one value, or 3"):
        rule.check({"cost": "0.5,0.4"}, view)
    charge = rule.charge(Site(10, 4))
    assert [sum(piece.macs for piece in charge.at(exit)) for exit in range(3)] == [12, 13, 14]
    first = rule.settle({"budget": 0.5, "min_exit": 1}, view)
    assert set(rule.decide(view, first).exit) <= {1, 2, 3}
