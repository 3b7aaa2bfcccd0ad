"""Greedy optimal design: the rows whose adding makes the trace of A F fall most, with A the inverse information.

Adding a row x of weight w turns A into A+ = A - k vv' with v = Ax and k = w / (1 + w x'v) (Sherman, Morrison), hence

    trace(A F) falls by         k v'Fv                                          = w x'AFAx / (1 + w x'Ax)
    x'A+x       of every row is x'Ax   - k (x'v)^2
    x'A+FA+x                    x'AFAx - 2 k (x'v)(x'AFv) + k^2 (x'v)^2 v'Fv

so that after O(n d^2) a step costs two products of all rows with a vector. Taking a row away is adding it with -w.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

BLOCK = 2**11
"""Rows multiplied at once, so that the products stay in the processor's cache."""


def rows_of(features: Float[np.ndarray, "n d"], batch_size: int) -> Float[np.ndarray, "n d"]:
    """Features as rows of a design. In double precision where several are added one after the other: after some, what
    is left to gain is a small difference of large numbers."""
    return features.astype(np.float64) if batch_size > 1 else features


class Design:
    """A design of the rows X (n, d) with their weights. Attribute: inverse (A).

    moment : F; None for the determinant of A (D-optimal) instead of the trace of A F
    """

    def __init__(
        self,
        X: Float[np.ndarray, "n d"],
        weight: Float[np.ndarray, "n"],
        inverse: Float[np.ndarray, "d d"],
        moment: Float[np.ndarray, "d d"] | None,
    ):
        self.inverse = inverse.copy()
        self._X, self._weight, self._moment = X, weight, moment
        forms = (inverse,) if moment is None else (inverse, inverse @ moment @ inverse)
        self._energy, *effects = np.maximum(quadratic_forms(X, *forms), 0.0)
        self._effect = effects[0] if effects else None

    def gains(self) -> Float[np.ndarray, "n"]:
        """By how much the trace would fall; for the determinant, a number that orders rows as its fall does."""
        energy = self._weight * np.maximum(self._energy, 0.0)
        if self._effect is None:
            return energy
        information = np.maximum(1 + energy, np.finfo(np.float64).eps)  # weights may be negative
        return self._weight * np.maximum(self._effect, 0.0) / information

    def add(self, i: int) -> None:
        """Make row i part of the design."""
        x = self._X[i].astype(np.float64)
        v = self.inverse @ x
        weight = float(self._weight[i])
        k = weight / max(1 + weight * (x @ v), np.finfo(np.float64).eps)
        Fv = np.zeros_like(v) if self._moment is None else self._moment @ v
        toward, through = np.empty((2, len(self._X)))
        _products(self._X, v.astype(self._X.dtype), (self.inverse @ Fv).astype(self._X.dtype), toward, through)
        self._energy -= k * toward**2
        if self._effect is not None:
            self._effect += k * toward * (k * (v @ Fv) * toward - 2 * through)
        self.inverse -= k * np.outer(v, v)

    def taking(self, chosen: Int[np.ndarray, "m"]) -> "Design":
        """The design of taking those rows away again, in double precision."""
        return Design(self._X[chosen].astype(np.float64), -self._weight[chosen], self.inverse, self._moment)


@numba.njit(cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
@no_type_check
def _products(X, a, b, toward, through):
    """X a and X b in one pass over X; BLAS takes several times as long."""
    for i in range(len(X)):
        one = two = a[0] - a[0]
        for j in range(len(a)):
            one += X[i, j] * a[j]
            two += X[i, j] * b[j]
        toward[i], through[i] = one, two


class ClassDesign:
    """A design of rows whose information is (diag p - pp') (x) xx', as that of a softmax in C classes is.

    inverse, moment : A and F, ordered by class, then dimension. What `Design` says holds with k = (I + LR)^-1 L, where
    L = diag p - pp' and R = (I (x) x')A(I (x) x) are C x C.
    """

    def __init__(
        self,
        X: Float[np.ndarray, "n d"],
        proba: Float[np.ndarray, "n C"],
        inverse: Float[np.ndarray, "Cd Cd"],
        moment: Float[np.ndarray, "Cd Cd"],
        sign: float = 1.0,
    ):
        self.inverse = inverse.copy()
        self._X, self._proba, self._moment, self._sign = X, proba, moment, sign
        self._energy = self._forms(inverse)
        self._effect = self._forms(inverse @ moment @ inverse)

    def gains(self) -> Float[np.ndarray, "n"]:
        """By how much the trace would fall."""
        gains = np.empty(len(self._X))
        for start in range(0, len(self._X), BLOCK):
            part = slice(start, start + BLOCK)
            gains[part] = np.einsum("ncc->n", self._scaled(part, self._information(part) @ self._effect[part]))
        return gains

    def add(self, i: int) -> None:
        """Make row i part of the design."""
        classes, x = self._proba.shape[1], self._X[i].astype(np.float64)
        across = np.einsum("d,cdk->ck", x, self.inverse.reshape(classes, len(x), -1))
        part = slice(i, i + 1)
        form = across.reshape(classes, classes, -1) @ x
        information = self._information(part)[0]
        k = np.linalg.solve(np.eye(classes) + information @ form, information)
        k = (k + k.T) / 2
        moved = across @ self._moment
        between = k @ (moved @ across.T) @ k
        through = (moved @ self.inverse).reshape(classes, classes, -1)
        for start in range(0, len(self._X), BLOCK):
            part = slice(start, start + BLOCK)
            P = np.einsum("nd,abd->nab", self._X[part], across.reshape(through.shape), optimize=True)
            mixed = P.transpose(0, 2, 1) @ k @ np.einsum("nd,abd->nab", self._X[part], through, optimize=True)
            self._energy[part] -= P.transpose(0, 2, 1) @ k @ P
            self._effect[part] += P.transpose(0, 2, 1) @ between @ P - mixed - mixed.transpose(0, 2, 1)
        self.inverse -= across.T @ k @ across

    def taking(self, chosen: Int[np.ndarray, "m"]) -> "ClassDesign":
        """The design of taking those rows away again, in double precision."""
        return ClassDesign(
            self._X[chosen].astype(np.float64), self._proba[chosen], self.inverse, self._moment, -self._sign
        )

    def _information(self, part: slice) -> Float[np.ndarray, "m C C"]:
        proba = self._proba[part].astype(np.float64)
        return self._sign * (proba[:, :, None] * np.eye(proba.shape[1]) - proba[:, :, None] * proba[:, None, :])

    def _scaled(self, part: slice, matrices: Float[np.ndarray, "m C C"]) -> Float[np.ndarray, "m C C"]:
        """(I + LR)^-1 of some rows, times their matrices."""
        unit = np.eye(self._proba.shape[1])
        return np.linalg.solve(unit + self._information(part) @ self._energy[part], matrices)

    def _forms(self, matrix: Float[np.ndarray, "Cd Cd"]) -> Float[np.ndarray, "n C C"]:
        """(I (x) x')M(I (x) x) of every row."""
        n, classes = self._proba.shape
        matrix, forms = matrix.astype(self._X.dtype), np.empty((n, classes, classes))
        for start in range(0, n, BLOCK):
            rows = self._X[start : start + BLOCK]
            for c, of_class in enumerate(matrix.reshape(classes, rows.shape[1], -1)):
                products = (rows @ of_class).reshape(len(rows), classes, -1)
                forms[start : start + BLOCK, c] = np.einsum("nd,ncd->nc", rows, products)
        return forms


def forward_backward(
    design: Design | ClassDesign, batch_size: int, rng: np.random.Generator
) -> Int[np.ndarray, "batch"]:
    """Twice the batch added greedily, then the half of it that is missed least taken away, greedily too."""
    if batch_size == 1:  # of two rows the first alone is the better one
        return greedy(design, 1, rng)
    chosen = greedy(design, min(2 * batch_size, len(design.gains())), rng)
    design.add(int(chosen[-1]))
    return np.delete(chosen, greedy(design.taking(chosen), len(chosen) - batch_size, rng))


def greedy(design: Design | ClassDesign, k: int, rng: np.random.Generator) -> Int[np.ndarray, "k"]:
    """The k rows that gain most, each given those before it, ties at random; all but the last are added."""
    chosen, waiting = np.empty(k, dtype=np.int64), np.ones(len(design.gains()), dtype=bool)
    for j in range(k):
        if j:
            design.add(int(chosen[j - 1]))
        gains = np.where(waiting, design.gains(), -np.inf)
        chosen[j] = rng.choice(np.flatnonzero(gains == gains.max()))
        waiting[chosen[j]] = False
    return chosen


def quadratic_forms(X: Float[np.ndarray, "n d"], *matrices: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "m n"]:
    """x'Mx of every row and matrix, in the precision of X."""
    stacked = np.hstack(matrices).astype(X.dtype)
    forms = np.empty((len(matrices), len(X)))
    for start in range(0, len(X), BLOCK):
        rows = X[start : start + BLOCK]
        products = (rows @ stacked).reshape(len(rows), len(matrices), -1)
        forms[:, start : start + BLOCK] = np.einsum("nd,nmd->mn", rows, products)
    return forms
