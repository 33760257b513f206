"""How fast eesim is on this machine: ratios against plain implementations of the same scenario, and whether the results are equal."""
