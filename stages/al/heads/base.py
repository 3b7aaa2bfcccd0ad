"""The registry of heads.

A head is a scikit-learn classifier with keyword-only parameters, `n_classes` among them: when given, labels are
0 .. n_classes - 1 and every class has its column of `predict_proba`, seen or not.
"""

from stages.registry import Registry

HEADS = Registry("head")
