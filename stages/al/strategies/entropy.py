from dataclasses import dataclass

from stages.al.strategies.base import STRATEGIES, UncertaintyStrategy
from stages.al.uncertainty import entropy


@STRATEGIES.register("entropy")
@dataclass(frozen=True, kw_only=True)
class Entropy(UncertaintyStrategy):
    """Query where the class probabilities are most spread. Settles 2009; thesis seed (002), 2.1.

    Deviation: the thesis prints argmax of sum p log p without the minus sign; the entropy is meant.
    """

    paper = "Settles 2009"
    cost = "n C"
    regime = "high"
    measure = staticmethod(entropy)
