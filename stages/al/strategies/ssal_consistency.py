from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stages.al.acquisition import proba_variation
from stages.al.strategies.base import STRATEGIES, ScoredStrategy
from stages.al.view import Needs, PoolView


@STRATEGIES.register("ssal_consistency")
@dataclass(frozen=True, kw_only=True)
class SSALConsistency(ScoredStrategy):
    """Query where the prediction changes most from view to view: the classes' variances over the views, summed.

    Gao et al. 2020, section 3; thesis seed (002), 2.3, its formula. Deviations: the views are those in the cache, the
    identity among them, instead of fresh augmentations; the head is not trained for consistency; in
    single precision, where a saturated head leaves few digits. Raises InputError
    where there is one view.
    """

    paper = "Gao et al. 2020"
    cost = "n d C views"
    regime = "high"
    requires = frozenset({Needs.VIEWS, Needs.SEVERAL_VIEWS})

    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        view.require_several_views()
        return proba_variation(view)
