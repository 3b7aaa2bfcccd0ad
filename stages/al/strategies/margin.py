from dataclasses import dataclass

from stages.al.strategies.base import STRATEGIES, UncertaintyStrategy
from stages.al.uncertainty import closeness


@STRATEGIES.register("margin")
@dataclass(frozen=True, kw_only=True)
class Margin(UncertaintyStrategy):
    """Query where the two most probable classes are closest. Scheffer et al. 2001; thesis seed
    (002), 2.1; best-practices seed (000), section 2."""

    paper = "Scheffer et al. 2001"
    cost = "n C"
    regime = "high"
    measure = staticmethod(closeness)
