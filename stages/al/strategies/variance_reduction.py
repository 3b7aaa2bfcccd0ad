from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import block_diag

from stages.al.design import Design, greedy, rows_of
from stages.al.heads.closed_form import ClosedFormSoftmax
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough
from stages.al.view import Needs, PoolView

CRITERIA = ("v", "a", "d")

SMALL = 1e-6
"""Share of the least squared singular value that takes the place of no penalty, so that the variance is finite."""


def moment_of(
    criterion: str, head: ClosedFormSoftmax, second_moment: Float[np.ndarray, "dim_1 dim_1"]
) -> Float[np.ndarray, "size size"] | None:
    """F of a criterion, in the space in which the head is solved. See `Design`.

    second_moment : of the pool's features with a 1 after them
    """
    lift = block_diag(head.reduce(np.eye(len(second_moment) - 1)), np.ones((1, int(head.intercept))))
    return {"v": lift.T @ second_moment @ lift, "a": np.eye(lift.shape[1]), "d": None}[criterion]


def least_variance(
    head: ClosedFormSoftmax,
    features: Float[np.ndarray, "n dim"],
    moment: Float[np.ndarray, "size size"] | None,
    batch_size: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "batch"]:
    """Positions of the images to label, greedily."""
    rows = head.rows(features)
    inverse, unseen = head.inverse()
    if unseen.any():
        rows, largest = rows.astype(np.float64), np.linalg.eigvalsh(inverse)[-1]
        inverse = inverse + unseen * (largest / SMALL if largest > 0 else 1.0)
    design = Design(rows, np.ones(len(rows)), inverse, moment)
    return greedy(design, batch_size, rng)


@STRATEGIES.register("variance_reduction")
@dataclass(frozen=True, kw_only=True)
class VarianceReduction(Strategy):
    """Query what makes the least-squares predictions of the whole pool vary least.

    With A = (X'X + penalty I)^-1 over the labeled images, a prediction of e has the variance e'Ae, but for the noise's.
    Criterion `v` (V-optimal) lowers its mean over the pool: Cohn et al. 1996, for a linear model, where it is exact; Yu
    et al. 2006 (transductive experimental design). `a` lowers trace A, `d` log det A. Batches are greedy, each image
    given those before it (the sequential design of Yu et al.). Labels do not matter but through the
    head's penalty and directions. Without a penalty, a very small one takes its place, in double precision: images
    outside the span of the labeled ones come first, by how much of the criterion they take there. Class weights are
    left out, because the label is not known.
    """

    criterion: Literal["v", "a", "d"] = "v"
    paper = "Cohn et al. 1996"
    cost = "n d^2 + b n d; N d^2 once for all seeds"
    regime = "low"
    requires = frozenset({Needs.CLOSED_FORM})

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise ValueError(f"criterion={self.criterion!r} must be one of {', '.join(CRITERIA)}")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        head = view.closed_form
        moment = moment_of(self.criterion, head, view.pool.second_moment())
        return view.candidates[least_variance(head, rows_of(view.features, batch_size), moment, batch_size, rng)]
