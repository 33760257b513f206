"""The protocol of decision mechanisms.

A mechanism is asked which head to evaluate next, until it says STOP. The question is a small function that numba can
compile (plain Python is compiled for you):

    step(exit, observed, scratch, memory, parameters, situation, answer) -> next head, or STOP

    exit        head just evaluated, counted among the enabled exits from 0; -1 before the first
    observed    float64 [E, D]: what `observe` returned for this sample; rows above `exit` are not known yet to a real
                device, so an honest rule does not read them
    scratch     float64 [self.scratch]: zeroed at the start of every sample (state within a sample)
    memory      float64 [self.memory(view)]: kept from sample to sample, one per stream (`state = "stream"`) or one for
                all (`state = "global"`); zeroed at the start of a run and of each lap of the trace
    parameters  float64: what `pack` made of the parameters (per-exit ones take E - 1 places)
    situation   float64 [3], only filled for `live` mechanisms: [QUEUE] requests waiting now, [SLACK_NS] time left to
                the deadline (inf without one), [NEXT_NS] time to the next decision if it goes on
    answer      int64 [2], both -1 at the start of a sample: [0] the class to answer, -1 = what the answering exit says;
                [1] the exit whose answer leaves now although computing goes on, -1 = the last one evaluated

The returned head may lie beyond `exit + 1` (heads between are skipped and cost nothing) or before it (its segment has run
already; only its head is paid); each head is evaluated at most once.

After the last exit the answer is given whatever the step says: it is called there only
for mechanisms with state across samples, so that they can write it, and what it returns is ignored.

How mechanisms with more state sit in this protocol:

- **Temporal Patience** (arXiv 2403.07958): `state = "stream"`, `memory` holds the scene's reference vectors [E * K], its
  exit e, its label Y and whether a scene is open; `observe` returns the softmax vectors [N, E, K]. Before the first head
  it returns e (or 0 when a scene opens: then every head in turn). After head e it compares with the reference: STOP, or
  the next unevaluated head, so that all references are renewed; `answer[0]` carries a label that is not the exit's own.
- **DART** (arXiv 2603.12269): `observe` returns confidence and the sample's difficulty side by side [N, E, 2]; `work`
  charges the difficulty estimator once per sample. Adaptive coefficients, class windows and bandit counters are
  `state = "global"` memory, updated in `step` at STOP.
- **a queue-aware threshold**: `live = True`; `step` lowers its bar by `situation[QUEUE]` or by `situation[SLACK_NS]`.
  Such a rule is asked in simulated time, stage by stage, by the calendar engine and the SimPy oracle.
- **Apparate** (arXiv 2312.05385): sets `answer[1]` at the ramp whose answer leaves and keeps returning the next head.

State across samples is read and written in the order in which service starts. Live mechanisms keep state within a sample
only: with several servers, samples overlap in time, and there is no one order to write in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from eesim.errors import BadInput, choose
from eesim.trace.view import TraceView

STOP = -1
QUEUE, SLACK_NS, NEXT_NS = 0, 1, 2
SITUATION_SIZE = 3


@dataclass(frozen=True)
class Parameter:
    """One parameter of a mechanism. `high` may depend on the number of classes; `never` is the packed value that never exits."""

    name: str
    default: float | str | None
    low: float = -np.inf
    high: float | Callable[[int], float] = np.inf
    help: str = ""
    integer: bool = False
    per_exit: bool = False
    never: float | None = None

    def limit(self, classes: int) -> float:
        """The largest legal value for `classes` classes."""
        return float(self.high(classes)) if callable(self.high) else float(self.high)

    def check(self, value: Any, classes: int) -> float | str:
        """`value` as a number in range, or the word 'never' where that is legal. Raises BadInput otherwise."""
        if isinstance(value, str) and value.strip().lower() == "never" and self.never is not None:
            return "never"
        high = self.limit(classes)
        span = f"{self.low:g} to {high:.6g}" if np.isfinite(high) else f"at least {self.low:g}"
        legal = f"{'a whole number, ' if self.integer else ''}{span}" + (", or 'never'" if self.never is not None else "")
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise BadInput(f"{self.name} '{str(value)[:40]}' is not a number; legal is {legal}", field=self.name) from None
        if not self.low <= number <= high or (self.integer and number != int(number)):
            raise BadInput(f"{self.name} {number:g} is outside its range; legal is {legal}", field=self.name)
        return int(number) if self.integer else number


@dataclass(frozen=True)
class Work:
    """Computing that a mechanism does itself: a kind of layer to price it as, how many elements, how many operations."""

    kind: str
    elements: int
    operations: int
    macs: int = 0


@dataclass(frozen=True, slots=True)
class Path:
    """One way through the network. Bit e of `visited` = head e was evaluated; `answered` = those evaluated when the answer left."""

    visited: int
    answered: int = -1

    @property
    def deepest(self) -> int:
        """Deepest evaluated exit; -1 when none was."""
        return self.visited.bit_length() - 1


@dataclass(frozen=True)
class Decisions:
    """What a mechanism decides for N samples in order: path index [N] into `paths`, answering exit int16 [N], class int32 [N].

    Exits are counted among the enabled ones; -1 = no head was evaluated.
    """

    paths: tuple[Path, ...]
    path: np.ndarray
    exit: np.ndarray
    prediction: np.ndarray


Values = dict[str, Any]
"""Checked parameter values by name: a number, 'never', or for per-exit parameters a tuple with one for each recorded non-final exit."""


class Mechanism:
    """Base of all decision mechanisms; see the module's text for the protocol. Override what differs."""

    name = ""
    source = ""
    """Paper, section, equation."""
    parameters: tuple[Parameter, ...] = ()
    state = "none"
    """'none', 'within' (a sample), 'stream' or 'global' (across samples)."""
    live = False
    """True: `step` reads `situation`, so it is asked in simulated time."""
    scratch = 0
    asks = True
    """True: each evaluated head but the last is followed by a decision, which the device charges."""
    bound = False
    """True: a bound or baseline that no device can run, or that needs no mechanism; every table holds them."""

    step: Callable[..., int]

    def observe(self, view: TraceView) -> np.ndarray:
        """What `step` sees: float64 [N, E] or [N, E, D]."""
        return view.confidence

    def memory(self, view: TraceView) -> int:
        """How many numbers are kept from sample to sample."""
        return 0

    def work(self, classes: int) -> tuple[list[Work], list[Work]]:
        """Own work per decision, and per sample. Where a rule asks: by default a softmax and one comparison, which `observe` needs."""
        return ([Work("softmax", classes, 4 * classes + 1)] if self.asks else []), []

    def defaults(self, calibration: Callable[[], TraceView]) -> Values:
        """Values of parameters that were not given. `calibration()` is the calibration split; asking may raise BadInput."""
        return {parameter.name: parameter.default for parameter in self.parameters if parameter.default is not None}

    def candidates(self, view: TraceView, count: int) -> list[Values]:
        """About `count` settings worth trying when tuning on the calibration view: by default an even grid over the ranges that are finite."""
        spans = {parameter.name: (parameter.low, parameter.limit(view.classes), parameter.integer) for parameter in self.parameters}
        spans = {name: span for name, span in spans.items() if np.isfinite(span[:2]).all()}
        each = max(int(count ** (1 / max(len(spans), 1))), 2)
        axes = [np.unique(np.linspace(low, high, each).round(0 if integer else 6)).tolist() for low, high, integer in spans.values()]
        return [dict(zip(spans, values, strict=True)) for values in product(*axes)]

    def settle(self, given: Mapping[str, Any], view: TraceView, calibration: Callable[[], TraceView] | None = None) -> Values:
        """Given parameters checked, the rest from the defaults. Raises BadInput for one that has neither."""
        checked = self.check(given, view)
        if len(checked) < len(self.parameters):
            checked = self.check({**self.defaults(calibration or (lambda: view)), **given}, view)
        for parameter in self.parameters:
            if parameter.name not in checked:
                raise BadInput(f"mechanism '{self.name}' needs a value for '{parameter.name}'", field="set")
        return checked

    def pack(self, values: Values, view: TraceView) -> np.ndarray:
        """Checked values as the float64 array that `step` reads, in the order of `parameters`."""
        packed: list[float] = []
        for parameter in self.parameters:
            value = values[parameter.name]
            if parameter.per_exit:
                spread = value if isinstance(value, tuple) else (value,) * (view.trace.exits - 1)
                chosen = [spread[exit] for exit in view.recorded_exits[:-1]]
            else:
                chosen = [value]
            packed += [parameter.never if item == "never" else float(item) for item in chosen]
        return np.array(packed, np.float64)

    def decide(self, view: TraceView, values: Values) -> Decisions | None:
        """Decide every sample of the view at once, in array code; None (the default): ask `step` one sample after the other."""
        return None

    def check(self, given: Mapping[str, Any], view: TraceView) -> Values:
        """Values for every given parameter, checked. Raises BadInput for unknown names, values out of range and wrong lengths.

        Lists have one value for each *recorded* non-final exit; those of disabled exits are ignored.
        """
        if not isinstance(given, Mapping):
            raise BadInput(f"parameters are given by name, as in {{'threshold': 0.8}}, not as {type(given).__name__}", field="parameters")
        known = {parameter.name: parameter for parameter in self.parameters}
        values: Values = {}
        for name, value in given.items():
            if name not in known:
                if not known:
                    raise BadInput(f"mechanism '{self.name}' has no parameters, got '{name}'", field="set")
                raise BadInput(f"mechanism '{self.name}' has no parameter '{name}'; {choose(name, known)}", field="set")
            parameter = known[name]
            if isinstance(value, str) and "," in value:
                value = value.split(",")
            if isinstance(value, np.ndarray) and value.ndim == 0:
                value = value.item()
            if isinstance(value, (list, tuple, np.ndarray)):
                wanted = view.trace.exits - 1
                if not parameter.per_exit:
                    raise BadInput(f"{name} takes one value, got {len(value)}", field=name)
                if len(value) != wanted:
                    raise BadInput(f"{name} takes one value, or {wanted} (one for each recorded exit but the last), got {len(value)}", field=name)
                values[name] = tuple(parameter.check(item, view.classes) for item in value)
            else:
                values[name] = parameter.check(value, view.classes)
        return values

    def __repr__(self) -> str:
        return f"<mechanism {self.name}>"


def paths_by_exit(exits: int, *, every_head: bool) -> tuple[Path, ...]:
    """Path e stops at exit e, having evaluated every head on the way or only the last one."""
    return tuple(Path((2 << exit) - 1 if every_head else 1 << exit) for exit in range(exits))


def exits_to_decisions(exits: np.ndarray, view: TraceView, *, every_head: bool) -> Decisions:
    """Decisions of a rule that stops at `exits` [N], having evaluated every head on the way or only the last one."""
    paths = paths_by_exit(view.exits, every_head=every_head)
    prediction = np.take_along_axis(view.answers, exits[:, None].astype(np.intp), axis=1)[:, 0]
    return Decisions(paths, exits, exits.astype(np.int16), prediction)
