"""The acquisition metrics of a candidate: the surrogate's inputs (thesis seed 002, section 4.7)."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from stages.al.uncertainty import entropy, least_confidence, margin
from stages.al.view import Needs, PoolView

REQUIRES = frozenset({Needs.PROBA, Needs.VIEWS, Needs.DISTANCE, Needs.TYPICALITY, Needs.PROGRESS})


def cosine_distance(view: PoolView) -> Float[np.ndarray, "candidates"]:
    """1 - cosine to the most similar labeled image."""
    if len(view.labeled) == 0:
        return np.ones(len(view.candidates))
    return 1 - (view.unit[view.candidates] @ view.unit[view.labeled].T).max(axis=1)


def feature_variation(view: PoolView) -> Float[np.ndarray, "candidates"]:
    """Variance of the features over the views, mean over dimensions; 0 with one view."""
    return view.view_features.var(axis=0).mean(axis=1)


def proba_variation(view: PoolView) -> Float[np.ndarray, "candidates"]:
    """Variance of the class probabilities over the views, summed over classes (thesis seed 002, 2.3)."""
    return view.view_proba.var(axis=0).sum(axis=1)


METRICS: dict[str, Callable[[PoolView], Float[np.ndarray, "candidates"]]] = {
    "entropy": lambda view: view.measured(entropy),
    "least_confidence": lambda view: view.measured(least_confidence),
    "margin": lambda view: view.measured(margin),
    "typicality": lambda view: view.typicality,
    "coreset_distance": lambda view: np.sqrt(view.distance_to_labeled),
    "cosine_distance": cosine_distance,
    "feature_variation": feature_variation,
    "proba_variation": proba_variation,
    "step": lambda view: np.full(len(view.candidates), view.progress["step"]),
    "val_accuracy": lambda view: np.full(len(view.candidates), view.progress["val_accuracy"]),
    "val_cross_entropy": lambda view: np.full(len(view.candidates), view.progress["val_cross_entropy"]),
}
"""Name -> one number per candidate. First the thesis's eight standard inputs, then the round's meta-features."""


def acquisition_table(view: PoolView, names: tuple[str, ...] = tuple(METRICS)) -> dict[str, np.ndarray]:
    """The named metrics of every candidate, float32 columns."""
    return {name: METRICS[name](view).astype(np.float32) for name in names}
