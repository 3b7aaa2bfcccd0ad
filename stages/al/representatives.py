"""A few images that stand for many: those nearest to the centres of k-means clusters."""

import warnings

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning

SPREAD = 16
"""Images per cluster among which the first centres are sought."""
ITERATIONS = 5


def k_means_representatives(
    features: Float[np.ndarray, "n dim"], weights: Float[np.ndarray, "n"] | None, k: int, rng: np.random.Generator
) -> Int[np.ndarray, "k"]:
    """Positions of the image of every cluster nearest to its weighted mean, that of the heaviest cluster first.

    k of them, distinct, k <= n; where there are fewer clusters than k, because images are alike, the others are random.
    The first centres are greedy k-means++ ones of images drawn by weight, and Lloyd's iterations are stopped early:
    on 20,000 x 384 and 100 clusters about the inertia of scikit-learn's KMeans (1% more, in the mean) in an eighth of
    the time. With one cluster it is the image nearest to the weighted mean. Cost O(n dim k).
    """
    if k == len(features):
        return np.arange(k)
    heavy = np.ones(len(features)) if weights is None or not weights.any() else weights.astype(np.float64)
    heavy = heavy / heavy.max()
    if k == 1:
        centre = (heavy @ features / heavy.sum()).astype(features.dtype)
        distance = _squared_distance(features, centre)
        return rng.choice(np.flatnonzero(distance == distance.min()), 1)
    labels, centres = _clustered(features, heavy, k, rng)
    order = np.lexsort((_squared_distance(features, centres[labels]), labels))
    clusters, first = np.unique(labels[order], return_index=True)
    nearest = order[first][np.argsort(-np.bincount(labels, heavy)[clusters], kind="stable")]
    others = rng.permutation(np.setdiff1d(np.arange(len(features)), nearest))
    return np.concatenate([nearest, others[: k - len(nearest)]])


def _clustered(
    features: Float[np.ndarray, "n dim"], weights: Float[np.ndarray, "n"], k: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "k dim"]]:
    """A cluster for every image, and the clusters' centres."""
    with np.errstate(divide="ignore"):
        arrival = rng.exponential(size=len(features)) / weights  # the first m are m draws without replacement
    drawn = np.sort(np.argsort(arrival, kind="stable")[: SPREAD * k])
    seed = int(rng.integers(2**31))
    start, _ = kmeans_plusplus(features[drawn].astype(np.float64), k, random_state=seed)  # twice as fast in double
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said where images are alike
        model = KMeans(k, init=start.astype(features.dtype), n_init=1, max_iter=ITERATIONS).fit(
            features, sample_weight=weights
        )
    return model.labels_, model.cluster_centers_


def _squared_distance(
    features: Float[np.ndarray, "n dim"], centres: Float[np.ndarray, "*n dim"]
) -> Float[np.ndarray, "n"]:
    difference = features - centres
    return np.einsum("nd,nd->n", difference, difference)
