"""DART's difficulty components of an input (arXiv 2603.12269, Eq. 1-8), for images and, by analogy, for signals.

Images I [H, W] (grey = .299 R + .587 G + .114 B, or the mean of any other number of channels), zero padding of 1:

    G = sqrt((I * Sobel_x)^2 + (I * Sobel_y)^2)
    edge       share of pixels with G > tau_edge
    sobel_mean mean of G                          (what the authors' code uses for edge density)
    variance   mean over channels of the variance over pixels
    gradient   mean of |I * Laplacian|

Signals [L]: the same with the central difference x[t+1] - x[t-1] for the Sobel pair, -x[t-1] + 2 x[t] - x[t+1] for the
Laplacian, and the border values repeated (a zero border would be an edge that no signal has); several channels: their mean.
All inputs are scaled to [0, 1] first; edge, variance and gradient are clipped to [0, 1].
"""

from __future__ import annotations

import numpy as np

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def components(inputs: np.ndarray, tau_edge: float) -> dict[str, np.ndarray]:
    """float32 [N] each of edge, variance, gradient and sobel_mean; inputs [N, C, H, W], or signals [N, C, L] or [N, L], in [0, 1]."""
    channels = _channels(inputs)
    slopes, laplacian = _slopes(channels)
    over = tuple(range(1, slopes.ndim))
    values = {
        "edge": (slopes > tau_edge).mean(axis=over),
        "variance": channels.var(axis=tuple(range(2, channels.ndim))).mean(axis=1),
        "gradient": np.abs(laplacian).mean(axis=over),
        "sobel_mean": slopes.mean(axis=over),
    }
    return {name: (value if name == "sobel_mean" else value.clip(0, 1)).astype(np.float32) for name, value in values.items()}


def median_slope(inputs: np.ndarray) -> float:
    """Median gradient magnitude over all positions of these inputs: the `tau_edge` that marks half of them, 4 digits kept."""
    return float(f"{np.median(_slopes(_channels(inputs))[0]):.4g}")


def _channels(inputs: np.ndarray) -> np.ndarray:
    """[N, C, H, W] for images, [N, C, L] for signals (a map of height 1 is a signal), float32."""
    inputs = np.asarray(inputs, np.float32)
    if inputs.ndim == 4 and 1 in inputs.shape[2:]:
        inputs = inputs.reshape(*inputs.shape[:2], -1)
    return inputs[:, None] if inputs.ndim == 2 else inputs.reshape(len(inputs), -1, *inputs.shape[-2:]) if inputs.ndim > 4 else inputs


def _slopes(channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient magnitude and Laplacian of the grey image or mean signal."""
    if channels.ndim == 3:
        signal = np.pad(channels.mean(axis=1), ((0, 0), (1, 1)), mode="edge")
        before, here, after = signal[:, :-2], signal[:, 1:-1], signal[:, 2:]
        return np.abs(after - before), 2 * here - before - after
    grey = np.tensordot(channels, _GREY, (1, 0)) if channels.shape[1] == 3 else channels.mean(axis=1)
    image = np.pad(grey, ((0, 0), (1, 1), (1, 1)))
    up, middle, down = image[:, :-2], image[:, 1:-1], image[:, 2:]
    left, centre, right = (up + 2 * middle + down)[:, :, :-2], middle[:, :, 1:-1], (up + 2 * middle + down)[:, :, 2:]
    rows = (down - up)[:, :, :-2] + 2 * (down - up)[:, :, 1:-1] + (down - up)[:, :, 2:]
    around = up[:, :, 1:-1] + down[:, :, 1:-1] + middle[:, :, :-2] + middle[:, :, 2:]
    return np.sqrt((right - left) ** 2 + rows**2), 4 * centre - around
