"""DAES, the figure that DART is judged by: accuracy, speed and energy in one number, more of it for easier data."""

from __future__ import annotations


def daes(accuracy: float, speedup: float, power_efficiency: float, alpha: float) -> float:
    """Accuracy x Speedup x PowerEff / (1 + alpha), the difficulty-aware efficiency score (DART, arXiv 2603.12269, Eq. 9 and 20-22).

    accuracy : as a fraction.
    speedup : time of the static network over the method's own, T_static / T. The paper takes medians; eesim's tables take mean latencies.
    power_efficiency : energy of the static network over the method's own, E_static / E.
    alpha : mean difficulty of the data set, in [0, 1]; see `eesim.mechanisms.dart`.

    Arrays are taken too, element by element. The paper divides by 1 + alpha, so harder data scores *less*, other things equal.
    """
    return accuracy * speedup * power_efficiency / (1 + alpha)
