"""Query strategies: which candidate to label next. One file and one line here for each."""

from stages.al.strategies import (  # noqa: F401  importing registers
    bald,
    coreset,
    dcom,
    entropy,
    least_confidence,
    margin,
    maxherding,
    probcover,
    random,
    surrogate,
    typiclust,
    uherding,
)
from stages.al.strategies.base import STRATEGIES, ScoredStrategy, Strategy, UncertaintyStrategy

__all__ = ["STRATEGIES", "ScoredStrategy", "Strategy", "UncertaintyStrategy"]
