"""Weighted ridge and minimum-norm least squares that grow row by row, without ever forming X'X.

For rows x (1, dim) with weights w, targets T (n, classes) and a penalty, the B (and constant b) that minimise

    sum_i w_i |x_i B + b - t_i|^2 + penalty |B|^2,         of minimal norm |B| where there are several.

B lies in the row space of X (of X less its first row, where there is a constant). With an orthonormal basis Q of that
space (rank, dim) and coordinates m = [1, Q x] of the rows, it is an ordinary least-squares problem of at most
min(n, dim) + 1 unknowns, kept as its triangular factor R (R'R = M'M + penalty) and the rotated targets G = U'T:

    Z = R^-1 G,     B = Q'Z

A new row is a step of Gram-Schmidt (Q grows by what is outside its span, O(rank dim)) and one orthogonal update of R
and G (LAPACK's tpqrt, O(rank^2)), in the primal (n >= dim) and in the dual regime (n < dim) alike. Only orthogonal
transformations touch R and G, so that errors do not build up, and no condition number is squared.
"""

import numpy as np
from jaxtyping import Float
from scipy.linalg import lapack, qr

RANK_TOLERANCE = 1e-10
"""A direction whose length is below this share of the longest row counts as rounding. Features are single precision."""

BLOCK = 32
"""Columns per block of tpqrt; between 8 and 64 hardly matters."""


class LeastSquares:
    """The problem above on the rows seen so far. Attributes: coefficients (dim, classes), constant (classes,)."""

    def __init__(
        self,
        X: Float[np.ndarray, "n dim"],
        T: Float[np.ndarray, "n classes"],
        weight: Float[np.ndarray, "n"],
        *,
        penalty: float = 0.0,
        constant: bool = False,
    ):
        """Weights must be positive, penalty 0 or more; `constant` fits b, unpenalised. Cost O(n dim min(n, dim))."""
        self._penalty, self._constant = penalty, int(constant)
        self._origin = X[0].copy() if constant else np.zeros(X.shape[1])
        self._basis, self._longest = _row_space(X - self._origin)
        size = self._constant + len(self._basis)
        self._R = np.zeros((size, size), order="F")
        self._R[np.arange(self._constant, size), np.arange(self._constant, size)] = np.sqrt(penalty)
        self._G = np.zeros((size, T.shape[1]), order="F")
        self._absorb(self._coordinates(X - self._origin), T, weight)
        self._solve()

    def append(
        self, X: Float[np.ndarray, "m dim"], T: Float[np.ndarray, "m classes"], weight: Float[np.ndarray, "m"]
    ) -> tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, "m"]]:
        """Add rows. Returns D (m, dim) and d (m,) such that with the surprises S = T - (X B + b) of before

        the coefficients have moved by D'S and the constant by d'S.
        """
        inner = X - self._origin
        self._longest = max(self._longest, float(np.linalg.norm(inner, axis=1).max(initial=0)))
        if len(self._basis) < inner.shape[1]:
            for row in inner:
                self._widen(row)
        rows = self._coordinates(inner)
        self._absorb(rows, T, weight)
        self._solve()
        return self._to_features(self._normal_solve(rows * weight[:, None]))

    def gains(
        self, X: Float[np.ndarray, "m dim"], weight: Float[np.ndarray, "m"]
    ) -> tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, "m"]]:
        """What `append` of each row alone would return."""
        if self._penalty and len(X) > X.shape[1]:
            return self._many_gains(X, weight)
        inner = X - self._origin
        rows = self._coordinates(inner)
        outside = inner - rows[:, self._constant :] @ self._basis
        squared = np.einsum("md,md->m", outside, outside)
        leaves = np.sqrt(squared) > RANK_TOLERANCE * np.maximum(self._longest, np.linalg.norm(inner, axis=1))
        solved = self._normal_solve(rows)
        energy = np.einsum("mk,mk->m", rows, solved)
        if self._penalty:
            energy += squared / self._penalty
        share = (weight / (1 + weight * energy))[:, None]
        if self._penalty:
            along, sideways = share * solved, share * outside / self._penalty
        else:  # Greville 1960: a new direction alone takes up the whole surprise
            along = np.where(leaves[:, None], 0.0, share * solved)
            sideways = np.where(leaves[:, None], outside / np.where(leaves, squared, 1.0)[:, None], 0.0)
        moved, constant = self._to_features(along)
        return moved + sideways, constant - sideways @ self._origin

    def _many_gains(
        self, X: Float[np.ndarray, "m dim"], weight: Float[np.ndarray, "m"]
    ) -> tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, "m"]]:
        """The same by the inverse, which costs a product of its own and saves four of every row."""
        rows = np.hstack([X, np.ones((len(X), self._constant))])
        moved = rows @ self.inverse()[0]
        moved *= (weight / (1 + weight * np.einsum("ms,ms->m", rows, moved)))[:, None]
        return moved[:, : X.shape[1]], moved[:, -1] if self._constant else np.zeros(len(X))

    def inverse(self) -> tuple[Float[np.ndarray, "size size"], Float[np.ndarray, "size size"]]:
        """A and N over the features and, where there is a constant, a 1 after them: for rows x and e of that kind

        appending x with weight w moves e's prediction by w e'Ax / (1 + w x'Ax) per unit of x's surprise; without a
        penalty, by e'Nx / x'Nx instead where x leaves the span of all rows before. N projects on what is outside it;
        with a penalty A has that in it and N is 0.
        """
        dim = self._basis.shape[1]
        lifted = np.hstack([self._basis, -self._basis @ self._origin[:, None]])
        if self._constant:
            lifted = np.vstack([np.eye(1, dim + 1, dim), lifted])
        half = lapack.dtrtrs(self._R, lifted, trans=1)[0] if len(lifted) else lifted
        inverse, outside = half.T @ half, np.zeros((dim + 1, dim + 1))
        if len(self._basis) < dim:
            left_out = np.eye(dim) - self._basis.T @ self._basis
            moved = np.hstack([np.eye(dim), -self._origin[:, None]])
            outside = moved.T @ left_out @ moved
        if self._penalty:
            inverse, outside = inverse + outside / self._penalty, np.zeros_like(outside)
        size = dim + self._constant
        return inverse[:size, :size], outside[:size, :size]

    def _coordinates(self, inner: Float[np.ndarray, "m dim"]) -> Float[np.ndarray, "m size"]:
        return np.hstack([np.ones((len(inner), self._constant)), inner @ self._basis.T])

    def _to_features(self, Z: Float[np.ndarray, "m size"]) -> tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, "m"]]:
        """Coefficients and constants, one per row, from the basis to the features."""
        coefficients = Z[:, self._constant :] @ self._basis
        constant = Z[:, 0] if self._constant else np.zeros(len(Z))
        return coefficients, constant - coefficients @ self._origin

    def _widen(self, row: Float[np.ndarray, "dim"]) -> None:
        """Let the basis span this row too."""
        outside = row - (self._basis @ row) @ self._basis
        outside -= (self._basis @ outside) @ self._basis  # twice is enough (Kahan; Parlett 1980)
        length = np.linalg.norm(outside)
        if length <= RANK_TOLERANCE * self._longest:
            return
        self._basis = np.vstack([self._basis, outside / length])
        size = len(self._R)
        wider = np.zeros((size + 1, size + 1), order="F")
        wider[:size, :size], wider[size, size] = self._R, np.sqrt(self._penalty)
        self._R = wider
        self._G = np.asfortranarray(np.vstack([self._G, np.zeros(self._G.shape[1])]))

    def _absorb(self, rows: np.ndarray, T: np.ndarray, weight: np.ndarray) -> None:
        """R and G of the problem with these rows as well."""
        if not len(self._R) or not len(rows):
            return
        root = np.sqrt(weight)[:, None]
        rows, T = np.asfortranarray(rows * root), np.asfortranarray(T * root)
        self._R, reflectors, factors, _ = lapack.dtpqrt(0, min(BLOCK, len(self._R)), self._R, rows)
        self._G, _, _ = lapack.dtpmqrt(0, reflectors, factors, self._G, T, side="L", trans="T")

    def _solve(self) -> None:
        Z = lapack.dtrtrs(self._R, self._G)[0] if len(self._R) else self._G
        coefficients, constant = self._to_features(Z.T)
        self.coefficients, self.constant = coefficients.T, constant

    def _normal_solve(self, rows: Float[np.ndarray, "m size"]) -> Float[np.ndarray, "m size"]:
        """(R'R)^-1 of every row."""
        if not len(self._R):
            return rows
        half, _ = lapack.dtrtrs(self._R, rows.T, trans=1)
        return lapack.dtrtrs(self._R, half)[0].T


def _row_space(X: Float[np.ndarray, "n dim"]) -> tuple[Float[np.ndarray, "rank dim"], float]:
    """An orthonormal basis of the rows' span, and the length of the longest row."""
    longest = float(np.linalg.norm(X, axis=1).max())
    if len(X) > X.shape[1]:
        (X,) = qr(X, mode="r", check_finite=False)
        X = X[: X.shape[1]]
    basis, triangle, _ = qr(X.T, mode="economic", pivoting=True, check_finite=False)
    rank = int((np.abs(triangle.diagonal()) > RANK_TOLERANCE * longest).sum())
    return basis[:, :rank].T, longest
