"""Query strategies: which candidate to label next. One file and one line here for each."""

from stages.al.strategies import (  # noqa: F401  importing registers
    bald,
    coreset,
    entropy,
    least_confidence,
    margin,
    random,
    supclust,
    surrogate,
    tcm,
    typiclust,
)
from stages.al.strategies.base import STRATEGIES, ScoredStrategy, Strategy, UncertaintyStrategy

__all__ = ["STRATEGIES", "ScoredStrategy", "Strategy", "UncertaintyStrategy"]
