"""How good a head is, and how good a run was."""

import numpy as np
from jaxtyping import Float, Int

from stages.al.readings import Reading


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


def classification_metrics(
    reading: Reading, logits: Float[np.ndarray, "classes n"], y: Int[np.ndarray, "n"]
) -> dict[str, float]:
    """Accuracy, cross-entropy (nats), balanced accuracy and macro F1; classes absent from y count in neither mean.

    reading : of the logits, which are what the softmax is taken of, a row per class
    """
    n_classes = len(logits)
    confusion = np.bincount(y * n_classes + reading.place, minlength=n_classes**2).reshape(n_classes, n_classes)
    hits, true, found = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    present = true > 0
    recall, f1 = hits[present] / true[present], 2 * hits[present] / (true + found)[present]
    below = reading.largest - logits[y, np.arange(len(y))]
    return {
        "accuracy": float(hits.sum() / len(y)),
        "cross_entropy": float((np.log1p(reading.rest) + below).mean(dtype=np.float64)),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(f1.mean()),
    }
