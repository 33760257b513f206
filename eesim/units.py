"""Quantities with units: text at the edges, integer nanoseconds and nanojoules inside.

A duration, rate or energy without its unit is refused: '20' may mean anything, '20ms' cannot.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from eesim.errors import BadInput, nearest

INT64_MAX = 2**63 - 1

DURATION_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
RATE_HZ = {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600, "/d": 1 / 86400, "Hz": 1.0, "kHz": 1e3}
ENERGY_MJ = {"nJ": 1e-6, "uJ": 1e-3, "µJ": 1e-3, "mJ": 1.0, "J": 1e3}

LONGEST_RANGE = 1_000_000
"""Most values that a range `a:b:n` may ask for."""

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\s\d].*?)?\s*")


def _quantity(text: object, units: Mapping[str, float], what: str, example: str) -> tuple[str, float, float]:
    """The number as written, its value and the scale of its unit."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise BadInput(f"{what} '{text}' is not a number with a unit; write for example '{example}'")
    number, unit = match.groups()
    if unit is None:
        raise BadInput(f"{what} '{text}' lacks its unit; write for example '{number}{example.lstrip('0123456789.')}'")
    if unit not in units:
        hint = nearest(unit, units)
        raise BadInput(
            f"{what} '{text}' has unknown unit '{unit}'; " + (f"did you mean '{hint[0]}'?" if hint else f"choose one of {', '.join(units)}")
        )
    value = float(number)
    if not math.isfinite(value * units[unit]):
        raise BadInput(f"{what} '{text}' is too large to be a number; write for example '{example}'")
    return number, value, units[unit]


def duration_ns(text: object, what: str = "duration", *, positive: bool = False) -> int:
    """``'20ms'`` -> 20_000_000. Rounded half to even to whole nanoseconds; never negative.

    Raises BadInput without a unit, below zero (or at zero when `positive`), or beyond int64.
    """
    number, value, scale = _quantity(text, DURATION_NS, what, "20ms")
    tiny, huge = abs(value) * scale < 0.25, value * scale > 2.0 * INT64_MAX
    nanoseconds = 0 if tiny or huge else round(Fraction(number) * scale)  # exact: a float product can miss a tie
    if value < 0 or (positive and nanoseconds == 0 and not huge):
        raise BadInput(f"{what} '{text}' must be at least {'1 ns' if positive else '0'}; write for example '20ms'")
    if huge or nanoseconds > INT64_MAX:
        raise BadInput(f"{what} '{text}' is longer than int64 nanoseconds can hold (292 years)")
    return nanoseconds


def rate_hz(text: object, what: str = "rate") -> float:
    """``'50/s'`` -> 50.0 per second. Raises BadInput without a unit or when not above zero."""
    _, value, scale = _quantity(text, RATE_HZ, what, "50/s")
    if value * scale <= 0:
        raise BadInput(f"{what} '{text}' must be above 0; write for example '50/s'")
    return value * scale


def energy_mj(text: object, what: str = "energy") -> float:
    """``'1.5uJ'`` -> 0.0015 mJ. Raises BadInput without a unit or below zero."""
    _, value, scale = _quantity(text, ENERGY_MJ, what, "1mJ")
    if value < 0:
        raise BadInput(f"{what} '{text}' must be at least 0; write for example '1mJ'")
    return value * scale


def fraction(text: object, what: str = "fraction") -> float:
    """``'1%'`` or ``'0.01'`` or 0.01 -> 0.01. Raises BadInput outside [0, 1]."""
    raw = str(text).strip()
    try:
        value = float(raw[:-1]) / 100 if raw.endswith("%") else float(raw)
    except ValueError:
        raise BadInput(f"{what} '{text}' is not a number; write for example '1%' or '0.01'") from None
    if not 0 <= value <= 1:
        raise BadInput(f"{what} '{text}' is outside 0 to 1 (0% to 100%); write for example '1%' or '0.01'")
    return value


def numbers(text: object, what: str = "list") -> list[float]:
    """A list of numbers: ``'0.5,0.9'``, or ``'a:b:n'`` for n values from a to b with both ends; the two may be mixed.

    Infinite values are not numbers here; mechanisms spell them ``never``.
    """
    values: list[float] = []
    for part in str(text).split(","):
        pieces = part.strip().split(":")
        within = "" if part == str(text) else f" in '{text}'"
        try:
            if len(pieces) == 1:
                values.append(float(pieces[0]))
            elif len(pieces) == 3:
                low, high, count = float(pieces[0]), float(pieces[1]), int(pieces[2])
                if not 1 <= count <= LONGEST_RANGE:
                    raise BadInput(f"{what} '{part}'{within} asks for {count} values; write a:b:n with n from 1 to {LONGEST_RANGE}")
                values += [low + (high - low) * index / (count - 1) for index in range(count - 1)] + [high] if count > 1 else [low]
            else:
                raise ValueError
        except ValueError:
            raise BadInput(f"{what} '{part}'{within} is neither a number nor a range a:b:n; write for example '0.5,0.9' or '0.5:0.99:50'") from None
    if not all(math.isfinite(value) for value in values):
        raise BadInput(f"{what} '{text}' holds a value that is not finite; write for example '0.5,0.9' or '0.5:0.99:50'")
    return values


def integers(text: object, what: str = "list") -> list[int]:
    """A list of whole numbers, ``'0,2,5'``. Raises BadInput on anything else."""
    values = numbers(text, what)
    for value in values:
        if value != int(value):
            raise BadInput(f"{what} '{text}' holds {value:g}, which is not a whole number; write for example '0,2,5'")
    return [int(value) for value in values]


def points(share: float) -> str:
    """0.01 -> '1 point', 0.005 -> '0.5 points'."""
    return f"{100 * share:.4g} point" + ("" if round(100 * share, 6) == 1 else "s")


def round_half_even(value: float) -> int:
    """Round to the nearest integer, ties to even: the one rounding of time and energy in eesim. Raises BadInput past int64."""
    if not abs(value) < 2.0**62:
        raise BadInput(f"a cost of {value:.3g} ns or nJ is past what int64 can hold; check the profile's numbers and the network's MACs")
    return round(value)
