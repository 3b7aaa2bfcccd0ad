from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.al.committee import Opinions
from stages.al.strategies.base import STRATEGIES
from stages.al.strategies.committee import CommitteeStrategy


@STRATEGIES.register("bald")
@dataclass(frozen=True, kw_only=True)
class BALD(CommitteeStrategy):
    """Query where a committee disagrees: the mutual information of label and parameters.

    Entropy of the mean prediction less the mean of the members' entropies: Houlsby et al. 2011, equation 2; with
    dropout Gal et al. 2017; thesis seed (002), 7.1. With batches the highest scores are taken; BatchBALD's joint
    entropy is another strategy. Deviations: the features of the head's input are dropped, the network stays as it is;
    a member drops the same ones of all images.
    """

    paper = "Houlsby et al. 2011"

    @staticmethod
    def measure(opinions: Opinions) -> Float[np.ndarray, "n"]:
        return np.maximum(opinions.joint_entropy - opinions.entropy, 0)  # rounding may make it negative
