"""Joint training of the inference modules and gates of JEI-DNN (arXiv 2310.09163): compiled loops over n calibration samples.

L exits have a module and a gate. A module is a linear layer [D + 1, K] on an exit's D features, a gate a linear layer [5]
on 4 statistics of its module's softmax; the last row or entry is the bias. Training sees both standardised; what is handed
out is folded back to plain features and statistics.

Modules are warmed up alone, each with its own early stop, then modules and gates are trained by turns: gates towards the
exit where loss plus cost is least, modules on samples weighted by the mass that the gates send to them.

What differs from the public code, and why. The code trains on 45,000 images and more; here are some hundred to ten thousand
samples and linear layers on a few features. So work is counted in batches and not in epochs; layers start from zero, the
warm-up has a constant rate and so serves every trade-off; a turn of the gates goes to the minimum of their loss (five
parameters each: Newton's method) where the code takes 200 batches of SGD towards it; after the warm-up all samples train,
and the weights of positive targets come from them, as nothing is chosen by held-out samples any more.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

STATISTICS = 4
BATCH, RATE, LAST_RATE, MOMENTUM, DECAY = 64, 0.01, 2e-4, 0.9, 5e-4
MOST_WARM_UP = 4200
"""Batches of warm-up at most: the 6 epochs of the code on CIFAR-10."""
LOOK_EVERY = 200
"""Batches between two looks at the held samples at most; a pass over the samples where that is shorter, but 20 at least."""
PATIENCE = 2
"""Looks without improvement after which a module's warm-up ends."""
TURNS = 6
TURN_BATCHES = 150
"""Batches of the modules in each turn at most; two passes over the samples where that is fewer."""
STEEPEST = 80.0
"""Features are shrunk where they vary so much that the rate above would overshoot."""


def exit_masses(gates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exit probabilities P and what is compared with 0.5, h, both float64 [N, L], of gate outputs g float64 [N, L].

    P_l = max(0, min(g_l, 1 - sum of g before l)); h_l = P_l / prod over j < l of (1 - h_j), clipped to 0..1, 0 where all left.
    """
    mass, chance = np.zeros(gates.shape), np.zeros(gates.shape)
    spent, staying = np.zeros(len(gates)), np.ones(len(gates))
    for exit in range(gates.shape[1]):
        mass[:, exit] = np.maximum(0.0, np.minimum(gates[:, exit], 1.0 - spent))
        chance[:, exit] = np.clip(np.divide(mass[:, exit], staying, out=np.zeros(len(gates)), where=staying > 0), 0.0, 1.0)
        spent += gates[:, exit]
        staying *= 1.0 - chance[:, exit]
    return mass, chance


def softmax_statistics(probabilities: np.ndarray) -> np.ndarray:
    """What a gate sees of softmaxes [..., K]: largest entry, entropy in nats, margin, entropy of the normalised squares; [..., 4]."""
    top = np.partition(probabilities, -2, axis=-1)
    squares = probabilities**2
    squares = squares / squares.sum(axis=-1, keepdims=True)
    entropies = [-(part * np.log(np.where(part > 0, part, 1.0))).sum(axis=-1) for part in (probabilities, squares)]
    return np.stack([top[..., -1], entropies[0], top[..., -1] - top[..., -2], entropies[1]], axis=-1)


def gate_outputs(statistics: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """Sigmoids of the gates [L, 5] for plain statistics [N, L, 4]; float64 [N, L]."""
    sums = (statistics * gates[:, :STATISTICS]).sum(axis=2) + gates[:, STATISTICS]
    return 1.0 / (1.0 + np.exp(-np.clip(sums, -700.0, 700.0)))


def exit_targets(loss: np.ndarray, cost: np.ndarray, trade_off: float) -> np.ndarray:
    """Where each sample should leave: argmin over the L + 1 exits of loss [N, L + 1] + trade_off * cost [L + 1], the first of equals."""
    return np.argmin(loss + trade_off * cost, axis=1)


def positive_weights(targets: np.ndarray, exits: int, most: float) -> np.ndarray:
    """Weight of 'leave' in each of `exits` gates: min(most, (n - n_l) / max(n_l, 0.1)), n_l = samples that should leave exactly at l."""
    share = np.bincount(targets, minlength=exits + 1)[:exits]
    return np.minimum(most, (targets.size - share) / np.maximum(share, 0.1))


def standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the first axis; 1 in place of a deviation that is hardly any."""
    deviation = values.std(axis=0)
    return values.mean(axis=0), np.where(deviation > 1e-9, deviation, 1.0)


def fold_back(layers: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Layers [L, D + 1, ...] on standardised inputs as layers on plain inputs; mean, deviation [L, D]."""
    shape = (*mean.shape, *(1,) * (layers.ndim - 2))
    plain = layers[:, :-1] / deviation.reshape(shape)
    return np.concatenate([plain, layers[:, -1:] - (plain * mean.reshape(shape)).sum(axis=1, keepdims=True)], axis=1)


def warm_up(features: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> dict[str, np.ndarray]:
    """Modules trained alone on features [n, L, D] and labels [n]: `weights` [L, D + 1, K] on features less `mean`, over `deviation` [L, D].

    The loss of exit l counts L + 1 - l times (l from 0), as in the code. One sample in five is held back for the early stop.
    """
    samples, exits, size = features.shape
    mean, deviation = standard(features.astype(np.float64))
    plain = (features - mean) / deviation
    for exit in range(exits):
        steepest = np.linalg.eigvalsh(plain[:, exit].T @ plain[:, exit] / samples)[-1] * (exits + 1 - exit)
        deviation[exit] *= np.sqrt(max(steepest / STEEPEST, 1.0))
    plain = (features - mean) / deviation
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(samples)
    held, rest = (shuffled, shuffled) if samples < 10 else (shuffled[: samples // 5], shuffled[samples // 5 :])
    order = batches(rng, rest, MOST_WARM_UP)
    every = min(max(-(-rest.size // BATCH), 20), LOOK_EVERY)
    weights = np.zeros((exits, size + 1, classes))
    for exit in range(exits):
        warm_up_module(plain, exit, labels, order, held, every, float(exits + 1 - exit), weights)
    return {"weights": weights, "mean": mean, "deviation": deviation}


def train(
    warm: dict[str, np.ndarray],
    features: np.ndarray,
    labels: np.ndarray,
    last_loss: np.ndarray,
    cost: np.ndarray,
    trade_off: float,
    most: float,
    by_mass: bool,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Modules [L, D + 1, K] and gates [L, 5] trained jointly, from warmed-up modules, on plain features and statistics.

    features float [n, L, D]; last_loss: cross-entropy of the last exit [n]; cost: of each exit [L + 1]; most: see
    `positive_weights`; by_mass: whether the modules' samples are weighted by exit mass, or all alike.
    """
    plain, weights = (features - warm["mean"]) / warm["deviation"], warm["weights"].copy()
    samples, exits = plain.shape[:2]
    each = min(TURN_BATCHES, 2 * -(-samples // BATCH))
    orders = batches(np.random.default_rng([seed, 1]), np.arange(samples), each * TURNS).reshape(TURNS, -1)
    loss, statistics = np.empty((samples, exits)), np.empty((samples, exits, STATISTICS))
    speed, gates = np.zeros_like(weights), np.zeros((exits, STATISTICS + 1))
    for turn in range(TURNS + 1):
        look(plain, labels, weights, loss, statistics)
        if turn == 0:
            middle, spread = standard(statistics)
        seen = (statistics - middle) / spread
        targets = exit_targets(np.column_stack([loss, last_loss]), cost, trade_off)
        gates = fit_gates(seen, targets, positive_weights(targets, exits, most), gates)
        if turn < TURNS:
            rate = LAST_RATE + (RATE - LAST_RATE) * (1 + np.cos(np.pi * turn / TURNS)) / 2
            module_turn(plain, labels, orders[turn], rate, by_mass, fold_back(gates, middle, spread), weights, speed)
    return fold_back(weights, warm["mean"], warm["deviation"]), fold_back(gates, middle, spread)


def train_gates(statistics: np.ndarray, loss: np.ndarray, cost: np.ndarray, trade_off: float, most: float) -> np.ndarray:
    """Gates [L, 5] on plain statistics [n, L, 4] of heads that stay as they are; loss [n, L + 1], the rest as in `train`."""
    middle, spread = standard(statistics)
    exits = statistics.shape[1]
    targets = exit_targets(loss, cost, trade_off)
    gates = fit_gates((statistics - middle) / spread, targets, positive_weights(targets, exits, most), np.zeros((exits, STATISTICS + 1)))
    return fold_back(gates, middle, spread)


def batches(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """`rows` shuffled again and again until there are `count` batches; int64 [count * BATCH]."""
    passes = -(-count * BATCH // rows.size)
    return np.concatenate([rng.permutation(rows) for _ in range(passes)])[: count * BATCH].astype(np.int64)


def fit_gates(statistics: np.ndarray, targets: np.ndarray, positive: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """The gates [L, 5] of least weighted cross-entropy on standardised statistics [n, L, 4], by Newton's method from `gates`.

    A gate's target is 1 at and after the exit where the sample should leave; 1 weighs positive[l], 0 weighs 1. The code's
    mean over samples and gates with its weight decay gives each gate's mean over samples a decay of L * DECAY.
    """
    exits, decay = len(gates), DECAY * len(gates)
    found = gates.copy()
    for exit in range(exits):
        seen, leave = np.ascontiguousarray(statistics[:, exit]), targets <= exit

        def around(gate: np.ndarray, seen: np.ndarray = seen, leave: np.ndarray = leave, weight: float = positive[exit]):
            return gate_moments(seen, leave, weight, decay, gate)

        found[exit] = newton(around, gates[exit])
    return found


def newton(around: Callable, start: np.ndarray) -> np.ndarray:
    """The minimum of a convex function, which gives value, gradient and curvature; steps that do not help are halved."""
    point, (value, gradient, curvature) = start, around(start)
    for _ in range(100):
        step = np.linalg.solve(curvature, gradient)
        if gradient @ step < 1e-12:  # twice what a full step could still gain
            break
        for _ in range(40):
            further = around(point - step)
            if further[0] <= value:
                break
            step = step / 2
        else:
            break
        point, (value, gradient, curvature) = point - step, further
    return point


@njit(cache=True)
def gate_moments(statistics, leave, weight, decay, gate):
    """Mean weighted cross-entropy of one gate [5] with its decay, its gradient [5] and curvature [5, 5]."""
    size = STATISTICS + 1
    value, gradient, curvature, seen = 0.0, np.zeros(size), np.zeros((size, size)), np.ones(size)
    for row in range(leave.size):
        total = gate[STATISTICS]
        for index in range(STATISTICS):
            seen[index] = statistics[row, index]
            total += gate[index] * seen[index]
        small = np.exp(-abs(total))
        said = 1.0 / (1.0 + small) if total >= 0 else small / (1.0 + small)
        share = weight if leave[row] else 1.0
        value += share * (np.log1p(small) + max(-total if leave[row] else total, 0.0))
        error = share * (said - 1.0 if leave[row] else said)
        bend = share * said * (1.0 - said)
        for index in range(size):
            gradient[index] += error * seen[index]
            pull = bend * seen[index]
            for other in range(index + 1):
                curvature[index, other] += pull * seen[other]
    value /= leave.size
    for index in range(size):
        value += decay * gate[index] * gate[index] / 2.0
        gradient[index] = gradient[index] / leave.size + decay * gate[index]
        for other in range(index + 1):
            curvature[index, other] /= leave.size
            curvature[other, index] = curvature[index, other]
        curvature[index, index] += decay
    return value, gradient, curvature


@njit(cache=True)
def module_softmax(features, row, weights, exit, logarithm, out):
    """Softmax of the module of one exit for one sample, and its logarithm; both [K], written in place.

    Here and below, whole arrays and places are handed down: a slice would cost as much as the computing.
    """
    size, classes = features.shape[2], out.size
    for k in range(classes):
        logarithm[k] = weights[exit, size, k]
    for d in range(size):
        value = features[row, exit, d]
        for k in range(classes):
            logarithm[k] += value * weights[exit, d, k]
    most = logarithm[0]
    for k in range(1, classes):
        most = max(most, logarithm[k])
    total = 0.0
    for k in range(classes):
        logarithm[k] -= most
        out[k] = np.exp(logarithm[k])
        total += out[k]
    shift = np.log(total)
    for k in range(classes):
        out[k] /= total
        logarithm[k] -= shift


@njit(cache=True)
def statistics_of(logarithm, probabilities, out, row, exit):
    """`softmax_statistics` of one softmax [K] and its logarithm, written to `out[row, exit]` [4]."""
    first, second, entropy, squares, powers = -1.0, -1.0, 0.0, 0.0, 0.0
    for k in range(probabilities.size):
        value = probabilities[k]
        if value > first:
            first, second = value, first
        elif value > second:
            second = value
        entropy -= value * logarithm[k]
        squares += value * value
        powers += value * value * logarithm[k]
    out[row, exit, 0], out[row, exit, 1] = first, entropy
    out[row, exit, 2], out[row, exit, 3] = first - second, np.log(squares) - 2.0 * powers / squares


@njit(cache=True)
def module_step(gradient, speed, weights, exit, rate, share):
    """One step of SGD with momentum and weight decay for the module of one exit; its `gradient` is scaled by `share` and zeroed."""
    for d in range(weights.shape[1]):
        for k in range(weights.shape[2]):
            speed[exit, d, k] = MOMENTUM * speed[exit, d, k] + gradient[exit, d, k] * share + DECAY * weights[exit, d, k]
            weights[exit, d, k] -= rate * speed[exit, d, k]
            gradient[exit, d, k] = 0.0


@njit(cache=True)
def learn_from(features, row, exit, label, share, said, gradient):
    """Add a sample's gradient of share * cross-entropy to `gradient[exit]` [D + 1, K]; `said` [K] is its softmax and is used up."""
    size, classes = features.shape[2], said.size
    said[label] -= 1.0
    for k in range(classes):
        said[k] *= share
        gradient[exit, size, k] += said[k]
    for d in range(size):
        value = features[row, exit, d]
        for k in range(classes):
            gradient[exit, d, k] += value * said[k]


@njit(cache=True)
def warm_up_module(features, exit, labels, order, held, every, share, weights):
    """Train the module of one exit alone; `weights[exit]` ends as it was best on the rows `held`.

    features [n, L, D], weights [L, D + 1, K]; order: rows in the order in which they are learned from, whole batches; they
    are looked at every `every` batches. Ends when `PATIENCE` looks show no improvement, or with `order`.
    """
    classes, count = weights.shape[2], order.size // BATCH
    gradient, speed, best = np.zeros_like(weights), np.zeros_like(weights), weights[exit].copy()
    said, logarithm = np.empty(classes), np.empty(classes)
    least, worse = np.inf, 0
    for batch in range(count):
        for place in range(batch * BATCH, (batch + 1) * BATCH):
            row = order[place]
            module_softmax(features, row, weights, exit, logarithm, said)
            learn_from(features, row, exit, labels[row], share, said, gradient)
        module_step(gradient, speed, weights, exit, RATE, 1.0 / BATCH)
        if (batch + 1) % every == 0 or batch + 1 == count:
            loss = 0.0
            for row in held:
                module_softmax(features, row, weights, exit, logarithm, said)
                loss -= logarithm[labels[row]]
            if loss < least:
                least, worse = loss, 0
                best[:] = weights[exit]
            else:
                worse += 1
                if worse == PATIENCE:
                    break
    weights[exit] = best


@njit(cache=True)
def look(features, labels, weights, loss, statistics):
    """Cross-entropies [n, L] and plain statistics [n, L, 4] of all modules, written in place."""
    said, logarithm = np.empty(weights.shape[2]), np.empty(weights.shape[2])
    for row in range(labels.size):
        for exit in range(weights.shape[0]):
            module_softmax(features, row, weights, exit, logarithm, said)
            loss[row, exit] = -logarithm[labels[row]]
            statistics_of(logarithm, said, statistics, row, exit)


@njit(cache=True)
def module_turn(features, labels, order, rate, by_mass, gates, weights, speed):
    """Train all modules [L, D + 1, K] for the batches of `order`, each sample weighted by the mass that the gates [L, 5] send to it.

    The gates look at plain statistics of the modules as they are at the time; no gradient flows through them.
    """
    exits, classes = weights.shape[0], weights.shape[2]
    gradient = np.zeros_like(weights)
    said, logarithm, seen = np.empty(classes), np.empty(classes), np.empty((1, 1, STATISTICS))
    for batch in range(order.size // BATCH):
        for place in range(batch * BATCH, (batch + 1) * BATCH):
            row = order[place]
            spent = 0.0
            for exit in range(exits):
                mass = 1.0
                if by_mass and spent >= 1.0:
                    break
                module_softmax(features, row, weights, exit, logarithm, said)
                if by_mass:
                    statistics_of(logarithm, said, seen, 0, 0)
                    total = gates[exit, STATISTICS]
                    for index in range(STATISTICS):
                        total += gates[exit, index] * seen[0, 0, index]
                    gate = 1.0 / (1.0 + np.exp(-total))
                    mass = max(0.0, min(gate, 1.0 - spent))
                    spent += gate
                learn_from(features, row, exit, labels[row], mass, said, gradient)
        for exit in range(exits):
            module_step(gradient, speed, weights, exit, rate, 1.0 / BATCH)


@njit(cache=True)
def ask_modules(features, weights, answers, confidence, statistics):
    """Answers and their probabilities [N, L], plain statistics [N, L, 4] of modules [L, D + 1, K] on plain features [N, L, D]."""
    said, logarithm = np.empty(weights.shape[2]), np.empty(weights.shape[2])
    for row in range(features.shape[0]):
        for exit in range(weights.shape[0]):
            module_softmax(features, row, weights, exit, logarithm, said)
            statistics_of(logarithm, said, statistics, row, exit)
            answers[row, exit] = np.argmax(said)
            confidence[row, exit] = statistics[row, exit, 0]
