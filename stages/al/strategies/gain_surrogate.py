from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from stages.al.acquisition import METRICS, REQUIRES, acquisition_table
from stages.al.models import load_models
from stages.al.strategies.base import STRATEGIES, ScoredStrategy
from stages.al.view import PoolView


@STRATEGIES.register("gain_surrogate")
@dataclass(frozen=True, kw_only=True)
class GainSurrogate(ScoredStrategy):
    """Query the candidate whose gain the trained XGBoost models predict highest.

    Thesis seed (002), sections 4.7 and 5.6. Deviations: the thesis scores 500 random candidates a round, here the
    protocol's candidates are scored; an image is scored by a model that did not learn from it (see
    stages/surrogate/train.py).

    model : folder that `make surrogate` wrote
    """

    model: str
    argument = "model"
    paper = "thesis seed 2023, 4.7"
    cost = "n (d + C + trees)"
    requires = REQUIRES

    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        manifest, boosters = load_models(self.model, METRICS)
        inputs = np.column_stack(list(acquisition_table(view, tuple(manifest["inputs"])).values()))
        fold = view.candidates % len(boosters)
        scores = np.empty(len(inputs))
        for k, booster in enumerate(boosters):
            if (fold == k).any():
                scores[fold == k] = booster.inplace_predict(inputs[fold == k])
        return scores

    def record(self) -> dict[str, Any]:
        manifest, _ = load_models(self.model, METRICS)
        return {"name": self.name} | {name: manifest[name] for name in ("model_digest", "train_seeds")}
