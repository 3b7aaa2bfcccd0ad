"""How well labeled images cover the pool under a Gaussian kernel, and what labeling one more would add.

With k(x, y) = exp(-|x - y|^2 / sigma^2) of L2-normalised features, image i is covered by its nearest labeled image:
m_i = max k(i, labeled). Labeling x adds sum_i w_i max(0, k(i, x) - m_i), where only those i count that are nearer to x
than to every labeled image. So for every i the nearer x are listed, with their distances: about N / (L + 1) of them,
fewer with every label. No kernel, weight or label changes the list in any other way than to shorten it.
"""

import copy
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int32, Int64

from stages.al.readings import LEAST, fast_exp
from stages.al.view import Follower

MOST_LISTED = 2**25
"""Pool images listed; where it is not enough for all, those of a random part of the images are."""

BLOCK = 2**24
"""Scores held at once: a product of many rows is faster."""

UNITS = 2.0**30
"""Parts of an image that gains are counted in."""

ROUNDING = np.float32(1e-5)
"""Squared distances that differ by less are equal: more than single precision's rounding of them."""


class Lists(NamedTuple):
    """Row r lists pool images `near` and their squared distances, at start[r] and the size[r] - 1 places after it."""

    image: Int64[np.ndarray, "rows"]
    start: Int64[np.ndarray, "rows"]
    size: Int64[np.ndarray, "rows"]
    near: Int32[np.ndarray, "places"]
    squared: Float32[np.ndarray, "places"]


class NearerThanLabeled(Follower):
    """The lists of a run.

    images : lists are kept for at most so many images of the pool, a fixed random sample of it
    nearest : squared distance of every pool image to its nearest labeled one; inf where nothing is labeled
    """

    def __init__(self, unit: Float32[np.ndarray, "pool dim"], images: int) -> None:
        self.unit, self._labeled = unit, np.empty(0, dtype=np.int64)
        self._norms = np.einsum("nd,nd->n", unit, unit)
        n, rows = len(unit), min(images, len(unit))
        self._step = max(1, BLOCK // n)
        self._rows, self._end = 0, 0
        places = min(MOST_LISTED + MOST_LISTED // 2 + self._step * n, rows * n)
        sample = np.random.default_rng(0).permutation(n)[:rows]
        sizes = np.zeros(rows, dtype=np.int64)
        self._lists = Lists(
            sample, sizes.copy(), sizes, np.empty(places, dtype=np.int32), np.empty(places, dtype=np.float32)
        )
        self.nearest = np.full(n, np.inf, dtype=np.float32)
        self.closest_pair = np.inf

    @property
    def lists(self) -> Lists:
        image, start, size, near, squared = self._lists
        return Lists(image[: self._rows], start[: self._rows], size[: self._rows], near, squared)

    def follow(self, labeled: Int[np.ndarray, "labeled"]) -> None:
        before = self.nearest
        for index in labeled[len(self._labeled) :]:
            squared = squared_distances(self.unit, int(index))
            pairs = squared[self._labeled]
            self.closest_pair = min(self.closest_pair, float(pairs[pairs > ROUNDING].min(initial=np.inf)))
            self.nearest = np.minimum(self.nearest, squared)
            self._labeled = np.append(self._labeled, index)
        image = self.lists.image
        self._shorten(np.flatnonzero(self.nearest[image] < before[image]))
        while self._rows < len(self._lists.image) and self.lists.size.sum() < MOST_LISTED:
            self._add_rows()

    def _shorten(self, rows: Int[np.ndarray, "changed"]) -> None:
        """To what is still nearer than the nearest labeled image."""
        _shorten(*self._lists, rows, self.nearest, ROUNDING)

    def _add_rows(self) -> None:
        """One block more, always the same ones together, so that rounding does not depend on when."""
        image, start, size, near, squared = self._lists
        block = slice(self._rows, min(self._rows + self._step, len(image)))
        if self._end + (block.stop - block.start) * len(self.unit) > len(near):
            self._end = _close_up(*self.lists)
        score = self.unit[image[block]] @ self.unit.T
        part = Lists(image[block], start[block], size[block], near, squared)
        self._end = _list(*part, score, self._norms, self.nearest, ROUNDING, self._end)
        self._rows = block.stop


def squared_distances(unit: Float32[np.ndarray, "pool dim"], index: int) -> Float32[np.ndarray, "pool"]:
    """From one image to all of the pool; exactly 0 to its copies."""
    squared = np.empty(len(unit), dtype=np.float32)
    _squared_distances(unit, unit[index], squared)
    return squared


class Gains:
    """What labeling each pool image would add to the weighted coverage, and how that changes with labels.

    An image's own share is exact, the other images' is that of those that have lists, in proportion. Sums are of whole
    numbers, so that what is added and taken away again leaves no rounding.

    weight : of every pool image; sigma : of the kernel
    """

    def __init__(self, source: NearerThanLabeled, weight: Float[np.ndarray, "pool"], sigma: float) -> None:
        self._source, self._weight, self._rate = source, weight, np.float32(-1 / sigma**2)
        self._nearest = source.nearest
        self._others = np.zeros(len(weight), dtype=np.int64)
        self.add(np.arange(len(source.lists.image)))

    def of(self, images: Int[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
        """The gain of some pool images, in images."""
        listed = self._source.lists.image
        others = np.full(len(self._weight), len(listed))
        others[listed] -= 1
        share = (len(self._weight) - 1) / np.maximum(others[images], 1)
        own = self._weight[images] * (1 - self._covered(self._nearest[images]))
        return own + share * (self._others[images] / UNITS)

    def label(self, index: int) -> None:
        """As if that image were labeled."""
        self.move(np.minimum(self._nearest, squared_distances(self._source.unit, index)))

    def move(self, nearest: Float32[np.ndarray, "pool"]) -> None:
        """To those smaller squared distances to the nearest labeled images."""
        image = self._source.lists.image
        changed = np.flatnonzero(nearest[image] < self._nearest[image])
        self.add(changed, -1)
        self._nearest = nearest
        self.add(changed)

    def add(self, rows: Int[np.ndarray, "rows"], sign: int = 1) -> None:
        """What these rows of the lists give, or take it away."""
        image = self._source.lists.image[rows]
        nearest = self._nearest[image]
        weight = (UNITS * self._weight[image]).astype(np.float32)
        _add(
            *self._source.lists,
            rows,
            self._rate,
            nearest - ROUNDING,
            self._covered(nearest),
            weight,
            sign,
            self._others,
        )

    def copy(self) -> "Gains":
        other = copy.copy(self)
        other._others = self._others.copy()
        return other

    def _covered(self, squared: Float32[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
        covered = np.empty(len(squared), dtype=np.float32)
        _kernel(squared, self._rate, covered)
        return covered


class KeptGains(NearerThanLabeled):
    """The gains of equal weights, brought up to date from round to round."""

    def __init__(self, unit: Float32[np.ndarray, "pool dim"], images: int, sigma: float) -> None:
        super().__init__(unit, images)
        self.gains = Gains(self, np.ones(len(unit)), sigma)

    def _shorten(self, rows: Int[np.ndarray, "changed"]) -> None:
        self.gains.move(self.nearest)
        super()._shorten(rows)

    def _add_rows(self) -> None:
        before = self._rows
        super()._add_rows()
        self.gains.add(np.arange(before, self._rows))


@numba.njit(cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
@no_type_check
def _squared_distances(unit, centre, squared):
    for i in range(len(unit)):
        total = np.float32(0)
        for j in range(len(centre)):
            total += (unit[i, j] - centre[j]) ** 2
        squared[i] = total


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _list(image, start, size, near, squared, score, norms, nearest, rounding, end):
    n = score.shape[1]
    nearer = np.zeros(8 * (n // 8 + 1), np.uint8)
    eights = nearer.view(np.uint64)  # most are far, and passed over eight at a time
    for r in range(len(image)):
        start[r] = end
        row, norm, bound = score[r], norms[image[r]], nearest[image[r]] - rounding
        for x in range(n):
            row[x] = norm + norms[x] - np.float32(2) * row[x]
            nearer[x] = row[x] < bound
        nearer[image[r]] = 0
        for eight in range(len(eights)):
            if eights[eight]:
                for x in range(8 * eight, min(8 * eight + 8, n)):
                    near[end], squared[end] = x, max(row[x], np.float32(0))
                    end += nearer[x]
        size[r] = end - start[r]
    return end


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _shorten(image, start, size, near, squared, rows, nearest, rounding):
    for r in rows:
        bound, end = nearest[image[r]] - rounding, start[r]
        for place in range(start[r], start[r] + size[r]):
            near[end], squared[end] = near[place], squared[place]
            end += squared[place] < bound
        size[r] = end - start[r]


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _close_up(image, start, size, near, squared):
    end = 0
    for r in range(len(image)):
        for place in range(size[r]):
            near[end + place], squared[end + place] = near[start[r] + place], squared[start[r] + place]
        start[r] = end
        end += size[r]
    return end


@numba.njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
@no_type_check
def _kernel(squared, rate, value):
    for i in range(len(squared)):
        value[i] = fast_exp(max(squared[i] * rate, np.float32(LEAST)))


@numba.njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
@no_type_check
def _add(image, start, size, near, squared, rows, rate, bound, covered, weight, sign, others):
    longest = size.max() if len(size) else 0
    value, parts = np.empty(longest, np.float32), np.empty(longest, np.int32)
    for i in range(len(rows)):
        if weight[i] == 0:
            continue
        begin, count = start[rows[i]], size[rows[i]]
        row, distance = near[begin : begin + count], squared[begin : begin + count]
        _kernel(distance, rate, value)
        for j in range(count):
            part = np.int32(weight[i] * (value[j] - covered[i]))
            parts[j] = sign * part if distance[j] < bound[i] else np.int32(0)
        for j in range(count):
            others[row[j]] += parts[j]
