"""Closed loop, MLPerf's SingleStream: as many requests outstanding as there are servers, the next issued at a completion."""

from __future__ import annotations

from dataclasses import dataclass

from eesim.arrivals import Process
from eesim.errors import BadInput

SYNTAX = "closed"


@dataclass(frozen=True)
class Closed(Process):
    """No arrival times: nothing waits and nothing idles."""

    closed = True


def parse(argument: str, recording) -> Closed:
    """Takes no argument."""
    if argument:
        raise BadInput(f"'closed' takes no argument, got '{argument}'")
    return Closed("closed", None)
