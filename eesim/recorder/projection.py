"""Reducing features to few dimensions: principal components of the calibration rows, stored with the features."""

from __future__ import annotations

import numpy as np


def principal(rows: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean float32 [D] and matrix float32 [D, dimensions] of the leading principal components of rows [n, D].

    Each component's largest entry is positive, so that the sign is fixed.
    """
    mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows - mean
    _, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    matrix = vectors[:, ::-1][:, :dimensions]
    largest = np.abs(matrix).argmax(axis=0)
    return mean.astype(np.float32), (matrix * np.sign(matrix[largest, np.arange(matrix.shape[1])])).astype(np.float32)


def reduced(values: np.ndarray, calibration: np.ndarray, dimensions: int) -> tuple[np.ndarray, dict]:
    """values float32 [N, D] as float16 [N, min(D, dimensions)], and what was done to them, for the header.

    stored = (raw - mean) @ matrix, rounded; mean and matrix are None where nothing was reduced.
    """
    if values.shape[1] <= dimensions:
        return clip16(values), {"raw": values.shape[1], "mean": None, "matrix": None}
    mean, matrix = principal(values[calibration] if calibration.any() else values, dimensions)
    return clip16((values - mean) @ matrix), {"raw": values.shape[1], "mean": rounded(mean), "matrix": [rounded(row) for row in matrix]}


BITS = 8
"""Significant bits kept of a feature, as bfloat16 has: nothing that is learnt from them needs more, and files shrink by a fifth."""


def clip16(values: np.ndarray) -> np.ndarray:
    """float16 with `BITS` significant bits; what is beyond its range at its ends."""
    mantissa, exponent = np.frexp(values.astype(np.float32).clip(-65024, 65024))
    return np.ldexp(np.round(mantissa * 2**BITS) / 2**BITS, exponent).astype(np.float16)


def rounded(values: np.ndarray) -> list[float]:
    """Six digits of each, for the header."""
    return [float(f"{value:.6g}") for value in values]
