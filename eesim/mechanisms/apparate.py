"""apparate: answers leave early, computing runs to the end, and what the ramps said tunes their thresholds as requests come."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms import _apparate_tuning as tuning
from eesim.mechanisms._apparate_tuning import STARTED, THRESHOLDS, next_ramp, record, start
from eesim.mechanisms.base import STOP, Charge, Mechanism, Parameter, Site, Values, Work
from eesim.trace.view import TraceView

_LOSSES, _BUDGETS = (0.01, 0.0, 0.02, 0.05, 0.1, 0.2, 0.5), (1e-4, 0.01, 0.02, 0.05, 0.1, 0.2)


class Apparate(Mechanism):
    """The answer leaves at ramp r iff 1 - p1 < threshold_r, strictly (Apparate, SOSP 2024); state: global.

    A ramp is an enabled exit before the last one. Computing runs through all active ramps to the end, so latency falls and
    energy does not: every sample says how each ramp agrees with the full network, and accuracy is that agreement.

    Thresholds start at 0 (never). At the end of a batch of `batch` samples they are tuned on the last 4 batches, by greedy
    hill climbing with at most `tuning_budget` of disagreement: after the first batch, after the ramps changed, and after a
    batch that lost more than `accuracy_loss`. In the second such batch in a row and after, the ramps that answered wrongly
    get the threshold 0 instead. Every `check_every` batches a ramp that saved nothing in any of the last 20 batches is
    removed and the next one tried, unless tuning alone gains over 2 % or the others give over 90 % of the answers; where all
    ramps save time, one is added halfway before the first, in place of the least useful one where `ramps` are active already
    or `tail_budget` (overhead of all active ramps) is spent. Inactive ramps are not evaluated. Constants are those of the
    public code for vision models; see `_apparate_tuning`.

    The controller needs to know when a ramp answers: `cost_share`, the share of the network's time that has passed there
    (equal steps by default), and `ramp_overhead`, what an active ramp adds. They are not taken from the profile.
    Assumptions: a ramp's data from before it was active count as not answering; where no ramp is left, the first ones are
    set again. The hill climb takes direction 0 where it is best, which the public code does not always.
    """

    name = "apparate"
    source = "Apparate (SOSP 2024, arXiv 2312.05385) and its public code"
    state = "global"
    answers_early = True
    parameters = (
        Parameter("accuracy_loss", 0.01, 0.0, 1.0, "disagreement with the full network in a batch above which thresholds are tuned anew"),
        Parameter("tuning_budget", 1e-4, 0.0, 1.0, "disagreement that tuning stays below, over the last 4 batches"),
        Parameter("batch", 16, 1, 4096, "samples between two looks at the thresholds", integer=True),
        Parameter("ramps", 3, 0, 61, "ramps that are active at most", integer=True),
        Parameter("check_every", 30, 1, help="batches between two looks at the ramps", integer=True),
        Parameter("ramp_overhead", 0.01, 0.0, 1.0, "time of a ramp for the controller, as a share of the network's"),
        Parameter("tail_budget", 0.05, 0.0, 1e6, "overhead of all active ramps at most, as a share of the network's time"),
        Parameter(
            "cost_share", "equal", 0.0, 1.0, "for the controller, the share of the network's time up to each exit; 'equal' steps", per_exit=True,
            choices=("equal",),
        ),
    )  # fmt: skip

    def observe(self, view: TraceView, values: Values) -> np.ndarray:
        """p1 and the answer, float64 [N, E, 2]."""
        return np.stack([view.confidence, view.answers], axis=2)

    def group(self, values: Values) -> tuple:
        """Settings with equal memories: nothing else differs in what is observed."""
        return (self.value(values, "batch"),)

    def memory(self, view: TraceView, values: Values) -> int:
        """Thresholds, utilities and the last 4 batches' errors and agreements of all ramps: see `_apparate_tuning`."""
        return tuning.size(view.exits - 1, int(self.value(values, "batch")))

    def pack(self, values: Values, view: TraceView) -> np.ndarray:
        """float64 [7 + E - 1], in the order that `_apparate_tuning` reads."""
        names = ("accuracy_loss", "batch", "ramps", "ramp_overhead", "tuning_budget", "check_every", "tail_budget")
        share, recorded = values["cost_share"], view.trace.exits
        spread = share if isinstance(share, tuple) else (share,) * (recorded - 1)
        shares = [(exit + 1) / recorded if spread[exit] == "equal" else float(spread[exit]) for exit in view.recorded_exits[:-1]]
        return np.array([*(float(values[name]) for name in names), *shares])

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        """See `eesim.mechanisms.base`. memory: see `_apparate_tuning`."""
        ramps = observed.shape[0] - 1
        if exit < 0 and memory[STARTED] == 0:
            start(memory, ramps, parameters)
            memory[STARTED] = 1
        if exit == ramps:
            record(observed, memory, ramps, parameters)
            return STOP
        if exit >= 0 and answer[1] < 0 and 1.0 - observed[exit, 0] < memory[THRESHOLDS + exit]:
            answer[1] = exit
        return next_ramp(memory, ramps, exit)

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """Accuracy losses and tuning budgets: the defaults, larger ones, and none."""
        axes = {name: values for name, values in (("accuracy_loss", _LOSSES), ("tuning_budget", _BUDGETS)) if name not in (given or {})}
        settings: list[Values] = [{}]
        for name, values in axes.items():
            settings = [{**setting, name: value} for value in values for setting in settings]
        return settings[: max(count, 1)]

    def charge(self, site: Site) -> Charge:
        """A softmax, a difference and a comparison at each ramp, and noting error and agreement. Tuning runs on the host, which costs nothing."""
        return Charge((Work("softmax", site.classes, 4 * site.classes + 1), Work("elementwise", 2, 4)))
