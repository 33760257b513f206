"""The protocol of decision mechanisms.

A mechanism is asked which head to evaluate next, until it says STOP. The question is a small function that numba can
compile (plain Python is compiled for you):

    step(exit, observed, scratch, memory, parameters, situation, answer) -> next head, or STOP

    exit        head just evaluated, counted among the enabled exits from 0; -1 before the first
    observed    float64 [E, D]: what `observe` returned for this sample; rows above `exit` are not known yet to a real
                device, so an honest rule does not read them
    scratch     float64 [self.scratch]: zeroed at the start of every sample (state within a sample)
    memory      float64 [self.memory(view, values)]: kept from sample to sample, one per stream (`state = "stream"`) or one for
                all (`state = "global"`); zeroed at the start of a run and of each lap of the trace
    parameters  float64: what `pack` made of the parameters (per-exit ones take E - 1 places)
    situation   float64 [3], only filled for `live` mechanisms: [QUEUE] requests waiting now, [SLACK_NS] time left to
                the deadline (inf without one), [NEXT_NS] time to the next decision if it goes on
    answer      int64 [2], both -1 at the start of a sample: [0] the class to answer, -1 = what the answering exit says;
                [1] the exit, evaluated already, whose answer leaves now although computing goes on, -1 = the last one evaluated

The returned head may lie beyond `exit + 1` (heads between are skipped and cost nothing) or before it (its segment has run
already; only its head is paid); each head is evaluated at most once.

After the last exit the answer is given whatever the step says: it is called there only for mechanisms with state across
samples, so that they can write it. They may name an earlier head then that has not run, for what they remember; the last
exit still answers, when the sample is done. Whatever else they return ends it.

How mechanisms with more than a score sit in this protocol:

- **state across samples** (`difference_detection.py`): `state = "stream"`; `memory` holds references, `answer[0]` carries
  a label that is not the exit's own.
- **a kind of state that a parameter switches on** (`dart.py`): `variant(values)` returns the mechanism that really decides.
- **rules that read the queue** (`queue_aware.py`): `live = True`; `step` looks at `situation[QUEUE]` or `[SLACK_NS]`.
  They are asked in simulated time, stage by stage, by the calendar engine and the SimPy oracle.
- **a response before the end of computing** (`apparate.py`): sets `answer[1]` at the exit whose answer leaves and keeps
  returning the next head.
- **learned rules** (`jei_dnn.py`): whatever is fitted is fitted on `view.calibration`, through `eesim.mechanisms._fitting`,
  and reaches `step` in what `observe` returns. The calibration split itself is judged out of fold.

State across samples is read and written in the order in which service starts. Live mechanisms keep state within a sample
only: with several servers, samples overlap in time, and there is no one order to write in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from eesim.errors import BadInput, choose, unknown
from eesim.trace.view import TraceView

STOP = -1
STATES = ("none", "within", "stream", "global")
"""What a mechanism may keep: nothing, something within a sample, or across the samples of a stream or all of them."""
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
    per_class: bool = False
    choices: tuple[str, ...] = ()
    """Words that are legal; where there are any and the range is endless, nothing else is."""
    optional: bool = False
    """Left out of the values unless it is given; `default` then counts."""
    only: tuple[str, tuple[str, ...]] | None = None
    """(other parameter, its words) with which this one has an effect; given beside any other word it is refused, and left out."""

    def limit(self, classes: int) -> float:
        """The largest legal value for `classes` classes."""
        return float(self.high(classes)) if callable(self.high) else float(self.high)

    def check(self, value: Any, classes: int) -> float | str:
        """`value` as a number in range, or the word 'never' where that is legal. Raises BadInput otherwise."""
        word = value.strip().lower() if isinstance(value, str) else None
        if word == "never" and self.never is not None:
            return "never"
        if word in self.choices:
            return word
        if self.choices and np.isinf([self.low, self.limit(classes)]).all():
            raise unknown(self.name, str(value)[:40], self.choices, field=self.name)
        high = self.limit(classes)
        span = f"{self.low:g} to {high:.6g}" if np.isfinite(high) else f"at least {self.low:g}"
        words = (["never"] if self.never is not None else []) + list(self.choices)
        legal = f"{'a whole number, ' if self.integer else ''}{span}" + "".join(f", or '{word}'" for word in words)
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise BadInput(f"{self.name} '{str(value)[:40]}' is not a number; legal is {legal}", field=self.name) from None
        if not self.low <= number <= high or (self.integer and not number.is_integer()):
            raise BadInput(f"{self.name} {number:g} is outside its range; legal is {legal}", field=self.name)
        return int(number) if self.integer else number


@dataclass(frozen=True)
class Work:
    """Computing that a mechanism does itself: a kind of layer to price it as, how many elements, how many operations."""

    kind: str
    elements: int
    operations: int
    macs: int = 0


@dataclass(frozen=True)
class Site:
    """Where a mechanism works, as far as its own work depends on it.

    input_shape: of the network's input, with the batch of 1; feature_elements: what pooling reads at each enabled exit;
    features: how many pooled features that gives (channels).
    """

    classes: int
    exits: int
    input_shape: tuple[int, ...] = (1, 1)
    feature_elements: tuple[int, ...] = ()
    features: tuple[int, ...] = ()


@dataclass(frozen=True)
class Charge:
    """A mechanism's own work: after each evaluated head but the last (one tuple for all of them, or one for each), and once per sample."""

    decision: tuple[Work, ...] | tuple[tuple[Work, ...], ...] = ()
    sample: tuple[Work, ...] = ()

    def at(self, exit: int) -> tuple[Work, ...]:
        """Work of the decision after the head of one enabled exit."""
        return self.decision[exit] if self.decision and isinstance(self.decision[0], tuple) else self.decision


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

    Exits are counted among the enabled ones; -1 = no head was evaluated. confidence float64 [N]: how probable the mechanism
    holds its answer; None: as probable as the answering exit's softmax says.
    """

    paths: tuple[Path, ...]
    path: np.ndarray
    exit: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray | None = None


Values = dict[str, Any]
"""Checked parameter values by name: a number, 'never', or for per-exit parameters a tuple with one for each recorded non-final exit."""


class Mechanism:
    """Base of all decision mechanisms; see the module's text for the protocol. Override what differs."""

    name = ""
    source = ""
    """Paper, section, equation."""
    parameters: tuple[Parameter, ...] = ()
    state = "none"
    """One of `STATES`: 'none', 'within' (a sample), 'stream' or 'global' (across samples)."""
    live = False
    """True: `step` reads `situation`, so it is asked in simulated time."""
    scratch = 0
    asks = True
    """True: each evaluated head but the last is followed by a decision, which the device charges."""
    bound = False
    """True: a bound or baseline that no device can run, or that needs no mechanism; every table holds them."""

    answers_early = False
    """True: the answer leaves before computing ends, so the rule saves latency only; it is tuned for that."""
    trained = False
    """True: something is fitted on the calibration split before the mechanism can decide."""
    replaces_heads = False
    """True: all exits but the last answer through the mechanism's own modules, whose work `charge` gives; recorded heads are not run."""

    step: Callable[..., int]

    def observe(self, view: TraceView, values: Values) -> np.ndarray:
        """What `step` sees: float64 [N, E] or [N, E, D]."""
        return view.confidence

    def memory(self, view: TraceView, values: Values) -> int:
        """How many numbers are kept from sample to sample, for each stream where the state is per stream."""
        return 0

    def charge(self, site: Site) -> Charge:
        """Own work per decision, and per sample. Where a rule asks: by default a softmax and one comparison, which `observe` needs."""
        return Charge((Work("softmax", site.classes, 4 * site.classes + 1),) if self.asks else ())

    def variant(self, values: Values) -> Mechanism:
        """The mechanism that decides with these values: itself, unless a value changes the kind of state or what is paid."""
        return self

    def group(self, values: Values) -> tuple:
        """What `observe` depends on: settings that agree in it are replayed together. By default all values that are not numbers."""
        return tuple((name, value) for name, value in sorted(values.items()) if isinstance(value, str))

    def defaults(self, calibration: Callable[[], TraceView]) -> Values:
        """Values of parameters that were not given. `calibration()` is the calibration split; asking may raise BadInput."""
        return {parameter.name: parameter.default for parameter in self.parameters if parameter.default is not None and not parameter.optional}

    def candidates(self, view: TraceView, count: int, given: Values | None = None) -> list[Values]:
        """About `count` settings worth trying when tuning on the calibration view, without what is `given`.

        By default an even grid over the ranges that are finite.
        """
        spans = {
            parameter.name: (parameter.low, parameter.limit(view.classes), parameter.integer)
            for parameter in self.parameters
            if parameter.name not in (given or {}) and not parameter.optional and not parameter.choices and not self.idle(parameter, given or {})
        }
        spans = {name: span for name, span in spans.items() if np.isfinite(span[:2]).all()}
        each = max(int(count ** (1 / max(len(spans), 1))), 2)
        axes = [np.unique(np.linspace(low, high, each).round(0 if integer else 6)).tolist() for low, high, integer in spans.values()]
        return [dict(zip(spans, values, strict=True)) for values in product(*axes)]

    def settle(self, given: Mapping[str, Any], view: TraceView, calibration: Callable[[], TraceView] | None = None) -> Values:
        """Given parameters checked, the rest from the defaults. Raises BadInput for one that has neither."""
        checked = self.check(given, view)
        needed = [parameter for parameter in self.parameters if not parameter.optional and not self.idle(parameter, checked)]
        if any(parameter.name not in checked for parameter in needed):
            checked = self.check({**self.effective(self.defaults(calibration or (lambda: view)), checked), **given}, view)
        for parameter in needed:
            if parameter.name not in checked:
                raise BadInput(f"mechanism '{self.name}' needs a value for '{parameter.name}'", field="set")
        return checked

    def idle(self, parameter: Parameter, values: Values) -> bool:
        """Whether a parameter has no effect beside these checked values."""
        other, words = parameter.only or (parameter.name, ())
        return bool(words) and self.value(values, other) not in words

    def effective(self, defaults: Values, given: Values) -> Values:
        """Those of the defaults that have an effect beside the checked values that are given."""
        idle = {parameter.name for parameter in self.parameters if self.idle(parameter, {**defaults, **given})}
        return {name: value for name, value in defaults.items() if name not in idle}

    def pack(self, values: Values, view: TraceView) -> np.ndarray:
        """Checked values as the float64 array that `step` reads, in the order of `parameters`; words as their place among the choices."""
        packed: list[float] = []
        for parameter in self.parameters:
            value = self.value(values, parameter.name)
            if parameter.per_exit:
                spread = value if isinstance(value, tuple) else (value,) * (view.trace.exits - 1)
                chosen = [spread[exit] for exit in view.recorded_exits[:-1]]
            else:
                chosen = [value]
            packed += [_number(parameter, item) for item in chosen]
        return np.array(packed, np.float64)

    def value(self, values: Values, name: str) -> Any:
        """The value of a parameter, its default where it was not given."""
        return values[name] if name in values else next(parameter.default for parameter in self.parameters if parameter.name == name)

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
                wanted, each = (view.classes, "class") if parameter.per_class else (view.trace.exits - 1, "recorded exit but the last")
                if not (parameter.per_exit or parameter.per_class):
                    raise BadInput(f"{name} takes one value, got {len(value)}", field=name)
                if len(value) != wanted:
                    raise BadInput(f"{name} takes one value, or {wanted} (one for each {each}), got {len(value)}", field=name)
                values[name] = tuple(parameter.check(item, view.classes) for item in value)
            else:
                values[name] = parameter.check(value, view.classes)
        for name in values:
            if self.idle(known[name], values):
                other, words = known[name].only
                legal = " or ".join(f"{other}={word}" for word in words)
                raise BadInput(f"{name} has no effect with {other}={self.value(values, other)}; it takes {legal}", field=name)
        return values

    def __repr__(self) -> str:
        return f"<mechanism {self.name}>"


def _number(parameter: Parameter, item: Any) -> float:
    if isinstance(item, str):
        return parameter.never if item == "never" else float(parameter.choices.index(item))
    return float(item)


def paths_by_exit(exits: int, *, every_head: bool, first: int = 0) -> tuple[Path, ...]:
    """Path e stops at exit e, having evaluated every head from `first` on or only the last one."""
    return tuple(Path(((2 << exit) - (1 << min(first, exit))) if every_head else 1 << exit) for exit in range(exits))


def exits_to_decisions(exits: np.ndarray, view: TraceView, *, every_head: bool) -> Decisions:
    """Decisions of a rule that stops at `exits` [N], having evaluated every head on the way or only the last one."""
    paths = paths_by_exit(view.exits, every_head=every_head)
    prediction = np.take_along_axis(view.answers, exits[:, None].astype(np.intp), axis=1)[:, 0]
    return Decisions(paths, exits, exits.astype(np.int16), prediction)
