"""Query strategies: which candidate to label next. One file and one line here for each."""

from stages.al.strategies import (  # noqa: F401  importing registers
    alfa_mix,
    badge,
    bait,
    bald,
    clue,
    cluster_margin,
    coreset,
    dbal,
    diff2aug_kmeans,
    dropquery,
    entropy,
    expected_loss_reduction,
    falcun,
    galaxy,
    least_confidence,
    margin,
    mc_entropy,
    mc_margin,
    model_change,
    random,
    ssal_consistency,
    subset_uncertainty,
    surrogate,
    svm_min_margin,
    true_loss,
    typiclust,
    variance_reduction,
)
from stages.al.strategies.base import STRATEGIES, ScoredStrategy, Strategy, UncertaintyStrategy

__all__ = ["STRATEGIES", "ScoredStrategy", "Strategy", "UncertaintyStrategy"]
