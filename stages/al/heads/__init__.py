"""Heads: scikit-learn classifiers on projected features."""

from stages.al.heads.base import HEADS, build_head
from stages.al.heads.closed_form import Inv, Pinv, Ridge, Solve, TruncatedPinv
from stages.al.heads.linear import Linear
from stages.al.heads.mlp import MLP
from stages.al.heads.svm import SVM

__all__ = ["HEADS", "MLP", "SVM", "Inv", "Linear", "Pinv", "Ridge", "Solve", "TruncatedPinv", "build_head"]
