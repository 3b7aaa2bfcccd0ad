from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from stages.al.models import load_models
from stages.al.signals import RANKS, ROUND, compared, signal_table
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough, top_k
from stages.al.view import Needs, PoolView

SHIPPED = Path(__file__).resolve().parent.parent / "shipped"
"""The model that comes with the package; its manifest says what it learned from."""


@STRATEGIES.register("surrogate")
@dataclass(frozen=True, kw_only=True)
class Surrogate(Strategy):
    """Query the candidate after which XGBoost expects the next rounds to be best. No label is seen that was not spent.

    The idea of thesis seed (002), 4.7, with what its experiment lacked: inputs are ranks among the round's candidates,
    the target is a return over several rounds compared with what was to be expected from where the run stood, and the
    models learn from random mixtures of strategies (see stages/surrogate/returns.py). Compared are 500 random
    candidates, as in the thesis (5.6); asked are those that some pair of inputs puts first (`proposed`), some thirty,
    which costs little; a batch is the highest scores.

    model : folder that `make surrogate` wrote, or `shipped` for the one that comes with alcove
    """

    model: str
    argument = "model"
    paper = "thesis seed 2023, 4.7"
    cost = "m (r + L) d for 500 of the candidates and 2,000 images r"
    requires = frozenset({Needs.CLOSED_FORM, Needs.CLUSTERS})

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        manifest, boosters = self._models()
        some = compared(view, rng, batch_size)
        inputs = tuple(manifest["inputs"])
        table = signal_table(some, inputs)
        asked = proposed(table[:, [name in RANKS for name in inputs]], batch_size)
        scores = np.mean([booster.inplace_predict(table[asked]) for booster in boosters], axis=0)
        return some.candidates[asked[top_k(scores, batch_size, rng)]]

    def record(self) -> dict[str, Any]:
        manifest, _ = self._models()
        return {"name": self.name} | {name: manifest[name] for name in ("model_digest", "train_seeds")}

    def _models(self) -> tuple[dict[str, Any], list[Any]]:
        return load_models(str(SHIPPED) if self.model == "shipped" else self.model, RANKS + ROUND)


def proposed(ranks: Float32[np.ndarray, "n inputs"], k: int) -> Int[np.ndarray, "some"]:
    """Positions of the k highest by each input and by each pair of them, and of their ties; all without inputs.

    By the sum of -log(1 - rank), in which being among the very first counts most (as in `explore`).
    """
    heights = -np.log1p(-np.ascontiguousarray(ranks.T))
    if not len(heights) or k >= len(ranks):
        return np.arange(len(ranks))
    one, other = np.triu_indices(len(heights))
    sums = heights[one] + heights[other]
    bars = sums.max(axis=1) if k == 1 else np.partition(sums, len(ranks) - k, axis=1)[:, len(ranks) - k]
    return np.flatnonzero((sums >= bars[:, None]).any(axis=0))
