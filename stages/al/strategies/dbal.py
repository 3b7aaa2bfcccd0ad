from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.al.committee import Opinions
from stages.al.strategies.base import STRATEGIES
from stages.al.strategies.committee import CommitteeStrategy


@STRATEGIES.register("dbal")
@dataclass(frozen=True, kw_only=True)
class DBAL(CommitteeStrategy):
    """Query where the mean prediction of a committee has the highest entropy.

    Gal et al. 2017, section 4, maximum entropy under Monte-Carlo dropout, which SUPClust (seed 001) calls DBAL, as
    deep-al does; `kind=bootstrap` is the ensemble of Beluch et al. 2018. Deviations: the features of the head's input
    are dropped, the network stays as it is; a member drops the same ones of all images; probabilities of 0 count as
    their limit, 0, where deep-al's code gives no number.
    """

    paper = "Gal et al. 2017"

    @staticmethod
    def measure(opinions: Opinions) -> Float[np.ndarray, "n"]:
        return opinions.joint_entropy
