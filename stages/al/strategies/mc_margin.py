from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.al.committee import Opinions
from stages.al.strategies.base import STRATEGIES
from stages.al.strategies.committee import CommitteeStrategy


@STRATEGIES.register("mc_margin")
@dataclass(frozen=True, kw_only=True)
class MonteCarloMargin(CommitteeStrategy):
    """Query where the margins that a committee's members give have the lowest mean.

    Thesis seed (002), 7.1: a metric averaged over passes with dropout ("Monte-Carlo") or, with `kind=bootstrap`, over
    models ("Ensembles"), after Beluch et al. 2018. Deviation: a member drops the same features of all images.
    """

    paper = "Beluch et al. 2018"

    @staticmethod
    def measure(opinions: Opinions) -> Float[np.ndarray, "n"]:
        return opinions.closeness
