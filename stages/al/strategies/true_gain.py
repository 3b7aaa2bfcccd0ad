from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from stages.al.heads.closed_form import ClosedFormSoftmax, softmax
from stages.al.lookahead import label_effects, lookahead
from stages.al.strategies.base import STRATEGIES, Strategy, drawn, require_enough, top_k
from stages.al.view import Evaluation, Needs, PoolView


def expected_accuracy_change(
    head: ClosedFormSoftmax,
    candidates: Float[np.ndarray, "m dim"],
    proba: Float[np.ndarray, "m classes"],
    images: Evaluation,
) -> Float[np.ndarray, "m"]:
    """Mean change of the accuracy on labeled images over a candidate's labels, as probable as `proba` says."""
    expected = np.zeros(len(candidates))
    for label in np.flatnonzero(proba.any(axis=0)):
        asked = np.flatnonzero(proba[:, label])
        changes = lookahead(head, candidates[asked], np.full(len(asked), label), images.features, images.labels)
        expected[asked] += proba[asked, label] * changes.accuracy
    return expected


@STRATEGIES.register("true_gain")
@dataclass(frozen=True, kw_only=True)
class TrueGain(Strategy):
    """Query the candidate whose label improves the head most on the validation set.

    Thesis seed (002), sections 4.7 and 5.8: what the surrogate is trained to predict, here computed, so that it shows
    what predicting it perfectly would reach. An ablation: it sees labels that nobody has paid for. Exact as
    `influence` is; scored are `candidates` random candidates, a batch is the highest scores, ties are broken at random.

    target : cross_entropy, at the head's temperature, or accuracy
    posterior : what is known of a candidate's label: it (known), its probabilities by all labels of the pool (pool), or
        those of the head at the temperature fitted to the labeled images (head)
    """

    target: Literal["cross_entropy", "accuracy"] = "cross_entropy"
    posterior: Literal["known", "pool", "head"] = "known"
    candidates: int = 500
    paper = "thesis seed 2023, 4.7"
    cost = "m k (C + d) for m of the candidates and k validation images; C times that for a mean accuracy"
    requires = frozenset({Needs.CLOSED_FORM, Needs.VALIDATION, Needs.ORACLE})

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"candidates={self.candidates} must be at least 1")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        positions = drawn(len(view.candidates), max(self.candidates, batch_size), rng)
        head, images = view.closed_form, view.validation
        features, proba = view.features[positions], self._proba(view, positions)
        if self.target == "accuracy":
            gains = expected_accuracy_change(head, features, proba, images)
        else:
            onehot = np.eye(view.n_classes, dtype=np.float32)[images.labels]
            effects = label_effects(head, features, images.features, onehot, head.temperature_)
            gains = -(proba * effects).sum(axis=1)
        return view.candidates[positions[top_k(gains, batch_size, rng)]]

    def _proba(self, view: PoolView, positions: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m classes"]:
        """Of the candidates' labels."""
        if self.posterior == "known":
            return np.eye(view.n_classes)[view.oracle[positions]]
        if self.posterior == "pool":
            return view.oracle_proba[view.candidates[positions]].astype(np.float64)
        head = view.closed_form
        temperature = head.calibrated_temperature(view.pool_features[view.labeled], view.labels)
        return softmax(head.raw_logits(view.features[positions].astype(np.float64)) / temperature)
