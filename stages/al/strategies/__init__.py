"""Query strategies: which candidate to label next. One file and one line here for each."""

from stages.al.strategies.bald import BALD
from stages.al.strategies.base import STRATEGIES, ScoredStrategy, Strategy, UncertaintyStrategy
from stages.al.strategies.coreset import Coreset
from stages.al.strategies.entropy import Entropy
from stages.al.strategies.least_confidence import LeastConfidence
from stages.al.strategies.margin import Margin
from stages.al.strategies.random import Random
from stages.al.strategies.surrogate import Surrogate
from stages.al.strategies.typiclust import TypiClust

__all__ = [
    "BALD",
    "STRATEGIES",
    "Coreset",
    "Entropy",
    "LeastConfidence",
    "Margin",
    "Random",
    "ScoredStrategy",
    "Strategy",
    "Surrogate",
    "TypiClust",
    "UncertaintyStrategy",
]
