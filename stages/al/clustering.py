"""k-means of a pool for one number of clusters after the other, fast enough for a run that asks for 500 of them."""

import warnings
from collections.abc import Callable
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning

FEW_CLUSTERS, LITTLE_WORK = 50, 2**21
"""Up to so many clusters, or images times clusters, they are fitted to every image."""
MINI_BATCH, PASSES, LLOYD = 5000, 2, 5
LEAST_SUMMARY = 64
SETTINGS = {
    **{"few": FEW_CLUSTERS, "little": LITTLE_WORK, "mini_batch": MINI_BATCH, "passes": PASSES},
    **{"lloyd": LLOYD, "least": LEAST_SUMMARY},
}
"""All that decides a clustering but the images and the number of clusters."""


class Summary(NamedTuple):
    """A pool as few weighted points, in k-means++ order: the first k of them are where k clusters may begin."""

    centres: Float32[np.ndarray, "m dim"]
    sizes: Float32[np.ndarray, "m"]


def k_means(
    unit: Float32[np.ndarray, "pool dim"], k: int, summary: Callable[[int], Summary]
) -> Int32[np.ndarray, "pool"]:
    """A cluster number for every image, from 0 on, none of them empty; fewer than k where few images differ.

    Up to 128 images, or twice k rounded up to a power of two: scikit-learn's k-means, seeded by k. Of more, k-means of
    the pool's summary; every image then goes to the nearest of its centres, or, where clusters or images are few, a few
    rounds of k-means of all images begin there.

    summary : of a number of points; `summarise`, computed once
    """
    size = max(LEAST_SUMMARY, 1 << (k - 1).bit_length())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it says that few images differ
        if len(unit) <= 2 * size:
            labels = KMeans(min(k, len(unit)), n_init=1, random_state=k).fit_predict(unit)
        else:
            points, weights = summary(size)
            start = points[:k]
            model = KMeans(len(start), init=start, n_init=1).fit(points, sample_weight=weights)
            if k <= FEW_CLUSTERS or len(unit) * k <= LITTLE_WORK:
                model = KMeans(len(start), init=model.cluster_centers_, n_init=1, max_iter=LLOYD)
                labels = model.fit_predict(unit)
            else:
                labels = model.predict(unit)
    used = np.bincount(labels, minlength=k) > 0
    return (np.cumsum(used, dtype=np.int32) - 1)[labels]


def summarise(unit: Float32[np.ndarray, "pool dim"], size: int) -> Summary:
    """At most `size` centres of a mini-batch k-means that goes over the pool twice, and how many images are theirs."""
    model = MiniBatchKMeans(
        size, init="random", n_init=1, init_size=2 * size, batch_size=MINI_BATCH, max_iter=PASSES, random_state=size
    ).fit(unit)
    sizes = np.bincount(model.labels_, minlength=size).astype(np.float32)
    centres, sizes = model.cluster_centers_[sizes > 0], sizes[sizes > 0]
    _, order = kmeans_plusplus(centres, len(centres), sample_weight=sizes, random_state=size)
    order = np.array(list(dict.fromkeys(order.tolist())))  # where rounding makes two centres one
    return Summary(centres[order], sizes[order])


def means(
    unit: Float32[np.ndarray, "pool dim"], clusters: Int[np.ndarray, "pool"]
) -> Float[np.ndarray, "clusters dim"]:
    """The mean of every cluster's images."""
    sums = np.zeros((clusters.max() + 1, unit.shape[1]))
    _add_up(unit, clusters, sums)
    return sums / np.bincount(clusters)[:, None]


@numba.njit(cache=True)
@no_type_check
def _add_up(unit, clusters, sums):
    for i in range(len(unit)):
        for c in range(unit.shape[1]):
            sums[clusters[i], c] += unit[i, c]
