"""The registry of heads.

A head is a scikit-learn classifier with keyword-only parameters, `n_classes` among them: when given, labels are
0 .. n_classes - 1 and every class has its column of `predict_proba`, seen or not. `check_parameters` raises ValueError
for impossible ones, which scikit-learn does not allow the constructor to do.
"""

from typing import Any

import numpy as np
from jaxtyping import Int
from sklearn.utils.multiclass import check_classification_targets

from cache.errors import InputError
from stages.registry import Registry

HEADS = Registry("head")


def build_head(spec: str, n_classes: int) -> Any:
    """The head of a spec such as `ridge:penalty=50` for a data set of that many classes. Raises InputError."""
    _, arguments = HEADS.parse(spec)
    if "n_classes" in arguments:
        raise InputError(f"head {spec!r}: n_classes is the data set's to say, leave it out")
    head = HEADS.build(spec, n_classes=n_classes)
    try:
        head.check_parameters()
    except ValueError as error:
        raise InputError(f"head {spec!r}: {error}") from error
    return head


def encode_labels(y: np.ndarray, n_classes: int | None, classes: Any = None) -> tuple[np.ndarray, Int[np.ndarray, "n"]]:
    """The classes and each label's place among them.

    n_classes : classes are 0 .. n_classes - 1; when None, they are `classes`, or without those the ones in y
    Raises ValueError for labels that are not among them.
    """
    check_classification_targets(y)
    if n_classes is None and classes is None:
        return np.unique(y, return_inverse=True)
    known = np.arange(n_classes) if n_classes is not None else np.unique(classes)
    unknown = np.setdiff1d(y, known)
    if len(unknown):
        wanted = f"0 .. {n_classes - 1}" if n_classes is not None else f"among {known}"
        raise ValueError(f"labels must be {wanted}, found {unknown}")
    return known, np.searchsorted(known, y)
