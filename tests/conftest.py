"""Fixtures that many tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each core runs tests of its own; threads of BLAS would only fight
os.environ["OMP_NUM_THREADS"] = "1"

sys.path.insert(0, str(Path(__file__).parent))

import builders


@pytest.fixture(scope="session")
def made_workload(tmp_path_factory):
    """A made-up workload of 4 exits, 400 test samples in 3 streams."""
    return builders.workload(tmp_path_factory.mktemp("workloads") / "made-up")


@pytest.fixture(scope="session")
def made_profile(tmp_path_factory):
    """A made-up microcontroller."""
    from eesim.hardware import load_profile

    return load_profile(builders.write_profile(tmp_path_factory.mktemp("profiles")))
