"""The linear support vector machine solved exactly, from where it stood before its last images came.

Of images x_i with signs y_i = +-1 the dual problem is to find 0 <= a_i <= C, with sum a_i y_i = 0, of least

    1/2 sum_ij a_i a_j y_i y_j K_ij - sum a_i,     K_ij = x_i'x_j

and the plane is f(x) = sum a_i y_i x_i'x + b. An active set method (Scheinberg 2006): images strictly between the two
bounds are free; they are solved for as if there were no bounds, K da + b = y - f with sum da = 0 in signed weights; the
step ends at the first bound met, whose image is then held there; without one, the image that violates its bound most is
set free. It ends at the optimum, wherever it began: a warm start changes the time and nothing else.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float

TOLERANCE = 1e-6
"""Of f, in units of the margin."""

RIDGE = 1e-9
"""Added to K's diagonal, in units of its mean: weights are then unique where images repeat one another."""

STEPS = 100
"""Per image; a guard against going round among ties."""


def solve_hinge(
    gram: Float[np.ndarray, "n n"], signs: Float[np.ndarray, "n"], cost: float, weights: Float[np.ndarray, "n"]
) -> float:
    """Moves weights, which must be feasible, to the optimum, and returns the constant b.

    weights : a_i y_i, zeros to begin with; both signs must occur
    """
    ridge = RIDGE * (np.trace(gram) / len(gram) or 1.0)
    return float(_active_set(gram, signs, cost, weights, ridge, TOLERANCE, STEPS * (10 + len(gram))))


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _active_set(gram, signs, cost, weights, ridge, tolerance, steps):
    n = len(signs)
    size = weights * signs
    free = (size > 0) & (size < cost)
    value = gram @ weights + ridge * weights
    constant = 0.0
    for _ in range(steps):
        inside = np.flatnonzero(free)
        if len(inside) == 0:  # the pair that violates most; within the tolerance b is between them
            raises = (signs > 0) == (size == 0)
            above = np.where(raises, signs - value, -np.inf).argmax()
            below = np.where(raises, np.inf, signs - value).argmin()
            high, low = signs[above] - value[above], signs[below] - value[below]
            if high - low < tolerance:
                return (high + low) / 2
            free[above] = free[below] = True
            continue
        move = _unbounded(gram, ridge, inside, signs - value)
        step, blocking = 1.0, -1
        for p, i in enumerate(inside):
            change = move[p] * signs[i]
            if change > 0 and size[i] + step * change > cost:
                step, blocking = (cost - size[i]) / change, i
            elif change < 0 and size[i] + step * change < 0:
                step, blocking = -size[i] / change, i
        constant = move[-1]
        for p, i in enumerate(inside):
            size[i] += step * move[p] * signs[i]
            value[i] += step * ridge * move[p]
            for j in range(n):
                value[j] += step * move[p] * gram[i, j]
        if blocking >= 0:
            free[blocking] = False
            size[blocking] = cost if size[blocking] > cost / 2 else 0.0
            continue
        short = np.where(size > 0, -1.0, 1.0) * (1 - signs * (value + constant))
        short[inside] = 0
        if short.max() < tolerance:
            break
        free[short.argmax()] = True
    weights[:] = size * signs
    return constant


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _unbounded(gram, ridge, inside, residual):
    """How the signed weights of the free images move, and the constant."""
    m = len(inside)
    system, right = np.zeros((m + 1, m + 1)), np.zeros(m + 1)
    for p, i in enumerate(inside):
        for q, j in enumerate(inside):
            system[p, q] = gram[i, j]
        system[p, p] += ridge
        system[p, m] = system[m, p] = 1.0
        right[p] = residual[i]
    return np.linalg.solve(system, right)
