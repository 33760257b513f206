"""Pictures of results. Every function returns matplotlib's (figure, axes) and draws nothing on a screen by itself."""

from eesim.plot.bars import exits, queueing
from eesim.plot.tradeoff import tradeoff

__all__ = ["exits", "queueing", "tradeoff"]
