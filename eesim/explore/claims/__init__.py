"""What the papers claim, replayed on the bundled traces. Each claim is a table with what came out; a miss is a row like any other."""

from collections.abc import Callable

from eesim.explore.claims.claim import Claim
from eesim.explore.claims.dart import dart
from eesim.explore.claims.jei_dnn import jei_dnn
from eesim.explore.claims.survey import survey
from eesim.explore.claims.temporal import temporal

CLAIMS: dict[str, Callable[[], Claim]] = {"temporal": temporal, "dart": dart, "jei-dnn": jei_dnn, "survey": survey}
"""Every claim by the name it is asked for."""

__all__ = ["CLAIMS", "Claim", "dart", "jei_dnn", "survey", "temporal"]
