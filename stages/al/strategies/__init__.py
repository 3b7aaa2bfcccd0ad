"""Query strategies: which candidate to label next. One file and one line here for each."""

from stages.al.strategies import (  # noqa: F401  importing registers
    badge,
    bald,
    coreset,
    entropy,
    falcun,
    least_confidence,
    margin,
    random,
    subset_uncertainty,
    surrogate,
    typiclust,
)
from stages.al.strategies.base import STRATEGIES, ScoredStrategy, Strategy, UncertaintyStrategy

__all__ = ["STRATEGIES", "ScoredStrategy", "Strategy", "UncertaintyStrategy"]
