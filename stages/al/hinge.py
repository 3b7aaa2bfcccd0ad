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
    value = gram @ weights + ridge * weights
    return float(_active_set(gram, signs, cost, weights, value, ridge, TOLERANCE, STEPS * (10 + len(gram))))


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _active_set(gram, signs, cost, weights, value, ridge, tolerance, steps):
    n = len(signs)
    size = np.empty(n)
    free = np.empty(n, np.bool_)
    for i in range(n):
        size[i] = weights[i] * signs[i]
        free[i] = 0 < size[i] < cost
    constant = 0.0
    for _ in range(steps):
        inside = np.flatnonzero(free)
        if len(inside) == 0:  # the pair that violates most; within the tolerance b is between them
            high, low, above, below = -np.inf, np.inf, 0, 0
            for i in range(n):
                short = signs[i] - value[i]
                if (signs[i] > 0) == (size[i] == 0):
                    if short > high:
                        high, above = short, i
                elif short < low:
                    low, below = short, i
            constant = (high + low) / 2
            if high - low < tolerance:
                break
            free[above] = free[below] = True
            continue
        move = np.empty(len(inside))
        constant = _unbounded(gram, ridge, inside, signs, value, move)
        step, blocking = 1.0, -1
        for p, i in enumerate(inside):
            change = move[p] * signs[i]
            if change > 0 and size[i] + step * change > cost:
                step, blocking = (cost - size[i]) / change, i
            elif change < 0 and size[i] + step * change < 0:
                step, blocking = -size[i] / change, i
        for p, i in enumerate(inside):
            size[i] += step * move[p] * signs[i]
            value[i] += step * ridge * move[p]
            for j in range(n):
                value[j] += step * move[p] * gram[i, j]
        if blocking >= 0:
            free[blocking] = False
            size[blocking] = cost if size[blocking] > cost / 2 else 0.0
            continue
        worst, violator = tolerance, -1
        for i in range(n):
            short = 1 - signs[i] * (value[i] + constant)
            short = -short if size[i] > 0 else short
            if not free[i] and short > worst:
                worst, violator = short, i
        if violator >= 0:
            free[violator] = True
            continue
        slack = tolerance * cost
        if np.any(free & (size > slack) & (size < cost - slack)):
            break
        for i in inside:  # at their bounds, they leave open where between two of them the plane lies
            size[i] = cost if size[i] > cost / 2 else 0.0
            free[i] = False
    for i in range(n):
        weights[i] = size[i] * signs[i]
    return constant


@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})
@no_type_check
def _unbounded(gram, ridge, inside, signs, value, move):
    """How the signed weights of the free images move, and the constant.

    With K = L L' it is move = K^-1 (y - f) - b K^-1 1, where b makes it sum to 0.
    """
    m = len(inside)
    lower, ones = np.empty((m, m)), np.empty(m)
    for p in range(m):
        i = inside[p]
        for q in range(p + 1):
            total = gram[i, inside[q]] + (ridge if p == q else 0.0)
            for r in range(q):
                total -= lower[p, r] * lower[q, r]
            lower[p, q] = total / lower[q, q] if p > q else np.sqrt(max(total, ridge))
        forward, one = signs[i] - value[i], 1.0
        for r in range(p):
            forward -= lower[p, r] * move[r]
            one -= lower[p, r] * ones[r]
        move[p], ones[p] = forward / lower[p, p], one / lower[p, p]
    for p in range(m - 1, -1, -1):
        move[p] /= lower[p, p]
        ones[p] /= lower[p, p]
        for r in range(p):
            move[r] -= lower[p, r] * move[p]
            ones[r] -= lower[p, r] * ones[p]
    constant = move.sum() / ones.sum()
    for p in range(m):
        move[p] -= constant * ones[p]
    return constant
