"""Representatives of k-means clusters, on clusters that are plain to see and on those that are not there."""

import numpy as np
import pytest

from stages.al.representatives import k_means_representatives


def test_one_of_every_cluster_the_nearest_to_its_weighted_mean(rng: np.random.Generator) -> None:
    cluster = rng.permutation(np.repeat(np.arange(6), [10, 20, 30, 40, 50, 60]))
    features = (100 * np.eye(6)[cluster] + rng.normal(size=(210, 6))).astype(np.float32)
    weights = rng.random(210) + 0.1
    expected = []
    for c in np.argsort(-np.bincount(cluster, weights)):
        members = np.flatnonzero(cluster == c)
        mean = np.average(features[members], axis=0, weights=weights[members])
        expected.append(int(members[np.linalg.norm(features[members] - mean, axis=1).argmin()]))
    found = k_means_representatives(features, weights, 6, np.random.default_rng(0))
    assert found.tolist() == expected


def test_a_single_cluster_needs_no_k_means(rng: np.random.Generator) -> None:
    features, weights = rng.normal(size=(50, 3)), rng.random(50)
    mean = np.average(features, axis=0, weights=weights)
    expected = np.linalg.norm(features - mean, axis=1).argmin()
    assert k_means_representatives(features, weights, 1, rng).tolist() == [expected]


@pytest.mark.parametrize("k", [1, 2, 5, 30, 60])
@pytest.mark.parametrize("heavy", [None, 0, 1, 60])
def test_alike_images_and_weights_of_zero_give_k_distinct_ones(k: int, heavy: int | None) -> None:
    features = np.tile(np.eye(3, 4, dtype=np.float32), (20, 1))
    weights = None if heavy is None else (np.arange(60) < heavy).astype(np.float32)
    found = [k_means_representatives(features, weights, k, np.random.default_rng(2)).tolist() for _ in range(2)]
    assert len(set(found[0])) == k
    assert found[0] == found[1]
    if k == 5 and heavy != 1:
        assert len({i % 3 for i in found[0]}) == 3
