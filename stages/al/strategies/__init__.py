"""Query strategies: which candidate to label next. One file and one line here for each."""

from stages.al.strategies import (  # noqa: F401  importing registers
    alfa_mix,
    bald,
    clue,
    cluster_margin,
    coreset,
    entropy,
    galaxy,
    least_confidence,
    margin,
    random,
    surrogate,
    svm_min_margin,
    true_loss,
    typiclust,
)
from stages.al.strategies.base import STRATEGIES, ScoredStrategy, Strategy, UncertaintyStrategy

__all__ = ["STRATEGIES", "ScoredStrategy", "Strategy", "UncertaintyStrategy"]
