from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from stages.al.neighbours import BallGraph
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough, top_k
from stages.al.view import Follower, Needs, PoolView

DIAMETER = 2.0
"""Of the unit sphere: a ball of that radius holds every image."""


def purity_radius(distance: Float[np.ndarray, "n"], purity: float) -> float:
    """The largest radius at which the balls of so many images, as a share, are pure.

    distance : of each image to the nearest of another cluster

    A ball that includes its border is pure while its radius is below that distance. Of n images m = n - ceil(purity n)
    need not be pure, so the radius must be below the (m + 1)-th smallest distance: it is the next smaller number in
    single precision, which no rounding of a distance in double precision reaches.
    """
    allowed = len(distance) - max(1, int(np.ceil(purity * len(distance) - 1e-9)))
    border = min(float(np.partition(distance, allowed)[allowed]), DIAMETER)
    return float(np.nextafter(np.float32(border), np.float32(0)))


class Covered(Follower):
    """Which images are covered, and how many more labeling each would cover.

    gain : uncovered images within the radius of each, itself included
    """

    def __init__(self, graph: BallGraph) -> None:
        self._graph, self._seen = graph, 0
        self.covered = np.zeros(len(graph), dtype=bool)
        self.gain = graph.degree + 1.0

    def follow(self, labeled: Int[np.ndarray, "labeled"]) -> None:
        for index in labeled[self._seen :]:
            self.cover(int(index))
        self._seen = len(labeled)

    def cover(self, index: int) -> None:
        """Label an image. Every image is newly covered once: O(pairs) in all."""
        ball = np.concatenate([[index], *self._graph.neighbours(np.array([index]))])
        new = ball[~self.covered[ball]]
        self.covered[new] = True
        self.gain[new] -= 1
        for near in self._graph.neighbours(new):
            self.gain -= np.bincount(near, minlength=len(self.gain))

    def copy(self) -> "Covered":
        copy = Covered(self._graph)
        copy.covered, copy.gain = self.covered.copy(), self.gain.copy()
        return copy


@STRATEGIES.register("probcover")
@dataclass(frozen=True, kw_only=True)
class ProbCover(Strategy):
    """Query the image whose ball holds the most images that no labeled image's ball holds.

    Yehuda et al. 2022, algorithm 1 and its authors' code: L2-normalised features, balls around every pool image,
    itself included. The radius is given, or that of section 3.2: the largest at which a share of `purity` of the images
    has all of its ball in its own of C k-means clusters, found exactly instead of by trying some. Deviations: the
    border belongs to the ball (the authors' does not); only the round's candidates can be queried; ties, and once all
    is covered all candidates, are broken at random, distinct within a batch.

    delta : radius, a Euclidean distance of L2-normalised features; `purity` for the heuristic
    """

    delta: float | Literal["purity"] = "purity"
    purity: float = 0.95
    paper = "Yehuda et al. 2022"
    cost = "n b + pairs newly covered; N^2 d for the pairs, once for all seeds"
    regime = "low"
    requires = frozenset({Needs.CLUSTERS})
    cold_start = True

    def __post_init__(self) -> None:
        if self.delta != "purity" and (isinstance(self.delta, str) or not 0 < self.delta <= DIAMETER):
            raise ValueError(f"delta={self.delta} must be above 0 and at most {DIAMETER:g}, or 'purity'")
        if not 0 < self.purity <= 1:
            raise ValueError(f"purity={self.purity} must be above 0 and at most 1")

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        covered = view.following(("covered", self.delta, self.purity), lambda: Covered(self._graph(view)))
        covered = covered.copy() if batch_size > 1 else covered
        waiting, chosen = view.candidates, np.empty(batch_size, dtype=np.int64)
        for i in range(batch_size):
            chosen[i] = waiting[top_k(covered.gain[waiting], 1, rng)[0]]
            if i + 1 < batch_size:
                covered.cover(int(chosen[i]))
                waiting = waiting[waiting != chosen[i]]
        return chosen

    def _graph(self, view: PoolView) -> BallGraph:
        if not isinstance(self.delta, str):
            return view.pool.ball_graph(self.delta)
        return view.pool.ball_graph(purity_radius(view.distance_to_other_cluster(view.n_classes), self.purity))
