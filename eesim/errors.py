"""Errors a person can act on: one line, what is wrong, where, and the nearest thing that is right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EesimError(Exception):
    """Base class of every error eesim raises on purpose."""

    exit_status = 1


class BadInput(EesimError):
    """An input that cannot be used: a file, an option or an argument. Exit status 2 on the command line.

    The text is always one line: ``file: field: problem``, with the value and the nearest valid choice in the problem.
    """

    exit_status = 2

    def __init__(self, problem: str, *, file: object = None, field: str | None = None):
        self.problem, self.file, self.field = " ".join(str(problem).split()), file, field
        where = [" ".join(str(part).splitlines()) for part in (file, field) if part not in (None, "")]
        super().__init__(": ".join([*where, self.problem]))


class ConstraintError(EesimError):
    """A stated constraint cannot be met. Exit status 1 on the command line."""


def nearest(value: object, choices: Iterable[object], count: int = 1) -> list[str]:
    """The `count` choices that look most like `value`, best first; empty when nothing is close."""
    names = [str(choice) for choice in choices]
    text = str(value)
    close = difflib.get_close_matches(text, names, n=count, cutoff=0.5)
    if not close and text:
        alike = [name for name in names if text.lower() in name.lower() or (len(name) > 1 and name.lower() in text.lower())]
        close = alike[:count]
    return close


def choose(value: object, choices: Iterable[object]) -> str:
    """The part of a message that says what could be written instead of `value`."""
    names = [str(choice) for choice in choices]
    close = nearest(value, names)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose one of {', '.join(names[:12])}{', …' if len(names) > 12 else ''}" if names else "there is none to choose"


def unknown(what: str, value: object, choices: Iterable[object], **where: object) -> BadInput:
    """An unknown name, with the nearest valid one: ``unknown profile 'stm32l4'; did you mean 'stm32l4r5-tflm'?``."""
    return BadInput(f"unknown {what} '{value}'; {choose(value, choices)}", **where)
