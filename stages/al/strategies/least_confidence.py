from dataclasses import dataclass

from stages.al.strategies.base import STRATEGIES, UncertaintyStrategy
from stages.al.uncertainty import least_confidence


@STRATEGIES.register("least_confidence")
@dataclass(frozen=True, kw_only=True)
class LeastConfidence(UncertaintyStrategy):
    """Query where the most probable class is least probable. Settles 2009; thesis (002), 2.1."""

    paper = "Settles 2009"
    cost = "n C"
    regime = "high"
    measure = staticmethod(least_confidence)
