"""Query strategies: which candidate to label next. One file and one line here for each."""

from stages.al.strategies import (  # noqa: F401  importing registers
    badge,
    bait,
    bald,
    coreset,
    entropy,
    expected_loss_reduction,
    falcun,
    least_confidence,
    margin,
    model_change,
    random,
    subset_uncertainty,
    surrogate,
    typiclust,
    variance_reduction,
)
from stages.al.strategies.base import STRATEGIES, ScoredStrategy, Strategy, UncertaintyStrategy

__all__ = ["STRATEGIES", "ScoredStrategy", "Strategy", "UncertaintyStrategy"]
