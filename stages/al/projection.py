"""PCA of the cached features, fitted on the pool once and shared by every run."""

import numpy as np
from jaxtyping import Float, Int
from sklearn.decomposition import PCA

from cache.errors import InputError


def project(
    features: Float[np.ndarray, "images views dim"], pool: Int[np.ndarray, "pool"], dims: int
) -> Float[np.ndarray, "views images out"]:
    """Centre on the pool, rotate to its principal axes, keep the first `dims`, divide by one number.

    The PCA is that of the identity view (the first) of the pool; every view and split goes through it (thesis seed
    002, sections 3.4 and 5.4). The number makes the pool's mean variance per dimension 1, so that penalties and
    kernel widths mean the same on every backbone; inv, solve and pinv heads do not depend on it.

    dims : 0 keeps all dimensions (centred and scaled only)
    Raises InputError when there are fewer features or pool images than `dims`.
    """
    limit = min(features.shape[2], len(np.unique(pool)))
    if dims < 0:
        raise InputError(f"PCA to {dims} dimensions is impossible: PCA= takes 0 (all) or more")
    if dims > limit:
        raise InputError(
            f"PCA to {dims} dimensions needs that many features and pool images, there are {limit}: lower PCA="
        )
    fitted = features[pool, 0].astype(np.float64)
    with np.errstate(invalid="ignore"):
        pca = PCA(dims, svd_solver="covariance_eigh").fit(fitted) if dims else None
    mean, axes = (pca.mean_, pca.components_.T) if pca else (fitted.mean(axis=0), None)

    def rotate(view: np.ndarray) -> np.ndarray:
        centred = view.astype(np.float64) - mean
        return centred @ axes if axes is not None else centred

    scale = np.sqrt(rotate(features[pool, 0]).var(axis=0).mean()) or 1.0
    return np.stack([(rotate(features[:, view]) / scale).astype(np.float32) for view in range(features.shape[1])])
