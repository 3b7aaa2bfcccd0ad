"""What to label next in a pool whose labels are mostly unknown: one query of the loop, where nothing is simulated."""

from typing import Any

import numpy as np
from jaxtyping import Int

from cache.errors import InputError
from stages.al.logits import TrackedLogits
from stages.al.loop import INITIAL, QUERY, seeded
from stages.al.pool import Pool
from stages.al.strategies.base import Strategy
from stages.al.view import Needs, PoolView

UNAVAILABLE = {
    Needs.ORACLE: "it looks at the labels of images that nobody has labeled",
    Needs.VALIDATION: "it needs labeled validation images",
    Needs.PROGRESS: "it needs to know the budget and the accuracy on validation images",
}
"""What only a simulation can offer."""


def suggest(
    pool: Pool, head: Any, strategy: Strategy, batch_size: int, seed: int
) -> tuple[Int[np.ndarray, "batch"], Any]:
    """The images to label next, the first choice first, and the head fitted to the labeled ones (None without any).

    It is what a run of this seed whose initial set are the labeled images would query first, of all unlabeled images;
    with none labeled, the initial set that the strategy chooses. Heads that use validation images do without them.

    pool : its label is negative where it is unknown; head : unfitted
    batch_size : at most the number of unlabeled images
    Raises InputError where the strategy needs what only a simulation has.
    """
    require_real(strategy)
    labeled = np.flatnonzero(pool.labels >= 0)
    labels = pool.labels[labeled]
    fitted = seeded(head, seed).fit(pool.features[labeled], labels) if len(labeled) else None
    view = PoolView(
        pool=pool,
        candidates=np.flatnonzero(pool.labels < 0),
        labeled=labeled,
        labels=labels,
        fitted_head=fitted,
        tracked=TrackedLogits(pool.features),
        allowed=strategy.requires,
    )
    stream = [seed, QUERY, 0] if len(labeled) else [seed, INITIAL]
    return strategy.query(view, batch_size, np.random.default_rng(stream)), fitted


def require_real(strategy: Strategy | type[Strategy]) -> None:
    """Raises InputError for a strategy that can only be simulated."""
    for need, why in UNAVAILABLE.items():
        if need in strategy.requires:
            raise InputError(f"strategy {strategy.name!r} is for simulations, {why}: choose another with STRATEGY=")
