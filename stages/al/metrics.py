"""How good a head is, and how good a run was."""

import numpy as np
from jaxtyping import Float, Int

FLOOR = np.finfo(np.float64).tiny


def aubc(accuracy: Float[np.ndarray, "rounds"]) -> float:
    """Area under the budget curve: mean test accuracy over the rounds.

    accuracy : after each round, the initial set's included, a fraction in [0, 1], equal label steps
    Raises ValueError when empty or outside [0, 1].
    Source: thesis seed (002), section 4.5.
    """
    accuracy = np.asarray(accuracy, dtype=float)
    if accuracy.size == 0 or not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise ValueError("aubc needs at least one accuracy, each a fraction in [0, 1]")
    return float(accuracy.mean())


def cross_entropy(proba: Float[np.ndarray, "n classes"], y: Int[np.ndarray, "n"]) -> float:
    """Mean -ln of the true class's probability, in nats; a probability that underflowed to 0 counts as 2e-308."""
    return float(-np.log(np.maximum(proba[np.arange(len(y)), y], FLOOR)).mean())


def classification_metrics(proba: Float[np.ndarray, "n classes"], y: Int[np.ndarray, "n"]) -> dict[str, float]:
    """Accuracy, cross-entropy (nats), balanced accuracy and macro F1; classes absent from y count in neither mean."""
    n_classes = proba.shape[1]
    predicted = proba.argmax(axis=1)
    confusion = np.bincount(y * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    hits, true, found = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    present = true > 0
    recall, f1 = hits[present] / true[present], 2 * hits[present] / (true + found)[present]
    return {
        "accuracy": float(hits.sum() / len(y)),
        "cross_entropy": cross_entropy(proba, y),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(f1.mean()),
    }
