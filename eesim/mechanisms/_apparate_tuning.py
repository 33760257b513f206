"""Apparate's controller (SOSP 2024, arXiv 2312.05385, and its public code): thresholds by hill climbing, ramps by what they are worth.

Every function here is plain Python that compiled steps inline. R ramps are the exits before the last one. All state lies in
one array, `memory`:

    place        what
    0 .. 4       samples in the present batch, batches seen, violations in a row, whether ramps changed, whether ramps were set
    5            thresholds [R], whether a ramp is active [R], batches since it became so [R], steps [R] and proposed
                 thresholds [R] of the hill climb, shares of answers [R], thresholds with an effect [R]
    5 + 7 R      utilities [HISTORY, R], a ring
    then         errors 1 - confidence [WINDOW * batch, R], infinite where a ramp was not evaluated
    then         whether a ramp agreed with the last exit [WINDOW * batch, R]

`parameters`: accuracy loss, batch, most ramps, overhead of a ramp, tuning budget, batches between checks of the ramps, tail
budget, then the share of the network's time that has passed at each ramp [R]. Times are in units of the network without ramps.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

WINDOW = 4
"""Batches that thresholds are tuned on."""
HISTORY = 20
"""Batches whose utilities decide about a ramp."""
FIRST_STEP, LAST_STEP = 0.01, 0.001
"""Steps of the hill climb: at its start, and where it ends."""
ADOPTED_GAIN = 2.0
"""Points of latency improvement for which tuned thresholds save a ramp from being removed."""
ENOUGH = 0.9
"""Share of answers from which on the remaining ramps are left alone."""
ROUNDS = 10_000
"""The hill climb ends here at the latest; it ends far earlier."""
STARTED, THRESHOLDS = 4, 5


def size(ramps: int, batch: int) -> int:
    """Numbers in `memory`."""
    return THRESHOLDS + (7 + HISTORY + 2 * WINDOW * batch) * ramps


@register_jitable
def next_ramp(memory, ramps, exit):
    """The next active ramp after `exit`, else the last exit."""
    following = exit + 1
    while following < ramps and memory[THRESHOLDS + ramps + following] == 0:
        following += 1
    return following


@register_jitable
def most_ramps(parameters):
    """How many ramps may be active: the limit that is given, and what the tail budget leaves."""
    most = int(parameters[2])
    while most > 0 and most * parameters[3] > parameters[6] + 1e-12:
        most -= 1
    return most


@register_jitable
def start(memory, ramps, parameters):
    """Activate the first ramps, evenly spaced up to the last one that answers before the network without ramps would."""
    usable = 0
    for ramp in range(ramps):
        if parameters[7 + ramp] + parameters[3] < 1.0:
            usable = ramp + 1
    wanted = min(most_ramps(parameters), usable)
    for place in range(wanted):
        activate(memory, ramps, (place + 1) * usable // wanted - 1)


@register_jitable
def activate(memory, ramps, ramp):
    """Set a ramp active, without a threshold and without a history."""
    memory[THRESHOLDS + ramp] = 0.0
    memory[THRESHOLDS + ramps + ramp] = 1.0
    memory[THRESHOLDS + 2 * ramps + ramp] = 0.0


@register_jitable
def record(observed, memory, ramps, parameters):
    """Write down what the active ramps said about a sample that ran to the end; at the end of a batch, tune."""
    batch = int(parameters[1])
    errors = THRESHOLDS + (7 + HISTORY) * ramps
    row = (int(memory[1]) % WINDOW * batch + int(memory[0])) * ramps
    for ramp in range(ramps):
        evaluated = memory[THRESHOLDS + ramps + ramp] > 0
        agrees = not evaluated or observed[ramp, 1] == observed[ramps, 1]
        memory[errors + row + ramp] = 1.0 - observed[ramp, 0] if evaluated else np.inf
        memory[errors + WINDOW * batch * ramps + row + ramp] = 1.0 if agrees else 0.0
    memory[0] += 1
    if memory[0] == batch:
        memory[0] = 0
        memory[1] += 1
        batch_end(memory, ramps, parameters)


@register_jitable
def measure(memory, ramps, parameters, thresholds, begin, samples):
    """Agreement and latency improvement in percent over `samples` recorded ones from `begin`, under the thresholds at memory[thresholds:].

    Writes the share of answers of every ramp.
    """
    errors = THRESHOLDS + (7 + HISTORY) * ramps
    agreements = errors + WINDOW * int(parameters[1]) * ramps
    shares = THRESHOLDS + 5 * ramps
    for ramp in range(ramps):
        memory[shares + ramp] = 0.0
    wrong = 0
    for sample in range(begin, begin + samples):
        for ramp in range(ramps):
            if memory[THRESHOLDS + ramps + ramp] > 0 and memory[errors + sample * ramps + ramp] < memory[thresholds + ramp]:
                memory[shares + ramp] += 1
                if memory[agreements + sample * ramps + ramp] == 0:
                    wrong += 1
                break
    left, mean, overhead = 1.0, 0.0, 0.0
    for ramp in range(ramps):
        if memory[THRESHOLDS + ramps + ramp] > 0:
            overhead += parameters[3]
            memory[shares + ramp] /= samples
            mean += memory[shares + ramp] * (parameters[7 + ramp] + overhead)
            left -= memory[shares + ramp]
    mean += left * (1.0 + overhead)
    return 1.0 - wrong / samples, (1.0 - mean) * 100.0


@register_jitable
def tune(memory, ramps, parameters, samples):
    """Greedy hill climb over the thresholds of the active ramps, from 0; the improvement found. Writes the proposed thresholds.

    Each round tries one more step for every ramp. Of those that keep the disagreement under the tuning budget and change
    something, the one with the least loss of accuracy for each point of latency is taken (ties: the larger improvement, then
    the earlier ramp) and its step doubled, as are the steps that change nothing. Where there are neither, all steps are halved.

    A step that changes nothing is made, too: else it would be doubled and halved for ever before a sample that must not be
    answered. In the end every threshold falls back to the last one that had an effect.
    """
    steps, proposed, effective = THRESHOLDS + 3 * ramps, THRESHOLDS + 4 * ramps, THRESHOLDS + 6 * ramps
    for ramp in range(ramps):
        memory[proposed + ramp] = memory[effective + ramp] = 0.0
        memory[steps + ramp] = FIRST_STEP if memory[THRESHOLDS + ramps + ramp] > 0 else 0.0
    accuracy, improvement = measure(memory, ramps, parameters, proposed, 0, samples)
    for _ in range(ROUNDS):
        largest = 0.0
        for ramp in range(ramps):
            largest = max(largest, memory[steps + ramp])
        if largest <= LAST_STEP:
            break
        best, best_ratio, best_accuracy, best_improvement, idle = -1, np.inf, accuracy, improvement, 0
        for ramp in range(ramps):
            step, before = memory[steps + ramp], memory[proposed + ramp]
            if step <= 0:
                continue
            memory[proposed + ramp] = min(before + step, 1.0)
            tried, gained = measure(memory, ramps, parameters, proposed, 0, samples)
            memory[proposed + ramp] = before
            if tried == accuracy and gained == improvement:
                memory[steps + ramp] = -step  # marked: changes nothing
                idle += 1
            elif 1.0 - tried < parameters[4]:
                ratio = abs(tried - accuracy) / abs(gained - improvement) if gained != improvement else np.inf
                if best < 0 or ratio < best_ratio or (ratio == best_ratio and gained > best_improvement):
                    best, best_ratio, best_accuracy, best_improvement = ramp, ratio, tried, gained
        if best >= 0:
            memory[proposed + best] = min(memory[proposed + best] + memory[steps + best], 1.0)
            memory[effective + best] = memory[proposed + best]
            memory[steps + best] *= 2
            accuracy, improvement = best_accuracy, best_improvement
        for ramp in range(ramps):
            if memory[steps + ramp] < 0:
                memory[proposed + ramp] = min(memory[proposed + ramp] - memory[steps + ramp], 1.0)
                memory[steps + ramp] *= -2
            elif best < 0 and idle == 0:
                memory[steps + ramp] /= 2
            if memory[proposed + ramp] >= 1.0:
                memory[steps + ramp] = 0.0
    for ramp in range(ramps):
        memory[proposed + ramp] = memory[effective + ramp]
    return improvement


@register_jitable
def batch_end(memory, ramps, parameters):
    """After each batch: utilities, thresholds where something calls for it, and now and then the ramps."""
    batch, batches = int(parameters[1]), int(memory[1])
    begin = (batches - 1) % WINDOW * batch
    samples = min(batches, WINDOW) * batch
    accuracy, _ = measure(memory, ramps, parameters, THRESHOLDS, begin, batch)
    note_utilities(memory, ramps, parameters, batches)
    violated = 1.0 - accuracy > parameters[0]
    memory[2] = memory[2] + 1 if violated else 0.0
    if memory[2] >= 2:
        silence(memory, ramps, parameters, begin)
    elif violated or memory[3] > 0 or batches == 1:
        tune(memory, ramps, parameters, samples)
        for ramp in range(ramps):
            memory[THRESHOLDS + ramp] = memory[THRESHOLDS + 4 * ramps + ramp]
    memory[3] = 0.0
    if batches % int(parameters[5]) == 0:
        adapt(memory, ramps, parameters, samples)


@register_jitable
def silence(memory, ramps, parameters, begin):
    """Take the thresholds from the ramps that answered wrongly in the batch at `begin`."""
    batch = int(parameters[1])
    errors = THRESHOLDS + (7 + HISTORY) * ramps
    agreements = errors + WINDOW * batch * ramps
    offending = THRESHOLDS + 4 * ramps  # the proposed thresholds are free to be written
    for ramp in range(ramps):
        memory[offending + ramp] = 0.0
    for sample in range(begin, begin + batch):
        for ramp in range(ramps):
            if memory[THRESHOLDS + ramps + ramp] > 0 and memory[errors + sample * ramps + ramp] < memory[THRESHOLDS + ramp]:
                if memory[agreements + sample * ramps + ramp] == 0:
                    memory[offending + ramp] = 1.0
                break
    for ramp in range(ramps):
        if memory[offending + ramp] > 0:
            memory[THRESHOLDS + ramp] = 0.0


@register_jitable
def note_utilities(memory, ramps, parameters, batches):
    """Utility of every active ramp in the last batch: share x time to the next ramp - share of later answers x its overhead."""
    row = THRESHOLDS + 7 * ramps + (batches - 1) % HISTORY * ramps
    shares = THRESHOLDS + 5 * ramps
    later, following = 1.0, 1.0 + parameters[3] * count_active(memory, ramps)
    for ramp in range(ramps):
        if memory[THRESHOLDS + ramps + ramp] > 0:
            later -= memory[shares + ramp]
    active = count_active(memory, ramps)
    for ramp in range(ramps - 1, -1, -1):
        if memory[THRESHOLDS + ramps + ramp] > 0:
            here = parameters[7 + ramp] + parameters[3] * active
            memory[row + ramp] = memory[shares + ramp] * (following - here) - later * parameters[3]
            memory[THRESHOLDS + 2 * ramps + ramp] += 1
            later += memory[shares + ramp]
            following = here
            active -= 1


@register_jitable
def count_active(memory, ramps):
    """How many ramps are active."""
    active = 0
    for ramp in range(ramps):
        active += memory[THRESHOLDS + ramps + ramp] > 0
    return active


@register_jitable
def worth(memory, ramps, ramp, batches):
    """The sum of a ramp's utilities over the last `HISTORY` batches in which it was active, and whether one of them was positive."""
    age = min(int(memory[THRESHOLDS + 2 * ramps + ramp]), HISTORY)
    total, positive = 0.0, False
    for back in range(1, age + 1):
        utility = memory[THRESHOLDS + 7 * ramps + (batches - back) % HISTORY * ramps + ramp]
        total += utility
        positive = positive or utility > 0
    return total, positive


@register_jitable
def adapt(memory, ramps, parameters, samples):
    """Remove ramps that were worth nothing in any batch, or add one before the first where all are worth something."""
    active, batches, changed = THRESHOLDS + ramps, int(memory[1]), False
    if count_active(memory, ramps) == 0:
        start(memory, ramps, parameters)
        memory[3] = 1.0
        return
    useless, least, poorest = 0, np.inf, -1
    first = next_ramp(memory, ramps, -1)
    for ramp in range(ramps):
        if memory[active + ramp] > 0:
            total, positive = worth(memory, ramps, ramp, batches)
            useless += not positive
            if total < least:
                least, poorest = total, ramp
    if useless > 0:
        found = tune(memory, ramps, parameters, samples)
        _, present = measure(memory, ramps, parameters, THRESHOLDS, 0, samples)
        if found - present > ADOPTED_GAIN:
            for ramp in range(ramps):
                memory[THRESHOLDS + ramp] = memory[THRESHOLDS + 4 * ramps + ramp]
            return
        for ramp in range(ramps):
            if memory[active + ramp] > 0:
                _, positive = worth(memory, ramps, ramp, batches)
                if not positive:
                    memory[active + ramp] = -1.0  # removed just now
        remaining = 0.0
        for ramp in range(ramps):
            if memory[active + ramp] > 0:
                remaining += memory[THRESHOLDS + 5 * ramps + ramp]
        for ramp in range(ramps):
            if memory[active + ramp] < 0:
                memory[active + ramp] = -2.0  # its place has been looked for
                following = ramp + 1
                while following < ramps and memory[active + following] != 0:
                    following += 1
                usable = following < ramps and parameters[7 + following] + parameters[3] < 1.0
                if remaining <= ENOUGH and usable:
                    activate(memory, ramps, following)
        for ramp in range(ramps):
            if memory[active + ramp] < 0:
                memory[active + ramp] = 0.0
                memory[THRESHOLDS + ramp] = 0.0
        changed = True
    elif least > 0 and first > 0:
        if count_active(memory, ramps) >= most_ramps(parameters):
            memory[active + poorest] = 0.0
            memory[THRESHOLDS + poorest] = 0.0
        activate(memory, ramps, (first - 1) // 2)
        changed = True
    if changed:
        memory[3] = 1.0
