"""class-means: exits answer the class whose mean features are nearest (E2CM)."""

from __future__ import annotations

import numpy as np

from eesim.mechanisms._fitting import Model, judged
from eesim.mechanisms._logistic import softmax
from eesim.mechanisms._threshold import ThresholdMechanism
from eesim.mechanisms.base import Charge, Parameter, Site, Values, Work
from eesim.trace.view import TraceView


class ClassMeans(ThresholdMechanism):
    """Exit e iff max softmax(-d) > T, strictly, with d the distances of its features to the class means; it answers argmin d; state: none.

    E2CM (IJCNN 2022, arXiv 2103.01148). d_k is the L2 distance of the exit's pooled features to their mean over the samples of class k,
    divided by the mean distance that the samples of class k themselves have to it. Means come from the calibration split (the paper
    takes the training data); a class that is missing there is never answered. Exits before the last need no head: features are
    pooled and compared with K means.

    softmax(-d) seldom reaches the default T, which hardly ever exits: tune it (`--accuracy-drop 1%`).
    """

    name = "class-means"
    source = "E2CM (arXiv 2103.01148), equations 1-3 as summarised"
    trained = True
    replaces_heads = True
    parameters = (
        Parameter(
            "threshold", 0.5, 0.0, 1.0, "softmax of minus the distance above which to stop; one value or one per exit", per_exit=True, never=np.inf
        ),
    )

    def score(self, view: TraceView, values: Values) -> np.ndarray:
        """Largest entry of softmax(-d), float64 [N, E]."""
        return _compared(view)[0]

    def answers(self, view: TraceView, values: Values) -> np.ndarray:
        """The nearest class, int32 [N, E]; at the last exit the network's own answer."""
        return _compared(view)[1]

    def confidence(self, view: TraceView, values: Values) -> np.ndarray:
        """As the score, float64 [N, E]; at the last exit the network's own."""
        return _compared(view)[0]

    def bar(self, threshold: float) -> float:
        """p > T: the next float above T."""
        return float(np.nextafter(threshold, np.inf))

    def charge(self, site: Site) -> Charge:
        """Pooling, K distances over D features, their scaling and softmax, one comparison."""
        classes = site.classes
        sizes = site.feature_elements[:-1] or (1,) * (site.exits - 1)
        widths = site.features[:-1] or (classes,) * (site.exits - 1)
        softmax_of = Work("softmax", classes, 6 * classes + 1)
        return Charge(
            tuple(
                (
                    Work("pooling", elements, elements),
                    Work("fully_connected", classes, 3 * classes * width, classes * width),
                    softmax_of,
                )
                for elements, width in zip(sizes, widths, strict=True)
            )
        )


def _compared(view: TraceView) -> tuple[np.ndarray, np.ndarray]:
    return view.derived("class-means", lambda whole: judged(whole, ("class-means",), fit, compared, features=True))


def fit(view: TraceView) -> Model:
    """Class means float64 [E - 1, K, D] zero-padded in D, and mean distances to them [E - 1, K], infinite where a class has no sample.

    A class whose samples all lie on their mean (one sample) gets the mean distance over the other classes.
    """
    known, count = view.label >= 0, view.exits - 1
    label = view.label[known]
    members = np.bincount(label, minlength=view.classes)
    parts = [part[known].astype(np.float64) for part in view.features[:count]]
    means = np.zeros((count, view.classes, max((part.shape[1] for part in parts), default=1)))
    scales = np.full((count, view.classes), np.inf)
    for exit, part in enumerate(parts):
        sums = np.zeros((view.classes, part.shape[1]))
        np.add.at(sums, label, part)
        means[exit, :, : part.shape[1]] = sums / np.maximum(members, 1)[:, None]
        away = np.linalg.norm(part - means[exit, label, : part.shape[1]], axis=1)
        mean = np.bincount(label, weights=away, minlength=view.classes) / np.maximum(members, 1)
        usual = mean[mean > 0].mean() if (mean > 0).any() else 1.0
        scales[exit] = np.where(members == 0, np.inf, np.where(mean > 0, mean, usual))
    return {"means": means, "scales": scales}


def compared(model: Model, view: TraceView) -> tuple[np.ndarray, np.ndarray]:
    """Confidence float64 [N, E] and answers int32 [N, E]; the last exit's are the network's own."""
    confidence, answers = view.confidence.copy(), view.answers.copy()
    for exit, (means, scales) in enumerate(zip(model["means"], model["scales"], strict=True)):
        part = view.features[exit].astype(np.float64)
        means = means[:, : part.shape[1]]
        squared = (part**2).sum(axis=1)[:, None] - 2 * part @ means.T + (means**2).sum(axis=1)
        seen = np.isfinite(scales)
        away = np.where(seen, np.sqrt(np.maximum(squared, 0.0)) / np.where(seen, scales, 1.0), np.inf)
        confidence[:, exit], answers[:, exit] = softmax(-away).max(axis=1), away.argmin(axis=1)
    return confidence, answers
