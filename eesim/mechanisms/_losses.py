"""Losses of the learned rules with their gradients, compiled: one pass over the samples, no temporaries, no threads.

Each returns the loss and its gradient by the parameters; `eesim.mechanisms._logistic.minimum` goes down them.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def _sigmoid(value):
    small = np.exp(-abs(value))
    return (1.0 if value >= 0 else small) / (1.0 + small)


@njit(cache=True)
def squared_error(place, inputs, target):
    """Mean of (sigmoid(w.x + b) - target)^2 with a trace of weight decay. place: w, then b; inputs float64 [n, D]; target [n]."""
    samples, size = inputs.shape
    gradient, value = 1e-6 * place, 0.5e-6 * (place * place).sum()
    for sample in range(samples):
        raw = place[size]
        for column in range(size):
            raw += inputs[sample, column] * place[column]
        said = _sigmoid(raw)
        off = said - target[sample]
        value += off * off / samples
        slope = 2 * off * said * (1 - said) / samples
        for column in range(size):
            gradient[column] += slope * inputs[sample, column]
        gradient[size] += slope
    return value, gradient


@njit(cache=True)
def geometric(place, parts, label):
    """Mean cross-entropy of softmax(mean_m exp(w_m) ln p^m + b). place: w [l], b [K]; parts: ln p, float64 [n, l, K]; label [n]."""
    samples, exits, classes = parts.shape
    scale = np.exp(place[:exits])
    gradient, value = 1e-5 * place, 0.5e-5 * (place * place).sum()
    mixed = np.empty(classes)
    for sample in range(samples):
        mixed[:] = place[exits:]
        for exit in range(exits):
            factor = scale[exit] / exits
            for index in range(classes):
                mixed[index] += factor * parts[sample, exit, index]
        top = mixed.max()
        true = mixed[label[sample]] - top
        total = 0.0
        for index in range(classes):
            mixed[index] = np.exp(mixed[index] - top)
            total += mixed[index]
        value += (np.log(total) - true) / samples
        for index in range(classes):
            mixed[index] = (mixed[index] / total - (1.0 if index == label[sample] else 0.0)) / samples
            gradient[exits + index] += mixed[index]
        for exit in range(exits):
            along = 0.0
            for index in range(classes):
                along += mixed[index] * parts[sample, exit, index]
            gradient[exit] += along * scale[exit] / exits
    return value, gradient


@njit(cache=True)
def arithmetic(place, parts, label):
    """Mean cross-entropy of the normalised sum_m exp(w_m) p^m + exp(b). place: w [l], b [K]; parts: p, float64 [n, l, K]; label [n]."""
    samples, exits, classes = parts.shape
    scale, extra = np.exp(place[:exits]), np.exp(place[exits:])
    gradient, value = 1e-5 * place, 0.5e-5 * (place * place).sum()
    for sample in range(samples):
        total, true = extra.sum(), extra[label[sample]]
        for exit in range(exits):
            mass = 0.0
            for index in range(classes):
                mass += parts[sample, exit, index]
            total += scale[exit] * mass
            true += scale[exit] * parts[sample, exit, label[sample]]
        value += (np.log(total) - np.log(true + 1e-40)) / samples
        everyone, own = 1 / total / samples, 1 / (true + 1e-40) / samples
        for exit in range(exits):
            mass = 0.0
            for index in range(classes):
                mass += parts[sample, exit, index]
            gradient[exit] += scale[exit] * (everyone * mass - own * parts[sample, exit, label[sample]])
        for index in range(classes):
            gradient[exits + index] += extra[index] * everyone
        gradient[exits + label[sample]] -= extra[label[sample]] * own
    return value, gradient


@njit(cache=True)
def cut_cross_entropy(place, inputs, target, share, edge):
    """Sum of share * cross-entropy of the linear score w.x, cut to [0, 1], against target (0 or 1), with some weight decay.

    0 past the right end; within `edge` of the wrong one, and past it, the tangent goes on. inputs float64 [n, D].
    """
    samples, size = inputs.shape
    gradient, value = 1e-3 * place, 0.5e-3 * (place * place).sum()
    for sample in range(samples):
        said = 0.0
        for column in range(size):
            said += inputs[sample, column] * place[column]
        sign = 1.0 if target[sample] > 0 else -1.0
        if sign < 0:
            said = 1 - said
        if said >= 1:
            continue
        if said < edge:
            value += share[sample] * ((edge - said) / edge - np.log(edge))
            slope = -sign * share[sample] / edge
        else:
            value -= share[sample] * np.log(said)
            slope = -sign * share[sample] / said
        for column in range(size):
            gradient[column] += slope * inputs[sample, column]
    return value, gradient


@njit(cache=True)
def exit_distribution(place, inputs, widths, hidden, sharpness):
    """Softmax over exits of sharpness * sigmoid(network of the exit), float64 [n, E]; sigmoid outputs alike; hidden layers [E, n, H].

    inputs float64 [E, n, D]; of exit e the first widths[e] columns count. place: for each exit weights [widths[e], hidden[e]],
    hidden biases, output weights, output bias, one after the other.
    """
    exits, samples, _ = inputs.shape
    shares, ends = np.empty((samples, exits)), np.empty((samples, exits))
    middles = np.zeros((exits, samples, hidden.max()))
    at = 0
    for exit in range(exits):
        size, width = hidden[exit], widths[exit]
        weights = place[at : at + size * width].reshape(width, size)
        at += size * width
        bias, out, last = place[at : at + size], place[at + size : at + 2 * size], place[at + 2 * size]
        at += 2 * size + 1
        for sample in range(samples):
            row, middle = inputs[exit, sample], middles[exit, sample]
            for unit in range(size):
                middle[unit] = bias[unit]
            for column in range(width):
                value = row[column]
                for unit in range(size):
                    middle[unit] += value * weights[column, unit]
            raw = last
            for unit in range(size):
                middle[unit] = _sigmoid(middle[unit])
                raw += middle[unit] * out[unit]
            ends[sample, exit] = _sigmoid(raw)
    for sample in range(samples):
        top, total = ends[sample].max(), 0.0
        for exit in range(exits):
            shares[sample, exit] = np.exp(sharpness * (ends[sample, exit] - top))
            total += shares[sample, exit]
        for exit in range(exits):
            shares[sample, exit] /= total
    return shares, ends, middles


@njit(cache=True)
def budget_loss(place, inputs, widths, hidden, sharpness, wanted, prices, budget, alpha_ce, alpha_cost):
    """alpha_ce KL(wanted || distribution), mean over elements, + alpha_cost |E[cost] - budget| / budget, times 1000.

    wanted float64 [n, E], rows add up to 1; prices float64 [E]. |x| is sqrt(x^2 + 1e-8), so that there is a slope at 0.
    """
    exits, samples, _ = inputs.shape
    shares, ends, middles = exit_distribution(place, inputs, widths, hidden, sharpness)
    expected, value = np.zeros(samples), 0.0
    for sample in range(samples):
        for exit in range(exits):
            expected[sample] += shares[sample, exit] * prices[exit]
            value += alpha_ce * wanted[sample, exit] * np.log(wanted[sample, exit] / max(shares[sample, exit], 1e-300)) / (samples * exits)
    off = expected.mean() / budget - 1
    length = np.sqrt(off * off + 1e-8)
    value += alpha_cost * length
    pull = alpha_cost * off / length / budget / samples
    gradient, back = np.zeros(place.size), np.empty(hidden.max())
    at = 0
    for exit in range(exits):
        size, width = hidden[exit], widths[exit]
        by_weight = gradient[at : at + size * width].reshape(width, size)
        at += size * width
        by_bias, by_out = gradient[at : at + size], gradient[at + size : at + 2 * size]
        out, by_last = place[at + size : at + 2 * size], 0.0
        for sample in range(samples):
            row, middle = inputs[exit, sample], middles[exit, sample]
            end, share = ends[sample, exit], shares[sample, exit]
            slope = alpha_ce * (share - wanted[sample, exit]) / (samples * exits) + pull * share * (prices[exit] - expected[sample])
            slope *= sharpness * end * (1 - end)
            by_last += slope
            for unit in range(size):
                by_out[unit] += slope * middle[unit]
                back[unit] = slope * out[unit] * middle[unit] * (1 - middle[unit])
                by_bias[unit] += back[unit]
            for column in range(width):
                seen = row[column]
                for unit in range(size):
                    by_weight[column, unit] += seen * back[unit]
        gradient[at + 2 * size] = by_last
        at += 2 * size + 1
    return 1e3 * value, 1e3 * gradient
