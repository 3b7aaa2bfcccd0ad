from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist
from scipy.special import softmax

from stages.al.strategies.base import STRATEGIES
from stages.al.strategies.typiclust import TypiClust, typicality_within
from stages.al.view import PoolView


def sup(
    unit: Float[np.ndarray, "n dim"], centres: Float[np.ndarray, "clusters dim"], cluster: int, temperature: float
) -> Float[np.ndarray, "n"]:
    """How near images of a cluster are to the other clusters, the nearby ones above all (SUPClust, equations 2 and 3).

    unit : images of that cluster. All ones where there is no other cluster
    """
    others = np.delete(centres, cluster, axis=0)
    if not len(others):
        return np.ones(len(unit))
    weights = softmax(-np.linalg.norm(others - centres[cluster], axis=1) / temperature)
    return 1 / np.maximum(cdist(unit, others) @ weights, np.finfo(float).tiny)


def typical_count(share: float, n: int) -> int:
    """A share of n images, rounded up; what rounding of the product adds to a whole number is not."""
    return int(np.ceil(share * n - 1e-9))


@STRATEGIES.register("supclust")
@dataclass(frozen=True, kw_only=True)
class SupClust(TypiClust):
    """Query the image nearest to the other clusters among the typical ones of the largest cluster without a label.

    Ono et al. 2024, section 3, equations 2 and 3, on TypiClust's clusters: of the `typical_share` most typical images
    (at least one) of a cluster the one of highest SUP, of equal ones the most typical; so with a single cluster, where
    SUP is not defined, the most typical of all. `without` makes the ablations of figure 5: without SUP a random one of
    the typical images, without typicality the highest SUP of the whole cluster. `temperature` is that of figure 4; the
    paper names no other. Deviations: TypiClust's; centres are means of L2-normalised features.
    """

    typical_share: float = 0.1
    temperature: float = 1.0
    without: Literal["nothing", "sup", "typicality"] = "nothing"
    paper = "Ono et al. 2024"
    cost = "b (m^2 + m k) d in clusters of m images, k clusters; N d (L + b) to cluster, once for all seeds"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.typical_share <= 1:
            raise ValueError(f"typical_share={self.typical_share} must be above 0 and at most 1")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")

    def choose(
        self, view: PoolView, k: int, cluster: int, members: Int[np.ndarray, "m"], rng: np.random.Generator
    ) -> int:
        unit, among = view.unit[members], np.arange(len(members))
        if self.without != "typicality":
            typicality = typicality_within(unit, self.n_neighbors)
            among = np.argsort(-typicality, kind="stable")[: typical_count(self.typical_share, len(members))]
        if self.without == "sup":
            return int(rng.choice(among))
        return int(among[sup(unit[among], view.centres(k), cluster, self.temperature).argmax()])
