from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stages.al.heads.svm import SVM
from stages.al.hinge import solve_hinge
from stages.al.logits import BLOCK
from stages.al.strategies.base import STRATEGIES, ScoredStrategy
from stages.al.view import Follower, Needs, PoolView


class OneVersusRest(Follower):
    """A plane for every class with labels against the others, each solved from where it stood a round ago."""

    def __init__(self, features: Float[np.ndarray, "pool dim"], cost: float) -> None:
        self._features, self._cost = features, cost
        self._X = np.empty((0, features.shape[1]))
        self._gram = np.empty((0, 0))
        self._weights: dict[int, np.ndarray] = {}

    def follow(self, labeled: Int[np.ndarray, "labeled"]) -> None:
        seen, n = len(self._X), len(labeled)
        if seen == n:
            return
        self._X = np.concatenate([self._X, self._features[labeled[seen:]]])
        gram = np.empty((n, n))
        gram[:seen, :seen] = self._gram
        gram[seen:] = self._X[seen:] @ self._X.T
        gram[:seen, seen:] = gram[seen:, :seen].T
        self._gram = gram

    def planes(self, labels: Int[np.ndarray, "labeled"]) -> tuple[np.ndarray, np.ndarray]:
        """Directions (dim, planes) and constants (planes,); none where all labels are equal."""
        classes = np.unique(labels)
        classes = classes if len(classes) > 1 else classes[:0]
        directions, constants = np.empty((self._X.shape[1], len(classes))), np.empty(len(classes))
        for place, label in enumerate(classes):
            stood = self._weights.get(label, np.empty(0))
            weights = self._weights[label] = np.pad(stood, (0, len(labels) - len(stood)))
            constants[place] = solve_hinge(self._gram, np.where(labels == label, 1.0, -1.0), self._cost, weights)
            directions[:, place] = weights @ self._X
        return directions, constants


@STRATEGIES.register("svm_min_margin")
@dataclass(frozen=True, kw_only=True)
class SVMMinMargin(ScoredStrategy):
    """Query where a support vector machine's nearest decision plane is closest.

    Tong and Koller 2001, SIMPLE; its multi-class form of SSL meets AL (seed 003), section 4: linear one-vs-rest
    machines, C = 5, query what lies deepest in the margin area of a plane. The score is -min_c |f_c(x)|, in units of
    each machine's own margin, as the "margin area" |f_c| < 1 is; a distance in feature space would be divided by the
    length of the direction. The machines are learned for the query, exactly (see `stages/al/hinge.py`), unless the
    run's head is an svm of the same C, which is then asked. Classes without a label have no plane; where all labels are
    equal there is none, and the query is random.
    """

    C: float = 5.0
    paper = "Tong and Koller 2001"
    cost = "n d C; L (min(L, d)^2 + L) for each new label and class"
    requires = frozenset({Needs.HEAD})

    def __post_init__(self) -> None:
        if not self.C > 0:
            raise ValueError(f"C={self.C} must be above 0")

    def score(self, view: PoolView) -> Float[np.ndarray, "candidates"]:
        directions, constants = self._planes(view)
        if not len(constants):
            return np.zeros(len(view.candidates))
        parts = np.array_split(view.candidates, 1 + len(view.candidates) // BLOCK)
        planes = [view.pool_features[part].astype(np.float64) @ directions + constants for part in parts]
        return -np.concatenate([np.abs(decision).min(axis=1) for decision in planes])

    def _planes(self, view: PoolView) -> tuple[np.ndarray, np.ndarray]:
        head, seen = view.head, np.unique(view.labels)
        if isinstance(head, SVM) and self.C == head.C:
            planes = head.weights_[:, seen] if len(seen) > 1 else head.weights_[:, :0]
            return planes[:-1], planes[-1]
        follower = view.following(("one_versus_rest", self.C), lambda: OneVersusRest(view.pool_features, self.C))
        return follower.planes(view.labels)
