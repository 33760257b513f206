"""Pictures of results. Every function returns matplotlib's (figure, axes) and draws nothing on a screen by itself.

`write_picture` stores one as PNG together with the figures that are drawn in it.
"""

from eesim.plot.bars import exits, queueing
from eesim.plot.files import write_picture
from eesim.plot.predicted import layers, predicted
from eesim.plot.tradeoff import tradeoff
from eesim.plot.versus import versus

__all__ = ["exits", "layers", "predicted", "queueing", "tradeoff", "versus", "write_picture"]
