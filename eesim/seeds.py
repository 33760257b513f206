"""Random streams: one seed, one independent stream per purpose and replication, the same bytes every time."""

from __future__ import annotations

import numpy as np

PURPOSES = ("arrivals", "order", "bursts", "mechanism")


class Seeds:
    """Independent `numpy.random.Generator`s spawned from one seed; asking twice gives the same stream from its start."""

    def __init__(self, seed: int = 0, replication: int = 0):
        self.seed, self.replication = seed, replication

    def generator(self, purpose: str) -> np.random.Generator:
        """The stream for one of PURPOSES. Mechanisms and devices share it, so they meet the same arrivals and samples."""
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(self.replication, PURPOSES.index(purpose)))))
