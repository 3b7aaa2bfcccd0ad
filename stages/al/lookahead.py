"""The exact effect of labeling a candidate, for all candidates at once, by the head's rank-one update.

Refitting moves the weights by outer(g, t - x'W) (see closed_form), hence the logits of an image e by (e'g)(t - x'W):
one product for all candidates, then one softmax per candidate and image. Two labels' targets differ in two entries, so
that one sum of exponentials, less one term, serves every label of a candidate. Everything is as exact as
`ClosedFormSoftmax.influence`; the loops are in single precision, their sums in double.
"""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32, Int

from stages.al.heads.closed_form import ClosedFormSoftmax, log_targets
from stages.al.readings import BLOCK, LEAST, SMALLEST, fast_exp, fast_log

QUARTER = BLOCK // 4
"""A logarithm is taken of the product of four images, a quarter of a block apart."""


class Changes(NamedTuple):
    """What labeling each candidate changes on an evaluation set, T being the head's temperature:

    accuracy : a fraction; the first of tied classes counts, as argmax has it
    cross_entropy, half_t, double_t : nats, of probabilities at T, T / 2 and 2 T
    brier : sum over classes of (p - onehot)^2 (Brier 1950), at T
    A good candidate has a positive change of accuracy and negative ones of the others.
    """

    accuracy: Float[np.ndarray, "m"]
    cross_entropy: Float[np.ndarray, "m"]
    half_t: Float[np.ndarray, "m"]
    double_t: Float[np.ndarray, "m"]
    brier: Float[np.ndarray, "m"]


def lookahead(
    head: ClosedFormSoftmax,
    candidates: Float[np.ndarray, "m dim"],
    labels: Int[np.ndarray, "m"],
    X: Float[np.ndarray, "n dim"],
    y: Int[np.ndarray, "n"],
) -> Changes:
    """The changes on (X, y) if candidate i were labeled labels[i]. Cost O(m n (dim + classes)).

    Every image's change is taken before they are summed, so that small ones keep their digits; to about 1e-6 of the
    logits at T / 2.
    """
    logits, surprise = _softmax_inputs(head, candidates, X, labels)
    moves = _moves(head, candidates, X, labels)
    changes = np.zeros((len(Changes._fields), len(candidates)))
    _changes(logits, moves, surprise, y.astype(np.int32), changes)
    return Changes(*changes / len(y))


def later_lookahead(
    head: ClosedFormSoftmax,
    features: Float[np.ndarray, "pool dim"],
    labels: Int[np.ndarray, "pool"],
    candidates: Int[np.ndarray, "m"],
    order: Int[np.ndarray, "k1"],
    X: Float[np.ndarray, "n dim"],
    y: Int[np.ndarray, "n"],
) -> Changes:
    """The changes on (X, y) by labeling a candidate, once k more images are labeled by a policy that ignores it.

    features, labels : of the pool
    candidates : pool indices
    order : k + 1 unlabeled pool indices, as the policy queries them. It queries the first k, and without a candidate
        that is among them the last as well
    Cost: as `lookahead`, and of each of the k images that is a candidate too, a head of its own.
    """
    changes = np.empty((len(Changes._fields), len(candidates)))
    for skipped in order:
        alone = skipped != order[-1]
        asked = np.flatnonzero(candidates == skipped if alone else ~np.isin(candidates, order[:-1]))
        if len(asked):
            more = order[order != skipped]
            later = head.grown(features[more], labels[more]) if len(more) else head
            chosen = candidates[asked]
            changes[:, asked] = lookahead(later, features[chosen], labels[chosen], X, y)
    return Changes(*changes)


def label_effects(
    head: ClosedFormSoftmax,
    candidates: Float[np.ndarray, "m dim"],
    X: Float[np.ndarray, "n dim"],
    proba: Float[np.ndarray, "n classes"],
    temperature: float,
) -> Float[np.ndarray, "m classes"]:
    """By how much the mean cross-entropy (nats) of images X of soft labels changes if candidate i were labeled y.

    proba : the soft labels, rows that sum to 1
    temperature : of the head's probabilities
    """
    return LabelEffects(head, candidates, X, temperature).on(proba)


class LabelEffects:
    """The same for any soft labels of the same images.

    With u = log(eps) - x'W and k = log(1 + eps) - log(eps), label y moves an image's logits z to z + (e'g) u, and class
    y by (e'g) k more. The cross-entropy is log sum exp of that, less its mean under the soft labels, which is linear.
    Cost O(m n (dim + classes)), for all labels, times the number of different class weights; O(m n classes) for others.
    """

    def __init__(
        self,
        head: ClosedFormSoftmax,
        candidates: Float[np.ndarray, "m dim"],
        X: Float[np.ndarray, "n dim"],
        temperature: float,
    ) -> None:
        n_classes = len(head.class_weight_)
        logits, self._surprise = _softmax_inputs(head, candidates, X, None, temperature)
        self._more, self._n = _target_step(head.epsilon, temperature), len(X)
        before, self._log_sums = np.zeros((1, 1)), np.zeros((len(candidates), n_classes))
        still = np.zeros((1, len(X)), np.float32), np.zeros((1, n_classes), np.float32)
        _log_sums(logits, *still, np.float32(self._more), np.zeros(1, np.int64), before)
        self._moves: list[tuple[np.ndarray, np.ndarray]] = []
        for weight in np.unique(head.class_weight_):
            places = np.flatnonzero(head.class_weight_ == weight)
            moves = _moves(head, candidates, X, np.full(len(candidates), places[0]))
            after = np.empty((len(candidates), len(places)))
            _log_sums(logits, moves, self._surprise, np.float32(self._more), places, after)
            self._log_sums[:, places] = after - before
            self._moves.append((places, moves))

    def on(self, proba: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "m classes"]:
        """The change with those soft labels."""
        effects = self._log_sums.copy()
        if effects.shape[1] == 1:
            return np.zeros_like(effects)
        for places, moves in self._moves:
            expected = moves @ proba.astype(np.float32)
            effects[:, places] -= (expected * self._surprise).sum(axis=1)[:, None] + self._more * expected[:, places]
        return effects / self._n


def _target_step(epsilon: float, temperature: float = 1.0) -> float:
    """log(1 + eps) - log(eps): by how much more a label's target is than the others', in units of the temperature."""
    off, on = np.sort(log_targets(np.arange(1), 2, epsilon)[0])
    return float((on - off) / temperature)


def _moves(
    head: ClosedFormSoftmax, candidates: np.ndarray, X: np.ndarray, labels: Int[np.ndarray, "m"]
) -> Float32[np.ndarray, "m n"]:
    gains, constants = head.gains(candidates, labels)
    moves = gains.astype(np.float32) @ X.astype(np.float32).T
    moves += constants.astype(np.float32)[:, None]
    return moves


def _softmax_inputs(
    head: ClosedFormSoftmax,
    candidates: np.ndarray,
    X: np.ndarray,
    labels: Int[np.ndarray, "m"] | None,
    temperature: float | None = None,
) -> tuple[Float32[np.ndarray, "classes n"], Float32[np.ndarray, "m classes"]]:
    """Logits of X, a row per class, and surprises of the candidates (log(eps) the target where labels is None).

    Over the temperature (the head's when None), and centred, which changes no softmax, before they are rounded.
    """
    temperature = temperature or head.temperature_
    logits = head.raw_logits(X.astype(np.float64)) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    surprise = -head.raw_logits(candidates.astype(np.float64)) / temperature
    if labels is not None:
        surprise[np.arange(len(labels)), labels] += _target_step(head.epsilon, temperature)
    surprise -= surprise.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(logits.T, dtype=np.float32), surprise.astype(np.float32)


@numba.njit(cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
@no_type_check  # numba compiles the function itself, not one that a test has wrapped
def _measure(logits, start, move, surprise, labels, values, measured):
    """measured (5, BLOCK): what `Changes` names, of softmax(logits + move surprise) of the images from `start` on.

    With E = exp(v), v the logits below their largest: E^2 and sqrt(E) are those at half and double the temperature.
    values : (classes, BLOCK) of working memory
    """
    classes, size = len(logits), len(move)
    high, place = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int32)
    total, squares, roots = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for c in range(classes):
        row, value, factor = logits[c, start : start + size], values[c], surprise[c]
        for e in range(size):
            value[e] = row[e] + factor * move[e]
            larger = value[e] > high[e] if c else True
            high[e] = value[e] if larger else high[e]
            place[e] = c if larger else place[e]
    for e in range(size):
        total[e], squares[e], roots[e] = 0, 0, 0
    for c in range(classes):
        value = values[c]
        for e in range(size):
            exponential = fast_exp(max(value[e] - high[e], np.float32(LEAST)))
            total[e] += exponential
            squares[e] += exponential * exponential
            roots[e] += np.sqrt(exponential)
    accuracy, loss, sharp, soft, brier = measured[0], measured[1], measured[2], measured[3], measured[4]
    for e in range(size):
        loss[e] = values[labels[e], e] - high[e]
    for e in range(size):
        own, share = loss[e], np.float32(1) / total[e]
        accuracy[e] = np.float32(1) if place[e] == labels[e] else np.float32(0)
        loss[e] = fast_log(total[e]) - own
        sharp[e] = fast_log(squares[e]) - np.float32(2) * own
        soft[e] = fast_log(roots[e]) - np.float32(0.5) * own
        proba = fast_exp(max(own, np.float32(LEAST))) * share
        brier[e] = squares[e] * share * share - np.float32(2) * proba + np.float32(1)


@numba.njit(cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
@no_type_check
def _changes(logits, moves, surprise, labels, changes):
    """Add to changes (5, m) the sums over images of what is measured after a move less what is before."""
    classes, n = logits.shape
    values = np.empty((classes, BLOCK), np.float32)
    before, after = np.empty((len(changes), BLOCK), np.float32), np.empty((len(changes), BLOCK), np.float32)
    still, unmoved = np.zeros(BLOCK, np.float32), np.zeros(classes, np.float32)
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        of = labels[start : start + size]
        _measure(logits, start, still[:size], unmoved, of, values, before)
        for i in range(len(moves)):
            _measure(logits, start, moves[i, start : start + size], surprise[i], of, values, after)
            for k in range(len(changes)):
                now, old, total = after[k], before[k], np.float32(0)
                for e in range(size):
                    total += now[e] - old[e]
                changes[k, i] += total


@numba.njit(cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
@no_type_check
def _log_sums(logits, moves, surprise, more, labels, sums):
    """sums (m, labels): over images, of log sum exp(logits + move surprise, and move more for the label).

    The largest logit counts apart from the others, which are taken relative to the second largest: whichever the label
    moves, what is left keeps its digits.
    """
    classes, n = logits.shape
    values, share = np.empty((classes, BLOCK), np.float32), np.empty((classes, BLOCK), np.float32)
    high, second = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    place, rest = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.float32)
    lead, inner = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    sums[:] = 0
    for i in range(len(moves)):
        for start in range(0, n, BLOCK):
            size = min(BLOCK, n - start)
            move = moves[i, start : start + size]
            for e in range(size):
                high[e], second[e], rest[e] = SMALLEST, SMALLEST, 0
            for e in range(size, BLOCK):
                inner[e] = 1
            for c in range(classes):
                row, value, factor = logits[c, start : start + size], values[c], surprise[i, c]
                for e in range(size):
                    new = row[e] + factor * move[e]
                    larger = new > high[e]
                    second[e] = max(second[e], min(high[e], new))
                    high[e] = new if larger else high[e]
                    place[e] = c if larger else place[e]
                    value[e] = new
            for c in range(classes):
                value, shares = values[c], share[c]
                for e in range(size):
                    exponential = fast_exp(max(min(value[e] - second[e], np.float32(0)), np.float32(LEAST)))
                    shares[e] = np.float32(0) if place[e] == c else exponential
                    rest[e] += shares[e]
            base = np.float32(0)
            for e in range(size):
                second[e] -= high[e]
                lead[e] = fast_exp(max(second[e], np.float32(LEAST)))
                base += high[e]
            for j in range(len(labels)):
                value, shares, total = values[labels[j]], share[labels[j]], base
                for e in range(size):
                    largest = place[e] == labels[j]
                    level = second[e] if largest else np.float32(0)
                    others = rest[e] if largest else np.float32(1) + lead[e] * (rest[e] - shares[e])
                    above = value[e] - high[e] + more * move[e] - level
                    small = fast_exp(max(-abs(above), np.float32(LEAST)))
                    own, scale = (np.float32(1), small) if above > 0 else (small, np.float32(1))
                    inner[e] = own + scale * others
                    total += level + max(above, np.float32(0))
                for e in range(QUARTER):
                    total += fast_log(
                        (inner[e] * inner[e + QUARTER]) * (inner[e + 2 * QUARTER] * inner[e + 3 * QUARTER])
                    )
                sums[i, j] += total
