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
    dcom,
    diff2aug_kmeans,
    dropquery,
    entropy,
    expected_loss_reduction,
    falcun,
    galaxy,
    least_confidence,
    margin,
    maxherding,
    mc_entropy,
    mc_margin,
    model_change,
    probcover,
    random,
    ssal_consistency,
    subset_uncertainty,
    surrogate,
    svm_min_margin,
    true_loss,
    typiclust,
    uherding,
    variance_reduction,
)
from stages.al.strategies.base import STRATEGIES, ScoredStrategy, Strategy, UncertaintyStrategy

__all__ = ["STRATEGIES", "ScoredStrategy", "Strategy", "UncertaintyStrategy"]
