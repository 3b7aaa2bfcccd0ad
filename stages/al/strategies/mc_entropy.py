from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.al.committee import Opinions
from stages.al.strategies.base import STRATEGIES
from stages.al.strategies.committee import CommitteeStrategy


@STRATEGIES.register("mc_entropy")
@dataclass(frozen=True, kw_only=True)
class MonteCarloEntropy(CommitteeStrategy):
    """Query where the entropies that a committee's members give have the highest mean.

    Thesis seed (002), 7.1: a metric averaged over passes with dropout ("Monte-Carlo") or, with `kind=bootstrap`, over
    models ("Ensembles"), after Beluch et al. 2018, who take the metric of the mean instead: that is `dbal`. Deviation:
    a member drops the same features of all images.
    """

    paper = "Beluch et al. 2018"

    @staticmethod
    def measure(opinions: Opinions) -> Float[np.ndarray, "n"]:
        return opinions.entropy
