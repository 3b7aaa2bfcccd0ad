import numpy as np
import pytest
from sklearn.decomposition import PCA

from cache.errors import InputError
from stages.al.projection import project


@pytest.fixture
def features(rng: np.random.Generator) -> np.ndarray:
    return (rng.normal(size=(80, 2, 12)) * np.arange(1, 13) + 5).astype(np.float16)


def test_is_pca_of_the_pool_up_to_one_number_and_signs(features: np.ndarray) -> None:
    pool = np.arange(10, 70)
    projected = project(features, pool, 4)
    expected = PCA(4, svd_solver="full").fit(features[pool, 0].astype(float))
    for view in range(2):
        scores = expected.transform(features[:, view].astype(float))
        ratio = projected[view] / scores
        np.testing.assert_allclose(np.abs(ratio), np.abs(ratio[0, 0]), rtol=1e-3)
    assert projected[0, pool].var(axis=0).mean() == pytest.approx(1, rel=1e-4)


def test_zero_dims_keep_all_distances(features: np.ndarray) -> None:
    projected = project(features, np.arange(80), 0)
    before = np.linalg.norm(features[0, 0].astype(float) - features[1, 0].astype(float))
    after = np.linalg.norm(projected[0, 0] - projected[0, 1])
    again = np.linalg.norm(projected[0, 2] - projected[0, 3])
    other = np.linalg.norm(features[2, 0].astype(float) - features[3, 0].astype(float))
    assert after / before == pytest.approx(again / other, rel=1e-4)


def test_images_outside_the_pool_do_not_matter(features: np.ndarray) -> None:
    pool, changed = np.arange(60), features.copy()
    changed[60:] = 0
    assert np.array_equal(project(features, pool, 3)[:, :60], project(changed, pool, 3)[:, :60])


def test_a_constant_pool_is_projected_to_zero(features: np.ndarray) -> None:
    assert not project(np.ones_like(features), np.arange(80), 3).any()


def test_too_many_dims_are_refused(features: np.ndarray) -> None:
    with pytest.raises(InputError, match="PCA to 13 dimensions.*there are 12"):
        project(features, np.arange(80), 13)
