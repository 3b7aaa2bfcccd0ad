"""Query strategies: which candidate to label next. One file and one line here for each."""

from stages.al.strategies import (  # noqa: F401  importing registers
    bald,
    coreset,
    dbal,
    diff2aug_kmeans,
    dropquery,
    entropy,
    least_confidence,
    margin,
    mc_entropy,
    mc_margin,
    random,
    ssal_consistency,
    surrogate,
    typiclust,
)
from stages.al.strategies.base import STRATEGIES, ScoredStrategy, Strategy, UncertaintyStrategy

__all__ = ["STRATEGIES", "ScoredStrategy", "Strategy", "UncertaintyStrategy"]
