from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from stages.al.lookahead import label_effects
from stages.al.posterior import posterior_by
from stages.al.strategies.base import STRATEGIES, Strategy, drawn, require_enough, top_k
from stages.al.view import Follower, Needs, PoolView


class _Guess(Follower):
    """What the validation labels say of every pool image, which no query changes."""

    def __init__(self, view: PoolView) -> None:
        self.proba: Float32[np.ndarray, "pool classes"] = posterior_by(
            view.validation, view.pool_features, view.n_classes
        )

    def follow(self, labeled: Int[np.ndarray, "labeled"]) -> None:
        del labeled


@STRATEGIES.register("validation_loss_reduction")
@dataclass(frozen=True, kw_only=True)
class ValidationLossReduction(Strategy):
    """Query what is expected to lower the cross-entropy of the validation set most, guessing its label from that set.

    Expected error reduction (Roy and McCallum 2001) for whoever has validation labels at query time, as the surrogate
    of thesis seed (002) does: the loss is measured on them, exactly but for what refitting would choose anew, and a
    candidate's label is as probable as a logistic regression on them says (`posterior_by`). No pool label is seen but
    those that were spent. Scored are `candidates` random candidates on `images` random validation images; a batch is
    the highest scores.
    """

    candidates: int = 500
    images: int = 500
    paper = "Roy and McCallum 2001"
    cost = "m k (C + d) for m of the candidates and k validation images"
    requires = frozenset({Needs.CLOSED_FORM, Needs.VALIDATION})

    def __post_init__(self) -> None:
        if self.candidates < 1 or self.images < 1:
            raise ValueError(f"candidates={self.candidates} and images={self.images} must be at least 1")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        positions = drawn(len(view.candidates), max(self.candidates, batch_size), rng)
        head, images = view.closed_form, view.validation.some(self.images, rng)
        proba = view.following("validation guess", lambda: _Guess(view)).proba[view.candidates[positions]]
        onehot = np.eye(view.n_classes, dtype=np.float32)[images.labels]
        effects = label_effects(head, view.features[positions], images.features, onehot, head.temperature_)
        return view.candidates[positions[top_k(-(proba * effects).sum(axis=1), batch_size, rng)]]
