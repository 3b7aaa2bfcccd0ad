"""What can be told of a round's candidates without their labels: the surrogate's inputs, computed together.

Most of it comes from two small products, of the candidates with a fixed sample of the pool that stands for the whole
(`Reference`) and with the labeled images: O(m (r + L) d) for m candidates, r images of the sample and L labeled ones.
What a candidate has of a signal is given as its rank among the round's candidates, which means the same in every data
set, at every scale and with every number of labels.
"""

from dataclasses import replace
from functools import cached_property
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32, Int

from stages.al.heads.closed_form import ClosedFormSoftmax, log_targets, softmax
from stages.al.lookahead import LabelEffects
from stages.al.pool import Pool
from stages.al.readings import LEAST, fast_exp, move_and_read
from stages.al.uncertainty import closeness
from stages.al.view import Follower, PoolView

CANDIDATES = 500
"""Images whose signals are compared in a round, drawn at random (thesis seed 002, 5.6)."""
REFERENCES = 2_000
"""Images of the sample that stands for the pool; `AHEAD` of them for look-ahead."""
AHEAD = 250
NARROW, LOCAL = 4, 5
"""Rates of kernels exp(-rate |x - y|^2) of L2-normalised features: of narrow coverage, and of what is near. That of
coverage is 1, as MaxHerding's, so that they are its powers."""
LEAST_WIDTH = 0.03
"""Of the adaptive kernel."""
DUPLICATE = 1e-5
"""Squared distances below it are rounding."""
PRIOR = 0.1
"""Share of the neighbours' votes that all classes have alike."""
SPANNED = 1e-6
"""Least share of an image that the others leave open, where they say anything of it."""
CLUSTERS = 50
"""At most; of at least 20 images each on average."""


class Reference(Follower):
    """A fixed random sample of the pool, and the squared distance of each of its images to the nearest labeled one.

    clusters, second_moment : of the whole pool, read once a run
    closest_pair : smallest squared distance between labeled images that are not copies; 4, the largest, where none are
    nearest_labeled : of every labeled image the nearest other one, its place among them; 0 where there is no other
    """

    def __init__(self, pool: Pool) -> None:
        self.images = np.sort(np.random.default_rng(0).permutation(len(pool))[:REFERENCES])
        self.unit = np.ascontiguousarray(pool.unit[self.images])
        self.features = np.ascontiguousarray(pool.features[self.images], dtype=np.float32)
        self._cosines = pool.unit @ self.unit.T if len(pool) == len(self.images) else None
        self.nearest = np.full(len(self.images), 4, np.float32)
        self.closest_pair = 4.0
        self.clusters = pool.clusters(max(1, min(CLUSTERS, len(pool) // 20)))
        self.second_moment = pool.second_moment()
        self._pool, self._seen = pool, 0
        self.nearest_labeled, self._squared = np.zeros(0, np.int64), np.zeros(0, np.float32)

    def follow(self, labeled: Int[np.ndarray, "labeled"]) -> None:
        for end in range(self._seen, len(labeled)):
            new = self._pool.unit[labeled[end]]
            np.minimum(self.nearest, _squared(self.unit @ new), out=self.nearest)
            pairs = _squared(self._pool.unit[labeled[:end]] @ new)
            self.closest_pair = min(self.closest_pair, float(pairs[pairs > DUPLICATE].min(initial=4)))
            nearer, place = pairs < self._squared, pairs.argmin() if end else 0
            self.nearest_labeled = np.append(np.where(nearer, end, self.nearest_labeled), place)
            self._squared = np.append(np.where(nearer, pairs, self._squared), pairs.min(initial=np.inf))
        self._seen = len(labeled)

    def cosines(self, images: Int[np.ndarray, "m"]) -> tuple[Float32[np.ndarray, "k reference"], Int[np.ndarray, "m"]]:
        """A table of cosines with the sample, and the rows of it that are those of pool images.

        Of a small pool the table is that of the whole, made once a run.
        """
        if self._cosines is not None:
            return self._cosines, images
        return self._pool.unit[images] @ self.unit.T, np.arange(len(images))


def _squared(cosines: Float32[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    return np.maximum(2 - 2 * cosines, 0)


class Signals:
    """Of every candidate of a view, one number of each of SIGNALS: the higher, the more there is of it.

    Raises InputError where the head has no closed form.
    """

    def __init__(self, view: PoolView) -> None:
        self._view, self._head = view, view.closed_form
        self._reference = view.following("reference", lambda: Reference(view.pool))
        self._features = view.features.astype(np.float64)
        self._unit = view.unit[view.candidates]
        self._raw_logits = self._head.raw_logits(self._features)
        self._counts = np.bincount(view.labels, minlength=view.n_classes)

    # What the head says, at its own temperature.

    @cached_property
    def _proba(self) -> Float[np.ndarray, "candidates classes"]:
        return softmax(self._raw_logits / self._head.temperature_)

    @cached_property
    def _two_best(self) -> Int[np.ndarray, "candidates two"]:
        return np.argsort(self._raw_logits, axis=1)[:, :-3:-1]

    def _of_best(self, table: Float[np.ndarray, "candidates classes"]) -> Float[np.ndarray, "candidates two"]:
        return np.take_along_axis(table, self._two_best, axis=1)

    @cached_property
    def closeness(self) -> Float[np.ndarray, "candidates"]:
        """1 - margin: of the two most probable classes."""
        best = self._of_best(self._proba)
        return 1 - best[:, 0] + (best[:, 1] if best.shape[1] > 1 else 0)

    @cached_property
    def least_confidence(self) -> Float[np.ndarray, "candidates"]:
        """1 - the largest class probability."""
        return 1 - self._proba.max(axis=1)

    @cached_property
    def boundary(self) -> Float[np.ndarray, "candidates"]:
        """Minus the sine of the angle to the nearest hyperplane between the most probable class and the next."""
        if self._two_best.shape[1] < 2:
            return np.zeros(len(self._features))
        first, second = self._two_best.T
        weights = np.ascontiguousarray(self._head.weights_.T)
        between = np.linalg.norm(weights[first] - weights[second], axis=1)
        logits = self._of_best(self._raw_logits)
        scale = between * np.linalg.norm(self._features, axis=1)
        return (logits[:, 1] - logits[:, 0]) / np.maximum(scale, np.finfo(float).tiny)

    @cached_property
    def rarity(self) -> Float[np.ndarray, "candidates"]:
        """-sum_c p_c log(share of class c among the labels), every class counted once more."""
        share = (self._counts + 1) / (self._counts + 1).sum()
        return -(self._proba @ np.log(share))

    # What labeling a candidate would move, whatever its label (see closed_form).

    @cached_property
    def _inverse(self) -> Float[np.ndarray, "size size"]:
        return self._head.inverse()[0]

    @cached_property
    def _moved(self) -> tuple[Float[np.ndarray, "candidates size"], Float[np.ndarray, "candidates"]]:
        """Ax, and x'Ax, of every candidate as a row that is solved."""
        rows = self._head.rows(self._features)
        moved = rows @ self._inverse
        return moved, np.einsum("ms,ms->m", rows, moved)

    @property
    def leverage(self) -> Float[np.ndarray, "candidates"]:
        """x'Ax: how little the labeled images say of x, without a penalty of x within their span (see
        `LeastSquares.inverse`).
        """
        return self._moved[1]

    @cached_property
    def influence(self) -> Float[np.ndarray, "candidates"]:
        """Mean squared move of the pool's logits, per squared unit of the candidate's surprise."""
        moved, leverage = self._moved
        if self._head.penalty_:  # as `ClosedFormSoftmax.gains`, of what is there already
            constants = moved[:, -1:] if self._head.intercept else np.zeros((len(moved), 1))
            inner = moved[:, :-1] if self._head.intercept else moved
            moves = np.hstack([self._head.expand(inner), constants]) / (1 + leverage)[:, None]
        else:
            moves = np.column_stack(self._head.gains(self._features))
        return np.einsum("md,md->m", moves @ self._reference.second_moment, moves)

    @cached_property
    def expected_influence(self) -> Float[np.ndarray, "candidates"]:
        """`influence` times the squared surprise that the head expects: sum_y p_y |t_y - x'W|^2."""
        off, on = log_targets(np.arange(1), 2, self._head.epsilon)[0, ::-1]
        unlike, like = (off - self._raw_logits) ** 2, (on - self._raw_logits) ** 2
        return self.influence * (unlike.sum(axis=1) + (self._proba * (like - unlike)).sum(axis=1))

    @cached_property
    def norm(self) -> Float[np.ndarray, "candidates"]:
        """Length of the projected features."""
        return np.linalg.norm(self._features, axis=1)

    # What it is near to.

    @cached_property
    def _covering(self) -> Float32[np.ndarray, "five candidates"]:
        reference = self._reference
        logits = np.ascontiguousarray(self._head.logits(reference.features).T)
        still = np.empty((0, logits.shape[1]), np.float32), np.empty((0, len(logits)), np.float32)
        doubt = closeness(move_and_read(logits, *still))
        weight = (doubt / max(float(doubt.max()), np.finfo(np.float32).tiny)).astype(np.float32)
        adaptive = max(reference.closest_pair**0.5, LEAST_WIDTH)
        found = np.empty((5, len(self._unit)), np.float32)
        cosines = reference.cosines(self._view.candidates)
        _cover(*cosines, reference.nearest, weight, np.float32(adaptive**-2), found)
        return found

    @property
    def coverage(self) -> Float32[np.ndarray, "candidates"]:
        """How much more of the sample would be similar to a labeled image (see `kernel_coverage`)."""
        return self._covering[0]

    @property
    def doubtful_coverage(self) -> Float32[np.ndarray, "candidates"]:
        """The same, each image of the sample weighted by its closeness."""
        return self._covering[1]

    @property
    def adaptive_coverage(self) -> Float32[np.ndarray, "candidates"]:
        """`doubtful_coverage` by a kernel as wide as the smallest distance between labeled images (UHerding)."""
        return self._covering[2]

    @property
    def narrow_coverage(self) -> Float32[np.ndarray, "candidates"]:
        """`coverage` by a narrow kernel."""
        return self._covering[3]

    @property
    def density(self) -> Float32[np.ndarray, "candidates"]:
        """How much of the sample is near."""
        return self._covering[4]

    @cached_property
    def cluster_need(self) -> Float[np.ndarray, "candidates"]:
        """Images of its cluster for every label there, one label more."""
        clusters = self._reference.clusters
        sizes, spent = np.bincount(clusters), np.bincount(clusters[self._view.labeled], minlength=clusters.max() + 1)
        return (sizes / (1 + spent))[clusters[self._view.candidates]]

    @cached_property
    def _voted(self) -> tuple[Float32[np.ndarray, "candidates classes"], Float32[np.ndarray, "candidates"], np.ndarray]:
        """What the labeled images near it say: class probabilities, squared distance of the nearest, its label."""
        view = self._view
        votes, nearest, place = self._votes(self._unit)
        return votes, nearest, view.labels[place]

    def _votes(self, unit: Float32[np.ndarray, "n dim"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        view = self._view
        votes = np.zeros((len(unit), view.n_classes), np.float32)
        nearest, place = np.empty(len(unit), np.float32), np.empty(len(unit), np.int64)
        _vote(unit @ view.unit[view.labeled].T, view.labels, np.float32(-LOCAL), votes, nearest, place)
        votes += np.float32(PRIOR / view.n_classes) * votes.sum(axis=1).mean() + np.finfo(np.float32).tiny
        return votes / votes.sum(axis=1, keepdims=True), nearest, place

    @property
    def distance(self) -> Float32[np.ndarray, "candidates"]:
        """Squared distance to the nearest labeled image."""
        return self._voted[1]

    @cached_property
    def disagreement(self) -> Float[np.ndarray, "candidates"]:
        """Of the head with the labeled images near it: total variation of their class probabilities."""
        return np.abs(self._voted[0] - self._proba).sum(axis=1) / 2

    @cached_property
    def neighbour_disagreement(self) -> Float[np.ndarray, "candidates"]:
        """1 - probability of the nearest labeled image's class."""
        return 1 - self._proba[np.arange(len(self._proba)), self._voted[2]]

    # Expected look-ahead: by how much the mean cross-entropy of the sample's labels would fall, both guessed.

    @cached_property
    def _ahead(self) -> Int[np.ndarray, "ahead"]:
        images = self._reference.images
        return images[: AHEAD * (len(images) // AHEAD) : len(images) // AHEAD] if len(images) > AHEAD else images

    @cached_property
    def _effects(self) -> LabelEffects:
        features = self._view.pool_features[self._ahead]
        return LabelEffects(self._head, self._features, features, self._head.temperature_)

    @cached_property
    def head_look_ahead(self) -> Float[np.ndarray, "candidates"]:
        """Guessed by the head at the temperature that leave-one-out calibrates."""
        view = self._view
        temperature = self._head.calibrated_temperature(view.pool_features[view.labeled], view.labels)
        others = self._head.raw_logits(view.pool_features[self._ahead].astype(np.float64))
        effects = self._effects.on(softmax(others / temperature))
        return -(effects * softmax(self._raw_logits / temperature)).sum(axis=1)

    @cached_property
    def neighbour_look_ahead(self) -> Float[np.ndarray, "candidates"]:
        """Guessed by the labeled images near."""
        others, _, _ = self._votes(self._view.unit[self._ahead])
        return -(self._effects.on(others) * self._voted[0]).sum(axis=1)

    # Of the round: the same for all candidates.

    def round(self) -> dict[str, float]:
        """Labels per dimension, the candidates' mean closeness and least confidence, how uneven the labels are (1 for
        even ones, whatever their number), the share of classes seen; and how often the other labeled images tell an
        image's class: by the head, as a share of what the commonest class leaves to tell (negative where that does
        better), and by the nearest one, as a share of what chance leaves.
        """
        total, n_classes = self._counts.sum(), len(self._counts)
        pairs = (self._counts * (self._counts - 1)).sum() / max(total * (total - 1), 1)
        commonest = self._counts.max() / total
        return {
            "labels_per_dimension": total / self._features.shape[1],
            "mean_closeness": float(self.closeness.mean()),
            "mean_least_confidence": float(self.least_confidence.mean()),
            "unevenness": n_classes * pairs,
            "classes_seen": float((self._counts > 0).mean()),
            "head_left_out": (self._head_agrees() - commonest) / max(1 - commonest, 1 / total),
            "neighbours_left_out": (self._neighbour_agrees() - pairs) / max(1 - pairs, 1 / total),
        }

    def _head_agrees(self) -> float:
        """See `left_out_accuracy`. With all views as rows, the image's other views are among the others."""
        view = self._view
        features = view.pool_features[view.labeled].astype(np.float64)
        return left_out_accuracy(self._head, self._inverse, features, view.labels)

    def _neighbour_agrees(self) -> float:
        """Share of the labeled images whose nearest other labeled image has their class."""
        labels = self._view.labels
        return float((labels[self._reference.nearest_labeled] == labels).mean()) if len(labels) > 1 else 0.0


def left_out_accuracy(
    head: ClosedFormSoftmax,
    inverse: Float[np.ndarray, "size size"],
    features: Float[np.ndarray, "labeled dim"],
    labels: Int[np.ndarray, "labeled"],
) -> float:
    """Share of the labeled images that the head fitted to the others would get right (leave-one-out, in closed form).

    An image that the others say nothing of counts as wrong: the only one of its class, and without a penalty one
    outside their span.

    head : fitted to these images; inverse : the first of `head.inverse()`
    """
    logits, rows = head.raw_logits(features), head.rows(features)
    own = head.class_weight_[labels] * np.einsum("ld,ld->l", rows @ inverse, rows)
    known = np.bincount(labels)[labels] > 1
    if not head.penalty_:
        known &= own < 1 - SPANNED
    surprise = log_targets(labels, logits.shape[1], head.epsilon) - logits
    left_out = logits - surprise * (own / np.where(known, 1 - own, 1))[:, None]
    return float(((left_out.argmax(axis=1) == labels) & known).mean())


SIGNALS = (
    *("closeness", "least_confidence", "boundary", "rarity", "leverage", "influence", "expected_influence", "norm"),
    *("coverage", "doubtful_coverage", "adaptive_coverage", "narrow_coverage", "density", "cluster_need"),
    *("distance", "disagreement", "neighbour_disagreement", "head_look_ahead", "neighbour_look_ahead"),
)
"""Each a property of Signals. A new one is a property and a name here."""
RANKS = tuple(f"{name}_rank" for name in SIGNALS)
ROUND = (
    *("labels_per_dimension", "mean_closeness", "mean_least_confidence", "unevenness", "classes_seen"),
    *("head_left_out", "neighbours_left_out"),
)


def ranks(columns: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "n columns"]:
    """Of every number the share of its column that is lower, above 0 and below 1: itself and its ties count half."""
    found = np.empty_like(columns)
    _rank(columns, np.ascontiguousarray(columns.T).argsort(axis=1), found)
    return found


def signal_table(view: PoolView, names: tuple[str, ...] = RANKS + ROUND) -> Float32[np.ndarray, "candidates names"]:
    """The named ranks of every candidate among the view's, and the named numbers of the round.

    names : of RANKS and ROUND
    """
    signals = Signals(view)
    asked = [name for name in names if name not in ROUND]
    found = ranks(np.column_stack([getattr(signals, name.removesuffix("_rank")) for name in asked]))
    table = np.empty((len(view.candidates), len(names)), np.float32)
    of_round = signals.round() if len(asked) < len(names) else {}
    for k, name in enumerate(names):
        table[:, k] = of_round[name] if name in of_round else found[:, asked.index(name)]
    return table


def compared(view: PoolView, rng: np.random.Generator, least: int = 1) -> PoolView:
    """The view with 500 of its candidates, or `least` where that is more, drawn at random."""
    size = max(CANDIDATES, least)
    if len(view.candidates) <= size:
        return view
    return replace(view, candidates=np.sort(rng.choice(view.candidates, size, replace=False)), memo={})


def signals_once(view: PoolView, some: PoolView) -> Float32[np.ndarray, "candidates names"]:
    """`signal_table` of some of a view's candidates, kept with the view for the log."""
    view.memo["signals"] = some.candidates, signal_table(some)
    return view.memo["signals"][1]


def signals_of(
    view: PoolView, queried: Int[np.ndarray, "batch"], rng: np.random.Generator
) -> Float32[np.ndarray, "batch names"]:
    """The table's rows of the queried images, compared with what the strategy compared them with, or others."""
    if "signals" not in view.memo:
        some = compared(view, rng)
        signals_once(view, replace(some, candidates=np.union1d(some.candidates, queried)))
    candidates, table = view.memo["signals"]
    return table[np.searchsorted(candidates, queried)]


@numba.njit(cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
@no_type_check
def _cover(cosines, rows, nearest, weight, adaptive, found):
    """rows : of `cosines`, one of each candidate

    found (5, m): gain of coverage, the same weighted, weighted by the adaptive rate, by the narrow one; density."""
    covered = np.empty((3, len(nearest)), np.float32)
    for e in range(len(nearest)):
        covered[0, e] = fast_exp(-nearest[e])
        covered[1, e] = fast_exp(max(-adaptive * nearest[e], np.float32(LEAST)))
        covered[2, e] = covered[0, e] ** NARROW
    for i in range(len(rows)):
        wide, doubtful, adapted = np.float32(0), np.float32(0), np.float32(0)
        narrow, density = np.float32(0), np.float32(0)
        for e in range(len(nearest)):
            squared = np.float32(2) - np.float32(2) * cosines[rows[i], e]
            near = fast_exp(-squared)
            gain = max(near - covered[0, e], np.float32(0))
            wide += gain
            doubtful += weight[e] * gain
            gain = max(fast_exp(max(-adaptive * squared, np.float32(LEAST))) - covered[1, e], np.float32(0))
            adapted += weight[e] * gain
            narrow += max(near**NARROW - covered[2, e], np.float32(0))
            density += near**LOCAL
        found[0, i], found[1, i], found[2, i], found[3, i], found[4, i] = wide, doubtful, adapted, narrow, density


@numba.njit(cache=True)
@no_type_check
def _rank(columns, order, found):
    """found : of every number the mean place of its ties in its column's order, less half a place, over their number"""
    n = len(columns)
    for c in range(columns.shape[1]):
        first = 0
        for last in range(n):
            value = columns[order[c, last], c]
            if last + 1 < n and columns[order[c, last + 1], c] == value:
                continue
            for place in range(first, last + 1):
                found[order[c, place], c] = (first + last + 1) / 2 / n
            first = last + 1


@numba.njit(cache=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
@no_type_check
def _vote(cosines, labels, rate, votes, nearest, place):
    """votes (m, classes): summed kernel of each class's labeled images; the nearest of all, its squared distance."""
    for i in range(len(cosines)):
        best = np.float32(-2)
        for j in range(len(labels)):
            squared = np.float32(2) - np.float32(2) * cosines[i, j]
            votes[i, labels[j]] += fast_exp(max(rate * squared, np.float32(LEAST)))
            if cosines[i, j] > best:
                best, place[i] = cosines[i, j], j
        nearest[i] = max(np.float32(2) - np.float32(2) * best, np.float32(0))
