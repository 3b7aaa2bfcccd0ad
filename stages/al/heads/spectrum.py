"""What the singular values of the labeled features tell: which directions to keep, how strongly to penalise, and what
each image would be predicted to be by the others."""

import numpy as np
from jaxtyping import Float

from stages.al.heads.least_squares import RANK_TOLERANCE

LEAST_PENALTY = 1e-9
"""Share of the least squared singular value that takes the place of no penalty in leaving images out: the limit of
small penalties, where a fit without one leaves nothing to predict an image from."""


class Spectrum:
    """Singular value decomposition of weighted rows, centred by their weighted mean where there is a constant.

    directions : right singular vectors (rank, dim), the largest singular value first
    """

    def __init__(
        self,
        X: Float[np.ndarray, "n dim"],
        T: Float[np.ndarray, "n classes"],
        weight: Float[np.ndarray, "n"],
        constant: bool,
    ):
        """Weights must be positive. Cost O(n dim min(n, dim))."""
        self._root, self._targets = np.sqrt(weight)[:, None], T
        self._mean = np.average(T, axis=0, weights=weight) if constant else np.zeros(T.shape[1])
        self._of_constant = weight / weight.sum() if constant else np.zeros(len(X))
        centre = np.average(X, axis=0, weights=weight) if constant else 0.0
        U, s, Vt = np.linalg.svd((X - centre) * self._root, full_matrices=False)
        kept = s > RANK_TOLERANCE * s.max(initial=0.0)
        self._U, self._s, self.directions = U[:, kept], s[kept], Vt[kept]
        self._rotated = self._U.T @ ((T - self._mean) * self._root)

    def cross_validated(self, penalties: Float[np.ndarray, "m"]) -> float:
        """The penalty of least generalised cross-validation error n RSS / (n - trace H)^2 (Golub et al. 1979)."""
        n, squared = len(self._U), self._s**2
        all_energy = (((self._targets - self._mean) * self._root) ** 2).sum()
        energy = (self._rotated**2).sum(axis=1)
        shares = squared / (squared + penalties[:, None])
        residual = all_energy - (shares * (2 - shares)) @ energy
        freedom = np.maximum(n - shares.sum(axis=1) - self._of_constant.sum(), np.finfo(np.float64).eps)
        return float(penalties[np.argmin(residual / freedom**2)])

    def left_out(self, penalty: float) -> Float[np.ndarray, "n classes"]:
        """What each row is predicted to be by a fit to the others: t - (t - fitted) / (1 - leverage).

        Exact with a penalty; without one to about 1e-4 relative. A row that nothing else says anything of, such as an
        only one, is predicted by its target.
        """
        if len(self._U) <= 1:
            return self._targets
        penalty = penalty or LEAST_PENALTY * self._s.min(initial=np.inf) ** 2
        if not len(self._s):
            penalty = 1.0
        left = penalty / (self._s**2 + penalty)  # 1 - share, with all its digits
        centred = (self._targets - self._mean) * self._root
        residual, rest = self._U @ (left[:, None] * self._rotated), (self._U**2) @ left
        if len(self._U) > len(self._s) + self._of_constant.sum().round():  # else it is 0, and would be rounding
            residual += centred - self._U @ self._rotated
            rest += 1 - (self._U**2).sum(axis=1) - self._of_constant
        return self._targets - residual / (np.maximum(rest, np.finfo(np.float64).tiny)[:, None] * self._root)
