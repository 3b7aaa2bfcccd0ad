"""Heads: scikit-learn classifiers on projected features."""

from stages.al.heads.base import HEADS, build_head
from stages.al.heads.closed_form import Inv, Pinv, Ridge, Solve

__all__ = ["HEADS", "Inv", "Pinv", "Ridge", "Solve", "build_head"]
