"""What the papers claim, replayed on the bundled traces. Each claim is a table with what came out; a miss is a row like any other."""

from eesim.explore.claims.claim import Claim

__all__ = ["Claim"]
