from dataclasses import dataclass
from typing import Literal, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from stages.al.kernel_coverage import squared_distances
from stages.al.pool import Pool
from stages.al.readings import Reading
from stages.al.strategies.base import STRATEGIES, Strategy, require_enough, top_k
from stages.al.strategies.probcover import ProbCover
from stages.al.uncertainty import closeness
from stages.al.view import Follower, Needs, PoolView

BLOCK = 2**24
"""Scores held at once: a product of many rows is faster."""


def competence(coverage: float, steepness: float, centre: float) -> float:
    """Logistic in the covered share of the pool, 1 where all is covered."""
    return (1 + np.exp(-steepness * (1 - centre))) / (1 + np.exp(-steepness * (coverage - centre)))


def purest_radius(rings: Int[np.ndarray, "pool"], same: Bool[np.ndarray, "pool"], n_rings: int, purity: float) -> int:
    """The widest ring up to which a share of at least `purity` is the same; the first where there is none.

    rings : of every pool image around a labeled one, n_rings and more for those beyond; same : predicted as it is
    """
    inside = rings < n_rings
    all_of_them = np.bincount(rings[inside], minlength=n_rings).cumsum()
    pure = np.bincount(rings[inside], same[inside], n_rings).cumsum() >= purity * all_of_them
    return int(np.flatnonzero(pure & (all_of_them > 0)).max(initial=0))


def scaled(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """To 0 .. 1; 0 where all are equal."""
    return (values - values.min()) / max(np.ptp(values), np.finfo(values.dtype).tiny)


def predicted(reading: Reading) -> Float[np.ndarray, "n"]:
    """The most probable class."""
    return reading.place.astype(np.float32)


class Balls(Follower):
    """The balls of the labeled images, and how many uncovered images lie in each ring around every pool image.

    Unlike other followers it depends on the rounds it has seen: a labeled image's radius comes from the head of the
    round after its query, as in the paper, and an older head is not there to be asked again.

    covered : of the pool; radii : number of the ring that bounds each labeled image's ball, as far as they are known
    """

    def __init__(self, pool: Pool, resolution: float, n_rings: int, images: int) -> None:
        self._unit, self._resolution, self._n_rings = pool.unit, resolution, n_rings
        self._sample = np.random.default_rng(0).permutation(len(pool))[:images]
        self._norms = np.einsum("nd,nd->n", self._unit, self._unit)
        self._sampled = np.zeros(len(pool), dtype=bool)
        self._sampled[self._sample] = True
        settings = {"resolution": resolution, "rings": n_rings, "images": images}
        empty = np.zeros((len(pool), n_rings), dtype=np.int32)
        self._rings = pool.derived.get("rings", settings, lambda: self._count(self._sample, empty, 1)).copy()
        self.covered = np.zeros(len(pool), dtype=bool)
        self.radii: list[int] = []
        self.labeled = np.empty(0, dtype=np.int64)

    def follow(self, labeled: Int[np.ndarray, "labeled"]) -> None:
        self.labeled = labeled

    def copy(self) -> "Balls":
        other = object.__new__(Balls)
        vars(other).update(vars(self), _rings=self._rings.copy(), covered=self.covered.copy())
        return other

    def widen(self, labels: Int[np.ndarray, "labeled"], predicted: Float[np.ndarray, "pool"]) -> None:
        """Give the new labeled images their radii, by the classes that are predicted around them."""
        purity, known = 0.4 + 0.2 * float(self.covered.mean()), len(self.radii)
        for index, label in zip(self.labeled[known:], labels[known:], strict=True):
            rings = self.rings_around(int(index))
            self.radii.append(purest_radius(rings, predicted == label, self._n_rings, purity))
            self.cover(rings, self.radii[-1])

    def rings_around(self, index: int) -> Int[np.ndarray, "pool"]:
        """In which ring around an image each pool image lies."""
        return np.floor(np.sqrt(squared_distances(self._unit, index)) / self._resolution).astype(np.int64)

    def cover(self, rings: Int[np.ndarray, "pool"], radius: int) -> None:
        """Everything up to that ring. Every image is newly covered once: O(N^2 d) in all."""
        new = np.flatnonzero((rings <= radius) & ~self.covered)
        self.covered[new] = True
        self._count(new[self._sampled[new]], self._rings, -1)

    def uncovered_within(self, radius: int, images: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Uncovered images up to that ring around some images, themselves included."""
        n = len(self.covered)
        others = np.maximum(len(self._sample) - self._sampled[images], 1)
        return ~self.covered[images] + (n - 1) / others * self._rings[images, : radius + 1].sum(axis=1)

    def _count(
        self, rows: Int[np.ndarray, "rows"], counts: Int32[np.ndarray, "pool rings"], sign: int
    ) -> Int32[np.ndarray, "pool rings"]:
        """Add these images to the counts of all others, or take them away."""
        step = max(1, BLOCK // len(self._unit))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            score = self._unit[part] @ self._unit.T
            _count(score, part, self._norms, np.float32(1 / self._resolution), counts, sign)
        return counts


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _count(score, images, norms, rate, counts, sign):
    n, n_rings = counts.shape
    farthest = (np.float32(n_rings) / rate) ** 2
    for r in range(len(images)):
        row, norm = score[r], norms[images[r]]
        for x in range(n):
            squared = norm + norms[x] - np.float32(2) * row[x]
            if squared < farthest and x != images[r]:
                ring = np.int64(np.sqrt(max(squared, np.float32(0))) * rate)
                counts[x, min(ring, n_rings - 1)] += sign


@STRATEGIES.register("dcom")
@dataclass(frozen=True, kw_only=True)
class DCoM(Strategy):
    """Query by uncovered images around at first, by margin once most of the pool is covered.

    Mishal and Weinshall 2024, algorithm 1 and its authors' code: the score is s (1 - margin) + (1 - s) degree, both
    scaled to 0 .. 1, where degree counts the uncovered images within the labeled images' mean radius and s is the
    competence, logistic in the covered share. A newly labeled image gets, and keeps, the largest radius at which a
    share of 0.4 + 0.2 coverage of its ball is predicted as its label. With nothing labeled it is ProbCover.
    Deviations: the largest of all multiples of `resolution` is found instead of one of them by bisection, and the mean
    is rounded to one; no ball is cut at the mean radius; the coverage that purity asks for is that of the older labels;
    scaling is over the round's candidates, and s is not rounded; in a pool of more than `images` images, degrees are
    estimated from a random sample, the same for every run, an image's own share being exact; ties are broken at random.

    delta : ProbCover's radius; max_delta, resolution : largest radius of a labeled image, and the step below it
    steepness, centre : of the logistic competence
    images : the pool's images that degrees count, at most
    """

    delta: float | Literal["purity"] = "purity"
    max_delta: float = 1.1
    resolution: float = 0.05
    steepness: float = 30.0
    centre: float = 0.9
    images: int = 10_000
    paper = "Mishal and Weinshall 2024"
    cost = "N (d + C) + newly covered images times N d a query; N min(N, images) d, once for all seeds"
    requires = frozenset({Needs.CLUSTERS, Needs.PROBA})
    cold_start = True

    def __post_init__(self) -> None:
        ProbCover(delta=self.delta)
        if not 0.01 <= self.resolution <= self.max_delta <= 2:
            raise ValueError(f"resolution={self.resolution} <= max_delta={self.max_delta} must be from 0.01 to 2")
        if self.steepness <= 0 or not 0 <= self.centre <= 1 or self.images < 1:
            raise ValueError(
                f"steepness={self.steepness} must be positive, centre={self.centre} from 0 to 1 and "
                f"images={self.images} at least 1"
            )

    def query(self, view: PoolView, batch_size: int, rng: np.random.Generator) -> Int[np.ndarray, "batch"]:
        require_enough(view, batch_size)
        if len(view.labeled) == 0:
            return ProbCover(delta=self.delta).query(view, batch_size, rng)
        settings = self.resolution, round(self.max_delta / self.resolution), self.images
        balls = view.following(("balls", *settings), lambda: Balls(view.pool, *settings))
        balls.widen(view.labels, view.measured_everywhere(predicted))
        return self._greedy(balls.copy() if batch_size > 1 else balls, view, batch_size, rng)

    def _greedy(
        self, balls: Balls, view: PoolView, batch_size: int, rng: np.random.Generator
    ) -> Int[np.ndarray, "batch"]:
        radius = round(float(np.mean(balls.radii)))
        s = competence(float(balls.covered.mean()), self.steepness, self.centre)
        margin = scaled(view.measured(closeness).astype(np.float64))
        waiting = np.arange(len(margin))
        chosen = np.empty(batch_size, dtype=np.int64)
        for i in range(batch_size):
            degree = scaled(balls.uncovered_within(radius, view.candidates[waiting]))
            place = top_k(s * margin[waiting] + (1 - s) * degree, 1, rng)[0]
            chosen[i] = view.candidates[waiting[place]]
            if i + 1 < batch_size:
                balls.cover(balls.rings_around(int(chosen[i])), radius)
                waiting = np.delete(waiting, place)
        return chosen
