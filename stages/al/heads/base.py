"""The registry of heads.

A head is a scikit-learn classifier with keyword-only parameters, `n_classes` among them: when given, labels are
0 .. n_classes - 1 and every class has its column of `predict_proba`, seen or not. `check_parameters` raises ValueError
for impossible ones, which scikit-learn does not allow the constructor to do.
"""

from typing import Any

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
