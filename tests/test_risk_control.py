"""Risk control and CALM: p-values and bounds against published numbers, selectors against brute force, and whether the risk is held."""

from __future__ import annotations

import builders
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eesim.errors import BadInput
from eesim.mechanisms import load_mechanism
from eesim.mechanisms._risk import GRID, SELECTORS, Curve, crc_bound, hoeffding_bentkus, wsr_bound
from eesim.mechanisms.base import Site
from eesim.mechanisms.calm import places
from eesim.mechanisms.risk_control import LOSSES, losses_of
from eesim.trace import TraceView


@pytest.mark.parametrize(
    ("risk", "samples", "level", "general", "binary"),
    [(0.02, 100, 0.05, 0.296919, 0.118263), (0.03, 500, 0.05, 0.0539807, 0.0198584), (0.01, 1000, 0.03, 4.92822e-05, 1.81299e-05)],
)
def test_hoeffding_bentkus(risk, samples, level, general, binary):
    assert float(hoeffding_bentkus(risk, samples, level, binary=False)) == pytest.approx(general, rel=1e-5)
    assert float(hoeffding_bentkus(risk, samples, level, binary=True)) == pytest.approx(binary, rel=1e-5)


def test_hoeffding_bentkus_at_the_ends():
    assert hoeffding_bentkus(np.array([0.0, 0.5]), 50, 0.0, binary=False).tolist() == [1, 1]
    assert hoeffding_bentkus(np.array([0.0, 0.5]), 50, 1.0, binary=True).tolist() == [0, 0]
    assert float(hoeffding_bentkus(0.3, 50, 0.1, binary=False)) == 1


def test_wsr_bound():
    losses = np.zeros(100)
    assert wsr_bound(losses, 0.1) == pytest.approx(0.0237976, abs=1e-6)
    losses[::20] = 1
    assert wsr_bound(losses, 0.1) == pytest.approx(0.130580, abs=1e-6)
    longer = np.zeros(1000)
    longer[::50] = 1
    assert wsr_bound(longer, 0.1) == pytest.approx(0.0321312, abs=1e-6)
    assert wsr_bound(np.ones(20), 0.1) == 1
    assert wsr_bound(2 * longer, 0.1, bound=2.0) > wsr_bound(longer, 0.1)


def test_crc_bound():
    assert crc_bound(0.05, 100) == pytest.approx(0.0405)


def test_the_grid_descends_from_1_to_0():
    assert GRID[0] == 1 and GRID[-1] == 0 and (np.diff(GRID) < 0).all() and GRID.size > 800


def losses_by_lambda(score, losses, strict):
    """What each sample loses at each lambda of the grid, float64 [grid, n], one sample after the other."""
    taken = []
    for lam in GRID.tolist():
        row = []
        for scores, lost in zip(score.tolist(), losses.tolist(), strict=True):
            passed = [exit for exit, value in enumerate(scores) if (value > lam if strict else value >= lam)]
            row.append(lost[passed[0]] if passed else lost[-1])
        taken.append(row)
    return np.array(taken)


def brute(taken, selector, level, delta, *, binary, bound):
    """The selectors of the reference, lambda by lambda, with nothing shared or clever."""
    n = taken.shape[1]
    if selector == "naive":
        return max((place for place, row in enumerate(taken) if row.mean() < level), default=-1)
    if selector == "crc":
        return max((place for place, row in enumerate(taken) if row.mean() <= ((n + 1) * level - bound) / n), default=-1)
    if selector == "ucb-wsr":
        return next((place for place, row in enumerate(taken) if not wsr_bound(row, delta, bound) < level), len(GRID)) - 1
    p = [float(hoeffding_bentkus(np.maximum(row, 0).mean() / bound, n, level / bound, binary=binary)) for row in taken]
    first = next((place for place, value in enumerate(p) if value > delta), None)
    if selector == "ltt-code":
        return len(GRID) - 1 if first is None else first
    return (len(GRID) if first is None else first) - 1


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_selectors_against_brute_force(strict, binary):
    rng, bound = np.random.default_rng(5), 1.0 if binary else 2.0
    score = np.round(rng.random((40, 3)), 2)  # on the grid itself, where strict and not differ
    size = 1.0 if binary else rng.random((40, 3)) * 2 - 0.3
    losses = np.concatenate([(rng.random((40, 3)) < [0.3, 0.15, 0.05]) * size, np.zeros((40, 1))], axis=1)
    curve, taken = Curve(score, losses, strict=strict, binary=binary, bound=bound), losses_by_lambda(score, losses, strict)
    assert_array_equal(curve.losses(300), taken[300])
    assert curve.risk() == pytest.approx(taken.mean(axis=1), abs=1e-12)
    seen = set()
    for selector in SELECTORS:
        for level in (0.01, 0.12, 0.2) if selector == "ucb-wsr" else (0.01, 0.06, 0.12, 0.2, 0.9):
            found = curve.select(selector, level, 0.1)
            assert found == brute(taken, selector, level, 0.1, binary=binary, bound=bound), (selector, level)
            seen.add(found)
        assert curve.select(selector, 5.0, 0.1) == GRID.size - 1
    assert len(seen) > 6


def test_losses_against_plain_code():
    view = builders.view(samples=80, exits=3, calibration=20)
    p, answers, label = view.probabilities, view.answers, view.label
    for n in range(len(view)):
        for e in range(3):
            squared = [sum((p[n, exit, k] - (k == true)) ** 2 for k in range(4)) for exit in (e, 2) for true in (label[n], answers[n, 2])]
            expected = {
                "consistency": float(answers[n, e] != answers[n, 2]),
                "label-gap": float(answers[n, e] != label[n]) - float(answers[n, 2] != label[n]),
                "brier-gap": squared[0] - squared[2],
                "brier-consistency": squared[1] - squared[3],
                "hellinger": float(np.linalg.norm(np.sqrt(p[n, e]) - np.sqrt(p[n, 2])) / np.sqrt(2)),
            }
            if n in (0, 1, 5, 30):
                for loss, value in expected.items():
                    assert losses_of(loss, view, answers)[n, e] == pytest.approx(value, abs=1e-12), loss


def test_the_rule_is_max_softmax_above_the_chosen_lambda():
    view, rule = builders.view(samples=900, exits=4, calibration=400), load_mechanism("risk-control")
    values = rule.settle({"risk": 0.1}, view)
    chosen = rule.chosen(view, values)
    assert 0 < chosen < 1
    passed = view.confidence[:, :-1] > chosen
    assert_array_equal(rule.decide(view, values).exit, np.where(passed.any(axis=1), passed.argmax(axis=1), 3))
    assert rule.chosen(view, rule.settle({"risk": 0.001}, view)) == 1, "nothing can be certified from 400 samples at 0.1 %"
    assert set(rule.decide(view, rule.settle({"risk": 0.001}, view)).exit) == {3}
    lambdas = [rule.chosen(view, rule.settle({"risk": level}, view)) for level in (0.02, 0.05, 0.1, 0.2, 0.4)]
    assert lambdas == sorted(lambdas, reverse=True) and lambdas[0] > lambdas[-1]


def test_selectors_are_ordered_by_caution():
    view, rule = builders.view(samples=1500, exits=4, calibration=1000), load_mechanism("risk-control")
    chosen = {name: rule.chosen(view, rule.settle({"risk": 0.1, "selector": name}, view)) for name in SELECTORS}
    assert chosen["naive"] <= chosen["crc"] <= chosen["ltt"] <= 1 and chosen["ltt-code"] < chosen["ltt"]
    sure = rule.chosen(view, rule.settle({"risk": 0.1, "confidence": 0.999}, view))
    assert sure > chosen["ltt"]
    few = rule.chosen(view, rule.settle({"risk": 0.1, "samples": 100}, view))
    assert few > chosen["ltt"], "a hundred samples say less than a thousand"


def test_an_earliest_exit_is_part_of_the_risk():
    view, rule = builders.view(samples=1200, exits=4, calibration=800), load_mechanism("risk-control")
    values = rule.settle({"risk": 0.1, "min_exit": 2}, view)
    assert rule.chosen(view, values) < rule.chosen(view, rule.settle({"risk": 0.1}, view)), "late exits agree with the last one more often"
    assert set(rule.decide(view, values).exit) <= {2, 3}


@pytest.fixture(scope="module")
def population():
    return TraceView(builders.trace(samples=20_000, exits=4, calibration=0, seed=11))


def risk_of(view, chosen, loss):
    passed = view.confidence[:, :-1] > chosen
    exits = np.where(passed.any(axis=1), passed.argmax(axis=1), view.exits - 1)
    return losses_of(loss, view, view.answers)[np.arange(len(view)), exits].mean()


@pytest.mark.parametrize(
    ("selector", "loss", "draws"),
    [("ltt", "consistency", 300), ("ucb-wsr", "consistency", 60), ("ltt", "label-gap", 300), ("ucb-wsr", "hellinger", 40), ("ltt", "brier-gap", 100)],
)
def test_the_risk_is_held_in_all_but_delta_of_the_draws(population, selector, loss, draws):
    """300 calibration samples at a time from a population whose risk is known; four standard deviations above delta = 0.1."""
    rule, rng, level = load_mechanism("risk-control"), np.random.default_rng(3), 0.1
    values = rule.settle({"risk": level, "selector": selector, "loss": loss}, population, lambda: population)
    risks = []
    for _ in range(draws):
        chosen = rule.select(population.taken(rng.choice(len(population), 300, replace=False)), values)
        risks.append(risk_of(population, chosen, loss))
    share = np.mean(np.array(risks) > level)
    assert share <= 0.1 + 4 * np.sqrt(0.09 / draws)
    assert np.mean(risks) > 0.2 * level, "a rule that never leaves would pass for nothing"


def test_naive_selection_breaks_its_risk_and_crc_holds_the_mean(population):
    rule, rng, level = load_mechanism("risk-control"), np.random.default_rng(4), 0.1
    risks = {"naive": [], "crc": [], "ltt": []}
    for _ in range(200):
        part = population.taken(rng.choice(len(population), 200, replace=False))
        for name, seen in risks.items():
            values = rule.settle({"risk": level, "selector": name}, population, lambda: population)
            seen.append(risk_of(population, rule.select(part, values), "consistency"))
    assert np.mean(np.array(risks["naive"]) > level) > 0.25
    assert np.mean(risks["crc"]) <= level + 0.003 and np.mean(risks["crc"]) > 0.8 * level
    assert np.mean(risks["ltt"]) < np.mean(risks["crc"])


def test_labels_are_needed_only_where_the_loss_compares_with_them():
    view, rule = builders.view(samples=300, exits=3, calibration=100, unlabelled=300), load_mechanism("risk-control")
    assert rule.chosen(view, rule.settle({"risk": 0.3}, view)) < 1
    for loss in LOSSES:
        values = rule.settle({"risk": 0.3, "loss": loss}, view)
        if loss in ("label-gap", "brier-gap"):
            with pytest.raises(BadInput, match="no labels") as caught:
                rule.decide(view, values)
            assert "\n" not in str(caught.value)
            with pytest.raises(BadInput, match="no labels"):
                rule.candidates(view.calibration, 10, {"loss": loss})
        else:
            rule.decide(view, values)


def test_candidates_are_risk_levels():
    view, rule = builders.view(samples=900, exits=4, calibration=400), load_mechanism("risk-control")
    found = rule.candidates(view.calibration, 500)
    assert len(found) == 200 and found[0]["risk"] == 0.0005 and found[-1]["risk"] == 0.5
    assert rule.candidates(view.calibration, 9, {"risk": 0.1}) == [{}]
    alone = TraceView(builders.trace(samples=50, calibration=0))
    with pytest.raises(BadInput, match="calibration"):
        rule.decide(alone, rule.settle({}, alone))


@pytest.mark.parametrize("name", ["risk-control", "calm"])
def test_a_last_exit_that_breaks_the_promise_is_refused(name):
    view, rule = builders.view(samples=1200, exits=4, calibration=600), load_mechanism(name)

    def decided(**values):
        return rule.decide(view, rule.settle(values, view, lambda: view.calibration))

    for values in ({"risk": 0.01, "max_exit": 0}, {"risk": 0.0, "max_exit": 2}):
        with pytest.raises(BadInput, match="max_exit: no threshold holds a risk of") as caught:
            decided(**values)
        assert "\n" not in str(caught.value)
    assert decided(risk=0.01, max_exit=3).exit.max() == 3 and decided(risk=0.0).exit.min() == 3, "the full network answers"
    risky = float((view.calibration.answers[:, 0] != view.calibration.answers[:, -1]).mean()) + 0.1
    assert decided(risk=risky, max_exit=0).exit.max() == 0, "what is certified is not refused"
    restricted = view.restricted((0, 3))
    with pytest.raises(BadInput, match="where exit 2 answers at the latest"):
        rule.decide(restricted, rule.settle({"risk": 0.0, "max_exit": 2}, restricted, lambda: restricted.calibration))
    found = rule.candidates(view.calibration, 50, {"max_exit": 1})
    assert found
    for values in found:
        rule.decide(view.calibration, rule.settle({**values, "max_exit": 1}, view.calibration))


def test_a_lambda_that_is_given_stands_without_a_risk():
    view, rule = builders.view(samples=1200, exits=4, calibration=600), load_mechanism("calm")
    assert not {"risk", "confidence"} & set(rule.settle({"threshold": 0.4}, view))
    chosen = rule.settle({"risk": 0.1}, view)
    assert chosen["risk"] == 0.1 and rule.settle(chosen, view) == chosen
    with pytest.raises(BadInput, match="risk has no effect with a threshold"):
        rule.settle({"threshold": 0.4, "risk": 0.1}, view)


def stream_view(lengths, exits=3):
    """One stream after the other; exit 0 has margin and max-softmax of a two-class softmax (.95, .05)."""
    samples = sum(lengths)
    p = np.full((exits, samples, 2), 0.5)
    p[0] = (0.95, 0.05)
    return TraceView.of_arrays(np.log(p).astype(np.float32), np.zeros(samples, int), stream_id=np.repeat(np.arange(len(lengths)), lengths))


@pytest.mark.parametrize(
    ("decay", "place", "expected"),
    [("free", 0, 0.9), ("free", 10, 0.858174), ("free", 64, 0.811648), ("paper", 0, 0.91), ("paper", 10, 0.863526), ("paper", 64, 0.811832)],
)
def test_calm_decay(decay, place, expected):
    """lambda 0.9, tau 4, T 64: a confidence just above the decayed threshold passes at that place, one just below does not."""
    rule = load_mechanism("calm")

    class At:
        exits, confidence = 1, np.array([[expected + 2e-6], [expected - 2e-6]])
        streams = (np.zeros(2, np.int32), 1)

        def __len__(self):
            return 2

    import eesim.mechanisms.calm as module

    original = module.places
    module.places = lambda view: np.full(2, place / 64)
    try:
        score = rule.score(At(), {"score": "max-softmax", "decay": decay, "tau": 4.0})
    finally:
        module.places = original
    assert (score[:, 0] >= 0.9).tolist() == [True, False]


def test_calm_goes_by_the_place_in_the_stream():
    view, rule = stream_view([64, 4]), load_mechanism("calm")
    assert places(view).tolist() == [*(place / 64 for place in range(64)), 0, 0.25, 0.5, 0.75]
    values = rule.settle({"threshold": 0.97, "score": "max-softmax"}, view)
    thresholds = 0.97 * (0.9 + 0.1 * np.exp(-4 * places(view)))
    passed = view.confidence[:, 0] >= thresholds
    assert_array_equal(rule.decide(view, values).exit == 0, passed)
    assert not passed[0] and passed[63] and not passed[64] and passed[67], "strict at the start of each stream, lax at its end"
    mixed = view.taken(np.array([64, 0, 65, 1, 67]))
    assert_array_equal(rule.decide(mixed, values).exit == 0, passed[[64, 0, 65, 1, 67]])
    assert rule.decide(view, {**values, "decay": "none"}).exit.max() == 2


def test_calm_stops_at_the_threshold_itself_and_paper_form_is_cut_to_1():
    view = TraceView.of_arrays(np.array([[[60.0, 0], [1.0, 0]], [[0, 0], [0, 0]]], np.float32), np.zeros(2, int))
    rule = load_mechanism("calm")
    assert view.confidence[0, 0] == 1
    for values, exits in (
        ({"threshold": 1.0, "decay": "paper", "score": "max-softmax"}, [0, 1]),
        ({"threshold": "never", "decay": "paper", "score": "max-softmax"}, [1, 1]),
        ({"threshold": float(view.confidence[1, 0]), "decay": "none", "score": "max-softmax"}, [0, 0]),
        ({"threshold": float(np.nextafter(view.confidence[1, 0], 1)), "decay": "none", "score": "max-softmax"}, [0, 1]),
    ):
        assert rule.decide(view, rule.settle(values, view)).exit.tolist() == exits, values


def test_calm_takes_its_threshold_from_learn_then_test():
    view, rule = builders.view(samples=1200, exits=4, calibration=600), load_mechanism("calm")
    values = rule.settle({}, view, lambda: view.calibration)
    assert values == rule.settle(rule.defaults(lambda: view.calibration), view)
    assert values["threshold"] == rule.chosen(view, values)
    decisions = rule.decide(view.calibration, values)
    assert (decisions.prediction != view.calibration.answers[:, -1]).mean() < 0.05
    looser = rule.settle({"risk": 0.2}, view, lambda: view.calibration)
    assert looser["threshold"] < values["threshold"], "the risk that is given counts"
    assert rule.settle({"risk": 0.0}, view, lambda: view.calibration)["threshold"] == "never"
    score = rule.scored(view.calibration, values).score[:, :-1]
    losses = (view.calibration.answers != view.calibration.answers[:, -1:]).astype(float)
    assert values["threshold"] == GRID[brute(losses_by_lambda(score, losses, False), "ltt", 0.05, 0.1, binary=True, bound=1.0)]


def test_calm_saturation_is_the_cosine_of_neighbouring_features():
    view, rule = builders.view(samples=400, exits=4, calibration=100), load_mechanism("calm")
    values = rule.settle({"threshold": 0.8, "score": "saturation", "decay": "none"}, view)
    one, two = (part.astype(float) for part in view.features[1:3])
    cosine = (one * two).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    score = rule.score(view, values)
    assert score[:, 2] == pytest.approx(cosine, abs=1e-12) and (score[:, 0] == -np.inf).all()
    made = builders.trace(samples=60, exits=3, calibration=20)
    widths = TraceView(made, features=lambda split: [np.ones((int((made.split == split).sum()), 2 + exit), np.float16) for exit in range(3)])
    with pytest.raises(BadInput, match="2, 3, 4"):
        rule.decide(widths, values)
    with pytest.raises(BadInput, match="no features"):
        rule.decide(TraceView(made), values)
    costs = rule.variant(values).charge(Site(10, 4, features=(8, 8, 8, 8)))
    assert sum(piece.macs for piece in costs.at(1)) == 24 and sum(piece.macs for piece in costs.at(0)) == 0
    assert rule.variant(rule.settle({"threshold": 0.5}, view)) is rule


def test_calm_candidates():
    view, rule = builders.view(samples=900, exits=4, calibration=400), load_mechanism("calm")
    assert len(rule.candidates(view.calibration, 100)) > 80
    assert rule.candidates(view.calibration, 100, {"risk": 0.1}) == [{}]
